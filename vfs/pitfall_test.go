package vfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/objstore/faultstore"
)

// The traps that were found before this package was written, and the tests that
// pin them:
//
//	P1   frames are rewritten behind the commit frame   TestP1SpilledCommit
//	P2   a commit whose fsync fails                     TestP2FailedCommit
//	P2b  the same at the beginning of a log             TestP2bFailedRestart
//	P3   a checkpoint that is refused                   TestP3CheckpointBackPressure
//	P4   an error behind the commit                     TestP4ErrorAfterCommit
//	P5   locks of the WAL-index can't be seen           TestP5SharedMemory
//	P6   EXCLUSIVE locking has no -shm                  TestP6Exclusive, TestModes
//	P7   the WAL stays after the last close             TestP7PersistWAL
//	P8   programs without this VFS                      TestP8ForeignWriter, TestForeignProgram
//	P8b  they checkpoint, we take the log away          TestP8ForeignWriter
//	P9   a commit is visible and lets others write      TestP9CommitVisible
//	P10  the caller's context reaches what waits        TestP10Context
//	P11  who waits behind a commit pins the log         TestP11NobodyWaits
//
// and where the first attempt was wrong: holes_test.go.

// hooked is a VFS below ours that tells of commits.
type hooked struct {
	vfs.VFS
	phaseTwo func() error
	locks    *atomic.Int64 // of the WAL-index that were seen
}

func (v *hooked) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, name, flags)
	if err == nil && flags&vfs.OPEN_MAIN_DB != 0 {
		f = &hookedFile{f, v}
	}
	return f, out, err
}

type hookedFile struct {
	vfs.File
	v *hooked
}

func (f *hookedFile) Unwrap() vfs.File         { return f.File }
func (f *hookedFile) LockState() vfs.LockLevel { return vfsutil.WrapLockState(f.File) }
func (f *hookedFile) CommitPhaseTwo() error    { return f.v.phaseTwo() }
func (f *hookedFile) SharedMemory() vfs.SharedMemory {
	return hookedShm{vfsutil.WrapSharedMemory(f.File), f.v.locks}
}

type hookedShm struct {
	vfs.SharedMemory
	locks *atomic.Int64
}

//lint:ignore U1000 nobody calls it: that is the point
func (s hookedShm) shmLock(int32, int32, uint32) error { s.locks.Add(1); return nil }

// hookedWorld is a world over a VFS that calls f behind each commit.
func hookedWorld(t *testing.T, opts Options, f func() error) (*world, *hooked) {
	v := &hooked{vfs.Find(""), f, new(atomic.Int64)}
	opts.Base = "hooked_" + strings.NewReplacer("/", "_", "=", "_").Replace(t.Name())
	vfs.Register(opts.Base, v)
	t.Cleanup(func() { vfs.Unregister(opts.Base) })
	return newWorld(t, opts), v
}

// TestP4ErrorAfterCommit: COMMIT fails after the commit. Others see it, so it is
// in the replica; and it doesn't need another commit to get there.
func TestP4ErrorAfterCommit(t *testing.T) {
	for _, journal := range []string{"wal", "delete", "persist"} {
		for _, e := range []error{sqlite3.IOERR, sqlite3.FULL, sqlite3.BUSY, sqlite3.READONLY, errors.New("anything")} {
			t.Run(fmt.Sprint(journal, " ", e), func(t *testing.T) {
				var fail atomic.Bool
				w, _ := hookedWorld(t, Options{}, func() error {
					if fail.Load() {
						return e
					}
					return sqlite3.NOTFOUND
				})
				c, other := w.open(), w.open()
				exec(t, c, "PRAGMA journal_mode="+journal+"; CREATE TABLE t(a)")
				w.sync()
				fail.Store(true)
				t.Log("autocommit:", c.Exec("INSERT INTO t VALUES(1)"))
				t.Log("begin:", c.Exec("BEGIN; INSERT INTO t VALUES(2)"))
				t.Log("commit:", c.Exec("COMMIT"), "autocommit again:", c.GetAutocommit())
				fail.Store(false)
				c.Exec("ROLLBACK")
				rows := text(t, other, "SELECT count(*) FROM t")
				w.sync()
				want := func() {
					t.Helper()
					img := w.restore(0)
					must(t, queryImage(img, "SELECT count(*) FROM t", rows))
				}
				want()
				exec(t, c, "INSERT INTO t VALUES(3)")
				if s := w.databases()[0].capture.Stats(); s.Repairs > 0 {
					t.Errorf("%+v", s)
				}
				must(t, other.Close())
				w.finish(c)
			})
		}
	}
}

// TestP5SharedMemory: a VFS can hand the WAL-index on but not listen to its locks;
// what is committed is read from the -shm file, at every commit.
func TestP5SharedMemory(t *testing.T) {
	w, v := hookedWorld(t, Options{}, func() error { return sqlite3.NOTFOUND })
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	for i := range 10 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		if got, want := w.sync(), uint64(i+3); got != want { // a claim and the table come before
			t.Errorf("TXID %d after commit %d, want %d", got, i, want)
		}
	}
	if n := v.locks.Load(); n > 0 {
		t.Error(n, "locks were seen: then there is a better way to know of commits")
	}
	w.finish(c)
}

// TestP6Exclusive: EXCLUSIVE locking from the start and on the way, spilled
// commits, rollbacks and checkpoints in it, and back to normal.
func TestP6Exclusive(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA locking_mode=exclusive; PRAGMA journal_mode=wal; PRAGMA cache_size=5; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	work := func() {
		t.Helper()
		for i := range 12 {
			exec(t, c, fmt.Sprintf("BEGIN; %s DELETE FROM t WHERE a%%%d=0; %s", spillSQL, i%5+2, []string{"COMMIT", "ROLLBACK", "COMMIT"}[i%3]))
			w.sync()
			if i%5 == 0 {
				exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
			}
		}
	}
	work()
	if _, err := os.Stat(w.path + "-shm"); err == nil {
		t.Error("there is a -shm: the test tests nothing")
	}
	exec(t, c, "PRAGMA locking_mode=normal; SELECT count(*) FROM t")
	work()
	exec(t, c, "PRAGMA locking_mode=exclusive")
	work()
	if r, x := w.stats(); r+x > 0 {
		t.Errorf("%d repairs, %d commits found at gates", r, x)
	}
	w.finish(c)
}

// TestP9CommitVisible: what is captured behind a commit is committed for everybody
// by then, and no lock is held: another connection sees it, and commits.
func TestP9CommitVisible(t *testing.T) {
	var look func() error
	w, _ := hookedWorld(t, Options{}, func() error {
		if look != nil {
			return look()
		}
		return sqlite3.NOTFOUND
	})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	other := w.foreign()
	seen := ""
	look = func() error {
		look = nil
		seen = text(t, other, "SELECT count(*) FROM t")
		exec(t, other, "PRAGMA busy_timeout=0; INSERT INTO t VALUES(2)")
		return sqlite3.NOTFOUND
	}
	exec(t, c, "INSERT INTO t VALUES(1)")
	if seen != "1" {
		t.Errorf("another connection sees %q rows", seen)
	}
	w.sync()
	must(t, queryImage(w.restore(0), "SELECT count(*) FROM t", "2"))
	must(t, other.Close())
	w.finish(c)
}

// TestP10Context: interrupting a statement ends what waits for the store.
func TestP10Context(t *testing.T) {
	w := newWorld(t, Options{CloseTimeout: -1})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	w.sync()
	w.stall()
	exec(t, c, "INSERT INTO t VALUES(1)")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waits atomic.Bool
	w.store.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if waits.Load() {
			cancel() // it was tried again, and in vain: it would wait for ever
		}
		return faultstore.ErrInjected
	}})
	old := c.SetInterrupt(ctx)
	waits.Store(true)
	err := c.Exec("PRAGMA replicated_sync")
	c.SetInterrupt(old)
	if err == nil || ctx.Err() == nil {
		t.Errorf("interrupted: %v, after %v", ctx.Err(), err)
	}
	w.heal()
	exec(t, c, "PRAGMA replicated_sync")
	w.finish(c)
}

// TestP11NobodyWaits: while the store doesn't answer, commits return, and no
// reader is left in the log: it can be emptied.
func TestP11NobodyWaits(t *testing.T) {
	w := newWorld(t, Options{CloseTimeout: -1})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA busy_timeout=0; CREATE TABLE t(a)")
	w.sync()
	w.stall()
	for i := range 20 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		if got := text(t, c, "PRAGMA wal_checkpoint(TRUNCATE)"); got != "0" {
			t.Error("TRUNCATE returns", got)
		}
		if fi, err := os.Stat(w.path + "-wal"); err != nil || fi.Size() > 0 {
			t.Error("the WAL is not empty:", fi.Size(), err)
		}
	}
	w.heal()
	w.finish(c)
}
