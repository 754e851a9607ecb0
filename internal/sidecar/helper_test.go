//go:build linux

package sidecar

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/embed"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/internal/wal"
	"github.com/outwash/outwash/replicate"
)

// slowest is a time within which whatever is to happen has happened, on a machine that
// is slow and has other things to do. Nothing waits for its end.
const slowest = 2 * time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a database, its store, its sidecar, and a mirror that applies every entry
// that the engine takes.
type world struct {
	t     testing.TB
	path  string
	store *faultstore.Store
	opts  Options
	log   bytes.Buffer
	logMu sync.Mutex

	mu     sync.Mutex
	mirror *mirror.Mirror
	kinds  map[segment.EntryKind]int
	fail   error

	db *DB
}

func newWorld(t testing.TB, opts Options) *world {
	t.Helper()
	w := &world{
		t: t, path: filepath.Join(t.TempDir(), "t.db"), mirror: mirror.New(), kinds: map[segment.EntryKind]int{},
		store: faultstore.New(replicate.NewMemStore()),
	}
	var done atomic.Bool
	t.Cleanup(func() { done.Store(true) })
	opts.Logger = slog.New(slog.NewTextHandler(writer(func(p []byte) {
		w.logMu.Lock()
		w.log.Write(p)
		w.logMu.Unlock()
		if !done.Load() {
			t.Log(strings.TrimSpace(string(p)))
		}
	}), nil))
	opts.Path = w.path
	opts.Open = func(context.Context) (replicate.Store, error) { return w.store, nil }
	if opts.MaxLag == 0 {
		opts.MaxLag = replicate.AsFast
	}
	opts.hooks.source = func(s replicate.Source) replicate.Source { return &tee{Source: s, w: w} }
	w.opts = opts
	return w
}

// walWorld is a world with a database in WAL mode and the program that writes it.
func walWorld(t testing.TB, opts Options) (*world, *stocksqlite.Process) {
	t.Helper()
	w := newWorld(t, opts)
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	return w, p
}

// replicatedWorld is a walWorld whose sidecar has begun.
func replicatedWorld(t testing.TB, opts Options) (*world, *stocksqlite.Process) {
	t.Helper()
	w, p := walWorld(t, opts)
	w.ready()
	return w, p
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// logged counts a text in the log.
func (w *world) logged(text string) int {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return strings.Count(w.log.String(), text)
}

// stock starts a program with stock SQLite.
func (w *world) stock() *stocksqlite.Process { return stocksqlite.Start(w.t, w.path) }

// start opens the sidecar; the test's end closes it.
func (w *world) start() *DB {
	w.t.Helper()
	db, err := Open(context.Background(), w.opts)
	must(w.t, err)
	w.db = db
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		db.Close(ctx)
	})
	return db
}

// ready starts the sidecar and waits until commits go to the store.
func (w *world) ready() *DB {
	w.t.Helper()
	db := w.start()
	w.sync()
	return db
}

func (w *world) sync() uint64 {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	txid, err := w.db.Sync(ctx)
	if err != nil {
		w.t.Fatalf("%v; %+v", err, w.db.Status())
	}
	must(w.t, w.failed())
	return txid
}

func (w *world) close() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	must(w.t, w.db.Close(ctx))
	must(w.t, w.failed())
}

func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

// count is how many entries of a kind there were.
func (w *world) count(k segment.EntryKind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kinds[k]
}

// same checks that mirror and restore are what a program sees in the database.
// Nobody may write meanwhile.
func (w *world) same() {
	w.t.Helper()
	w.sync()
	want := w.image()
	w.mu.Lock()
	got, size := w.mirror.Image()
	w.mu.Unlock()
	if err := mirror.Compare(want, got, size); err != nil {
		w.t.Errorf("what was captured: %v", err)
	}
	if err := mirror.Compare(want, w.restore(0), size); err != nil {
		w.t.Errorf("what is restored: %v", err)
	}
	must(w.t, mirror.Check(want, true))
}

// image is the database as SQLite sees it now: the file, and over it the last
// frames of the log as far as it is committed. Nobody may write meanwhile.
func (w *world) image() []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.path)
	must(w.t, err)
	shm, err := os.Open(w.path + "-shm")
	if errors.Is(err, fs.ErrNotExist) {
		return b
	}
	must(w.t, err)
	defer shm.Close()
	idx, err := wal.ReadIndex(shm)
	must(w.t, err)
	if idx.MaxFrame == 0 {
		return b
	}
	log, err := os.ReadFile(w.path + "-wal")
	must(w.t, err)
	size := int(idx.PageSize)
	b = append(b, make([]byte, max(0, int(idx.Pages)*size-len(b)))...)[:int(idx.Pages)*size]
	for frame := uint32(1); frame <= idx.MaxFrame; frame++ {
		at := log[wal.FrameOffset(frame, idx.PageSize):]
		if no := int(wal.ParseFrame(at).Page); no <= int(idx.Pages) {
			copy(b[(no-1)*size:no*size], at[wal.FrameHeaderSize:])
		}
	}
	return b
}

func (w *world) restore(txid uint64) []byte {
	w.t.Helper()
	out := filepath.Join(w.t.TempDir(), "restored.db")
	_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: w.store, Output: out, TXID: txid})
	must(w.t, err)
	b, err := os.ReadFile(out)
	must(w.t, err)
	return b
}

// repairs is how often capture lost track.
func (w *world) repairs() int64 {
	w.db.mu.Lock()
	s := w.db.session
	w.db.mu.Unlock()
	if s == nil {
		return -1
	}
	return s.capture.Stats().Repairs
}

// guard is the running session's.
func (w *world) guardState() (slot int, zero bool) {
	w.db.mu.Lock()
	s := w.db.session
	w.db.mu.Unlock()
	if s == nil {
		return -1, false
	}
	for k := 0; k <= 4; k++ {
		f, err := os.OpenFile(w.path+"-shm", os.O_RDWR, 0)
		must(w.t, err)
		if locked(f, slotByte+int64(k), 1) {
			if k == 0 {
				zero = true
			} else {
				slot = k
			}
		}
		f.Close()
	}
	return slot, zero
}

// eventually waits for something that other processes or goroutines bring about.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(slowest); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: still not; %+v", what, w.db.Status())
		}
	}
}

// tee gives the mirror what the engine takes.
type tee struct {
	replicate.Source
	w *world
}

func (s *tee) Take(limit int64) []*segment.Entry {
	es := s.Source.Take(limit)
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, e := range es {
		s.w.kinds[e.Kind]++
		if s.w.fail == nil {
			s.w.fail = s.w.mirror.Apply(e)
		}
	}
	return es
}

func (s *tee) Begin(ctx context.Context, start local.Start, tail local.Tail) error {
	s.w.mu.Lock()
	sum, _ := s.w.mirror.Checksum()
	s.w.mu.Unlock()
	if sum != tail.Checksum {
		image := s.w.restore(tail.TXID)
		s.w.mu.Lock()
		s.w.mirror.Load(image, int(tail.PageSize))
		s.w.mu.Unlock()
	}
	return s.Source.Begin(ctx, start, tail)
}

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

// removed removes a database and what SQLite keeps beside it.
func remove(t testing.TB, path string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
