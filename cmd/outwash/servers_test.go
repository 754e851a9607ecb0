package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/rclone"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
)

// A place is where a replica lies, and how a process gets there.
type place struct {
	url string
	env []string // beside the test's own
}

// command runs outwash, or app, as a process of its own: what configures HTTP
// clients (proxies, CAs) is read from the environment once in a process's life.
func (p place) command(t *testing.T, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+commandsCache(t), "NO_PROXY=", "no_proxy=", "https_proxy=", "http_proxy=", "HTTPS_PROXY=", "HTTP_PROXY=")
	cmd.Env = append(cmd.Env, p.env...)
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// commandsCache is where all commands keep compiled SQLite: beside the servers.
func commandsCache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "outwash-test", "commands")
}

// must is command for what has to succeed.
func (p place) must(t *testing.T, name string, args ...string) (stdout string) {
	t.Helper()
	code, out, errOut := p.command(t, name, args...)
	if code != 0 {
		t.Fatalf("%s %q: exit code %d\n%s%s", name, args, code, out, errOut)
	}
	return out
}

// newest is the TXID that ls names as the newest.
func (p place) newest(t *testing.T) uint64 {
	t.Helper()
	var report struct {
		TXID uint64 `json:"txid"`
	}
	out := p.must(t, "outwash", "ls", "-json", p.url)
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.TXID == 0 {
		t.Fatalf("ls says %v\n%s", err, out)
	}
	return report.TXID
}

// wantRestored restores a state, the newest if txid is 0, and compares it with
// a database that is closed.
func (p place) wantRestored(t *testing.T, txid uint64, database string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "restored.db")
	args := []string{"restore", "-o", out, p.url}
	if txid != 0 {
		args = append(args, "-txid", strconv.FormatUint(txid, 10))
	}
	p.must(t, "outwash", args...)
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("restored (TXID %d): %d bytes, which are not the database's %d", txid, len(got), len(want))
	}
}

// cycle takes a database all the way: written, listed, restored, written again,
// restored as it was at both times, taken over by another machine.
func (p place) cycle(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	database, then, other := filepath.Join(dir, "app.db"), filepath.Join(dir, "then.db"), filepath.Join(dir, "other.db")
	p.must(t, "app", database, p.url,
		"CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB)",
		"INSERT INTO t VALUES(1, randomblob(100000)), (2, randomblob(100))",
		"DELETE FROM t WHERE n = 2")
	first := p.newest(t)
	p.wantRestored(t, 0, database)
	if err := copyFile(then, database); err != nil {
		t.Fatal(err)
	}
	p.must(t, "app", database, p.url, "INSERT INTO t VALUES(3, randomblob(5000))")
	if second := p.newest(t); second <= first {
		t.Errorf("the newest TXID is %d, after %d", second, first)
	}
	p.wantRestored(t, first, then)
	p.wantRestored(t, 0, database)
	p.must(t, "app", "-restore", other, p.url, "UPDATE t SET b = randomblob(10)")
	p.wantRestored(t, 0, other)
	if out := p.must(t, "outwash", "inspect", objectURL(p.url, "log/0000000000000001")); !strings.Contains(out, "claim, 1,024 bytes, intact") {
		t.Errorf("inspect: %s", out)
	}
}

// objectURL is the URL of an object of the replica.
func objectURL(url, key string) string {
	path, query, ok := strings.Cut(url, "?")
	if ok {
		query = "?" + query
	}
	return path + "/" + key + query
}

// The guide's five actions, and those of its policy for restores.
var (
	replicationActions = []string{"s3:GetBucketLocation", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject", "s3:GetObject"}
	restoreActions     = []string{"s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"}
)

// TestCycle takes a database all the way on real servers, in every manner of
// addressing them.
func TestCycle(t *testing.T) {
	skewed := func(clock time.Duration) func(*testing.T) place {
		return func(t *testing.T) place {
			gw := versitygw.Start(t)
			p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Clock: clock, Secrets: map[string]string{gw.AccessKey: gw.SecretKey}})
			return place{url: "s3://bucket/app?endpoint=" + p.URL}
		}
	}
	for _, tt := range []struct {
		name string
		at   func(*testing.T) place
	}{
		{"HTTP", func(t *testing.T) place { return place{url: versitygw.Start(t).URL("a/b")} }},
		{"TopOfBucket", func(t *testing.T) place {
			gw := versitygw.Start(t)
			return place{url: "s3://bucket?region=us-east-1&force-path-style=true&endpoint=" + strings.TrimPrefix(gw.Endpoint, "http://")}
		}},
		{"TLS", func(t *testing.T) place {
			ca := s3proxy.NewCA(t)
			cert := ca.Issue("127.0.0.1")
			gw := versitygw.StartWith(t, versitygw.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile})
			return place{gw.URL("app"), []string{"AWS_CA_BUNDLE=" + ca.File}}
		}},
		{"EndpointFromEnvironment", func(t *testing.T) place {
			gw := versitygw.Start(t)
			return place{"s3://bucket/app", []string{"AWS_ENDPOINT_URL_S3=" + gw.Endpoint}}
		}},
		{"VirtualHosted", func(t *testing.T) place {
			gw := versitygw.StartWith(t, versitygw.Options{Domain: "s3.example.test"})
			tunnel := s3proxy.NewTunnel(t, map[string]string{"bucket.s3.example.test": gw.Endpoint})
			return place{"s3://bucket/app?endpoint=http://s3.example.test&force-path-style=false", []string{"HTTP_PROXY=" + tunnel.URL}}
		}},
		{"VirtualHostedTLS", func(t *testing.T) place {
			return aws(t, "bucket", "eu-1", "s3.eu-1.example.test", "s3://bucket/app?endpoint=s3.eu-1.example.test&region=eu-1&force-path-style=false")
		}},
		{"PathStyleTLS", func(t *testing.T) place {
			ca := s3proxy.NewCA(t)
			cert := ca.Issue("s3.example.test")
			gw := versitygw.StartWith(t, versitygw.Options{CertFile: cert.CertFile, KeyFile: cert.KeyFile})
			tunnel := s3proxy.NewTunnel(t, map[string]string{"s3.example.test": gw.Endpoint})
			return place{"s3://bucket/app?endpoint=https://s3.example.test:9000&force-path-style=true",
				[]string{"HTTPS_PROXY=" + tunnel.URL, "AWS_CA_BUNDLE=" + ca.File}}
		}},
		{"AWS", func(t *testing.T) place {
			return aws(t, "my-bucket", "eu-central-1", "s3.eu-central-1.amazonaws.com", "s3://my-bucket/app?region=eu-central-1")
		}},
		{"AWSHostForm", func(t *testing.T) place {
			return aws(t, "my-bucket", "eu-central-1", "s3.eu-central-1.amazonaws.com", "s3://my-bucket.s3.eu-central-1.amazonaws.com/app")
		}},
		{"ProviderHostForm", func(t *testing.T) place {
			return aws(t, "my-space", "us-east-1", "fra1.digitaloceanspaces.com", "s3://my-space.fra1.digitaloceanspaces.com/app")
		}},
		{"AccessPoint", func(t *testing.T) place {
			return aws(t, "myap-123456789012", "us-east-2", "s3-accesspoint.us-east-2.amazonaws.com", "s3://arn:aws:s3:us-east-2:123456789012:accesspoint/myap/backups")
		}},
		{"Versioned", func(t *testing.T) place {
			return place{url: versitygw.StartWith(t, versitygw.Options{Versioning: true}).URL("app")}
		}},
		{"UserWithGuidesPolicy", func(t *testing.T) place {
			gw := versitygw.StartWith(t, versitygw.Options{Users: true})
			access, secret := gw.AddUser(replicationActions...)
			return place{gw.URL("app"), []string{"AWS_ACCESS_KEY_ID=" + access, "AWS_SECRET_ACCESS_KEY=" + secret}}
		}},
		{"Slow", func(t *testing.T) place {
			return place{url: "s3://bucket/app?endpoint=" + s3proxy.New(t, versitygw.Start(t).Endpoint, s3proxy.Options{Latency: 40 * time.Millisecond}).URL}
		}},
		{"ServerAhead", skewed(20 * time.Minute)},
		{"ServerBehind", skewed(-20 * time.Minute)},
		{"Rclone", func(t *testing.T) place { return place{url: rclone.Start(t).URL("app")} }},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.at(t).cycle(t) })
	}
}

// aws is a server that takes itself for AWS's: it has the bucket in its hosts'
// names, of domain, and a certificate of the test's own CA. Clients find it
// through a proxy, by the names that they would use anyway.
func aws(t *testing.T, bucket, region, domain, url string) place {
	t.Helper()
	ca := s3proxy.NewCA(t)
	cert := ca.Issue("*." + domain)
	gw := versitygw.StartWith(t, versitygw.Options{Bucket: bucket, Region: region, Domain: domain, CertFile: cert.CertFile, KeyFile: cert.KeyFile})
	tunnel := s3proxy.NewTunnel(t, map[string]string{"." + domain: gw.Endpoint})
	t.Cleanup(func() {
		if hosts := tunnel.Hosts(); len(hosts) != 1 || hosts[0] != bucket+"."+domain {
			t.Errorf("hosts asked for: %q, expected %s.%s alone", hosts, bucket, domain)
		}
	})
	return place{url, []string{"HTTPS_PROXY=" + tunnel.URL, "AWS_CA_BUNDLE=" + ca.File, "AWS_REGION="}}
}
