//go:build linux

package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

// world is a process whose databases and time tests say.
type world struct {
	mu   sync.Mutex
	list []replicate.Status
	now  time.Time
	wait chan time.Duration // what After was called with
	tick chan time.Time
	log  bytes.Buffer
}

func newWorld(states ...replicate.State) *world {
	w := &world{now: time.Unix(1_700_000_000, 0), wait: make(chan time.Duration), tick: make(chan time.Time)}
	for i, s := range states {
		w.list = append(w.list, replicate.Status{Database: fmt.Sprintf("/%d.db", i), Replica: "s3://b/p", State: s, StateSince: w.now})
	}
	return w
}

func (w *world) Now() time.Time { return w.now }

func (w *world) After(d time.Duration) <-chan time.Time {
	w.wait <- d
	return w.tick
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) set(i int, s replicate.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list[i].State = s
}

func (w *world) statuses() []replicate.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]replicate.Status(nil), w.list...)
}

func (w *world) start(t *testing.T, o Options) *Service {
	t.Helper()
	o.List, o.clock, o.Logger = w.statuses, w, slog.New(slog.NewTextHandler(w, nil))
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, s *Service, path string) (int, http.Header, string) {
	t.Helper()
	resp, err := http.Get("http://" + s.addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func TestServer(t *testing.T) {
	w := newWorld(replicate.StateReplicating, replicate.StateReplicating)
	s := w.start(t, Options{Addr: "127.0.0.1:0"})

	code, _, text := get(t, s, "/metrics")
	for _, want := range []string{`outwash_lag_seconds{database="/0.db",replica="s3://b/p"} 0`, "outwash_databases 2", "go_goroutines ", "process_open_fds "} {
		if code != 200 || !strings.Contains(text, want) {
			t.Errorf("%d: no %s in %s", code, want, text)
		}
	}
	var h Health
	code, header, text := get(t, s, "/healthz")
	if err := json.Unmarshal([]byte(text), &h); err != nil || code != 200 || h.Status != "ok" || h.Databases != 2 || header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", code, header, text)
	}
	if !strings.Contains(text, `"problems": []`) {
		t.Error(text)
	}
	w.set(1, replicate.StateFenced)
	if code, _, text = get(t, s, "/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(text, `"database": "/1.db"`) || strings.Contains(text, "/0.db") {
		t.Errorf("%d %s", code, text)
	}
	var doc struct {
		Version   int
		Databases []replicate.Status
	}
	code, _, text = get(t, s, "/status")
	if err := json.Unmarshal([]byte(text), &doc); err != nil || code != 200 || doc.Version != 1 || len(doc.Databases) != 2 {
		t.Errorf("%d %s", code, text)
	}

	for _, path := range []string{"/", "/debug/pprof/", "/metrics/", "/healthz/x"} {
		if code, _, _ := get(t, s, path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	resp, err := http.Post("http://"+s.addr+"/healthz", "text/plain", strings.NewReader("x"))
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v %v", resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("it listens after Close")
	}
	if text := w.logged(); strings.Contains(text, "level=ERROR") || !strings.Contains(text, "addr="+s.addr) || strings.Contains(text, "all addresses") {
		t.Error(text)
	}
}

func TestServerAddr(t *testing.T) {
	w := newWorld()
	s := w.start(t, Options{Addr: ":0"})
	if !strings.Contains(w.logged(), "on all addresses of this machine") {
		t.Error(w.logged())
	}
	_, err := Start(t.Context(), Options{List: w.statuses, Addr: s.addr})
	if err == nil || !strings.Contains(err.Error(), s.addr) || !strings.Contains(err.Error(), "-addr") {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	none := w.start(t, Options{})
	if none.addr != "" {
		t.Error(none.addr)
	}
	if err := none.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Who may begin only when all databases are decided asks /readyz, or waits for the
// notice of systemd's protocol.
func TestReady(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@outwash-test-%d", os.Getpid())} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		w := newWorld(replicate.StateReplicating, replicate.StateUnreachable)
		s := w.start(t, Options{Addr: "127.0.0.1:0"})
		if code, _, text := get(t, s, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "false") {
			t.Errorf("%d %s", code, text)
		}
		s.Ready()
		s.Ready() // told once
		if code, _, text := get(t, s, "/readyz"); code != http.StatusOK || !strings.Contains(text, "true") {
			t.Errorf("%d %s", code, text)
		}
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != "READY=1" {
			t.Errorf("%q, %v", b[:n], err)
		}
		w.set(0, replicate.StateFailed)
		if code, _, _ := get(t, s, "/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("refused: %d", code)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	w := newWorld()
	s := w.start(t, Options{})
	s.Ready()
	if !strings.Contains(w.logged(), "service manager") {
		t.Error(w.logged())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The end of the context ends everything, even connections that say nothing.
func TestServerContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Options{List: newWorld().statuses, Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	s.running.Wait()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// pinged is a server for heartbeats that answers code.
func pinged(t *testing.T, answer func(w http.ResponseWriter)) (base string, paths func() []string) {
	var mu sync.Mutex
	var list []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		list = append(list, r.Method+" "+r.URL.String())
		mu.Unlock()
		answer(w)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), list...)
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(replicate.StateReplicating, replicate.StateOpening)
	var mu sync.Mutex
	code := http.StatusOK
	base, paths := pinged(t, func(w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(code)
	})
	s := w.start(t, Options{HeartbeatURL: base + "/ping/SECRET?key=HIDDEN", HeartbeatInterval: time.Minute})
	next := func(wait time.Duration, sent int) {
		t.Helper()
		if d := <-w.wait; d != wait || len(paths()) != sent {
			t.Fatalf("waits %s after %v", d, paths())
		}
	}
	const s1 = time.Second
	for _, wait := range []time.Duration{s1, 2 * s1, 4 * s1, 8 * s1, 15 * s1, 15 * s1} { // one is opening
		next(wait, 0)
		w.tick <- w.now
	}
	next(15*time.Second, 0)
	w.set(1, replicate.StateReplicating)
	w.tick <- w.now
	next(time.Minute, 1)
	w.tick <- w.now
	next(time.Minute, 2)
	w.set(0, replicate.StateFenced)
	for i := range 3 {
		w.tick <- w.now
		next(time.Second<<i, 2)
	}
	w.set(0, replicate.StateReplicating)
	mu.Lock()
	code = http.StatusNotFound
	mu.Unlock()
	for i := range 3 {
		w.tick <- w.now
		next(min(15*time.Second, 8*time.Second<<i), 3+i)
	}
	mu.Lock()
	code = http.StatusOK
	mu.Unlock()
	w.tick <- w.now
	next(time.Minute, 6)
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if p := paths()[0]; p != "GET /ping/SECRET?key=HIDDEN" {
		t.Error(p)
	}
	text := w.logged()
	if strings.Contains(text, "SECRET") || strings.Contains(text, "HIDDEN") || !strings.Contains(text, "404") || !strings.Contains(text, "host=127.0.0.1") {
		t.Error(text)
	}
	// Each change is told, and no more.
	for want, n := range map[string]int{"heartbeats begin": 1, "heartbeats are not sent": 1, "trying on": 1, "heartbeats are sent": 2} {
		if strings.Count(text, want) != n {
			t.Errorf("%q is not there %d times: %s", want, n, text)
		}
	}
}

// No error shows the URL, wherever it comes from.
func TestHeartbeatSecret(t *testing.T) {
	base, _ := pinged(t, func(w http.ResponseWriter) {
		w.Header().Set("Location", "http://[SECRET/%zz")
		w.WriteHeader(http.StatusFound)
	})
	const gone = "http://127.0.0.1:1" // no system gives this port to those who ask for any
	for _, u := range []string{
		base + "/SECRET", gone + "/SECRET", strings.Replace(gone, "http://", "http://user:SECRET@", 1) + "/x?y=SECRET",
	} {
		w := newWorld(replicate.StateReplicating)
		s := w.start(t, Options{HeartbeatURL: u})
		if d := <-w.wait; d != time.Second {
			t.Errorf("%s: waits %s", u, d)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if text := w.logged(); strings.Contains(text, "SECRET") || !strings.Contains(text, "a heartbeat failed") {
			t.Errorf("%s: %s", u, text)
		}
	}
	for _, u := range []string{"ftp://h/SECRET", "http://", "SECRET", "http://h/%zzSECRET"} {
		if _, err := Start(t.Context(), Options{List: newWorld().statuses, HeartbeatURL: u}); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
