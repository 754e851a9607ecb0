package s3store

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/versitygw"
)

// fakeCloud hands out credentials in all the ways that AWS has servers for.
type fakeCloud struct {
	*httptest.Server
	key, secret, token string

	mu      sync.Mutex
	asked   []string
	expires func() time.Time
	// fault may answer instead.
	fault func(w http.ResponseWriter, what string) bool
}

func newFakeCloud(t *testing.T, key, secret, token string) *fakeCloud {
	c := &fakeCloud{key: key, secret: secret, token: token, expires: func() time.Time { return time.Now().Add(time.Hour) }}
	c.Server = httptest.NewServer(http.HandlerFunc(c.handle))
	t.Cleanup(c.Close)
	return c
}

func (c *fakeCloud) handle(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	what := r.URL.Path
	if r.Method == http.MethodPost {
		what = r.Form.Get("Action")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, what)
	if c.fault != nil && c.fault(w, what) {
		return
	}
	expires := c.expires().UTC()
	refuse := func(why string) { answer(w, 400, "ValidationError", why) }
	switch what {
	case "AssumeRole", "AssumeRoleWithWebIdentity":
		if r.Form.Get("RoleArn") != testRole {
			refuse("role " + r.Form.Get("RoleArn"))
			return
		}
		if what == "AssumeRole" && !strings.Contains(r.Header.Get("Authorization"), "Credential=AKSOURCE/") {
			refuse("not the source profile's: " + r.Header.Get("Authorization"))
			return
		}
		if what == "AssumeRoleWithWebIdentity" && r.Form.Get("WebIdentityToken") != testIDToken {
			refuse("another token")
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>%[3]s</SecretAccessKey><SessionToken>%[4]s</SessionToken><Expiration>%[5]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			what, c.key, c.secret, c.token, expires.Format(time.RFC3339))
	case "/container":
		if r.Header.Get("Authorization") != testAgentToken {
			refuse("authorization " + r.Header.Get("Authorization"))
			return
		}
		c.json(w, "Token", expires)
	case "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		_, _ = io.WriteString(w, "imds-token")
	case "/latest/meta-data/iam/security-credentials/":
		_, _ = io.WriteString(w, "instance-role")
	case "/latest/meta-data/iam/security-credentials/instance-role":
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "imds-token" {
			w.WriteHeader(401)
			return
		}
		c.json(w, "Token", expires)
	case "/federation/credentials":
		if r.Header.Get("X-Amz-Sso_bearer_token") != testSSOToken || r.Form.Get("role_name") != "Role" || r.Form.Get("account_id") != "123456789012" {
			refuse("sso")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"roleCredentials": map[string]any{
			"accessKeyId": c.key, "secretAccessKey": c.secret, "sessionToken": c.token, "expiration": expires.UnixMilli(),
		}})
	default:
		w.WriteHeader(404)
	}
}

func (c *fakeCloud) json(w http.ResponseWriter, token string, expires time.Time) {
	_ = json.NewEncoder(w).Encode(map[string]string{
		"Code": "Success", "AccessKeyId": c.key, "SecretAccessKey": c.secret, token: c.token, "Expiration": expires.Format(time.RFC3339),
	})
}

const (
	testRole       = "arn:aws:iam::123456789012:role/replica"
	testIDToken    = "iDtOkEnThatMustNeverAppear"
	testSSOToken   = "sSoToKeNThatMustNeverAppear"
	testAgentToken = "aGeNtToKeNThatMustNeverAppear"
	testSSOSession = "corp"
)

// sources set the environment up for one way each, and for no other. write makes a
// file of the test's.
var sources = []struct {
	name  string
	token bool // they come with a session token
	set   func(c *fakeCloud, env func(k, v string), write func(name, content string) string)
}{
	{"environment", true, func(c *fakeCloud, env func(k, v string), _ func(string, string) string) {
		env("AWS_ACCESS_KEY_ID", c.key)
		env("AWS_SECRET_ACCESS_KEY", c.secret)
		env("AWS_SESSION_TOKEN", c.token)
	}},
	{"shared file", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_SHARED_CREDENTIALS_FILE", write("credentials", fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\naws_session_token=%s\n", c.key, c.secret, c.token)))
	}},
	{"profile", false, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_SHARED_CREDENTIALS_FILE", write("credentials", fmt.Sprintf("[default]\naws_access_key_id=AKOTHER\naws_secret_access_key=other\n[mine]\naws_access_key_id=%s\naws_secret_access_key=%s\n", c.key, c.secret)))
		env("AWS_PROFILE", "mine")
	}},
	{"assumed role", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_CONFIG_FILE", write("config", "[profile mine]\nrole_arn="+testRole+"\nsource_profile=source\n"))
		env("AWS_SHARED_CREDENTIALS_FILE", write("credentials", "[source]\naws_access_key_id=AKSOURCE\naws_secret_access_key="+testSecret+"\n"))
		env("AWS_PROFILE", "mine")
		env("AWS_ENDPOINT_URL_STS", c.URL)
	}},
	{"web identity", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_WEB_IDENTITY_TOKEN_FILE", write("token", testIDToken))
		env("AWS_ROLE_ARN", testRole)
		env("AWS_ENDPOINT_URL_STS", c.URL)
	}},
	{"container", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_CONTAINER_CREDENTIALS_FULL_URI", c.URL+"/container")
		env("AWS_CONTAINER_AUTHORIZATION_TOKEN", testAgentToken)
	}},
	{"pod identity", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_CONTAINER_CREDENTIALS_FULL_URI", c.URL+"/container")
		env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", write("agent", testAgentToken))
	}},
	{"instance role", true, func(c *fakeCloud, env func(k, v string), _ func(string, string) string) {
		env("AWS_EC2_METADATA_DISABLED", "false")
		env("AWS_EC2_METADATA_SERVICE_ENDPOINT", c.URL)
	}},
	{"SSO", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		env("AWS_CONFIG_FILE", write("config", "[profile mine]\nsso_session="+testSSOSession+"\nsso_account_id=123456789012\nsso_role_name=Role\n"+
			"[sso-session "+testSSOSession+"]\nsso_region=us-east-1\nsso_start_url=https://corp.example.com/start\n"))
		sum := sha1.Sum([]byte(testSSOSession))
		write(".aws/sso/cache/"+hex.EncodeToString(sum[:])+".json", fmt.Sprintf(`{"accessToken":%q,"expiresAt":%q}`, testSSOToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
		env("AWS_PROFILE", "mine")
		env("AWS_ENDPOINT_URL_SSO", c.URL)
	}},
	{"process", true, func(c *fakeCloud, env func(k, v string), write func(string, string) string) {
		out := write("out.json", fmt.Sprintf(`{"Version":1,"AccessKeyId":%q,"SecretAccessKey":%q,"SessionToken":%q}`, c.key, c.secret, c.token))
		env("AWS_CONFIG_FILE", write("config", "[profile mine]\ncredential_process=cat "+out+"\n"))
		env("AWS_PROFILE", "mine")
	}},
}

// noEnv is an environment without any credentials.
func noEnv(t *testing.T) (home string) {
	t.Helper()
	testEnv(t)
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	for _, k := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_SERVICE_ENDPOINT",
	} {
		t.Setenv(k, "")
		os.Unsetenv(k) // Setenv puts it back
	}
	return home
}

// use sets a source's environment up.
func use(t *testing.T, c *fakeCloud, name string) (token bool) {
	t.Helper()
	home := noEnv(t)
	for _, src := range sources {
		if src.name == name {
			src.set(c, t.Setenv, func(name, content string) string {
				path := filepath.Join(home, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
				return path
			})
			return src.token
		}
	}
	t.Fatalf("no source %s", name)
	return false
}

// signedBy reports whether r is signed with key, secret and token, by signing it
// again.
func signedBy(t *testing.T, r *http.Request, key, secret, token string) bool {
	t.Helper()
	auth := r.Header.Get("Authorization")
	_, signed, _ := strings.Cut(auth, "SignedHeaders=")
	signed, _, _ = strings.Cut(signed, ",")
	again := r.Clone(r.Context())
	again.URL.Scheme, again.URL.Host = "http", cmp.Or(r.Host, r.URL.Host)
	again.Header = http.Header{}
	for name := range strings.SplitSeq(signed, ";") {
		if v := r.Header.Values(name); len(v) > 0 && name != "authorization" {
			again.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		t.Error(err)
	}
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}, again,
		r.Header.Get("X-Amz-Content-Sha256"), "s3", "us-east-1", at, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err != nil {
		t.Error(err)
	}
	return again.Header.Get("Authorization") == auth && r.Header.Get("X-Amz-Security-Token") == token
}

// Credentials come from wherever AWS's tools find them: key, secret and token.
func TestCredentialSources(t *testing.T) {
	for _, src := range sources {
		t.Run(src.name, func(t *testing.T) {
			c := newFakeCloud(t, "AKFROM"+strings.ToUpper(strings.ReplaceAll(src.name, " ", "")), testSecret, testToken)
			if !src.token {
				c.token = ""
			}
			use(t, c, src.name)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !signedBy(t, r, c.key, c.secret, c.token) {
					answer(w, 403, "SignatureDoesNotMatch", r.Header.Get("Authorization"))
				}
			}))
			defer srv.Close()
			if err := openTest(t, "s3://bucket/path?endpoint="+srv.URL).Create(t.Context(), "log/1", []byte("x")); err != nil {
				t.Errorf("%v; asked %q", err, c.asked)
			}
		})
	}
	// The check itself: versitygw accepts what it accepts, and nothing else.
	gw := versitygw.Start(t)
	s := openTest(t, gw.URL("p"))
	o := s.client.Options()
	next, n := o.HTTPClient, 0
	o.HTTPClient = roundTripper(func(r *http.Request) (*http.Response, error) {
		if n++; !signedBy(t, r, gw.AccessKey, gw.SecretKey, "") || signedBy(t, r, gw.AccessKey, testSecret, "") {
			t.Error("the check of signatures is wrong")
		}
		return next.Do(r)
	})
	s.client = s3.New(o)
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil || n != 1 {
		t.Errorf("%v after %d requests", err, n)
	}
}

// Credentials that run out while the program runs are fetched anew: when their
// time is over, and when the server says so before.
func TestCredentialsAreRefreshed(t *testing.T) {
	for _, name := range []string{"assumed role", "web identity", "container", "instance role", "SSO"} {
		t.Run(name, func(t *testing.T) {
			c := newFakeCloud(t, "KEY1", testSecret, testToken)
			use(t, c, name)
			valid := "KEY1"
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.Header.Get("Authorization"), valid+"/") {
					answer(w, 400, "ExpiredToken", "The provided token has expired.")
				}
			}))
			defer srv.Close()
			s := openTest(t, "s3://bucket/path?endpoint="+srv.URL)
			create := func(what string) {
				t.Helper()
				if err := s.Create(t.Context(), "log/1", nil); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			create("at first")
			n := len(c.asked)
			create("again")
			if len(c.asked) != n {
				t.Errorf("fetched anew without need: %q", c.asked)
			}
			c.key, valid = "KEY2", "KEY2"
			create("after the server's refusal")
			if len(c.asked) == n {
				t.Error("not fetched anew")
			}
		})
	}
	t.Run("by time", func(t *testing.T) {
		c := newFakeCloud(t, "KEY1", testSecret, testToken)
		c.expires = func() time.Time { return time.Now().Add(-time.Minute) }
		use(t, c, "container")
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer srv.Close()
		s := openTest(t, "s3://bucket/path?endpoint="+srv.URL)
		for range 2 {
			n := len(c.asked)
			if err := s.Create(t.Context(), "log/1", nil); err != nil || len(c.asked) == n {
				t.Errorf("%v; asked %q", err, c.asked)
			}
		}
	})
}

// TestKeysOfFilesAreReadAgain: keys in a shared file that are put right, or renewed, are
// taken up without a new store, also by stores that share them.
func TestKeysOfFilesAreReadAgain(t *testing.T) {
	for name, code := range map[string]string{"refused": "InvalidAccessKeyId", "expired": "ExpiredToken"} {
		t.Run(name, func(t *testing.T) {
			testEnv(t)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.Header.Get("Authorization"), "Credential=RIGHT/") {
					answer(w, http.StatusForbidden, code, "no")
				}
			}))
			defer srv.Close()
			file := filepath.Join(t.TempDir(), "credentials")
			write := func(key string) {
				t.Helper()
				if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+key+"\naws_secret_access_key = x\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
				t.Setenv(k, "")
			}
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
			write("WRONG")
			ctx := objstore.WithPool(t.Context(), new(objstore.Pool))
			var stores []*store
			for _, path := range []string{"a", "b"} {
				s, err := open(ctx, "s3://bucket/"+path+"?endpoint="+srv.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, s)
				if err := s.Put(ctx, "k", nil); !errors.Is(err, objstore.ErrDenied) {
					t.Fatal(err)
				}
			}
			write("RIGHT")
			for _, s := range stores {
				if err := s.Put(ctx, "k", nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestCredentialsThatComeLater: a process that found none takes up those that are put
// into a file, without a new store.
func TestCredentialsThatComeLater(t *testing.T) {
	testEnv(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=RIGHT/") {
			answer(w, http.StatusForbidden, "InvalidAccessKeyId", "no")
		}
	}))
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "credentials")
	for _, k := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(k, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	s, err := open(t.Context(), "s3://bucket/a?endpoint="+srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Put(t.Context(), "k", nil); !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), "no credentials found") {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"WRONG", "RIGHT"} { // and may be put right then
		if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+key+"\naws_secret_access_key = x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "k", nil); (err == nil) != (key == "RIGHT") {
			t.Fatal(key, err)
		}
	}
}
