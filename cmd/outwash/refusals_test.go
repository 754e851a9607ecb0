package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
)

var updateGolden = flag.Bool("update", false, "write testdata/refusals.golden anew")

// A refusal is a way in which access to a replica fails.
type refusal struct {
	name string
	at   func(*testing.T, *refusalServers) place
	// Commands: ls, restore, and app, which writes.
	commands string
}

// refusalServers are what most refusals share.
type refusalServers struct {
	gw    *versitygw.Server
	proxy *s3proxy.Proxy // speaks TLS, lets everything through
	ca    *s3proxy.CA
	// What differs from run to run, and what stands for it in the golden file.
	names map[string]string
}

// through is a proxy with a rule before the server.
func (s *refusalServers) through(t *testing.T, rule s3proxy.Rule) string {
	t.Helper()
	p := s3proxy.New(t, s.gw.Endpoint, s3proxy.Options{})
	p.Refuse(rule)
	s.names[strings.TrimPrefix(p.URL, "http://")] = "SERVER"
	return "s3://bucket/app?endpoint=" + p.URL
}

func (s *refusalServers) withTLS(t *testing.T, c *s3proxy.Certificate) place {
	t.Helper()
	p := s3proxy.New(t, s.gw.Endpoint, s3proxy.Options{Certificate: c})
	s.names[strings.TrimPrefix(p.URL, "https://")] = "SERVER"
	return place{"s3://bucket/app?endpoint=" + p.URL, []string{"AWS_CA_BUNDLE=" + s.ca.File}}
}

// atAWS answers in place of AWS.
func (s *refusalServers) atAWS(t *testing.T, url string, rule s3proxy.Rule) place {
	t.Helper()
	hosts := []string{"s3.amazonaws.com", "*.s3.us-east-1.amazonaws.com", "*.s3.amazonaws.com", "*.s3-accesspoint.us-east-2.amazonaws.com"}
	p := s3proxy.New(t, s.gw.Endpoint, s3proxy.Options{
		Certificate: s.ca.Issue(hosts...),
		Domains:     []string{"s3.us-east-1.amazonaws.com", "s3-accesspoint.us-east-2.amazonaws.com"},
	})
	p.Refuse(rule)
	tunnel := s3proxy.NewTunnel(t, map[string]string{".amazonaws.com": p.URL})
	return place{url, []string{"HTTPS_PROXY=" + tunnel.URL, "AWS_CA_BUNDLE=" + s.ca.File, "AWS_REGION="}}
}

// refuseAll answers everything in the same way.
func refuseAll(status int, code, message string) s3proxy.Rule {
	return func(s3proxy.Call) *s3proxy.Answer {
		return &s3proxy.Answer{Status: status, Code: code, Message: message}
	}
}

var refusals = []refusal{
	{"wrong access key", func(_ *testing.T, s *refusalServers) place {
		return place{s.gw.URL("app"), []string{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE"}}
	}, "ls restore app"},
	{"wrong secret key", func(_ *testing.T, s *refusalServers) place {
		return place{s.gw.URL("app"), []string{"AWS_SECRET_ACCESS_KEY=correct-horse-battery-staple"}}
	}, "ls restore app"},
	{"no credentials", func(_ *testing.T, s *refusalServers) place {
		return place{s.gw.URL("app"), []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}}
	}, "ls app"},
	{"missing bucket", func(_ *testing.T, s *refusalServers) place {
		return place{url: "s3://buckett/app?endpoint=" + s.gw.Endpoint}
	}, "ls restore app"},
	{"nothing at the path", func(_ *testing.T, s *refusalServers) place { return place{url: s.gw.URL("apq")} }, "ls restore"},
	{"read-only credentials, as AWS denies them", func(t *testing.T, s *refusalServers) place {
		return place{url: s.through(t, s3proxy.Allow(restoreActions...))}
	}, "ls restore app"},
	{"read-only credentials, as the server denies them", func(_ *testing.T, s *refusalServers) place {
		access, secret := s.gw.AddUser(restoreActions...)
		return place{s.gw.URL("app"), []string{"AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret}}
	}, "ls restore app"},
	{"credentials that may only read, and a new database", func(t *testing.T, s *refusalServers) place {
		return place{url: strings.Replace(s.through(t, s3proxy.Allow(restoreActions...)), "/app?", "/new?", 1)}
	}, "ls app"},
	{"credentials without s3:ListBucket", func(t *testing.T, s *refusalServers) place {
		return place{url: s.through(t, s3proxy.Allow("s3:GetObject", "s3:PutObject", "s3:DeleteObject"))}
	}, "ls restore"},
	{"an access point's policy is missing", func(t *testing.T, s *refusalServers) place {
		return s.atAWS(t, "s3://arn:aws:s3:us-east-2:123456789012:accesspoint/myap/app", s3proxy.Allow())
	}, "ls app"},
	{"a clock that is wrong, and a server that doesn't say how much", func(t *testing.T, s *refusalServers) place {
		return place{url: s.through(t, refuseAll(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."))}
	}, "ls app"},
	{"AWS instead of the endpoint that was meant", func(t *testing.T, s *refusalServers) place {
		return s.atAWS(t, "s3://bucket/app", refuseAll(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."))
	}, "ls restore app"},
	{"server down", func(t *testing.T, s *refusalServers) place {
		gw := versitygw.Start(t)
		gw.Stop()
		s.names[strings.TrimPrefix(gw.Endpoint, "http://")] = "SERVER"
		return place{url: gw.URL("app")}
	}, "ls"},
	{"a certificate of an unknown CA", func(_ *testing.T, s *refusalServers) place {
		return place{url: "s3://bucket/app?endpoint=" + s.proxy.URL}
	}, "ls app"},
	{"a certificate for another host", func(t *testing.T, s *refusalServers) place {
		return s.withTLS(t, s.ca.Issue("s3.example.com"))
	}, "ls app"},
	{"a certificate that has expired", func(t *testing.T, s *refusalServers) place {
		return s.withTLS(t, s.ca.IssueExpired("127.0.0.1"))
	}, "ls app"},
	{"a CA file that isn't there", func(_ *testing.T, s *refusalServers) place {
		return place{s.gw.URL("app"), []string{"AWS_CA_BUNDLE=/nowhere/ca.pem"}}
	}, "ls app"},
	{"https spoken to an http port", func(_ *testing.T, s *refusalServers) place {
		return place{url: "s3://bucket/app?endpoint=" + strings.Replace(s.gw.Endpoint, "http:", "https:", 1)}
	}, "ls app"},
	{"http spoken to an https port", func(_ *testing.T, s *refusalServers) place {
		return place{url: "s3://bucket/app?endpoint=" + strings.Replace(s.proxy.URL, "https:", "http:", 1)}
	}, "ls app"},
	{"http spoken to the https port of a server that hangs up", func(t *testing.T, s *refusalServers) place {
		cert := s.ca.Issue("127.0.0.1")
		gw := versitygw.StartWith(t, versitygw.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile})
		s.names[strings.TrimPrefix(gw.Endpoint, "https://")] = "SERVER"
		return place{url: strings.Replace(gw.URL("app"), "https:", "http:", 1)}
	}, "ls"},
	{"not S3 at all", func(t *testing.T, s *refusalServers) place {
		web := s3proxy.New(t, s.gw.Endpoint, s3proxy.Options{})
		web.Refuse(refuseAll(http.StatusMethodNotAllowed, "", ""))
		s.names[strings.TrimPrefix(web.URL, "http://")] = "SERVER"
		return place{url: "s3://bucket/app?endpoint=" + web.URL}
	}, "ls app"},
	{"the wrong region", func(t *testing.T, s *refusalServers) place {
		return place{url: s.gw.URL("app") + "&region=eu-north-1"}
	}, "ls app"},
}

// TestRefusals asserts every word that people see when a replica can't be reached.
// After a change that is meant: go test ./cmd/outwash -run TestRefusals -update
func TestRefusals(t *testing.T) {
	s := &refusalServers{gw: versitygw.StartWith(t, versitygw.Options{Users: true}), ca: s3proxy.NewCA(t), names: map[string]string{}}
	s.proxy = s3proxy.New(t, s.gw.Endpoint, s3proxy.Options{Certificate: s.ca.Issue("127.0.0.1")})
	for _, u := range []string{s.gw.Endpoint, s.proxy.URL} {
		u, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		s.names[u.Host] = "SERVER"
	}
	right := place{url: s.gw.URL("app")}
	database := filepath.Join(t.TempDir(), "app.db")
	right.must(t, "app", database, right.url, "CREATE TABLE t(n)", "INSERT INTO t VALUES(1)")

	type run struct {
		place
		args   []string
		result string
	}
	var runs [][]*run
	env := s.gw.Env()
	for _, r := range refusals {
		at := r.at(t, s)
		at.env = append(append([]string{}, env...), at.env...) // another server's start changed the test's
		var of []*run
		for command := range strings.FieldsSeq(r.commands) {
			dir := t.TempDir()
			s.names[dir] = "DIR"
			out := filepath.Join(dir, "app.db")
			args := map[string][]string{
				"ls":      {"outwash", "ls", at.url},
				"restore": {"outwash", "restore", "-o", out, at.url},
				"app":     {"app", "-impatient", out, at.url, "CREATE TABLE u(n)"},
			}[command]
			if strings.Contains(r.name, "read-only") && command == "app" {
				// The replica's own database, which goes on.
				if err := os.CopyFS(dir, os.DirFS(filepath.Dir(database))); err != nil {
					t.Fatal(err)
				}
			}
			of = append(of, &run{place: at, args: args})
		}
		runs = append(runs, of)
	}
	// Some wait for servers that don't come: all at once.
	var wg sync.WaitGroup
	slots := make(chan struct{}, 6)
	for _, of := range runs {
		for _, r := range of {
			wg.Add(1)
			go func() {
				defer wg.Done()
				slots <- struct{}{}
				defer func() { <-slots }()
				code, _, errOut := r.command(t, r.args[0], r.args[1:]...)
				r.result = fmt.Sprintf("$ %s\n%s[exit code %d]\n", strings.Join(r.args, " "), errOut, code)
			}()
		}
	}
	wg.Wait()

	var got bytes.Buffer
	for i, r := range refusals {
		fmt.Fprintf(&got, "# %s\n", r.name)
		for _, run := range runs[i] {
			got.WriteString(s.plain(run.result))
		}
		got.WriteByte('\n')
	}
	for _, secret := range []string{s.gw.SecretKey, "correct-horse"} {
		if strings.Contains(got.String(), secret) {
			t.Errorf("a secret is shown: %s", &got)
		}
	}
	const golden = "testdata/refusals.golden"
	if *updateGolden {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	wantLines, gotLines := strings.SplitAfter(string(want), "\n"), strings.SplitAfter(got.String(), "\n")
	for i := range max(len(wantLines), len(gotLines)) {
		w, g := "", ""
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if w != g {
			t.Fatalf("%s, line %d:\n got %swant %s(-update writes it anew)", golden, i+1, g, w)
		}
	}
}

// vary are parts of messages that differ from run to run.
var vary = []struct {
	is      *regexp.Regexp
	becomes string
}{
	{regexp.MustCompile(`\(request [^)]+\)`), "(request ID)"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "DAY"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+->`), "CLIENT->"},
	{regexp.MustCompile(`: (EOF|read tcp CLIENT->SERVER: read: connection reset by peer)`), ": HUNG UP"},
}

// plain takes out what differs from run to run.
func (s *refusalServers) plain(text string) string {
	for what, name := range s.names {
		text = strings.ReplaceAll(text, what, name)
	}
	for _, v := range vary {
		text = v.is.ReplaceAllString(text, v.becomes)
	}
	return text
}
