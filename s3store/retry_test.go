package s3store

import (
	"context"
	"errors"
	"net"
	"net/http"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
)

func TestRetryAfter(t *testing.T) {
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for _, tt := range []struct {
		status      int
		after, date string
		want        time.Duration
	}{
		{503, "7", "", 7 * time.Second},
		{429, "7", "", 7 * time.Second},
		{500, "7", "", 0},
		{503, "", "", 0},
		{503, "-3", "", 0},
		{503, "soon", "", 0},
		{503, "99999999999", date, 1 << 20 * time.Second},
		{503, "Sun, 06 Nov 1994 08:50:07 GMT", date, 30 * time.Second},
		{503, "Sun, 06 Nov 1994 08:00:00 GMT", date, 0},
		{503, "Sun, 06 Nov 1994 08:50:07 GMT", "", 0}, // long ago here
	} {
		h := http.Header{"Retry-After": {tt.after}, "Date": {tt.date}}
		if got := retryAfter(tt.status, h); got != tt.want && (tt.want < time.Hour || got < time.Hour) {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// A server that asks for time gets it, within bounds.
func TestRetryAfterIsHonoured(t *testing.T) {
	n := 0
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n++; n {
		case 1:
			w.Header().Set("Retry-After", "9")
			answer(w, 503, "SlowDown", "Please reduce your request rate.")
		case 2:
			w.Header().Set("Retry-After", "86400")
			answer(w, 429, "", "")
		}
	})
	var pauses []time.Duration
	s.pause = func(_ context.Context, d time.Duration) error {
		pauses = append(pauses, d)
		return nil
	}
	if err := s.Create(t.Context(), "log/1", nil); err != nil {
		t.Fatal(err)
	}
	if len(pauses) != 2 || pauses[0] != 9*time.Second || pauses[1] != maxRetryAfter {
		t.Errorf("pauses %v", pauses)
	}
}

// deadline is a context whose time is over when the test says so.
type deadline struct {
	context.Context
	done chan struct{}
}

func (d *deadline) Done() <-chan struct{} { return d.done }

func (d *deadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// When the caller's time is over, the error says what took it.
func TestDeadlineSaysWhy(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 503, "SlowDown", "Please reduce your request rate.")
	})
	over := &deadline{t.Context(), make(chan struct{})}
	s.pause = func(context.Context, time.Duration) error {
		close(over.done)
		return over.Err()
	}
	err := s.Create(over, "log/1", nil)
	if !errors.Is(err, context.DeadlineExceeded) || objstore.Permanent(err) || !strings.Contains(err.Error(), "SlowDown: Please reduce your request rate.") {
		t.Errorf("%v", err)
	}
	checkText(t, "create", err)
}

// silent is a server that accepts connections, and no more.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// Nothing waits for ever: not for an answer, not for a handshake, not for a proxy.
func TestSilence(t *testing.T) {
	for _, scheme := range []string{"http", "https", "proxy", "name"} {
		t.Run(scheme, func(t *testing.T) {
			testEnv(t)
			var s *store
			switch scheme {
			case "http", "https":
				s = openTest(t, "s3://bucket/path?endpoint="+scheme+"://"+silent(t))
			case "proxy": // the environment's is read once in a process: see TestProxy
				s = openTest(t, "s3://bucket/path?endpoint=https://s3.example.com")
				proxy := &neturl.URL{Scheme: "http", Host: silent(t)}
				s.transport(func(tr *http.Transport) { tr.Proxy = http.ProxyURL(proxy) })
			case "name":
				s = openTest(t, "s3://bucket/path?endpoint=https://s3.example.com")
				s.transport(func(tr *http.Transport) {
					tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
						<-ctx.Done() // a resolver that doesn't answer ends with the context
						return nil, &net.DNSError{Err: ctx.Err().Error(), Name: "s3.example.com", IsTimeout: true}
					}
				})
			}
			warm(t, s)
			s.opts.ResponseTimeout, s.opts.Attempts, s.opts.PartSize = 30*time.Millisecond, 2, testPart
			errs := every(s)
			_, errs["head"] = s.head(t.Context(), "log/1", "")
			for op, err := range errs {
				checkText(t, op, err)
				if !errors.Is(err, errNoProgress) || isContextError(err) || objstore.Permanent(err) || !strings.Contains(err.Error(), "2 attempts") {
					t.Errorf("%s: %v", op, err)
				}
			}
			s.opts.ResponseTimeout = time.Minute
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if err := s.Create(ctx, "log/1", nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer until then") {
				t.Errorf("a caller that has less time: %v", err)
			}
		})
	}
}

// transport changes how the store reaches its server.
func (s *store) transport(f func(*http.Transport)) {
	o := s.client.Options()
	o.HTTPClient = o.HTTPClient.(*awshttp.BuildableClient).WithTransportOptions(f)
	s.client = s3.New(o)
}

// Whose time is over hears what stood in the way, not that time was short.
func TestCutShortNamesTheCause(t *testing.T) {
	testEnv(t)
	s := openTest(t, "s3://bucket/path?endpoint="+nobody)
	s.pause = func(context.Context, time.Duration) error { return context.DeadlineExceeded }
	_, _, err := s.Get(t.Context(), "k", objstore.Range{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing listens there: ") ||
		!strings.Contains(err.Error(), "context deadline exceeded: before that: ") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}
