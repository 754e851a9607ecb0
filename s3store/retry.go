package s3store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// errNoProgress ends an attempt that neither sends nor receives.
var errNoProgress error = noProgress{}

type noProgress struct{}

func (noProgress) Error() string { return "no data moved for too long" }

// Timeout makes it a net.Error's equal for those who ask.
func (noProgress) Timeout() bool { return true }

// An attempt is one try of a request, with a watchdog that ends it when nothing
// moves. That works with every HTTP client an application may bring.
type attempt struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration
	timer  *time.Timer
	kept   bool

	mu    sync.Mutex
	ended bool
}

func newAttempt(ctx context.Context, limit time.Duration) *attempt {
	a := &attempt{limit: limit}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.timer = time.AfterFunc(limit, func() { a.cancel(errNoProgress) })
	return a
}

// touch says that something moved.
func (a *attempt) touch() { a.timer.Reset(a.limit) }

// rest stops the watchdog until the next touch.
func (a *attempt) rest() { a.timer.Stop() }

// keep leaves the attempt open when its function returns: a body is to be read.
// From then on the limit is that of a stalled body.
func (a *attempt) keep(limit time.Duration) {
	a.rest()
	a.kept, a.limit = true, limit
}

func (a *attempt) close() {
	a.timer.Stop()
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.cancel(context.Canceled)
}

// cause replaces the error of an attempt that the watchdog ended: that one says
// "canceled", which callers would take for their own doing.
func (a *attempt) cause(err error) error {
	if err != nil && context.Cause(a.ctx) == errNoProgress && !errors.As(err, new(*noCredentials)) {
		return errNoProgress
	}
	return err
}

// body is data as the request's body. Its progress feeds the watchdog, and after
// the attempt's end it is never read again: the transport of a cancelled request
// may still hold it when the buffer is used for something else.
func (a *attempt) body(data []byte) io.ReadSeeker {
	return &requestBody{a: a, r: bytes.NewReader(data)}
}

type requestBody struct {
	a *attempt
	r *bytes.Reader
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	if b.a.ended {
		return 0, context.Canceled
	}
	b.a.touch()
	return b.r.Read(p)
}

func (b *requestBody) Seek(offset int64, whence int) (int64, error) {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	return b.r.Seek(offset, whence)
}

// turn waits until a write may begin, without regard to the watchdog.
func (s *store) turn(a *attempt) (end func(), err error) {
	if s.turns == nil {
		return func() {}, nil
	}
	a.rest()
	select {
	case s.turns <- struct{}{}:
		a.touch()
		return func() { <-s.turns }, nil
	case <-a.ctx.Done():
		return nil, a.ctx.Err()
	}
}

// retry calls f until it succeeds, fails for good, or Options.Attempts are used
// up. Its error names the operation and the object.
func (s *store) retry(ctx context.Context, op, key string, f func(*attempt) error) error {
	return s.retryWithin(ctx, op, key, s.opts.ResponseTimeout, f)
}

func (s *store) retryWithin(ctx context.Context, op, key string, limit time.Duration, f func(*attempt) error) error {
	once := map[string]bool{} // what can be put right by a second attempt, but only once
	var last error            // why the attempt before failed
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return s.cutShort(op, key, err, last)
		}
		a := newAttempt(ctx, limit)
		region := s.regionInForce()
		err := s.authorized(a, f)
		if err == nil {
			s.worked.Store(true)
			if !a.kept {
				a.close()
			}
			return nil
		}
		err = a.cause(err)
		follow := !once["region"] && ctx.Err() == nil && s.follow(a.ctx, region, factsOf(err))
		a.close()
		if cerr := ctx.Err(); cerr != nil {
			return s.cutShort(op, key, cerr, last)
		}
		last = err
		v := s.judge(err)
		if follow {
			v.retry, v.once = false, "region"
		}
		switch {
		case v.retry:
		case v.once != "" && !once[v.once]:
			once[v.once] = true
			n-- // the cause is gone: this attempt does not count
			continue
		default:
			return s.fail(op, key, err)
		}
		if n >= s.opts.Attempts {
			return s.fail(op, key, &exhausted{n, withoutContext(err)})
		}
		if err := s.pause(ctx, max(backoff(n), min(factsOf(err).after, maxRetryAfter))); err != nil {
			return s.cutShort(op, key, err, last)
		}
	}
}

// cutShort is the error of an operation whose time was over, or which was
// cancelled. Why it took so long is what people need to know.
func (s *store) cutShort(op, key string, cerr, last error) error {
	if last == nil {
		err := s.fail(op, key, cerr)
		if errors.Is(cerr, context.DeadlineExceeded) {
			err = &storeError{err.Error() + ": no answer until then", []error{err}}
		}
		return err
	}
	return s.fail(op, key, &cutOff{cerr, withoutContext(last)})
}

// cutOff is the end of an operation's time, and why it took so long: the cause by
// which the whole is judged.
type cutOff struct{ end, last error }

func (e *cutOff) Error() string   { return e.end.Error() + ": before that: " + e.last.Error() }
func (e *cutOff) Unwrap() []error { return []error{e.last, e.end} }

// maxRetryAfter is how long a server may keep us away at a time: less than what
// the engine gives an attempt, which else would end without having asked again.
const maxRetryAfter = 20 * time.Second

// retryAfter reads the header of that name: seconds, or a date, which counts from
// the server's own (RFC 9110, 10.2.3; for 429: RFC 6585, 4).
func retryAfter(status int, h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" || status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
		return 0
	}
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(n, 0), 1<<20)) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(0, at.Sub(now))
}

// authorized calls f after making sure that there are credentials. Asked for
// here, their absence can be told from everything else.
func (s *store) authorized(a *attempt, f func(*attempt) error) error {
	if s.creds != nil && !aws.IsCredentialsProvider(s.creds, aws.AnonymousCredentials{}) {
		if _, err := s.creds.Retrieve(a.ctx); err != nil {
			if isContextError(err) { // of the request for them, not the caller's
				err = late{a.cause(err)}
			}
			return &noCredentials{withoutOutput(err)}
		}
	}
	return f(a)
}

type exhausted struct {
	attempts int
	err      error
}

func (e *exhausted) Error() string { return e.err.Error() }
func (e *exhausted) Unwrap() error { return e.err }

// late is an error of a context that is not the caller's.
type late struct{ err error }

func (e late) Error() string { return e.err.Error() }
func (late) Timeout() bool   { return true }
func (late) Temporary() bool { return true }

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
