//go:build linux

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/internal/wal"
)

const table = "CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB)"

// TestCommits: one TXID for each commit of a program with stock SQLite.
func TestCommits(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	before := w.sync()
	for range 100 {
		p.Must("INSERT INTO t(a) VALUES(randomblob(500))")
	}
	if after := w.sync(); after != before+100 {
		t.Errorf("100 commits went from TXID %d to %d", before, after)
	}
	w.same()
	if n := w.repairs(); n != 0 || w.count(segment.Repair) != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestCheckpoints: every checkpoint of the application returns 0, and each commit
// between them has its TXID.
func TestCheckpoints(t *testing.T) {
	for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, Options{})
			p := w.stock()
			p.Must("PRAGMA journal_mode=wal")
			p.Must(table)
			w.ready()
			before := w.sync()
			const rounds = 30
			for i := range rounds {
				for range 5 {
					p.Must("INSERT INTO t(a) VALUES(randomblob(500))")
				}
				ck, err := p.Checkpoint(mode)
				must(t, err)
				if ck.Busy != 0 || mode != "PASSIVE" && ck.Done != ck.Log {
					t.Fatalf("round %d: %+v", i, ck)
				}
			}
			if after := w.sync(); after != before+rounds*5 {
				t.Errorf("%d commits went from TXID %d to %d", rounds*5, before, after)
			}
			w.same()
			if n := w.repairs(); n != 0 {
				t.Errorf("%d repairs", n)
			}
		})
	}
}

// TestCloseUndecided: of a database that was never compared with its replica, because
// the store doesn't answer, Close doesn't say that all is stored.
func TestCloseUndecided(t *testing.T) {
	w, _ := walWorld(t, Options{})
	asked := make(chan struct{}, 1)
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		return faultstore.ErrInjected
	}})
	db := w.start()
	<-asked
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	if err := db.Close(ctx); !errors.Is(err, errUndecided) {
		t.Errorf("Close: %v", err)
	}
}

// TestCloseAtOnce: who is closed before it is known how database and replica relate
// waits for that, and uploads.
func TestCloseAtOnce(t *testing.T) {
	w := newWorld(t, Options{})
	w.load(stocksqlite.Work{Commits: 3})
	w.start()
	w.close()
	w.ready()
	if st := w.db.Status(); st.Uploads != 0 || st.TXID == 0 {
		t.Errorf("the first one left %d uploads to the second, at TXID %d", st.Uploads, st.TXID)
	}
	w.same()
}

// TestDurableBeforeUpload: what is uploaded is durable in the log before, or the replica
// would be ahead of the database after a loss of power, and refuse it.
func TestDurableBeforeUpload(t *testing.T) {
	var frames, durable atomic.Uint32 // of the log
	w := newWorld(t, Options{})
	index := func() wal.Index {
		f, err := os.Open(w.path + "-shm")
		must(t, err)
		defer f.Close()
		idx, err := wal.ReadIndex(f)
		must(t, err)
		return idx
	}
	w.opts.hooks.failpoint = func(name string) error {
		if name == "log-sync" {
			durable.Store(index().MaxFrame)
		}
		return nil
	}
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal; PRAGMA synchronous=normal")
	p.Must(table)
	w.ready()
	p.Must("INSERT INTO t(a) VALUES(0)") // the claim comes before it, which has nothing in it
	w.sync()
	w.store.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create && durable.Load() < frames.Load() {
			t.Errorf("%s: %d frames are durable of %d", c.Key, durable.Load(), frames.Load())
		}
		return nil
	}})
	for range 20 {
		p.Must("INSERT INTO t(a) VALUES(1)")
		frames.Store(index().MaxFrame) // nothing is written until it is acknowledged
		w.sync()
		if durable.Load() < frames.Load() {
			t.Fatal("the log was not made durable")
		}
	}
	w.same()
}

// TestRemedies: what the system refuses has a remedy.
func TestRemedies(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.EMFILE, "ulimit -n"},
		{syscall.EACCES, "let this process write the database"},
		{syscall.ENOENT, "make what is missing"},
		{ErrRemoved, "put the file back"},
		{syscall.EROFS, "let this process write the database"},
		{syscall.ENOSPC, "make room on the disk"},
		{syscall.EIO, "tried again"},
	} {
		if got := remedy(fmt.Errorf("sidecar: %w", &fs.PathError{Op: "open", Path: "/a", Err: c.err})); !strings.Contains(got, c.want) {
			t.Errorf("%v: %s", c.err, got)
		}
	}
}

// TestFilesNeeded: few databases can have too few files, too.
func TestFilesNeeded(t *testing.T) {
	for databases, want := range map[int]uint64{1: 24, 10: 240, 1000: 8256} {
		if got := filesNeeded(databases); got != want {
			t.Errorf("%d databases: %d", databases, got)
		}
	}
}
