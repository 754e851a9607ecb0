package s3proxy

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Options say how a proxy differs from the server behind it. The zero value is
// a proxy that changes nothing.
type Options struct {
	// Domains are those below which a host's first labels are the bucket.
	Domains []string
	// Certificate makes it speak TLS.
	Certificate *Certificate
	// Clock is by how much its clock is ahead of this machine's: it refuses
	// requests signed more than 15 minutes off that, and signs the others anew
	// with Secrets (secret keys by access key).
	Clock   time.Duration
	Secrets map[string]string
	// Latency passes before each request goes on.
	Latency time.Duration
}

// A Rule looks at a call before the server does, and answers it in its place
// unless it returns nil.
type Rule func(Call) *Answer

// An Answer is an S3 error.
type Answer struct {
	Status        int
	Code, Message string
	Header        http.Header // besides the usual
}

// A Proxy is a running proxy. All methods may be called at any time.
type Proxy struct {
	URL string // http://127.0.0.1:PORT, or https://

	opts    Options
	forward *httputil.ReverseProxy

	mu     sync.Mutex
	rule   Rule
	record []Call
}

// New starts a proxy before the server at backend (http://HOST:PORT). It ends with
// the test.
func New(t testing.TB, backend string, opts Options) *Proxy {
	t.Helper()
	target, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	p := &Proxy{opts: opts, forward: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// All but the address is signed, and stays.
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
		},
		Transport: transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // the client sees what the server did: the connection's end
		},
	}}
	srv := httptest.NewUnstartedServer(p)
	if c := opts.Certificate; c != nil {
		srv.TLS = c.config()
		srv.StartTLS()
	} else {
		srv.Start()
	}
	p.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// Refuse sets the rule; nil lets everything through.
func (p *Proxy) Refuse(rule Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = rule
}

// Calls returns what was asked for since the last call of Forget, whether refused
// or not, in the order in which it came.
func (p *Proxy) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.record)
}

// Forget empties the record.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record = nil
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.opts.Latency > 0 {
		select {
		case <-time.After(p.opts.Latency):
		case <-r.Context().Done():
			return
		}
	}
	c := Parse(r, p.opts.Domains...)
	p.mu.Lock()
	p.record = append(p.record, c)
	rule := p.rule
	p.mu.Unlock()
	var answer *Answer
	if p.opts.Clock != 0 {
		w.Header().Set("Date", time.Now().Add(p.opts.Clock).UTC().Format(http.TimeFormat))
		r, answer = p.signAnew(r, c)
	}
	if answer == nil && rule != nil {
		answer = rule(c)
	}
	if answer != nil {
		answer.write(w, r)
		return
	}
	if p.opts.Clock != 0 {
		w = keepDate{w, w.Header().Get("Date")}
	}
	p.forward.ServeHTTP(w, r)
}

// keepDate has the proxy's clock prevail over the server's.
type keepDate struct {
	http.ResponseWriter
	date string
}

func (w keepDate) WriteHeader(status int) {
	w.Header().Set("Date", w.date)
	w.ResponseWriter.WriteHeader(status)
}

func (w keepDate) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (a *Answer) write(w http.ResponseWriter, r *http.Request) {
	// To the end, or the client may see a broken connection before the answer.
	_, _ = io.Copy(io.Discard, r.Body)
	for name, values := range a.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	w.Header().Set("X-Amz-Request-Id", "PROXY0000000001")
	body, err := xml.Marshal(struct {
		XMLName                  xml.Name `xml:"Error"`
		Code, Message, RequestId string
	}{Code: a.Code, Message: a.Message, RequestId: "PROXY0000000001"})
	if err != nil {
		panic(err)
	}
	body = append([]byte(xml.Header), body...)
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// Denied is AWS's answer to a user whom no policy of his own allows the call.
//
// Source: IAM User Guide, "Troubleshoot access denied error messages".
func Denied(c Call) *Answer {
	return &Answer{Status: http.StatusForbidden, Code: "AccessDenied", Message: fmt.Sprintf(
		"User: arn:aws:iam::123456789012:user/%s is not authorized to perform: %s on resource: %q because no identity-based policy allows the %[2]s action",
		"app", c.Action(), c.Resource())}
}

// Allow makes a rule that denies what takes another permission than these.
func Allow(permissions ...string) Rule {
	return func(c Call) *Answer {
		if slices.Contains(permissions, c.Action()) {
			return nil
		}
		return Denied(c)
	}
}

// Deny makes a rule that denies the operations named.
func Deny(operations ...string) Rule {
	return func(c Call) *Answer {
		if slices.Contains(operations, c.Operation) {
			return Denied(c)
		}
		return nil
	}
}
