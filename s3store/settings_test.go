package s3store

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/s3proxy"
)

// The list is what objstore hands to configuration files and DSNs.
func TestDeclared(t *testing.T) {
	list := objstore.SettingsOf("s3")
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
		if s.Doc == "" || strings.HasSuffix(s.Doc, ".") || len(s.Doc) > 100 {
			t.Errorf("%s: %q is no line of help", s.Name, s.Doc)
		}
		if s.Name != kebab(s.Name) {
			t.Errorf("%s is no name", s.Name)
		}
	}
	doc, err := os.ReadFile("s3store.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(doc), "\npackage ")
	for _, name := range names {
		if !regexp.MustCompile(`(^|[^-a-z])` + name + `([^-a-z]|$)`).MatchString(comment) {
			t.Errorf("the package documentation says nothing of %s", name)
		}
	}
	if !slices.IsSorted(names) || len(names) != len(declared) {
		t.Errorf("%d settings, %q", len(declared), names)
	}
	for _, name := range []string{"access-key-id", "secret-access-key", "session-token", "sse-customer-key"} {
		if i := slices.Index(names, name); i < 0 || !list[i].Secret {
			t.Errorf("%s is not secret", name)
		}
	}
}

// Secrets are refused in URLs however they are spelled, and the message shows none.
func TestSecretsInURLs(t *testing.T) {
	for param, name := range map[string]string{
		"access-key-id=hunter2":                        "access-key-id",
		"secret-access-key=hunter2":                    "secret-access-key",
		"SECRET-ACCESS-KEY=hunter2":                    "secret-access-key",
		"Secret-Access-Key=hunter2":                    "secret-access-key",
		"secretAccessKey=hunter2":                      "secret-access-key",
		"secret_access_key=hunter2":                    "secret-access-key",
		"AWS_SECRET_ACCESS_KEY=hunter2":                "secret-access-key",
		"secret%2Daccess%2Dkey=hunter2":                "secret-access-key",
		"%73ecret-access-key=hunter2":                  "secret-access-key",
		"secret-access-key%3Dhunter2":                  "secret-access-key",
		"region=eu-west-1&session-token=hunter2":       "session-token",
		"AWS_SESSION_TOKEN=hunter2":                    "session-token",
		"sse-customer-key=hunter2":                     "sse-customer-key",
		"sseCustomerKey=hunter2&sseCustomerKeyMD5=abc": "sse-customer-key",
	} {
		_, err := parseURL("s3://b/p?"+param, nil)
		var setting *objstore.SettingError
		if !errors.Is(err, objstore.ErrConfig) || !errors.As(err, &setting) || setting.Name != name || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", param, err)
			continue
		}
		if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "configuration file") {
			t.Errorf("%s: %v doesn't say where to put it", param, err)
		}
	}
	// A name may be something else, too.
	for _, param := range []string{"secret-access-key:hunter2", "AKIAHUNTER/hunter2=1", "a%3Dhunter2"} {
		if _, err := parseURL("s3://b/p?"+param, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", param, err)
		}
	}
	// What ends alike is no secret.
	if _, err := parseURL("s3://b/p?sse-customer-key-path=/k", nil); err != nil {
		t.Error(err)
	}
}

func TestSettingErrors(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tt := range []struct {
		url   string
		given objstore.Settings
		name  string
		want  string
	}{
		{"s3://b", objstore.Settings{"access-key-id": "hunter2"}, "secret-access-key", "without secret-access-key"},
		{"s3://b", objstore.Settings{"secret-access-key": "hunter2"}, "access-key-id", "without access-key-id"},
		{"s3://b", objstore.Settings{"session-token": "hunter2"}, "access-key-id", "session-token is given without"},
		{"s3://b", objstore.Settings{"bucket": "x"}, "bucket", "unknown setting"},
		{"s3://b", objstore.Settings{"part-size": "4MiB"}, "part-size", "from 5MiB to 5GiB"},
		{"s3://b", objstore.Settings{"part-size": "5MB"}, "part-size", "from 5MiB to 5GiB"},
		{"s3://b", objstore.Settings{"part-size": "6GiB"}, "part-size", "from 5MiB to 5GiB"},
		{"s3://b", objstore.Settings{"part-size": "many"}, "part-size", "is not a size"},
		{"s3://b", objstore.Settings{"part-size": "10iB"}, "part-size", "is not a size"},
		{"s3://b", objstore.Settings{"part-size": "-8MiB"}, "part-size", "is not a size"},
		{"s3://b?part-size=8XB", nil, "part-size", "is not a size"},
		{"s3://b", objstore.Settings{"concurrency": "0"}, "concurrency", "from 1 to 1000"},
		{"s3://b", objstore.Settings{"concurrency": "many"}, "concurrency", "from 1 to 1000"},
		{"s3://b", objstore.Settings{"skip-verify": "perhaps"}, "skip-verify", "neither true nor false"},
		{"s3://b", objstore.Settings{"region": "Frankfurt"}, "region", "not a region's name"},
		{"s3://b", objstore.Settings{"endpoint": "ftp://x"}, "endpoint", "neither http nor https"},
		{"s3://b.s3.us-west-004.backblazeb2.com", objstore.Settings{"endpoint": "minio:9000"}, "endpoint", "contradicts"},
		{"s3://b", objstore.Settings{"storage-class": "no class"}, "storage-class", "is not a storage class"},
		{"s3://b", objstore.Settings{"storage-class": "GLACIER"}, "storage-class", "can't be read without"},
		{"s3://b", objstore.Settings{"snapshot-storage-class": "DEEP_ARCHIVE"}, "snapshot-storage-class", "can't be read without"},
		{"s3://b", objstore.Settings{"storage-class": "standard"}, "storage-class", `Amazon S3 has no storage class "standard"`},
		{"s3://b", objstore.Settings{"sse": "aes"}, "sse", "it must be AES256, aws:kms or aws:kms:dsse"},
		{"s3://b", objstore.Settings{"sse": "AES256", "sse-kms-key-id": "k"}, "sse", "sse-kms-key-id needs sse: aws:kms"},
		{"s3://b", objstore.Settings{"sse-customer-algorithm": "AES256"}, "sse-customer-key", "without sse-customer-key"},
		{"s3://b", objstore.Settings{"sse-customer-algorithm": "DES", "sse-customer-key": key}, "sse-customer-algorithm", "it must be AES256"},
		{"s3://b", objstore.Settings{"sse-customer-key": "hunter2"}, "sse-customer-key", "32 bytes in base64"},
		{"s3://b", objstore.Settings{"sse-customer-key": key, "sse-customer-key-path": "/k"}, "sse-customer-key-path", "can't both"},
		{"s3://b", objstore.Settings{"sse-customer-key": key, "sse": "AES256"}, "sse-customer-key", "excludes sse"},
		{"s3://b?endpoint=http://minio", objstore.Settings{"sse-customer-key": key}, "sse-customer-key", "takes https"},
		{"s3://b?endpoint=http://minio", objstore.Settings{"sign-payload": "false"}, "sign-payload", "to https alone"},
		{"s3://b?endpoint=http://minio", objstore.Settings{"skip-verify": "true"}, "skip-verify", "no certificate to verify"},
		{"s3://b?endpoint=https://minio", objstore.Settings{"dualstack": "true"}, "dualstack", "AWS's own servers"},
	} {
		_, _, err := resolve(tt.url, tt.given, environment{})
		var setting *objstore.SettingError
		if !errors.Is(err, objstore.ErrConfig) || !errors.As(err, &setting) || setting.Name != tt.name || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: %v\nwant %s: %s", tt.url, tt.given, err, tt.name, tt.want)
			continue
		}
		if !strings.HasPrefix(err.Error(), "s3store: ") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestPartSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"5242880": 5 << 20, "5MiB": 5 << 20, "8MB": 8_000_000, "8M": 8_000_000, "8mb": 8_000_000, "16 MiB": 16 << 20, "16Mi": 16 << 20,
		"6.5MB": 6_500_000, "1GB": 1_000_000_000, "1.5GiB": 3 << 29, "5GiB": 5 << 30, "8000KB": 8_000_000, "8192KiB": 8 << 20, "8388608B": 8 << 20,
	} {
		if got, err := parsePartSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestKebab(t *testing.T) {
	for in, want := range map[string]string{
		"forcePathStyle": "force-path-style", "sseKmsKeyId": "sse-kms-key-id", "requireContentMD5": "require-content-md5",
		"region": "region", "Region": "-region", "force-path-style": "force-path-style",
	} {
		if got := kebab(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Keys of a configuration file are used, not those of the environment.
func TestCredentialsOfSettings(t *testing.T) {
	testEnv(t)
	var auth, token string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		auth, token = r.Header.Get("Authorization"), r.Header.Get("X-Amz-Security-Token")
	}))
	t.Cleanup(srv.Close)
	for _, given := range []objstore.Settings{
		{"access-key-id": "AKFILE", "secret-access-key": "other"},
		{"access-key-id": "AKFILE", "secret-access-key": "other", "session-token": "tok"},
	} {
		s, err := Open(t.Context(), "s3://bucket/p?endpoint="+srv.URL, given)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), "log/1", nil); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(auth, "Credential=AKFILE/") || token != given["session-token"] {
			t.Errorf("%v: %s, token %q", given, auth, token)
		}
		if strings.Contains(s.String(), "other") || strings.Contains(s.String(), "AKFILE") || strings.Contains(s.String(), "tok") {
			t.Errorf("String is %s", s)
		}
	}
}

// A profile brings its keys, region and endpoint, and stays in the store's URL.
func TestProfile(t *testing.T) {
	testEnv(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, "") // put back at the end
		os.Unsetenv(name)
	}
	file := filepath.Join(t.TempDir(), "config")
	text := "[profile backup]\naws_access_key_id = AKPROFILE\naws_secret_access_key = x\nregion = eu-south-1\nendpoint_url = https://s3.example.com\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", file)
	for _, tt := range []struct {
		url   string
		given objstore.Settings
	}{{"s3://bucket/p?profile=backup", nil}, {"s3://bucket/p", objstore.Settings{"profile": "backup"}}} {
		s, err := open(t.Context(), tt.url, tt.given)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.creds.Retrieve(t.Context())
		if err != nil || c.AccessKeyID != "AKPROFILE" || s.t.Region != "eu-south-1" || s.t.Endpoint != "https://s3.example.com" ||
			s.t.RegionFrom != "the AWS configuration file" || s.t.EndpointFrom != "the AWS configuration file" {
			t.Errorf("%s: %v, %v %+v", tt.url, err, c.AccessKeyID, s.t)
		}
		if want := "s3://bucket/p?endpoint=https://s3.example.com&profile=backup"; s.String() != want {
			t.Errorf("String is %s, want %s", s, want)
		}
	}
	var setting *objstore.SettingError
	_, err := Open(t.Context(), "s3://bucket/p?profile=other", nil)
	if !errors.As(err, &setting) || setting.Name != "profile" || !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), `profile "other" is in no AWS configuration file`) {
		t.Errorf("unknown profile: %v", err)
	}
	_, err = New(aws.Config{}, "bucket", "p", Options{Settings: map[string]string{"profile": "backup"}})
	if !errors.As(err, &setting) || setting.Name != "profile" {
		t.Errorf("a profile beside an aws.Config: %v", err)
	}
}

// skip-verify is for the bucket's server alone, whatever AWS_CA_BUNDLE says.
func TestSkipVerify(t *testing.T) {
	testEnv(t)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	bundle := s3proxy.NewCA(t).File // of somebody else
	for _, env := range []string{"", bundle} {
		t.Setenv("AWS_CA_BUNDLE", env)
		strict := openTest(t, "s3://bucket/path?endpoint="+srv.URL)
		if err := strict.Create(t.Context(), "log/1", nil); !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
			t.Errorf("AWS_CA_BUNDLE=%s: a certificate of nobody: %v", env, err)
		}
		lax := openTest(t, "s3://bucket/path?skip-verify=true&endpoint="+srv.URL)
		if err := lax.Create(t.Context(), "log/1", nil); err != nil {
			t.Errorf("AWS_CA_BUNDLE=%s: %v", env, err)
		}
		if strict = openTest(t, "s3://bucket/path?endpoint="+srv.URL); strict.Create(t.Context(), "log/1", nil) == nil {
			t.Error("skip-verify has spread to another store")
		}
	}
	var setting *objstore.SettingError
	_, err := New(aws.Config{HTTPClient: http.DefaultClient}, "bucket", "p", Options{Settings: map[string]string{"skip-verify": "true"}})
	if !errors.As(err, &setting) || setting.Name != "skip-verify" {
		t.Errorf("beside a client of the program's own: %v", err)
	}
}

// SSE-C keys from a file, read when the store is opened.
func TestCustomerKeyFile(t *testing.T) {
	testEnv(t)
	dir := t.TempDir()
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	for name, content := range map[string]string{"key": key + "\n", "short": "c2hvcnQ=\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url := "s3://bucket/p?sse-customer-key-path=" + filepath.Join(dir, "key")
	s, rec := record(t, url, nil)
	if err := s.Create(t.Context(), "log/1", nil); err != nil {
		t.Fatal(err)
	}
	if got := rec.sent[0].header.Get("X-Amz-Server-Side-Encryption-Customer-Key"); got != key {
		t.Errorf("the key is %q", got)
	}
	if s.String() != url || s.t.Encryption != "SSE-C" {
		t.Errorf("%s, %s", s, s.t.Encryption)
	}
	for name, want := range map[string]string{"none": "no such file", "short": "32 bytes in base64"} {
		_, err := Open(t.Context(), "s3://bucket/p?sse-customer-key-path="+filepath.Join(dir, name), nil)
		var setting *objstore.SettingError
		if !errors.As(err, &setting) || setting.Name != "sse-customer-key-path" || !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
