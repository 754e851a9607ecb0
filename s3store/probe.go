package s3store

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/outwash/outwash/internal/objstore"
)

// This file is what "outwash doctor" asks of a store beyond objstore.Store.

// A Connection is how a request got to the server, and how far.
type Connection struct {
	URL   string // of the server
	Proxy string // host and port of the proxy, "" if there is none

	Addresses []string // that the name has
	Remote    string   // that was connected to

	TLS       string    // version of the protocol, "" over http
	Verified  bool      // the certificate was checked
	Issuer    string    // of the server's certificate
	Certified []string  // names that it is for
	Expires   time.Time // its end

	Status int           // of the answer
	Ahead  time.Duration // of the server's clock before this machine's, to a second
	Dated  bool          // the server told its time

	// Stage is where Err happened: request, proxy, dns, connect, tls, answer.
	Stage string
	Err   error
}

// Location says where Open finds the objects.
func (s *store) Location() Target { return s.t }

// Reach makes one request without credentials to the bucket, in the way in which
// all others go, and says how it went. Every answer is a success.
func (s *store) Reach(ctx context.Context) Connection {
	var c Connection
	u, err := s.hostURL(ctx)
	if err != nil {
		c.Stage, c.Err = "request", err
		return c
	}
	c.URL = u.Scheme + "://" + u.Host
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		c.Stage, c.Err = "request", err
		return c
	}
	if p, err := http.ProxyFromEnvironment(req); err == nil && p != nil {
		c.Proxy = p.Host
	}
	w := &witness{stage: "dns"}
	start := time.Now()
	resp, err := s.client.Options().HTTPClient.Do(req.WithContext(httptrace.WithClientTrace(ctx, w.trace())))
	w.mu.Lock()
	defer w.mu.Unlock()
	c.Addresses, c.Remote = w.addresses, w.remote
	if err != nil {
		c.Stage, c.Err = w.stage, err
		if c.Proxy != "" && c.Stage != "tls" && c.Stage != "answer" {
			c.Stage = "proxy"
		}
		var bad *tls.CertificateVerificationError
		if errors.As(err, &bad) && len(bad.UnverifiedCertificates) > 0 {
			c.certificate(bad.UnverifiedCertificates[0])
		}
		return c
	}
	defer resp.Body.Close()
	c.Status = resp.StatusCode
	if resp.TLS != nil {
		c.TLS, c.Verified = tls.VersionName(resp.TLS.Version), len(resp.TLS.VerifiedChains) > 0
		if len(resp.TLS.PeerCertificates) > 0 {
			c.certificate(resp.TLS.PeerCertificates[0])
		}
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The header has whole seconds: half of one is added, half of the way too.
		now := start.Add(time.Since(start) / 2)
		c.Ahead, c.Dated = at.Add(500*time.Millisecond).Sub(now).Round(time.Second), true
	}
	return c
}

func (c *Connection) certificate(cert *x509.Certificate) {
	c.Issuer = cert.Issuer.CommonName
	if c.Issuer == "" {
		c.Issuer = cert.Issuer.String()
	}
	c.Certified = cert.DNSNames
	for _, ip := range cert.IPAddresses {
		c.Certified = append(c.Certified, ip.String())
	}
	c.Expires = cert.NotAfter
}

// witness notes how far a connection gets. A happy-eyeballs dial calls from several
// goroutines.
type witness struct {
	mu        sync.Mutex
	stage     string
	addresses []string
	remote    string
}

func (w *witness) trace() *httptrace.ClientTrace {
	to := func(stage string, f func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stage = stage
		if f != nil {
			f()
		}
	}
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { to("dns", nil) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			if i.Err == nil {
				to("connect", func() {
					w.addresses = nil
					for _, a := range i.Addrs {
						w.addresses = append(w.addresses, a.String())
					}
				})
			}
		},
		ConnectStart:      func(_, addr string) { to("connect", func() { w.remote = addr }) },
		TLSHandshakeStart: func() { to("tls", nil) },
		GotConn:           func(i httptrace.GotConnInfo) { to("answer", func() { w.remote = i.Conn.RemoteAddr().String() }) },
	}
}

var errCaptured = errors.New("captured")

// hostURL is where requests to the bucket go, as the SDK decides it.
func (s *store) hostURL(ctx context.Context) (*url.URL, error) {
	var u *url.URL
	capture := func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("CaptureURL",
			func(_ context.Context, in middleware.FinalizeInput, _ middleware.FinalizeHandler) (out middleware.FinalizeOutput, md middleware.Metadata, err error) {
				if r, ok := in.Request.(*smithyhttp.Request); ok {
					clone := *r.URL
					u = &clone
				}
				return out, md, errCaptured
			}), "ResolveEndpointV2", middleware.After)
	}
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.t.Bucket}, s.call, func(o *s3.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider("-", "-", "") // nothing is signed
		o.APIOptions = append(o.APIOptions, capture)
	})
	if u == nil {
		return nil, s.fail("address", "", err)
	}
	return u, nil
}

// Credentials says by name where the credentials come from.
type Credentials struct {
	Source    string
	Temporary bool
	Expires   time.Time // zero: they don't
}

// sourceNames are those of the SDK, for people.
var sourceNames = []struct{ prefix, name string }{
	{"EnvConfigCredentials", "environment (AWS_ACCESS_KEY_ID)"},
	{"SharedConfigCredentials: ", "file "},
	{credentials.StaticCredentialsName, "settings (access-key-id)"},
	{stscreds.ProviderName, "assumed role"},
	{stscreds.WebIdentityProviderName, "web identity"},
	{ssocreds.ProviderName, "SSO login"},
	{processcreds.ProviderName, "credential_process of the profile"},
	{endpointcreds.ProviderName, "container's role"},
	{ec2rolecreds.ProviderName, "machine's role"},
}

// FindCredentials gets the credentials, and says where they come from.
func (s *store) FindCredentials(ctx context.Context) (Credentials, error) {
	if s.creds == nil || aws.IsCredentialsProvider(s.creds, aws.AnonymousCredentials{}) {
		return Credentials{Source: "none: requests are not signed"}, nil
	}
	got, err := s.creds.Retrieve(ctx)
	if err != nil {
		return Credentials{}, s.fail("get credentials for", "", &noCredentials{withoutOutput(err)})
	}
	c := Credentials{Source: got.Source, Temporary: got.SessionToken != ""}
	if got.CanExpire {
		c.Expires = got.Expires
	}
	for _, known := range sourceNames {
		if rest, ok := strings.CutPrefix(got.Source, known.prefix); ok {
			c.Source = known.name + rest
			break
		}
	}
	return c, nil
}

// TryMultipart makes an object by a multipart upload of one part, as Upload makes
// large ones. abort says what comes of aborting an upload; it is tried on this one
// after its end, so that nothing is left where that is denied.
func (s *store) TryMultipart(ctx context.Context, key string, data []byte) (abort, err error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, err
	}
	u := &upload{store: s, key: key, part: max(int64(len(data)), 1)}
	if _, err := u.run(ctx, data, bytes.NewReader(nil)); err != nil {
		return nil, err
	}
	return s.abortUpload(ctx, key, u.id), nil
}
