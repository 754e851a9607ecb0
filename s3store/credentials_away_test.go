package s3store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/outwash/outwash/internal/objstore"
)

// The credentials' own server is down, slow, or refuses: an error that says so, in
// bounded time, and that is not permanent where it passes.
func TestCredentialsUnavailable(t *testing.T) {
	const names = "assumed role,web identity,container,SSO"
	check := func(t *testing.T, err error, permanent bool, want string) {
		t.Helper()
		if err == nil || objstore.Permanent(err) != permanent || permanent && !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), want) || isContextError(err) {
			t.Errorf("%v\nwant %q, permanent %v", err, want, permanent)
		}
		checkText(t, "create", err)
	}
	open := func(t *testing.T) *store {
		t.Helper()
		limit := time.Minute
		if strings.Contains(t.Name(), "silent") {
			limit = 20 * time.Millisecond
		}
		cfg, err := loadConfig(t.Context(), limit)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newStore(cfg, mustParse(t, "s3://bucket/path?endpoint=http://127.0.0.1:1"), Options{Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		return quick(s)
	}
	for name := range strings.SplitSeq(names, ",") {
		t.Run(name+" down", func(t *testing.T) {
			c := newFakeCloud(t, "KEY1", testSecret, testToken)
			c.Close()
			c.URL = "http://" + nobody
			use(t, c, name)
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			check(t, open(t).Create(t.Context(), "log/1", nil), false, "credentials can't be fetched at the moment")
		})
		t.Run(name+" silent", func(t *testing.T) {
			c := newFakeCloud(t, "KEY1", testSecret, testToken)
			use(t, c, name)
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			url := "http://" + silent(t)
			for _, k := range []string{"AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
				if os.Getenv(k) != "" {
					t.Setenv(k, url)
				}
			}
			check(t, open(t).Create(t.Context(), "log/1", nil), false, "credentials can't be fetched at the moment")
		})
		t.Run(name+" refuses", func(t *testing.T) {
			c := newFakeCloud(t, "KEY1", testSecret, testToken)
			c.fault = func(w http.ResponseWriter, _ string) bool {
				answer(w, 403, "AccessDenied", "not authorized to perform this")
				return true
			}
			use(t, c, name)
			check(t, open(t).Create(t.Context(), "log/1", nil), true, "credentials were refused")
		})
	}
	for name := range strings.SplitSeq(names, ",") {
		t.Run(name+" in trouble", func(t *testing.T) {
			c := newFakeCloud(t, "KEY1", testSecret, testToken)
			c.fault = func(w http.ResponseWriter, _ string) bool {
				answer(w, 503, "ServiceUnavailable", "")
				return true
			}
			use(t, c, name)
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			check(t, open(t).Create(t.Context(), "log/1", nil), false, "credentials can't be fetched at the moment")
		})
	}
	for name, tt := range map[string]struct{ script, want string }{
		"fails":       {"echo " + testSecret + "; exit 3", "exit status 3"},
		"talks":       {"echo " + testSecret, "credentials can't be had as the profile or the environment says"},
		"half a JSON": {`echo {\"Version\":1,\"AccessKeyId\":\"` + testKey + `\",\"SecretAccessKey\":\"` + testSecret, "credentials can't be had"},
	} {
		t.Run("process "+name, func(t *testing.T) {
			cfg := filepath.Join(noEnv(t), "config")
			if err := os.WriteFile(cfg, []byte("[default]\ncredential_process=sh -c '"+tt.script+"'\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AWS_CONFIG_FILE", cfg)
			check(t, open(t).Create(t.Context(), "log/1", nil), true, tt.want)
		})
	}
	t.Run("silent instance metadata", func(t *testing.T) {
		noEnv(t)
		t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent(t))
		check(t, open(t).Create(t.Context(), "log/1", nil), true, "no credentials found")
	})
}

// A request for credentials that is never answered must not hold up those that
// come after it, once the server is well.
func TestCredentialsRecover(t *testing.T) {
	c := newFakeCloud(t, "KEY1", testSecret, testToken)
	release := make(chan struct{})
	var once sync.Once
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := false
		once.Do(func() { first = true })
		if first {
			<-release
			return
		}
		c.handle(w, r)
	}))
	defer hang.Close()
	defer close(release)
	use(t, c, "container")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", hang.URL+"/container")
	cfg, err := loadConfig(t.Context(), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	s, err := newStore(cfg, mustParse(t, "s3://bucket/path?endpoint="+srv.URL), Options{Attempts: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if err := quick(s).Create(t.Context(), "log/1", nil); err != nil {
		t.Errorf("%v", err)
	}
}

func mustParse(t *testing.T, url string) address {
	t.Helper()
	a, err := parseURL(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// However a store or its options are printed, what they know is not.
func TestNothingPrintsCredentials(t *testing.T) {
	testEnv(t)
	given := objstore.Settings{"access-key-id": testKey, "secret-access-key": testSecret, "session-token": testToken}
	s, err := Open(t.Context(), "s3://bucket/path?endpoint=127.0.0.1:1", given)
	if err != nil {
		t.Fatal(err)
	}
	target, err := Locate(t.Context(), "s3://bucket/path?endpoint=127.0.0.1:1", given)
	if err != nil {
		t.Fatal(err)
	}
	own, err := New(aws.Config{Region: "us-east-1"}, "bucket", "path", Options{Settings: given})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{s, target, own, Options{Settings: given}, &Options{Settings: given}, struct{ any }{s}, s.(*store).w, *s.(*store).w, given} {
		js, _ := json.Marshal(v)
		text := fmt.Sprintf("%v %+v %#v %s %q", v, v, v, v, js)
		for _, secret := range []string{testKey, testSecret, testToken} {
			if strings.Contains(text, secret) {
				t.Errorf("%T shows %s: %s", v, secret, text)
			}
		}
	}
}
