//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/stocksqlite"
)

// TestReplicateService: all that the configuration file has for who watches, in one
// process: figures, health, status, heartbeats, the notice to systemd, a log in JSON;
// and none of it shows a secret.
func TestReplicateService(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "app.db")
	p := stocksqlite.Start(t, db)
	p.Must("PRAGMA journal_mode=wal")
	p.Must("CREATE TABLE t(a)")

	beats := make(chan string, 10)
	monitor := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { beats <- r.URL.Path }))
	defer monitor.Close()
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notices.Close()
	file := filepath.Join(dir, "outwash.yml")
	config := fmt.Sprintf("addr: 127.0.0.1:0\nheartbeat-url: %s/ping/SECRET\nlogging: {type: json}\nsocket: {enabled: false}\ndbs:\n  - path: %s\n    replica: {url: %q}\n",
		monitor.URL, db, "file://"+filepath.Join(dir, "replica"))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{"outwash", "replicate", "-config", file}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	addr, log := make(chan string, 1), make(chan string, 1)
	go func() {
		var all strings.Builder
		for in := bufio.NewScanner(stderr); in.Scan(); {
			all.WriteString(in.Text() + "\n")
			var r struct{ Addr, Msg string }
			if err := json.Unmarshal(in.Bytes(), &r); err != nil {
				t.Errorf("the log has %s", in.Text())
			}
			if r.Addr != "" && strings.HasPrefix(r.Msg, "serving") {
				addr <- r.Addr
			}
		}
		log <- all.String()
	}()
	wait := func(what string, f func() bool) {
		t.Helper()
		if !f() {
			t.Fatalf("%s did not come", what)
		}
	}
	var at string
	wait("the address", func() bool {
		select {
		case at = <-addr:
			return true
		case <-time.After(longest):
			return false
		}
	})
	if err := notices.SetReadDeadline(time.Now().Add(longest)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := notices.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for path, want := range map[string]string{
		"/readyz": `{"ready":true}`, "/healthz": `"status": "ok"`, "/status": `"databases":[{"database":"` + db + `"`,
		"/metrics": "outwash_databases 1\n",
	} {
		if code, text := get(path); code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	for range 5 {
		p.Must("INSERT INTO t VALUES(1)")
	}
	wait("the figures of what was committed", func() bool {
		for deadline := time.Now().Add(longest); time.Now().Before(deadline); {
			if _, text := get("/metrics"); strings.Contains(text, `outwash_acknowledged_txid{database="`+db+`",`) && strings.Contains(text, `outwash_lag_seconds{database="`+db+`",replica="file://`+dir+`/replica"} 0`) &&
				strings.Contains(text, `outwash_store_operation_duration_seconds_count{operation="create"}`) && strings.Contains(text, `state="replicating"} 1`) {
				return true
			}
		}
		return false
	})
	wait("a heartbeat", func() bool {
		select {
		case path := <-beats:
			return path == "/ping/SECRET"
		case <-time.After(longest):
			return false
		}
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	text := <-log
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	if strings.Contains(text, "SECRET") {
		t.Error(text)
	}
}
