package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	basevfs "github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// TestBacklogLimits: the store is away for longer than what waits has room. The
// application notices nothing: commits and checkpoints go on. When the store is
// back the database is compared with it, and the replica has its state as the
// next transaction.
func TestBacklogLimits(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		for name, limits := range map[string]func(*capture.Options){
			"entries": func(o *capture.Options) { o.EntryLimit = 20 },
			"spool":   func(o *capture.Options) { o.SpoolLimit = 50_000 },
			"memory":  func(o *capture.Options) { o.MemoryLimit, o.SpoolLimit = 1, 50_000 },
		} {
			t.Run(journal+"/"+name, func(t *testing.T) {
				opts := Options{}
				opts.hooks.limits = limits
				w := newWorld(t, opts)
				c := w.open()
				exec(t, c, "PRAGMA journal_mode="+journal+"; PRAGMA wal_autocheckpoint=20; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
				before := w.sync()
				want := w.restore(before)
				for round := range 2 {
					w.stall()
					for i := range 150 {
						exec(t, c, fmt.Sprintf("INSERT INTO t(b) VALUES(randomblob(%d))", 10*i))
						if i%50 == 0 && journal == "wal" {
							_, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
							must(t, err)
						}
					}
					s, err := Stat(w.path)
					must(t, err)
					if name == "entries" && s.Backlog > 40 || s.BacklogBytes > 200_000 {
						t.Errorf("round %d: %d entries of %d bytes wait", round, s.Backlog, s.BacklogBytes)
					}
					if fi, err := os.Stat(w.path + local.Suffix + "/spool"); err != nil || fi.Size() > 200_000 {
						t.Errorf("round %d: the spool: %d bytes, %v", round, fi.Size(), err)
					}
					w.heal()
					w.sync()
				}
				if !strings.Contains(fmt.Sprint(w.mirror), "repair") {
					t.Error("nothing was given up: the test tests nothing:", w.mirror)
				}
				if string(w.restore(before)) != string(want) {
					t.Error("what was there before changed")
				}
				exec(t, c, "INSERT INTO t(b) VALUES('one by one again')")
				w.finish(c)
			})
		}
	}
}

// fullDisk has no room for the spool while full is set.
type fullDisk struct {
	local.FS
	full *atomic.Bool
}

type fullFile struct {
	local.File
	full *atomic.Bool
}

func (d fullDisk) OpenFile(name string, flag int, perm fs.FileMode) (local.File, error) {
	if d.full.Load() && flag&os.O_CREATE != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return fullFile{f, d.full}, nil
}

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if fi, err := f.Stat(); f.full.Load() && err == nil && off+int64(len(p)) > fi.Size() {
		return 0, &fs.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return f.File.WriteAt(p, off)
}

// TestDiskFullSpool: there is no room for the spool when the WAL has to go. The
// application is not held up, nothing is wedged, and nothing is lost.
func TestDiskFullSpool(t *testing.T) {
	var full atomic.Bool
	opts := Options{}
	opts.hooks.files = fullDisk{local.OS{}, &full}
	w := newWorld(t, opts)
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	w.sync()
	w.stall()
	exec(t, c, "INSERT INTO t(b) VALUES(randomblob(10000))")
	full.Store(true)
	for range 3 {
		exec(t, c, "INSERT INTO t(b) VALUES(randomblob(10000))")
		_, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
		must(t, err)
	}
	full.Store(false)
	w.heal()
	w.sync()
	if pending, err := os.ReadFile(w.path + local.Suffix + "/pending"); err != nil || strings.Contains(string(pending), "repair") {
		exec(t, c, "INSERT INTO t(b) VALUES(1)") // the note goes with the next acknowledgement in WAL mode
		w.sync()
	}
	w.finish(c)
}

// fullVFS answers as a full disk does.
type fullVFS struct {
	basevfs.VFS
	full *atomic.Bool
}

func (v fullVFS) Open(name string, flags basevfs.OpenFlag) (basevfs.File, basevfs.OpenFlag, error) {
	return v.VFS.Open(name, flags)
}

func (v fullVFS) OpenFilename(name *basevfs.Filename, flags basevfs.OpenFlag) (basevfs.File, basevfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, name, flags)
	if err != nil || flags&basevfs.OPEN_WAL == 0 {
		return f, out, err
	}
	return fullWAL{f, v.full}, out, nil
}

type fullWAL struct {
	basevfs.File
	full *atomic.Bool
}

func (f fullWAL) WriteAt(p []byte, off int64) (int, error) {
	if f.full.Load() {
		return 0, sqlite3.FULL
	}
	return f.File.WriteAt(p, off)
}

// TestDiskFullDatabase: the application gets SQLite's own error, and when there is
// room again everything goes on by itself.
func TestDiskFullDatabase(t *testing.T) {
	var full atomic.Bool
	basevfs.Register("full_"+t.Name(), fullVFS{basevfs.Find(""), &full})
	w := newWorld(t, Options{Base: "full_" + t.Name()})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for i := range 5 {
		full.Store(true)
		if err := c.Exec("INSERT INTO t(b) VALUES(randomblob(10000))"); !errors.Is(err, sqlite3.FULL) {
			t.Errorf("round %d: the application is told %v", i, err)
		}
		full.Store(false)
		exec(t, c, "INSERT INTO t(b) VALUES(randomblob(10000))")
		w.sync()
	}
	if got := text(t, c, "SELECT count(*) FROM t"); got != "5" {
		t.Error(got, "rows")
	}
	w.finish(c)
}

// TestOutageAtStart: the store can't be reached when a database that has a replica
// is opened. It can be used, its checkpoints work, and what was committed
// meanwhile arrives.
func TestOutageAtStart(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			w := newWorld(t, Options{CloseTimeout: -1})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode="+journal+"; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
			w.sync()
			must(t, c.Close())
			w.shutdown()

			w.cut()
			c = w.open()
			for i := range 3 {
				exec(t, c, "INSERT INTO t(b) VALUES(randomblob(10000))")
				if journal == "wal" {
					if _, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE); err != nil {
						t.Fatal(i, err)
					}
				}
			}
			s, err := Stat(w.path)
			must(t, err)
			if s.State != replicate.StateUnreachable {
				t.Error("state is", s.State)
			}
			w.heal()
			w.sync()
			exec(t, c, "INSERT INTO t(b) VALUES('one by one again')")
			w.finish(c)
		})
	}
}
