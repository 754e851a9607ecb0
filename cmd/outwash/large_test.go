package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/rclone"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
)

// TestLargeUpload takes over a database of more than 100 MB, in parts of 5 MiB, on
// both servers. The process is killed in the middle of the first upload; in the
// second a part fails, and another finds its connection cut.
func TestLargeUpload(t *testing.T) {
	setupDriver()
	original := filepath.Join(t.TempDir(), "app.db")
	c, err := sqlite3.Open(original)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Exec(`PRAGMA journal_mode=delete; PRAGMA synchronous=off; CREATE TABLE t(b);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<110) INSERT INTO t SELECT randomblob(1000000) FROM n`)
	if cerr := c.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	const parts = 105 / 5 // at least: MB, MiB

	for _, tt := range []struct {
		name     string
		endpoint func(*testing.T) string
	}{
		{"Versitygw", func(t *testing.T) string { return versitygw.Start(t).Endpoint }},
		{"Rclone", func(t *testing.T) string { return rclone.Start(t).Endpoint }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := s3proxy.New(t, tt.endpoint(t), s3proxy.Options{})
			p := place{url: "s3://bucket/large?part-size=5MiB&endpoint=" + proxy.URL}
			database := filepath.Join(t.TempDir(), "app.db")
			if err := copyFile(database, original); err != nil {
				t.Fatal(err)
			}
			ran := func(operation string) (n int) {
				for _, c := range proxy.Calls() {
					if c.Operation == operation {
						n++
					}
				}
				return n
			}

			// Killed while part 8 is on its way.
			first := exec.CommandContext(t.Context(), "app", database, p.url, "CREATE TABLE u(n)")
			first.Env = append(os.Environ(), "XDG_CACHE_HOME="+commandsCache(t))
			var n atomic.Int64
			proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
				if c.Operation == "UploadPart" && n.Add(1) == 8 {
					_ = first.Process.Kill()
				}
				return nil
			})
			out, err := first.CombinedOutput()
			if err == nil || n.Load() < 8 {
				t.Fatalf("the application was not killed, after %d parts: %v\n%s", n.Load(), err, out)
			}
			if ran("CompleteMultipartUpload") > 0 {
				t.Fatal("the upload was completed before the application was killed")
			}
			if code, out, errOut := p.command(t, "outwash", "restore", "-o", filepath.Join(t.TempDir(), "none.db"), p.url); code != codeNothing {
				t.Errorf("restore before anything is whole: exit code %d\n%s%s", code, out, errOut)
			}

			proxy.Forget()
			n.Store(0)
			proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
				if c.Operation == "UploadPart" {
					switch n.Add(1) {
					case 5:
						return &s3proxy.Answer{Status: http.StatusServiceUnavailable, Code: "SlowDown", Message: "Please reduce your request rate."}
					case 12:
						panic(http.ErrAbortHandler)
					}
				}
				return nil
			})
			p.must(t, "app", database, p.url, "CREATE TABLE v(n)")
			proxy.Refuse(nil)
			if sent, done := ran("UploadPart"), ran("CompleteMultipartUpload"); sent < parts+2 || done != 1 {
				t.Errorf("%d parts were sent, %d uploads completed; expected %d and one", sent, done, parts+2)
			}
			p.wantRestored(t, 0, database)
			if out := p.must(t, "outwash", "ls", "-json", p.url); !strings.Contains(out, `"snapshots": [`) || strings.Contains(out, `"snapshots": []`) {
				t.Errorf("ls names no snapshot: %s", out)
			}
		})
	}
}
