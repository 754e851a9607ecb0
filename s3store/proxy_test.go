package s3store

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
)

const proxyPassword = "pRoXyPaSsWoRdThatMustNeverAppear"

// Go reads the proxy variables once in a process, so each case is a process of its
// own: this test binary, which runs TestProxyChild.
const proxyChild = "OUTWASH_TEST_PROXY_URL"

func TestProxyChild(t *testing.T) {
	url := os.Getenv(proxyChild)
	if url == "" {
		return // it is the child's part alone
	}
	s, err := Open(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := quick(s)
	st.opts.Attempts = 2
	fmt.Println("RESULT", st.Create(t.Context(), fmt.Sprintf("log/%d", time.Now().UnixNano()), []byte("x")))
}

// throughProxy runs a create in a process with these proxy variables, and returns
// what came of it.
func throughProxy(t *testing.T, url string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyChild$", "-test.v")
	cmd.Env = append(os.Environ(), "HTTP_PROXY=", "HTTPS_PROXY=", "NO_PROXY=", "http_proxy=", "https_proxy=", "no_proxy=", proxyChild+"="+url)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	_, result, ok := strings.Cut(string(out), "RESULT ")
	if err != nil || !ok {
		t.Fatalf("%v\n%s", err, out)
	}
	result, _, _ = strings.Cut(result, "\n")
	for _, secret := range []string{proxyPassword, base64.StdEncoding.EncodeToString([]byte("me:" + proxyPassword))} {
		if strings.Contains(string(out), secret) {
			t.Errorf("the proxy's password appears: %s", out)
		}
	}
	return result
}

// The usual variables are honoured, and what goes wrong at a proxy is said to be
// its doing.
func TestProxy(t *testing.T) {
	ca := s3proxy.NewCA(t)
	gw := versitygw.Start(t)
	tls := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Certificate: ca.Issue("s3.example.test", "*.s3.example.test", "127.0.0.1")})
	t.Setenv("AWS_CA_BUNDLE", ca.File)
	tunnel := s3proxy.NewTunnel(t, map[string]string{"s3.example.test": tls.URL, "plain.example.test": gw.Endpoint})
	withPassword := func(u, password string) string { return strings.Replace(u, "http://", "http://me:"+password+"@", 1) }
	wants := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("me:"+proxyPassword)) {
			w.Header().Set("Proxy-Authenticate", "Basic realm=proxy")
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		tunnel.ServeHTTP(w, r)
	}))
	defer wants.Close()
	forbids := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "blocked by the company's policy")
	}))
	defer forbids.Close()

	const https = "s3://bucket/path?force-path-style=true&endpoint=https://s3.example.test"
	const plain = "s3://bucket/path?force-path-style=true&endpoint=http://plain.example.test"
	for _, tt := range []struct {
		name, url string
		env       []string
		want      string
	}{
		{"https", https, []string{"HTTPS_PROXY=" + tunnel.URL}, "<nil>"},
		{"lower case", https, []string{"https_proxy=" + tunnel.URL}, "<nil>"},
		{"http", plain, []string{"HTTP_PROXY=" + tunnel.URL}, "<nil>"},
		{"password", https, []string{"HTTPS_PROXY=" + withPassword(wants.URL, proxyPassword)}, "<nil>"},
		{"password for http", plain, []string{"HTTP_PROXY=" + withPassword(wants.URL, proxyPassword)}, "<nil>"},
		{"no password", https, []string{"HTTPS_PROXY=" + wants.URL}, "the proxy wants a user name and password: see HTTPS_PROXY"},
		{"no password for http", plain, []string{"HTTP_PROXY=" + wants.URL}, "the proxy wants a user name and password: see HTTPS_PROXY"},
		{"wrong password", https, []string{"HTTPS_PROXY=" + withPassword(wants.URL, proxyPassword+"?")}, ""},
		{"nothing listens", https, []string{"HTTPS_PROXY=" + withPassword("http://127.0.0.1:1", proxyPassword)}, "the proxy can't be reached: see HTTPS_PROXY"},
		{"forbidden", https, []string{"HTTPS_PROXY=" + withPassword(forbids.URL, proxyPassword)}, "the proxy does not let it through: see HTTPS_PROXY"},
		{"no way for it", "s3://bucket/path?force-path-style=true&endpoint=https://other.example.test", []string{"HTTPS_PROXY=" + tunnel.URL}, "the proxy can't reach the server"},
		{"NO_PROXY", "s3://bucket/path?endpoint=" + tls.URL, []string{"HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1"}, "<nil>"},
		{"NO_PROXY by name", https, []string{"HTTPS_PROXY=" + tunnel.URL, "NO_PROXY=.example.test"}, "can't be resolved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := throughProxy(t, tt.url, tt.env...)
			if tt.want == "<nil>" && got != "<nil>" || !strings.Contains(got, tt.want) || tt.want != "<nil>" && !strings.HasPrefix(got, "s3store: create s3://bucket/path/log/") {
				t.Errorf("%s\nwant %q", got, tt.want)
			}
		})
	}
	// A secret with characters that a URL can't have: Go's own complaint would show it.
	if got := throughProxy(t, https, "HTTPS_PROXY=http://me:"+proxyPassword+"%zz@proxy:1"); got == "<nil>" {
		t.Error("a malformed proxy is accepted")
	}
}
