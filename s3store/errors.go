package s3store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/outwash/outwash/internal/objstore"
)

// facts is what a response said. Types of the SDK's model are not looked at: the
// same failure has another type in every operation, and none at other servers.
type facts struct {
	status  int // 0: there was no response
	code    string
	message string
	request string
	region  string        // where the bucket is, if the response told
	after   time.Duration // how long the server wants to be left alone
}

func factsOf(err error) facts {
	var f facts
	var api smithy.APIError
	if errors.As(err, &api) {
		f.code, f.message = api.ErrorCode(), api.ErrorMessage()
	}
	var resp interface{ HTTPResponse() *smithyhttp.Response }
	if errors.As(err, &resp) && resp.HTTPResponse() != nil && resp.HTTPResponse().Response != nil {
		r := resp.HTTPResponse()
		f.status = r.StatusCode
		f.region = r.Header.Get(regionHeader)
		f.after = retryAfter(r.StatusCode, r.Header)
		f.request = r.Header.Get("X-Amz-Request-Id")
	}
	return f
}

// A verdict is what an error means.
type verdict struct {
	kind   error  // an error of objstore, or nil
	remedy string // what it is and what to do, or ""
	retry  bool
	// once names a cause that judge has just removed: worth one more attempt.
	once string
}

const credentialsRemedy = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile"

// byCode is what error codes mean that say more than their HTTP status.
var byCode = map[string]verdict{
	"NoSuchBucket":      {kind: objstore.ErrNoBucket, remedy: "create the bucket, or correct its name in the URL"},
	"InvalidBucketName": {kind: objstore.ErrConfig, remedy: "the server does not accept the bucket's name"},
	"NoSuchKey":         {kind: objstore.ErrNotExist},
	"NotFound":          {kind: objstore.ErrNotExist},
	"NoSuchUpload":      {kind: objstore.ErrNotExist, remedy: "the multipart upload was aborted by someone else (a lifecycle rule?)"},

	"InvalidAccessKeyId":    {kind: objstore.ErrDenied, remedy: "the server does not know the access key: " + credentialsRemedy},
	"XAdminUserNotFound":    {kind: objstore.ErrDenied, remedy: "the server does not know the access key: " + credentialsRemedy},
	"SignatureDoesNotMatch": {kind: objstore.ErrDenied, remedy: "the secret key does not belong to the access key, or a proxy changes requests: " + credentialsRemedy},
	"AccessDenied":          {kind: objstore.ErrDenied, remedy: "the credentials lack a permission: s3:GetObject, s3:PutObject, s3:DeleteObject on the path, s3:ListBucket on the bucket"},
	"AllAccessDisabled":     {kind: objstore.ErrDenied, remedy: "the server has disabled all access to the bucket"},
	"AccountProblem":        {kind: objstore.ErrDenied, remedy: "there is a problem with the AWS account"},
	"InvalidToken":          {kind: objstore.ErrDenied, remedy: "the session token is malformed or not this access key's: check AWS_SESSION_TOKEN"},
	"ExpiredToken":          {kind: objstore.ErrDenied, remedy: "the session token has expired: get new credentials", once: "credentials"},
	"TokenRefreshRequired":  {kind: objstore.ErrDenied, remedy: "the session token has expired: get new credentials", once: "credentials"},
	"RequestTimeTooSkewed":  {kind: objstore.ErrDenied, remedy: "this machine's clock and the server's differ by more than 15 minutes: set the clock", once: "clock"},
	"RequestExpired":        {kind: objstore.ErrDenied, remedy: "this machine's clock and the server's differ by more than 15 minutes: set the clock", once: "clock"},

	"PermanentRedirect":                {kind: objstore.ErrConfig, remedy: "the bucket is in another region, or must be addressed through another endpoint"},
	"TemporaryRedirect":                {retry: true},
	"AuthorizationHeaderMalformed":     {kind: objstore.ErrConfig, remedy: "the region is wrong for this bucket or server"},
	"AuthorizationQueryParameterError": {kind: objstore.ErrConfig, remedy: "the region is wrong for this bucket or server"},
	"IllegalLocationConstraint":        {kind: objstore.ErrConfig, remedy: "the region is wrong for this bucket or server"},

	"EntityTooLarge":             {kind: objstore.ErrUnsupported, remedy: "the object is larger than the server takes"},
	"EntityTooSmall":             {kind: objstore.ErrUnsupported, remedy: "the server wants larger parts: raise PartSize"},
	"KeyTooLongError":            {kind: objstore.ErrConfig, remedy: "the path is too long"},
	"NotImplemented":             {kind: objstore.ErrUnsupported, remedy: "the server lacks something that Outwash needs; for a create that is conditional writes (If-None-Match)"},
	"MethodNotAllowed":           {kind: objstore.ErrUnsupported, remedy: "is the endpoint an S3 server, and its URL complete?"},
	"InvalidObjectState":         {kind: objstore.ErrUnsupported, remedy: "the object was archived (Glacier): restore it first, and exclude the replica's path from such lifecycle rules"},
	"PreconditionFailed":         {kind: objstore.ErrChanged},
	"BadDigest":                  {retry: true}, // damaged on its way
	"XAmzContentSHA256Mismatch":  {retry: true},
	"IncompleteBody":             {retry: true},
	"RequestTimeout":             {retry: true},
	"SlowDown":                   {retry: true},
	"Throttling":                 {retry: true},
	"InternalError":              {retry: true},
	"ServiceUnavailable":         {retry: true},
	"OperationAborted":           {retry: true},
	"ConditionalRequestConflict": {retry: true},
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
		// The credentials' own server may be in trouble; instance metadata that
		// does not answer, though, is a machine that has none.
		if f.status == http.StatusTooManyRequests || f.status >= 500 || isNetError(err) && !strings.Contains(err.Error(), "EC2 IMDS") {
			return verdict{retry: true, remedy: "credentials can't be fetched at the moment"}
		}
		return verdict{kind: objstore.ErrDenied, remedy: "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"}
	case f.status == 0 && f.code == "":
		return judgeConnection(err)
	}
	v := judgeResponse(f)
	if wrongRegion(f) && isHostLabel(f.region) && f.region != s.regionInForce() {
		v = verdict{kind: objstore.ErrConfig, remedy: fmt.Sprintf("the bucket is in region %s, the request was for %s: set ?region=%s or AWS_REGION", f.region, s.regionInForce(), f.region)}
	}
	if v.once == "credentials" {
		if cache, ok := s.creds.(*aws.CredentialsCache); ok {
			cache.Invalidate()
		}
	}
	// The SDK has noted the difference of the clocks from the response's Date.
	return v
}

func judgeResponse(f facts) verdict {
	if v, ok := byCode[f.code]; ok {
		return v
	}
	switch f.status {
	case http.StatusNotFound:
		return verdict{kind: objstore.ErrNotExist}
	case http.StatusUnauthorized, http.StatusForbidden:
		return verdict{kind: objstore.ErrDenied, remedy: "the server refuses without saying why: " + credentialsRemedy + ", their permissions, and this machine's clock"}
	case http.StatusPreconditionFailed:
		return verdict{kind: objstore.ErrChanged}
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return verdict{retry: true}
	case http.StatusNotImplemented:
		return byCode["NotImplemented"]
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return verdict{kind: objstore.ErrConfig, remedy: "the server redirects: correct the region or the endpoint"}
	}
	if f.status >= 400 && f.status < 500 {
		return verdict{kind: objstore.ErrUnsupported, remedy: "the server does not accept the request"}
	}
	return verdict{retry: true} // 5xx, and errors within a 200
}

// judgeConnection: there was no response, or none that could be read.
func judgeConnection(err error) verdict {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.As(err, &verification), errors.As(err, &unknown), errors.As(err, &host):
		return verdict{kind: objstore.ErrConfig, remedy: "the server's certificate is not trusted: name the file of your own CA in AWS_CA_BUNDLE, or correct the endpoint"}
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return verdict{kind: objstore.ErrConfig, remedy: "the server speaks http, not https: write endpoint=http://…"}
	case errors.As(err, &dns) && dns.IsNotFound:
		return verdict{retry: true, remedy: "the server's name can't be resolved: is the network up, is the endpoint or region right?"}
	case errors.As(err, new(*smithy.SerializationError)), strings.Contains(err.Error(), "failed to resolve service endpoint"):
		// Never sent: the SDK refuses to build the request.
		return verdict{kind: objstore.ErrConfig, remedy: "the request can't be built from this URL and configuration"}
	}
	return verdict{retry: true}
}

func isNetError(err error) bool {
	var ne net.Error
	return err == errNoProgress || errors.As(err, &ne) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
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
	text.WriteString(describe(err))
	return &storeError{text.String(), errs}
}

// describe says what the server or the system said, without the SDK's frames.
func describe(err error) string {
	var many *exhausted
	suffix := ""
	if errors.As(err, &many) && many.attempts > 1 {
		suffix = fmt.Sprintf(" (%d attempts)", many.attempts)
	}
	f := factsOf(err)
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
