package s3store

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	if err != nil && context.Cause(a.ctx) == errNoProgress {
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

// retry calls f until it succeeds, fails for good, or Options.Attempts are used
// up. Its error names the operation and the object.
func (s *store) retry(ctx context.Context, op, key string, f func(*attempt) error) error {
	return s.retryWithin(ctx, op, key, s.opts.ResponseTimeout, f)
}

func (s *store) retryWithin(ctx context.Context, op, key string, limit time.Duration, f func(*attempt) error) error {
	once := map[string]bool{} // what can be put right by a second attempt, but only once
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return s.fail(op, key, err)
		}
		a := newAttempt(ctx, limit)
		err := s.authorized(a, f)
		if err == nil {
			if !a.kept {
				a.close()
			}
			return nil
		}
		err = a.cause(err)
		a.close()
		if cerr := ctx.Err(); cerr != nil {
			return s.fail(op, key, cerr)
		}
		v := s.judge(err)
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
		if err := s.pause(ctx, backoff(n)); err != nil {
			return s.fail(op, key, err)
		}
	}
}

// authorized calls f after making sure that there are credentials. Asked for
// here, their absence can be told from everything else.
func (s *store) authorized(a *attempt, f func(*attempt) error) error {
	if s.creds != nil && !aws.IsCredentialsProvider(s.creds, aws.AnonymousCredentials{}) {
		if _, err := s.creds.Retrieve(a.ctx); err != nil {
			return &noCredentials{err}
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

type noCredentials struct{ err error }

func (e *noCredentials) Error() string { return "no credentials: " + e.err.Error() }
func (e *noCredentials) Unwrap() error { return e.err }

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
