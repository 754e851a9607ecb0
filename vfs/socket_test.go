package vfs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// TestStatusSocket: an application that enables it tells how its databases do, those
// of all VFSes with the same socket, until Shutdown.
func TestStatusSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	one, two := newWorld(t, Options{StatusSocket: socket}), Options{StatusSocket: socket}
	two.Store = func(string) (replicate.Store, error) { return replicate.NewMemStore(), nil }
	Register("status_two", two)
	if _, err := status.Query(t.Context(), socket); !errors.Is(err, status.ErrNobody) {
		t.Fatal("before the first database: ", err)
	}
	c := one.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	txid := one.sync()
	other := &world{t: t, name: "status_two", path: filepath.Join(t.TempDir(), "other.db")}
	d := other.open()

	r, err := status.Query(t.Context(), status.SocketOf(one.path))
	must(t, err)
	if len(r.Databases) != 2 || r.Owner.PID != os.Getpid() {
		t.Fatalf("%+v", r)
	}
	found := map[string]replicate.Status{}
	for _, s := range r.Databases {
		found[s.Database] = s
	}
	if s := found[one.path]; s.TXID != txid || s.State != replicate.StateReplicating || s.Backlog != 0 {
		t.Errorf("%+v", s)
	}
	if _, ok := found[other.path]; !ok {
		t.Errorf("%s is not in it", other.path)
	}

	must(t, c.Close())
	must(t, d.Close())
	ctx, cancel := context.WithTimeout(t.Context(), slowest)
	defer cancel()
	one.shutdown()
	other.shutdown()
	_ = Shutdown(ctx) // its error would be of databases that other tests have killed
	if _, err := status.Query(t.Context(), socket); !errors.Is(err, status.ErrNobody) {
		t.Error("after Shutdown: ", err)
	}
	// A database that is opened anew makes it anew.
	c = one.open()
	r, err = status.Query(t.Context(), socket)
	if err != nil || len(r.Databases) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	must(t, c.Close())
	one.shutdown()
	must(t, closeSockets())
}

// A socket that can't be made is no reason not to replicate.
func TestStatusSocketFails(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, Options{
		StatusSocket: filepath.Join(t.TempDir(), "missing", "s.sock"),
		Logger:       slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	w.sync()
	must(t, c.Close())
	w.shutdown()
	if !strings.Contains(log.String(), "outwash status") || !strings.Contains(log.String(), "missing") {
		t.Error(log.String())
	}
}
