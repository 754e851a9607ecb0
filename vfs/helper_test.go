package vfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/embed"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// world is one database, its VFS, its store, and a mirror that applies every
// entry that the engine takes, before it can go anywhere.
type world struct {
	t      testing.TB
	name   string // of the VFS
	path   string
	store  *faultstore.Store
	mirror *mirror.Mirror
	// each is called after each entry, with the mirror at it.
	each func(e *segment.Entry) error
	opts Options
	// base and params, if it is over a VFS that encrypts: how to open it without
	// replication.
	base   string
	params []string

	mu   sync.Mutex
	fail error
}

// slowest is a time within which whatever is to happen has happened, on a machine that
// is slow and has other things to do. Nothing waits for its end.
const slowest = 2 * time.Minute

// newWorld registers a VFS of its own for the test. Its cleanup shuts down,
// restores the newest state and compares it with the file, page by page.
func newWorld(t testing.TB, opts Options) *world {
	t.Helper()
	w := &world{
		t: t, path: filepath.Join(t.TempDir(), "t.db"), mirror: mirror.New(),
		name: "t_" + strings.NewReplacer("/", "_", "#", "_", "=", "_", " ", "_").Replace(t.Name()),
	}
	if opts.Logger == nil {
		var done atomic.Bool
		t.Cleanup(func() { done.Store(true) })
		opts.Logger = slog.New(slog.NewTextHandler(testWriter{t, &done}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	t.Cleanup(func() { w.kill() }) // before the directory is removed
	w.store = faultstore.New(replicate.NewMemStore())
	opts.Store = func(string) (replicate.Store, error) { return w.store, nil }
	opts.hooks.source = func(_ string, s replicate.Source) replicate.Source { return &tee{Source: s, w: w} }
	if opts.MaxLag == 0 {
		opts.MaxLag = replicate.AsFast
	}
	if opts.OpenTimeout == 0 {
		opts.OpenTimeout = slowest
	}
	w.opts = opts
	Register(w.name, opts)
	return w
}

type testWriter struct {
	t    testing.TB
	done *atomic.Bool // idle databases outlive their test
}

func (w testWriter) Write(b []byte) (int, error) {
	if !w.done.Load() {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// tee gives the mirror what the engine takes.
type tee struct {
	replicate.Source
	w *world
}

func (s *tee) Take(limit int64) []*segment.Entry {
	es := s.Source.Take(limit)
	for _, e := range es {
		s.w.apply(e)
	}
	return es
}

// Begin puts the mirror where the line is: an engine that starts continues it.
func (s *tee) Begin(ctx context.Context, start local.Start, tail local.Tail) error {
	if sum, _ := s.w.mirror.Checksum(); sum != tail.Checksum {
		s.w.mirror.Load(s.w.restore(tail.TXID), int(tail.PageSize))
	}
	return s.Source.Begin(ctx, start, tail)
}

// Export gives the mirror the pages, of which the last ones count.
func (s *tee) Export(ctx context.Context, tail local.Tail, write mirror.Write) (*segment.Entry, error) {
	e, err := s.w.mirror.Export(write, func(write mirror.Write) (*segment.Entry, error) { return s.Source.Export(ctx, tail, write) })
	if err != nil {
		return e, err
	}
	if sum, _ := s.w.mirror.Checksum(); sum != e.Post {
		s.w.t.Errorf("the exported pages have checksum %016x, the entry says %016x", sum, e.Post)
	}
	return e, nil
}

func (w *world) apply(e *segment.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return
	}
	if w.fail = w.mirror.Apply(e); w.fail == nil && w.each != nil {
		w.fail = w.each(e)
	}
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

// open opens a connection; extra are "key=value" parameters.
func (w *world) open(extra ...string) *sqlite3.Conn {
	w.t.Helper()
	c, err := w.tryOpen(extra...)
	must(w.t, err)
	return c
}

func (w *world) tryOpen(extra ...string) (*sqlite3.Conn, error) {
	q := url.Values{"vfs": {w.name}}
	for _, x := range append(extra, w.params...) {
		k, v, _ := strings.Cut(x, "=")
		q.Add(k, v)
	}
	c, err := sqlite3.Open("file:" + w.path + "?" + q.Encode())
	if err == nil {
		c.BusyTimeout(slowest)
	}
	return c, err
}

func (w *world) sync() uint64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	txid, err := Sync(ctx, w.path)
	must(w.t, err)
	must(w.t, w.failed())
	return txid
}

// shutdown ends the world's database in order.
func (w *world) shutdown() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	for _, db := range w.databases() {
		must(w.t, db.shutdown(ctx))
	}
	must(w.t, w.failed())
}

func (w *world) databases() []*database {
	registry.Lock()
	defer registry.Unlock()
	return registry.byName[w.name].databases.all()
}

// restore restores from the store and returns the image.
func (w *world) restore(txid uint64) []byte {
	w.t.Helper()
	out := filepath.Join(w.t.TempDir(), "restored.db")
	_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: w.store, Output: out, TXID: txid})
	must(w.t, err)
	b, err := os.ReadFile(out)
	must(w.t, err)
	must(w.t, os.Remove(out))
	return b
}

// same checks that file, mirror and restore are equal. All connections must be
// closed and the WAL gone.
func (w *world) same() {
	w.t.Helper()
	if _, err := os.Stat(w.path + "-wal"); err == nil {
		w.t.Fatal("the WAL is still there")
	}
	want := w.file()
	got, size := w.mirror.Image()
	if err := mirror.Compare(want, got, size); err != nil {
		w.t.Errorf("what was captured: %v", err)
	}
	if err := mirror.Compare(want, w.restore(0), size); err != nil {
		w.t.Errorf("what is restored: %v", err)
	}
	must(w.t, mirror.Check(got, true))
}

// file is the database file as SQLite sees it.
func (w *world) file() []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.path)
	if w.base != "" {
		q, _ := url.ParseQuery(strings.Join(w.params, "&"))
		f, e := (&stack{w.base, q}).open(w.path)
		must(w.t, e)
		defer f.Close()
		_, err = f.ReadAt(b, 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if bytes.Equal(b[:16], []byte("SQLite format 3\x00")) { // the last block is filled up
			b = b[:int(binary.BigEndian.Uint32(b[28:]))*max(int(binary.BigEndian.Uint16(b[16:]))&^1, int(b[17])<<16)]
		}
	}
	must(w.t, err)
	return b
}

// kill stops what replicates the world, as the end of its process would.
func (w *world) kill() {
	for _, db := range w.databases() {
		db.cancel()
		<-db.engine.Done()
		db.running.Wait()
	}
}

// clone is the world after a crash of its process: the same store, and copies of
// the files as they are. The old world stays as it is; it must write no more.
func (w *world) clone(opts Options) *world {
	w.t.Helper()
	w.kill()
	n := newWorld(w.t, opts)
	n.store = w.store
	n.opts.Store = func(string) (replicate.Store, error) { return w.store, nil }
	n.name += "_clone"
	n.base, n.params = w.base, w.params
	n.path = filepath.Join(w.t.TempDir(), "t.db")
	Register(n.name, n.opts)
	must(w.t, os.Mkdir(n.path+local.Suffix, 0o700))
	for _, f := range []string{"", "-wal", local.Suffix + "/lineage", local.Suffix + "/spool", local.Suffix + "/clean", local.Suffix + "/pending"} {
		b, err := os.ReadFile(w.path + f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(w.t, err)
		must(w.t, os.WriteFile(n.path+f, b, 0o600))
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, c *sqlite3.Conn, sql string) {
	t.Helper()
	if err := c.Exec(sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func text(t testing.TB, c *sqlite3.Conn, sql string) string {
	t.Helper()
	s, err := mirror.Text(c, sql)
	must(t, err)
	return s
}
