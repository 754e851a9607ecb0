package s3store

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

const (
	testKey    = "AKTESTTESTTESTTEST"
	testSecret = "sEcReT/that+must=never0appear"
	testToken  = "tOkEnThatMustNeverAppear"
)

// openTest opens url without waiting between attempts.
func openTest(t *testing.T, url string) *store {
	t.Helper()
	s, err := Open(context.Background(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return quick(s)
}

func quick(s objstore.Store) *store {
	st := s.(*store)
	st.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return st
}

// warm has the store fetch its credentials, so that a short limit of a test's is over
// while a server is waited for, and not before.
func warm(t *testing.T, s *store) {
	t.Helper()
	if _, err := s.creds.Retrieve(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// nobody is an address at which nothing listens. The port that a closed listener had
// may be another's a moment later; this one no system gives to those who ask for any.
const nobody = "127.0.0.1:1"

// testEnv leaves nothing of the machine's AWS configuration.
func testEnv(t *testing.T) {
	t.Helper()
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": testKey, "AWS_SECRET_ACCESS_KEY": testSecret, "AWS_SESSION_TOKEN": testToken,
		"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "",
	} {
		t.Setenv(k, v)
	}
}

// serve starts a server that answers with h and opens a store at it.
func serve(t *testing.T, h http.HandlerFunc) *store {
	t.Helper()
	testEnv(t)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return openTest(t, "s3://bucket/path?endpoint="+srv.URL)
}

// answer sends an error as S3 does.
func answer(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "REQ123")
	w.WriteHeader(status)
	if code != "" {
		_, _ = w.Write([]byte("<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"))
	}
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		conn.Close()
	}
}
