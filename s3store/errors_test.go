package s3store

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/versitygw"
)

// every runs each operation and returns what failed.
func every(s objstore.Store) map[string]error {
	ctx := context.Background()
	errs := map[string]error{}
	errs["create"] = s.Create(ctx, "log/1", []byte("x"))
	_, errs["upload"] = s.Upload(ctx, "data/1", strings.NewReader("x"))
	_, errs["large upload"] = s.Upload(ctx, "data/2", strings.NewReader(strings.Repeat("x", testPart+1)))
	body, _, err := s.Get(ctx, "log/1", objstore.Range{})
	if err == nil {
		body.Close()
	}
	errs["get"] = err
	for _, err := range s.List(ctx, "log/", "") {
		errs["list"] = err
	}
	errs["delete"] = s.Delete(ctx, "log/1")
	errs["delete many"] = s.Delete(ctx, "log/1", "log/2")
	return errs
}

func checkText(t *testing.T, what string, err error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v", err, err)
	for _, secret := range []string{testSecret, testToken, testKey, testIDToken, testSSOToken, testAgentToken, "hunter2"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s: the error shows %s: %s", what, secret, text)
		}
	}
	if err != nil && !strings.HasPrefix(err.Error(), "s3store: ") {
		t.Errorf("%s: %v does not start with the package", what, err)
	}
}

// Every error says which object, what happened, and what to do.
func TestErrorTexts(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		kind   error
		want   string
	}{
		{404, "NoSuchBucket", objstore.ErrNoBucket, `bucket "bucket": bucket does not exist: create the bucket`},
		{403, "InvalidAccessKeyId", objstore.ErrDenied, "AWS_ACCESS_KEY_ID"},
		{404, "XAdminUserNotFound", objstore.ErrDenied, "AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", objstore.ErrDenied, "the secret key does not belong to the access key"},
		{403, "AccessDenied", objstore.ErrDenied, "the credentials lack a permission: s3:"},
		{403, "RequestTimeTooSkewed", objstore.ErrDenied, "set the clock"},
		{400, "ExpiredToken", objstore.ErrDenied, "get new credentials"},
		{403, "", objstore.ErrDenied, "without saying why"},
		{401, "", objstore.ErrDenied, "without saying why"},
		{301, "PermanentRedirect", objstore.ErrConfig, "another region"},
		{400, "AuthorizationHeaderMalformed", objstore.ErrConfig, "region"},
		{501, "NotImplemented", objstore.ErrUnsupported, "conditional writes"},
		{405, "MethodNotAllowed", objstore.ErrUnsupported, "S3 server"},
		{400, "InvalidArgument", objstore.ErrUnsupported, "does not accept"},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code), func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { answer(w, tt.status, tt.code, "the server's words") })
			s.opts.PartSize = testPart
			for op, err := range every(s) {
				checkText(t, op, err)
				if !errors.Is(err, tt.kind) || !objstore.Permanent(err) {
					t.Errorf("%s: %v, want %v", op, err, tt.kind)
					continue
				}
				if text := err.Error(); !strings.Contains(text, tt.want) || !strings.Contains(text, "s3://bucket/path/") ||
					tt.code != "" && (!strings.Contains(text, tt.code) || !strings.Contains(text, "the server's words") || !strings.Contains(text, "REQ123")) {
					t.Errorf("%s: %v\ndoes not say all it should, such as %q", op, err, tt.want)
				}
			}
		})
	}
}

// A bucket that does not exist is answered without a code by some.
func TestBareNotFound(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
	for _, err := range s.List(t.Context(), "", "") {
		if !errors.Is(err, objstore.ErrNoBucket) || errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("list: %v, want ErrNoBucket", err)
		}
	}
	if err := s.Delete(t.Context(), "log/1"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func TestServerDown(t *testing.T) {
	testEnv(t)
	s := openTest(t, "s3://bucket/path?endpoint="+nobody)
	s.opts.PartSize = testPart
	for op, err := range every(s) {
		checkText(t, op, err)
		if err == nil || objstore.Permanent(err) || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "8 attempts") {
			t.Errorf("%s: %v, want a refused connection, which is not permanent", op, err)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	testEnv(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	s := openTest(t, "s3://bucket/path?endpoint=127.0.0.1:1")
	err := s.Create(t.Context(), "log/1", nil)
	if !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), "no credentials found: set AWS_ACCESS_KEY_ID") {
		t.Errorf("%v", err)
	}
	checkText(t, "create", err)
	t.Setenv("LITESTREAM_ACCESS_KEY_ID", "a")
	if err := s.Create(t.Context(), "log/1", nil); !strings.Contains(err.Error(), "LITESTREAM_ACCESS_KEY_ID is set, but") {
		t.Errorf("%v", err)
	}

	t.Setenv("AWS_PROFILE", "nonexistent")
	if _, err = Open(t.Context(), "s3://bucket/path", nil); !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), "nonexistent") {
		t.Errorf("a profile that does not exist: %v", err)
	}
	checkText(t, "open", err)
}

// What a real server says of wrong credentials and buckets.
func TestRealServerRefuses(t *testing.T) {
	gw := versitygw.Start(t)
	if err := openTest(t, gw.URL("p")).Create(t.Context(), "log/1", nil); err != nil {
		t.Fatal(err)
	}
	// Sent in parts: a server that refuses a long body may close the connection
	// before its answer was read.
	open := func(url string) *store {
		s := openTest(t, url)
		s.opts.PartSize = testPart
		return s
	}
	for op, err := range every(open(strings.Replace(gw.URL("p"), "s3://bucket/", "s3://another/", 1))) {
		if !errors.Is(err, objstore.ErrNoBucket) || !strings.Contains(err.Error(), `"another"`) {
			t.Errorf("%s in a missing bucket: %v, want ErrNoBucket", op, err)
		}
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
	for op, err := range every(open(gw.URL("p"))) {
		checkText(t, op, err)
		if !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), "secret key") {
			t.Errorf("%s with a wrong secret: %v", op, err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", testKey)
	for op, err := range every(open(gw.URL("p"))) {
		checkText(t, op, err)
		if !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), "access key") {
			t.Errorf("%s with an unknown key: %v", op, err)
		}
	}
}

// AWS_CA_BUNDLE names the CA of a server of one's own.
func TestCABundle(t *testing.T) {
	testEnv(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake is the point
	srv.StartTLS()
	defer srv.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	pemBytes := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(bundle, pemBytes, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	if err := openTest(t, "s3://bucket/path?endpoint="+srv.URL).Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	t.Setenv("AWS_CA_BUNDLE", "")
	err := openTest(t, "s3://bucket/path?endpoint="+srv.URL).Create(t.Context(), "log/1", []byte("x"))
	if !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("without the CA: %v", err)
	}
	plain := httptest.NewServer(srv.Config.Handler)
	defer plain.Close()
	err = openTest(t, "s3://bucket/path?endpoint="+strings.Replace(plain.URL, "http", "https", 1)).Create(t.Context(), "log/1", nil)
	if !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), "endpoint=http://") {
		t.Errorf("https to an http server: %v", err)
	}
}

// An endpoint from the environment is as custom as one in the URL: no checksums
// that only AWS knows, and path style for addresses.
func TestEndpointFromEnvironment(t *testing.T) {
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Run(name, func(t *testing.T) {
			testEnv(t)
			os.Unsetenv("AWS_ENDPOINT_URL") // testEnv restores it
			os.Unsetenv("AWS_ENDPOINT_URL_S3")
			var path string
			header := http.Header{}
			srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				path, header = r.URL.Path, r.Header
			}))
			defer srv.Close()
			t.Setenv(name, srv.URL)
			s := openTest(t, "s3://bucket/path")
			if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
				t.Fatal(err)
			}
			if path != "/bucket/path/log/1" {
				t.Errorf("request for %s", path)
			}
			for k := range header {
				if strings.Contains(strings.ToLower(k), "checksum") || strings.Contains(strings.ToLower(k), "trailer") {
					t.Errorf("header %s was sent", k)
				}
			}
			if want := "s3://bucket/path?endpoint=" + srv.URL; s.String() != want {
				t.Errorf("String is %s, want %s", s, want)
			}
		})
	}
}

// roundTripper answers for hosts that tests can't have.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) Do(r *http.Request) (*http.Response, error) { return f(r) }

func offline(t *testing.T, bucket string, region string, f func(*http.Request, *httptest.ResponseRecorder)) *store {
	t.Helper()
	testEnv(t)
	os.Unsetenv("AWS_ENDPOINT_URL")
	os.Unsetenv("AWS_ENDPOINT_URL_S3")
	cfg := aws.Config{
		Region:      region,
		Credentials: credentials.NewStaticCredentialsProvider(testKey, testSecret, testToken),
		HTTPClient: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Body == nil {
				r.Body = http.NoBody
			}
			// The SDK sums the body up on its way, so it has to be read.
			data, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			r.Body = io.NopCloser(bytes.NewReader(data))
			w := httptest.NewRecorder()
			f(r, w)
			return w.Result(), nil
		}),
	}
	s, err := New(cfg, bucket, "path", Options{})
	if err != nil {
		t.Fatal(err)
	}
	return quick(s)
}

func TestAccessPointHost(t *testing.T) {
	var host, auth string
	s := offline(t, "arn:aws:s3:us-east-2:123456789012:accesspoint/myap", "eu-west-1",
		func(r *http.Request, _ *httptest.ResponseRecorder) {
			host, auth = r.URL.Host, r.Header.Get("Authorization")
		})
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if host != "myap-123456789012.s3-accesspoint.us-east-2.amazonaws.com" || !strings.Contains(auth, "/us-east-2/s3/") {
		t.Errorf("host %s, authorization %s", host, auth)
	}
}

// A bucket in another region says so, and is followed there.
func TestRegionIsFollowed(t *testing.T) {
	var hosts []string
	s := offline(t, "bucket", "us-east-1", func(r *http.Request, w *httptest.ResponseRecorder) {
		hosts = append(hosts, r.URL.Host)
		if !strings.Contains(r.URL.Host, "eu-north-1") {
			w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
			answer(w, 301, "PermanentRedirect", "use the specified endpoint")
		}
	})
	for range 2 {
		if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if want := "[bucket.s3.us-east-1.amazonaws.com bucket.s3.eu-north-1.amazonaws.com bucket.s3.eu-north-1.amazonaws.com]"; fmt.Sprint(hosts) != want {
		t.Errorf("requests went to %v, want %s", hosts, want)
	}

	s = offline(t, "bucket", "us-east-1", func(_ *http.Request, w *httptest.ResponseRecorder) {
		w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
		answer(w, 301, "PermanentRedirect", "")
	})
	s.t.regionGiven = true
	if err := s.Create(t.Context(), "log/1", nil); !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), "set region=eu-north-1") {
		t.Errorf("a region that the URL insists on: %v", err)
	}
}

// A clock that is wrong by hours is corrected by what the server's says.
func TestClockSkew(t *testing.T) {
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(3 * time.Hour).UTC()
		w.Header().Set("Date", now.Format(http.TimeFormat))
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if n++; err != nil || now.Sub(at).Abs() > 15*time.Minute {
			answer(w, 403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
		}
	})
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil || n != 2 {
		t.Errorf("%v after %d requests, want success with the second", err, n)
	}
}

// Expired credentials are fetched anew, once.
func TestExpiredCredentials(t *testing.T) {
	var fetched atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "KEY2/") {
			answer(w, 400, "ExpiredToken", "The provided token has expired.")
		}
	})
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithCredentialsProvider(aws.NewCredentialsCache(
		aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: fmt.Sprintf("KEY%d", fetched.Add(1)), SecretAccessKey: testSecret}, nil
		}))))
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseEndpoint = &s.t.Endpoint
	own, err := New(cfg, "bucket", "path", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Create(t.Context(), "log/1", nil); err != nil || fetched.Load() != 2 {
		t.Errorf("%v, fetched %d times", err, fetched.Load())
	}
}

func TestNewErrors(t *testing.T) {
	testEnv(t)
	for _, tt := range []struct {
		bucket, prefix string
		opts           Options
		kind           error
	}{
		{"", "", Options{}, objstore.ErrConfig},
		{"a/b", "", Options{}, objstore.ErrConfig},
		{"bucket", "a//b", Options{}, objstore.ErrConfig},
		{"bucket--x-s3", "", Options{}, objstore.ErrUnsupported},
		{"bucket", "", Options{PartSize: 1}, objstore.ErrConfig},
		{"arn:aws:s3:us-east-2:123456789012:accesspoint/myap/x", "", Options{}, objstore.ErrConfig},
		{"arn:aws:s3:us-east-2:123456789012:accesspoint/myap", "", Options{Settings: map[string]string{"force-path-style": "true"}}, objstore.ErrConfig},
	} {
		_, err := New(aws.Config{}, tt.bucket, tt.prefix, tt.opts)
		if !errors.Is(err, tt.kind) {
			t.Errorf("%+v: %v", tt, err)
		}
		checkText(t, "new", err)
	}
	endpoint := "https://user:hunter2@host"
	_, err := New(aws.Config{BaseEndpoint: &endpoint}, "bucket", "", Options{})
	if !errors.Is(err, objstore.ErrConfig) {
		t.Errorf("credentials in the endpoint: %v", err)
	}
	checkText(t, "new", err)
}
