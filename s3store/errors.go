package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/outwash/outwash/internal/objstore"
)

// facts is what a response said, and to which request. Types of the SDK's model
// are not looked at: the same failure has another type in every operation, and none
// at other servers.
type facts struct {
	status  int // 0: there was no response
	code    string
	message string
	request string
	region  string        // where the bucket is, if the response told
	after   time.Duration // how long the server wants to be left alone

	operation string    // the SDK's name: PutObject
	date      time.Time // the server's clock
	sent      time.Time // this machine's clock, as the request had it
	// notAWSKey: the access key has not the form of AWS's.
	notAWSKey bool
}

func factsOf(err error) facts {
	var f facts
	var api smithy.APIError
	if errors.As(err, &api) {
		f.code, f.message = api.ErrorCode(), api.ErrorMessage()
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		f.operation = op.OperationName
	} else if errors.As(err, new(*keyError)) {
		f.operation = "DeleteObjects"
	}
	var resp interface{ HTTPResponse() *smithyhttp.Response }
	if errors.As(err, &resp) && resp.HTTPResponse() != nil && resp.HTTPResponse().Response != nil {
		r := resp.HTTPResponse()
		f.status = r.StatusCode
		f.region = r.Header.Get(regionHeader)
		f.after = retryAfter(r.StatusCode, r.Header)
		f.request = r.Header.Get("X-Amz-Request-Id")
		f.date, _ = http.ParseTime(r.Header.Get("Date"))
		if r.Request != nil {
			f.sent, _ = time.Parse("20060102T150405Z", r.Request.Header.Get("X-Amz-Date"))
			_, credential, ok := strings.Cut(r.Request.Header.Get("Authorization"), "Credential=")
			key, _, _ := strings.Cut(credential, "/")
			f.notAWSKey = ok && !awsKey.MatchString(key)
		}
	}
	return f
}

// awsKey is the form of AWS's access keys: of users, and of sessions (IAM User
// Guide, "IAM identifiers", unique identifiers).
var awsKey = regexp.MustCompile(`^A[KS]IA[A-Z2-7]{16,}$`)

// A verdict is what an error means.
type verdict struct {
	kind   error  // an error of objstore, or nil
	cause  string // see Problem
	remedy string // what it is and what to do, or ""
	action string // that is not allowed, if that is the cause
	retry  bool
	// once names a cause that judge has just removed: worth one more attempt.
	once string
}

// judge says what err means, and removes its cause where it can.
func (s *store) judge(err error) verdict {
	var none *noCredentials
	var done *storeError
	f := factsOf(err)
	switch {
	case errors.As(err, &done), isPermanent(err):
		return verdict{} // judged before
	case errors.As(err, &none):
		return judgeCredentials(none)
	case f.status == 0 && f.code == "":
		return s.disturbed(judgeConnection(err, s.t))
	}
	v := s.disturbed(judgeResponse(f, s.t))
	if wrongRegion(f) && isHostLabel(f.region) && f.region != s.regionInForce() {
		from := ""
		if s.t.RegionFrom != "" {
			from = " (from " + s.t.RegionFrom + ")"
		}
		v = verdict{cause: "region", kind: objstore.ErrConfig, remedy: fmt.Sprintf("the bucket is in region %s, the request was for %s%s: set region=%[1]s", f.region, s.regionInForce(), from)}
	}
	s.forgetCredentials(v)
	// The SDK has noted the difference of the clocks from the response's Date.
	return v
}

// disturbed makes errors pass that are those of a wrong endpoint where nothing has
// worked yet, and where something has, of what changed in between: a certificate
// has expired, or a machine that moves is in a network that wants a login first.
// Nobody would start the program anew for that.
func (s *store) disturbed(v verdict) verdict {
	switch v.cause {
	case "certificate", "certificate-authority", "certificate-expired", "certificate-host", "http", "https", "redirect":
		if s.worked.Load() {
			v.kind, v.retry = nil, true
		}
	}
	return v
}

func isNetError(err error) bool {
	var ne net.Error
	return errors.Is(err, errNoProgress) || errors.As(err, &ne) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

func isPermanent(err error) bool { return objstore.Permanent(err) }

// mayHaveHappened reports whether a write that failed with err may have been done
// all the same: the reply was lost, or says so little that it can't be excluded.
func mayHaveHappened(err error) bool {
	f := factsOf(err)
	if f.status == 0 {
		var op *net.OpError
		var none *noCredentials
		return !(errors.As(err, &op) && op.Op == "dial") && !errors.As(err, &none)
	}
	return f.status >= 500 && f.status != http.StatusNotImplemented || f.status < 300 || f.code == "RequestTimeout"
}

// storeError is an error of this package: the text says what and why in one
// line, the cause stays reachable.
type storeError struct {
	text string
	errs []error
}

func (e *storeError) Error() string   { return e.text }
func (e *storeError) Unwrap() []error { return e.errs }

// fail makes err an error of this package that names the object.
func (s *store) fail(op, key string, err error) error {
	var done *storeError
	if errors.As(err, &done) {
		return err
	}
	v := s.judge(err)
	var text strings.Builder
	fmt.Fprintf(&text, "s3store: %s %s: ", op, s.name(key))
	if v.kind == objstore.ErrNoBucket {
		fmt.Fprintf(&text, "bucket %q: ", s.t.Bucket)
	}
	errs := []error{err}
	if v.kind != nil {
		fmt.Fprintf(&text, "%v: ", v.kind)
		errs = []error{v.kind, err}
	}
	if v.remedy != "" {
		fmt.Fprintf(&text, "%s: ", v.remedy)
	}
	said := describe(err)
	text.WriteString(said)
	f := factsOf(err)
	return &failure{&storeError{text.String(), errs}, Problem{
		Cause: v.cause, Remedy: v.remedy, Action: v.action, Said: said, Status: f.status, Code: f.code,
	}}
}

// failure is a storeError that can be explained.
type failure struct {
	*storeError
	problem Problem
}

func (f *failure) Unwrap() []error { return []error{f.storeError} }

// A Problem is why a request failed, for those who show more of it than a line.
type Problem struct {
	// Cause is its name, which stays the same: "no-bucket", "denied-identity". ""
	// is a cause that is not known.
	Cause  string
	Remedy string // what it is and what to do, "" if nothing is known
	Action string // IAM's name of what is not allowed: s3:PutObject; or ""
	Said   string // in the words of the server, or of the system
	Status int    // of HTTP; 0: there was no response
	Code   string // S3's
}

// Explain says why a request failed, if err is from a store of this package.
func Explain(err error) (Problem, bool) {
	var f *failure
	if !errors.As(err, &f) {
		return Problem{}, false
	}
	return f.problem, true
}

// ExplainConnection says why the server of t can't be reached, from an error of
// package net, crypto/tls or net/http.
func ExplainConnection(t Target, err error) Problem {
	v := judgeConnection(err, t)
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // the request is known
	}
	return Problem{Cause: v.cause, Remedy: v.remedy, Said: err.Error()}
}

// describe says what the server or the system said, without the SDK's frames.
func describe(err error) string {
	if cut := (*cutOff)(nil); errors.As(err, &cut) {
		return cut.end.Error() + ": before that: " + describe(cut.last)
	}
	var many *exhausted
	suffix := ""
	if errors.As(err, &many) && many.attempts > 1 {
		suffix = fmt.Sprintf(" (%d attempts)", many.attempts)
	}
	f := factsOf(err)
	var none *noCredentials
	if errors.As(err, &none) {
		return none.Error() + suffix
	}
	if f.status != 0 || f.code != "" {
		text := fmt.Sprintf("%d %s", f.status, http.StatusText(f.status))
		if f.status == 0 {
			text = "answer"
		}
		if f.code != "" && f.code != "UnknownError" {
			text += " " + f.code
		}
		if f.message != "" && f.message != f.code && f.message != "UnknownError" {
			text += ": " + f.message
		}
		if f.request != "" {
			text += " (request " + f.request + ")"
		}
		return text + suffix
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		err = op.Err
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		err = send.Err
	}
	return err.Error() + suffix
}

// ctxError is the error of a context that ended between requests.
func (s *store) ctxError(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return s.fail(op, key, err)
	}
	return nil
}
