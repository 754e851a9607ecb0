package vfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// spillSQL makes a small cache spill: frames are rewritten after the commit frame.
const spillSQL = `WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<200) INSERT INTO t(b) SELECT randomblob(2000) FROM c;`

// faulty is a VFS below ours whose WAL can't be synced, truncated, or deleted.
type faulty struct {
	vfs.VFS
	sync, truncate, delete, header atomic.Bool
}

func (v *faulty) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, name, flags)
	if err == nil && flags&vfs.OPEN_WAL != 0 {
		f = &faultyWAL{f, v}
	}
	return f, out, err
}

func (v *faulty) Delete(name string, sync bool) error {
	if strings.HasSuffix(name, "-wal") && v.delete.Load() {
		return sqlite3.IOERR_DELETE
	}
	return v.VFS.Delete(name, sync)
}

type faultyWAL struct {
	vfs.File
	v *faulty
}

func (f *faultyWAL) Unwrap() vfs.File { return f.File }

func (f *faultyWAL) Sync(flags vfs.SyncFlag) error {
	if f.v.sync.Load() {
		return sqlite3.IOERR_FSYNC
	}
	return f.File.Sync(flags)
}

func (f *faultyWAL) Truncate(n int64) error {
	if f.v.truncate.Load() {
		return sqlite3.IOERR_TRUNCATE
	}
	return f.File.Truncate(n)
}

func (f *faultyWAL) WriteAt(p []byte, off int64) (int, error) {
	if off == 0 && f.v.header.Load() {
		return 0, sqlite3.IOERR_WRITE
	}
	return f.File.WriteAt(p, off)
}

// faultyWorld is a world over a VFS that fails on demand.
func faultyWorld(t *testing.T) (*world, *faulty) {
	v := &faulty{VFS: vfs.Find("")}
	base := "base_" + strings.NewReplacer("/", "_", "=", "_").Replace(t.Name())
	vfs.Register(base, v)
	t.Cleanup(func() { vfs.Unregister(base) })
	return newWorld(t, Options{Base: base}), v
}

func (w *world) stats() (repairs, excess int64) {
	s := w.databases()[0].capture.Stats()
	return s.Repairs, s.Excess
}

// TestP1SpilledCommit: frames of a transaction that the cache wrote early are
// rewritten after its commit frame (trap P1).
func TestP1SpilledCommit(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA cache_size=5; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for i := range 10 {
		exec(t, c, "BEGIN;"+spillSQL+"UPDATE t SET b=randomblob(1900) WHERE a%7=0; SAVEPOINT s;"+spillSQL+
			"ROLLBACK TO s; UPDATE t SET b=randomblob(1800) WHERE a%5=0; COMMIT")
		if i%3 == 2 {
			exec(t, c, "BEGIN; DELETE FROM t WHERE a%3=0;"+spillSQL+"ROLLBACK; PRAGMA wal_checkpoint(RESTART)")
		}
	}
	w.sync()
	if r, x := w.stats(); r+x > 0 {
		t.Errorf("%d repairs, %d commits found at gates", r, x)
	}
	w.finish(c)
}

// TestP2FailedCommit: a commit whose fsync fails is rolled back; its frames in the
// WAL are valid, and are no commit (traps P2, P2b).
func TestP2FailedCommit(t *testing.T) {
	for _, then := range []string{
		"SELECT 1",
		"INSERT INTO u VALUES(3)",
		"PRAGMA wal_checkpoint(PASSIVE); INSERT INTO u VALUES(3)",
		"PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO u VALUES(3)",
		"close",
		"kill",
	} {
		t.Run(then, func(t *testing.T) {
			w, v := faultyWorld(t)
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; PRAGMA synchronous=FULL; CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO t VALUES(1)")
			w.sync()
			v.sync.Store(true)
			if err := c.Exec("INSERT INTO t VALUES(2)"); !errors.Is(err, sqlite3.IOERR_FSYNC) {
				t.Fatal(err)
			}
			v.sync.Store(false)
			w.sync()
			want := "1"
			switch then {
			case "close":
				must(t, c.Close())
				c = w.open()
			case "kill": // recovery finds the frames, and makes them a commit
				w = w.clone(Options{})
				c = w.open()
				want = "2"
			default:
				exec(t, c, then)
			}
			if got := text(t, c, "SELECT count(*) FROM t"); got != want {
				t.Error(got, "rows, want", want)
			}
			w.finish(c)
		})
	}
}

// TestP2bFailedRestart: the first commit of a generation fails at its header, at the
// header's sync, or at the commit's.
func TestP2bFailedRestart(t *testing.T) {
	for _, how := range []string{"header", "sync"} {
		for _, then := range []string{"INSERT INTO u VALUES(3)", "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO u VALUES(3)", "close", "kill"} {
			t.Run(how+then, func(t *testing.T) {
				w, v := faultyWorld(t)
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; PRAGMA synchronous=FULL; CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO t VALUES(1); PRAGMA wal_checkpoint(PASSIVE)")
				w.sync()
				fail := &v.sync
				if how == "header" {
					fail = &v.header
				}
				fail.Store(true)
				if err := c.Exec("INSERT INTO t VALUES(2)"); err == nil {
					t.Fatal("no error")
				}
				fail.Store(false)
				switch then {
				case "close":
					must(t, c.Close())
					c = w.open()
				case "kill":
					w = w.clone(Options{})
					c = w.open()
				default:
					exec(t, c, then)
				}
				w.finish(c)
			})
		}
	}
}

// TestFailedTruncate: the gate is passed, and the WAL stays.
func TestFailedTruncate(t *testing.T) {
	for _, then := range []string{"INSERT INTO t VALUES(2)", "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(2)", "close"} {
		t.Run(then, func(t *testing.T) {
			w, v := faultyWorld(t)
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
			w.sync()
			v.truncate.Store(true)
			v.delete.Store(true)
			if err := c.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err == nil {
				t.Log("no error")
			}
			if then == "close" {
				must(t, c.Close())
				c = w.open()
			} else {
				c.Exec(then)
			}
			v.truncate.Store(false)
			v.delete.Store(false)
			exec(t, c, "INSERT INTO t VALUES(3)")
			w.finish(c)
		})
	}
}

// TestP3CheckpointBackPressure: when capture can't make room, checkpoints are busy,
// and the last close keeps the WAL (trap P3).
func TestP3CheckpointBackPressure(t *testing.T) {
	for _, point := range []string{"checkpoint", "spool-append", "delete"} {
		t.Run(point, func(t *testing.T) {
			var fail atomic.Bool
			opts := Options{CloseTimeout: -1}
			opts.hooks.failpoint = func(name string) error {
				if fail.Load() && name == point {
					return errors.New("no room")
				}
				return nil
			}
			w := newWorld(t, opts)
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
			w.sync()
			w.stall()
			exec(t, c, "INSERT INTO t VALUES(1,1)")
			fail.Store(true)
			for _, m := range []sqlite3.CheckpointMode{sqlite3.CHECKPOINT_PASSIVE, sqlite3.CHECKPOINT_FULL, sqlite3.CHECKPOINT_TRUNCATE} {
				n, done, err := c.WALCheckpoint("main", m)
				t.Logf("mode %d: %d frames, %d checkpointed: %v", m, n, done, err)
			}
			err := c.Exec("INSERT INTO t VALUES(2,1)")
			t.Log("insert:", err)
			must(t, c.Close())
			if _, err := os.Stat(w.path + "-wal"); err != nil {
				t.Error("the WAL is gone:", err)
			}
			fail.Store(false)
			w.heal()
			c = w.open()
			want := "2"
			if err != nil {
				want = "1"
			}
			if got := text(t, c, "SELECT count(*) FROM t"); got != want {
				t.Error(got, "rows, want", want)
			}
			exec(t, c, "INSERT INTO t VALUES(3,1); PRAGMA wal_checkpoint(TRUNCATE)")
			w.finish(c)
		})
	}
}

// TestP7PersistWAL: the WAL stays after the last close (trap P7).
func TestP7PersistWAL(t *testing.T) {
	for _, limit := range []string{"-1", "0", "100000"} {
		t.Run(limit, func(t *testing.T) {
			w := newWorld(t, Options{})
			setup := func() *sqlite3.Conn {
				c := w.open()
				if _, err := c.FileControl("main", sqlite3.FCNTL_PERSIST_WAL, true); err != nil {
					t.Fatal(err)
				}
				exec(t, c, "PRAGMA journal_mode=wal; PRAGMA journal_size_limit="+limit+"; CREATE TABLE IF NOT EXISTS t(a)")
				return c
			}
			for i := range 6 {
				c := setup()
				exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
				must(t, c.Close())
				if _, err := os.Stat(w.path + "-wal"); err != nil {
					t.Fatal(err)
				}
				if r, x := w.stats(); r+x > 0 {
					t.Errorf("%d repairs, %d commits found at gates", r, x)
				}
				if i%2 == 0 {
					w.shutdown()
				}
			}
			w.finish(w.open())
		})
	}
}
