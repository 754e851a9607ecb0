package vfs

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// foreign opens the database without this VFS, as another program would.
func (w *world) foreign() *sqlite3.Conn {
	w.t.Helper()
	c, err := sqlite3.Open(w.without(w.path))
	must(w.t, err)
	exec(w.t, c, "PRAGMA busy_timeout=120000")
	return c
}

// without is the DSN of a database like the world's that isn't replicated.
func (w *world) without(path string) string {
	if w.base == "" {
		return "file:" + path
	}
	return "file:" + path + "?" + strings.Join(append([]string{"vfs=" + w.base}, w.params...), "&")
}

// cli runs SQL in a process of its own if the sqlite3 command line is there, else
// on a connection without this VFS.
func (w *world) cli(sql string) {
	w.t.Helper()
	if _, err := osexec.LookPath("sqlite3"); err == nil {
		if out, err := osexec.Command("sqlite3", "-cmd", ".timeout 120000", w.path, sql).CombinedOutput(); err != nil {
			w.t.Fatalf("sqlite3 %q: %v: %s", sql, err, out)
		}
		return
	}
	c := w.foreign()
	exec(w.t, c, sql)
	must(w.t, c.Close())
}

// finish syncs, closes and compares.
func (w *world) finish(c *sqlite3.Conn) {
	w.t.Helper()
	w.sync()
	must(w.t, c.Close())
	w.shutdown()
	if _, err := os.Stat(w.path + "-wal"); err == nil { // a repair read it at the last close
		f := w.foreign()
		text(w.t, f, "SELECT count(*) FROM sqlite_schema")
		must(w.t, f.Close())
	}
	w.same()
}

// TestP8ForeignWriter: another program appends, checkpoints, restarts and empties
// the WAL between our commits (traps P8, P8b).
func TestP8ForeignWriter(t *testing.T) {
	for _, sql := range []string{
		"INSERT INTO t VALUES(2,'x')",
		"INSERT INTO t VALUES(2,'x'); PRAGMA wal_checkpoint(PASSIVE)",
		"INSERT INTO t VALUES(2,'x'); PRAGMA wal_checkpoint(PASSIVE); INSERT INTO u VALUES(1)",
		"INSERT INTO t VALUES(2,'x'); PRAGMA wal_checkpoint(RESTART); INSERT INTO u VALUES(1)",
		"INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE)",
		"INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO u VALUES(3); PRAGMA wal_checkpoint(TRUNCATE)",
		"PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE)",
		"VACUUM",
	} {
		for _, then := range []string{"INSERT INTO t VALUES(3,'y')", "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(3,'y')", "close"} {
			t.Run(fmt.Sprint(sql, "/", then), func(t *testing.T) {
				w := newWorld(t, Options{})
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO t VALUES(1,'us')")
				w.sync()
				f := w.foreign() // cheaper than a process for every case
				exec(t, f, sql)
				must(t, f.Close())
				if then == "close" {
					must(t, c.Close())
					c = w.open()
				} else {
					exec(t, c, then)
				}
				w.finish(c)
			})
		}
	}
}

// TestForeignProgram is the same with the sqlite3 command line, which is another
// build of SQLite in another process.
func TestForeignProgram(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO t VALUES(1,'us')")
	w.cli("INSERT INTO t VALUES(2,'x')")
	w.sync()
	w.cli("INSERT INTO t VALUES(3,'x'); PRAGMA wal_checkpoint(PASSIVE)")
	exec(t, c, "INSERT INTO t VALUES(4,'us')")
	w.sync()
	w.cli("INSERT INTO t VALUES(5,'x'); PRAGMA wal_checkpoint(PASSIVE); INSERT INTO u VALUES(6)")
	exec(t, c, "INSERT INTO t VALUES(7,'us')")
	w.sync()
	w.cli("INSERT INTO u VALUES(8); PRAGMA wal_checkpoint(TRUNCATE)")
	exec(t, c, "INSERT INTO t VALUES(9,'us')")
	w.finish(c)
}

// TestForeignWhileEmpty: the WAL is empty since before anything was captured in
// this session, and another program commits and empties it again.
func TestForeignWhileEmpty(t *testing.T) {
	for _, before := range []string{"clean", "killed", "repaired"} {
		t.Run(before, func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO t VALUES(1,'us')")
			w.sync()
			switch before {
			case "clean":
				must(t, c.Close())
				w.shutdown()
				c = w.open()
			case "killed":
				exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
				w.sync()
				w = w.clone(Options{})
				must(t, os.Remove(w.path+"-wal"))
				c = w.open()
			case "repaired":
				f := w.foreign()
				exec(t, f, "INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE)")
				exec(t, f, "INSERT INTO u VALUES(3); PRAGMA wal_checkpoint(TRUNCATE)")
				must(t, f.Close())
				w.databases()[0].capture.Signal()
			}
			w.sync()
			f := w.foreign()
			exec(t, f, "INSERT INTO u VALUES(4); PRAGMA wal_checkpoint(TRUNCATE)")
			must(t, f.Close())
			exec(t, c, "INSERT INTO t VALUES(5,'us')")
			w.finish(c)
		})
	}
}

// TestForeignBegins: while a new database is open and not yet in WAL mode, another
// program gives it content.
func TestForeignBegins(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	f := w.foreign()
	exec(t, f, "CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO u VALUES(1)")
	must(t, f.Close())
	exec(t, c, "PRAGMA journal_mode=wal; INSERT INTO t VALUES(1,2)")
	w.finish(c)
}

// TestForeignBeginsWAL: the same, in WAL mode, which is gone again when we begin.
func TestForeignBeginsWAL(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	f := w.foreign()
	exec(t, f, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO u VALUES(1); PRAGMA wal_checkpoint(TRUNCATE)")
	must(t, f.Close())
	exec(t, c, "PRAGMA journal_mode=wal; INSERT INTO t VALUES(1,2)")
	w.finish(c)
}

// TestForeignDuringExport: between two passes of an export another program commits
// and takes the WAL away.
func TestForeignDuringExport(t *testing.T) {
	for _, empty := range []bool{true, false} {
		for _, sql := range []string{
			"UPDATE old SET v=randomblob(1000) WHERE id<9; PRAGMA wal_checkpoint(TRUNCATE)",
			"UPDATE old SET v=randomblob(1000) WHERE id<9; PRAGMA wal_checkpoint(RESTART); INSERT INTO u VALUES(1)",
			"UPDATE old SET v=randomblob(1000) WHERE id<9; PRAGMA wal_checkpoint(RESTART); INSERT INTO u VALUES(1); PRAGMA wal_checkpoint(TRUNCATE)",
		} {
			t.Run(fmt.Sprint(empty, sql), func(t *testing.T) {
				var w *world
				var done atomic.Bool
				opts := Options{}
				w = newWorld(t, opts)
				opts = w.opts
				source := opts.hooks.source
				opts.hooks.source = func(path string, s replicate.Source) replicate.Source {
					return source(path, &between{s, func() {
						if !done.Swap(true) {
							f := w.foreign()
							defer f.Close()
							exec(t, f, sql)
						}
					}})
				}
				Register(w.name, opts)
				w.existing("wal", 20000)
				f := w.foreign()
				exec(t, f, "CREATE TABLE u(a)")
				must(t, f.Close())
				c := w.open()
				if !empty {
					exec(t, c, "INSERT INTO u VALUES(0)")
				}
				w.sync()
				if !done.Load() {
					t.Fatal("the export took one pass")
				}
				exec(t, c, "INSERT INTO u VALUES(2)")
				w.finish(c)
			})
		}
	}
}

// between calls a function when an export gives its first blocks away, which is
// between two passes.
type between struct {
	replicate.Source
	f func()
}

func (s *between) Export(ctx context.Context, tail local.Tail, write func(segment.Block, []byte) error) (*segment.Entry, error) {
	return s.Source.Export(ctx, tail, func(b segment.Block, stored []byte) error {
		s.f()
		return write(b, stored)
	})
}

// TestForeignBeforeBegin: after it was found out that the database continues the
// replica, and before capture begins, another program commits and takes its log
// away. Refused or right, but not wrong.
func TestForeignBeforeBegin(t *testing.T) {
	for _, proof := range []string{"clean", "scan", "scan with log", "wal"} {
		for _, sql := range []string{
			"INSERT INTO u VALUES(2)",
			"INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE)",
			"INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(3)",
			"INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(3)",
		} {
			t.Run(proof+"/"+sql, func(t *testing.T) {
				w := newWorld(t, Options{})
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO t VALUES(1)")
				w.sync()
				switch proof {
				case "clean":
					must(t, c.Close())
					w.shutdown()
				case "scan":
					must(t, c.Close())
					w.shutdown()
					must(t, os.RemoveAll(w.path+local.Suffix))
				case "scan with log":
					exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
					f := w.foreign()
					exec(t, f, "INSERT INTO u VALUES(1)")
					w.sync()
					w = w.clone(Options{})
					must(t, f.Close())
					must(t, os.RemoveAll(w.path+local.Suffix))
				case "wal":
					w = w.clone(Options{})
				}
				opts := w.opts
				source := opts.hooks.source
				var done atomic.Bool
				opts.hooks.source = func(path string, s replicate.Source) replicate.Source {
					return source(path, &before{s, func() {
						if done.Swap(true) {
							return
						}
						f := w.foreign()
						exec(t, f, sql)
						t.Cleanup(func() { f.Close() }) // the log stays
					}})
				}
				Register(w.name, opts)
				c, err := w.tryOpen()
				if err != nil {
					t.Log("refused:", err)
					c, err = w.tryOpen()
				}
				if err != nil {
					t.Log("refused again:", err)
					return
				}
				exec(t, c, "INSERT INTO t VALUES(4)")
				w.sync()
				exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
				w.sync()
				must(t, w.compareFile())
				want, err := os.ReadFile(w.path)
				must(t, err)
				must(t, mirror.Compare(want, w.restore(0), 4096))
				must(t, c.Close())
			})
		}
	}
}

// before calls a function before Begin.
type before struct {
	replicate.Source
	f func()
}

func (s *before) Begin(ctx context.Context, start local.Start, tail local.Tail) error {
	s.f()
	return s.Source.Begin(ctx, start, tail)
}
