//go:build linux

package sidecar_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

// host is a machine with a database that stock SQLite writes, its sidecar and the
// store.
type host struct {
	t     *testing.T
	path  string
	store *faultstore.Store
	opts  sidecar.Options
	db    *sidecar.DB // nil: not running
	// each is called for each entry of the log, when the test has finished.
	each func(e *segment.Entry, m *mirror.Mirror) error
}

// newHost makes a machine; its sidecar runs once start is called. A nil store is a
// new one.
func newHost(t *testing.T, store *faultstore.Store) *host {
	t.Helper()
	warm()
	if store == nil {
		store = faultstore.New(replicate.NewMemStore())
	}
	h := &host{t: t, path: filepath.Join(t.TempDir(), "app.db"), store: store}
	var done atomic.Bool
	t.Cleanup(func() { done.Store(true) })
	h.opts = sidecar.Options{
		Path: h.path, MaxLag: replicate.AsFast,
		Open:   func(context.Context) (replicate.Store, error) { return h.store, nil },
		Logger: slog.New(slog.NewTextHandler(testWriter{t, &done}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	t.Cleanup(h.kill)
	return h
}

// warm has SQLite compiled, where the driver does that at the first open: it takes
// longer than some tests.
var warm = sync.OnceFunc(func() {
	c, err := sqlite3.Open(":memory:")
	if err != nil {
		panic(err)
	}
	c.Close()
})

type testWriter struct {
	t    testing.TB
	done *atomic.Bool
}

func (w testWriter) Write(b []byte) (int, error) {
	if !w.done.Load() {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// slowest is a time within which whatever is to happen has happened, on a machine that
// is slow and has other things to do.
const slowest = 2 * time.Minute

// limit is a time that is never reached.
func limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), slowest)
}

// start starts the sidecar.
func (h *host) start() {
	h.t.Helper()
	var err error
	h.db, err = sidecar.Open(context.Background(), h.opts)
	must(h.t, err)
}

// ready starts the sidecar and waits until all that is there is in the store.
func (h *host) ready() uint64 {
	h.t.Helper()
	h.start()
	return h.sync()
}

func (h *host) sync() uint64 {
	h.t.Helper()
	ctx, cancel := limit()
	defer cancel()
	txid, err := h.db.Sync(ctx)
	if err != nil {
		h.t.Fatalf("sync: %v (%+v)", err, h.db.Status())
	}
	return txid
}

// stop ends the sidecar in order.
func (h *host) stop() {
	h.t.Helper()
	ctx, cancel := limit()
	defer cancel()
	db := h.db
	h.db = nil
	must(h.t, db.Close(ctx))
}

// kill ends the sidecar with the test, without waiting for the store.
func (h *host) kill() {
	if h.db == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.db.Close(ctx)
	h.db = nil
}

// app starts a program with stock SQLite.
func (h *host) app() *stocksqlite.Process {
	h.t.Helper()
	return stocksqlite.Start(h.t, h.path)
}

// until waits for what must happen soon.
func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	end := time.Now().Add(slowest)
	for !ok() {
		if time.Now().After(end) {
			h.t.Fatalf("still not: %s (%+v)", what, h.db.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

// restore restores from the store and returns the image.
func (h *host) restore(txid uint64) []byte {
	h.t.Helper()
	return restore(h.t, h.store, txid)
}

func restore(t testing.TB, store replicate.Store, txid uint64) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "restored.db")
	_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: store, Output: out, TXID: txid})
	must(t, err)
	b, err := os.ReadFile(out)
	must(t, err)
	must(t, os.Remove(out))
	return b
}

// file is the database file with all that its log has. Nobody may use it.
func (h *host) file() []byte {
	h.t.Helper()
	p := h.app()
	ck, err := p.Checkpoint("TRUNCATE")
	must(h.t, err)
	if ck.Busy != 0 {
		h.t.Fatalf("somebody still uses the database: %+v", ck)
	}
	must(h.t, p.Close())
	b, err := os.ReadFile(h.path)
	must(h.t, err)
	return b
}

// finish ends the sidecar, after all programs, and checks that file, restore and
// what the log makes of each entry are the same.
func (h *host) finish() *mirror.Mirror {
	h.t.Helper()
	h.sync()
	h.stop()
	return h.same()
}

func (h *host) same() *mirror.Mirror {
	h.t.Helper()
	want, m := h.file(), mirror.New()
	_, err := m.Follow(context.Background(), h.store.Inner(), h.each)
	must(h.t, err)
	got, size := m.Image()
	if err := mirror.Compare(want, got, size); err != nil {
		h.t.Errorf("what the log makes: %v", err)
	}
	if err := mirror.Compare(want, h.restore(0), size); err != nil {
		h.t.Errorf("what is restored: %v", err)
	}
	must(h.t, mirror.Check(want, true))
	return m
}

// onlyTransactions has finish complain of anything but one entry a commit, from the
// entry of TXID from on.
func (h *host) onlyTransactions(from uint64) {
	h.each = func(e *segment.Entry, _ *mirror.Mirror) error {
		if e.MinTXID >= from && (e.Kind != segment.Transaction || e.Count != 1) {
			return errors.New(e.Kind.String() + " where a transaction was expected")
		}
		return nil
	}
}

// query is the answer that an image gives.
func query(t testing.TB, image []byte, sql, want string) {
	t.Helper()
	if got := queryText(t, image, sql); got != want {
		t.Errorf("%s: %q, want %q", sql, got, want)
	}
}

// localBytes is what the sidecar keeps on this machine, besides what it writes when
// it ends.
func (h *host) localBytes() (n int64) {
	h.t.Helper()
	must(h.t, filepath.WalkDir(h.path+local.Suffix, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := d.Info(); err == nil && !d.IsDir() && !strings.HasSuffix(path, "/clean") {
			n += fi.Size()
		}
		return nil
	}))
	return n
}
