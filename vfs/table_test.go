package vfs

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// The rows of what an open finds, by database/sql, as an application meets them.

// app is an application on one machine: a database file and its VFS.
type app struct {
	*world
	db *sql.DB
}

// start opens the application's database; params are "key=value".
func (w *world) start(params ...string) (*app, error) {
	w.t.Helper()
	dsn := DSN(w.path, "", append(params, "replica_close_timeout=0")...)
	db, err := sql.Open("sqlite3", strings.Replace(dsn, "vfs="+Name, "vfs="+w.name, 1))
	must(w.t, err)
	db.SetMaxOpenConns(1)
	if err := db.Ping(); err != nil {
		db.Close()
		return nil, err
	}
	w.t.Cleanup(func() { db.Close() })
	return &app{w, db}, nil
}

func (w *world) mustStart(params ...string) *app {
	w.t.Helper()
	a, err := w.start(params...)
	must(w.t, err)
	return a
}

func (a *app) exec(query string, args ...any) {
	a.t.Helper()
	if _, err := a.db.Exec(query, args...); err != nil {
		a.t.Fatalf("%s: %v", query, err)
	}
}

func (a *app) rows() int {
	a.t.Helper()
	n := 0
	must(a.t, a.db.QueryRow("SELECT count(*) FROM t").Scan(&n))
	return n
}

// stop ends the application in order.
func (a *app) stop() {
	a.t.Helper()
	must(a.t, a.db.Close())
	a.shutdown()
}

// end syncs, stops and compares file and replica.
func (a *app) end() {
	a.t.Helper()
	a.sync()
	a.stop()
	a.same()
}

// machine is another machine with the same replica.
func (w *world) machine(name string) *world {
	w.t.Helper()
	n := newWorld(w.t, Options{})
	Register(w.name, w.opts) // the new one had its name
	n.store = w.store
	n.opts.Store = func(string) (replicate.Store, error) { return w.store, nil }
	n.name += "_" + name
	n.path = filepath.Join(w.t.TempDir(), name+".db")
	Register(n.name, n.opts)
	return n
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o600))
}

// begun is a world whose database has three rows, all in the replica, and isn't
// open.
func begun(t *testing.T) *world {
	w := newWorld(t, Options{})
	a := w.mustStart()
	a.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for range 3 {
		a.exec("INSERT INTO t(b) VALUES(randomblob(5000))")
	}
	a.sync()
	a.stop()
	return w
}

// refused checks that an open is refused by kind, and says these words; nothing
// may have been written to the replica.
func (w *world) refused(kind error, says []string, params ...string) {
	w.t.Helper()
	before := w.store.Count(faultstore.Create) + w.store.Count(faultstore.Upload)
	a, err := w.start(params...)
	if err == nil {
		a.db.Close()
		w.t.Fatal("not refused")
	}
	// The driver passes on no more than a code and a text.
	for _, s := range append(says, kind.Error()) {
		if !strings.Contains(err.Error(), s) {
			w.t.Errorf("%q isn't said in: %v", s, err)
		}
	}
	w.t.Log(err)
	if n := w.store.Count(faultstore.Create) + w.store.Count(faultstore.Upload); n != before {
		w.t.Errorf("%d objects were written", n-before)
	}
}

func TestTableContinue(t *testing.T) {
	for name, end := range map[string]func(a *app) *world{
		"clean close": func(a *app) *world { a.stop(); return a.world },
		"wal":         func(a *app) *world { return a.clone(Options{}) },
		"spool": func(a *app) *world {
			a.stall()
			a.exec("INSERT INTO t(b) VALUES(randomblob(5000)); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t(b) VALUES(1)")
			n := a.clone(Options{})
			a.heal()
			return n
		},
		"scan": func(a *app) *world {
			a.stop()
			must(a.t, os.RemoveAll(a.path+local.Suffix))
			return a.world
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := begun(t).mustStart()
			a.exec("INSERT INTO t(b) VALUES(randomblob(5000))")
			a.sync()
			a = end(a).mustStart()
			a.exec("INSERT INTO t(b) VALUES('goes on')")
			a.sync()
			if s := a.mirror.String(); strings.Contains(s, "repair") {
				t.Error("repaired:", s)
			}
			a.end()
		})
	}
}

func TestTableRepair(t *testing.T) {
	w := begun(t)
	f := w.foreign()
	exec(t, f, "UPDATE t SET b='changed while nobody looked' WHERE a=2; INSERT INTO t(b) VALUES(4)")
	must(t, f.Close())
	before := w.restore(0)
	txid := w.txid()
	a := w.mustStart()
	a.sync()
	if s := a.mirror.String(); !strings.Contains(s, "repair:1") {
		t.Error("not repaired:", s)
	}
	if got := w.restore(txid); string(got) != string(before) {
		t.Error("the state before the repair isn't what it was")
	}
	a.exec("INSERT INTO t(b) VALUES(5)")
	a.end()
}

func TestTableMissing(t *testing.T) {
	w := begun(t)
	must(t, os.Remove(w.path))
	w.refused(replicate.ErrMissing, []string{"outwash restore -o", "replica_restore=auto"})
	a := w.mustStart("replica_restore=auto")
	if n := a.rows(); n != 3 {
		t.Error(n, "rows")
	}
	a.exec("INSERT INTO t(b) VALUES(4)")
	a.end()
}

func TestTableMissingButSpooled(t *testing.T) {
	a := begun(t).mustStart()
	a.stall()
	a.exec("INSERT INTO t(b) VALUES(4)")
	a.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	n := a.clone(Options{})
	a.heal()
	must(t, os.Remove(n.path))
	must(t, os.Remove(n.path+"-wal"))
	n.refusedAfterUpload(t)
	b := n.mustStart("replica_restore=auto")
	if got := b.rows(); got != 4 {
		t.Error(got, "rows: what was spooled is gone")
	}
	b.end()
}

// refusedAfterUpload is refused for a missing file, but what was spooled is
// uploaded first.
func (w *world) refusedAfterUpload(t *testing.T) {
	t.Helper()
	before := w.txid()
	if a, err := w.start(); err == nil || !strings.Contains(err.Error(), replicate.ErrMissing.Error()) {
		a.db.Close()
		t.Fatal(err)
	}
	if w.txid() <= before {
		t.Error("what was spooled isn't in the replica")
	}
}

func TestTableEarlierPosition(t *testing.T) {
	w := begun(t)
	other := w.machine("other")
	b := other.mustStart("replica_restore=auto")
	b.exec("INSERT INTO t(b) VALUES('from another machine')")
	b.sync()
	b.stop()
	w.refused(replicate.ErrDiverged, []string{"the database is at TXID", "outwash restore", "outwash adopt"})
	must(t, os.Chmod(w.path, 0o620))
	a := w.mustStart("replica_restore=auto")
	if n := a.rows(); n != 4 {
		t.Error(n, "rows: not brought forward")
	}
	if fi, err := os.Stat(w.path); err != nil || fi.Mode().Perm() != 0o620 {
		t.Error("others may read it now:", fi.Mode(), err)
	}
	a.exec("INSERT INTO t(b) VALUES(5)")
	a.end()
}

// TestTablePinned: a file that was restored to an earlier position on purpose is
// not brought forward by itself, wherever it is moved to.
func TestTablePinned(t *testing.T) {
	w := begun(t)
	txid := w.txid()
	for how, put := range map[string]func(from, to string) error{
		"restored": func(from, to string) error { return os.Rename(from, to) },
		"copied": func(from, to string) error {
			f, err := os.Open(from)
			if err != nil {
				return err
			}
			defer f.Close()
			g, err := os.Create(to)
			if err != nil {
				return err
			}
			_, err = io.Copy(g, f)
			return errors.Join(err, g.Close())
		},
	} {
		t.Run(how, func(t *testing.T) {
			n := w.machine("pinned")
			n.t = t
			tmp := filepath.Join(t.TempDir(), "restored.db")
			_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: w.store, Output: tmp, TXID: txid - 1})
			must(t, err)
			must(t, put(tmp, n.path))
			n.refused(replicate.ErrDiverged, []string{"the database is at TXID", "outwash restore", "outwash adopt"}, "replica_restore=auto")
		})
	}
}

func TestTableStaleCopy(t *testing.T) {
	w := begun(t)
	copyFile(t, w.path, w.path+".bak")
	a := w.mustStart()
	a.exec("INSERT INTO t(b) VALUES(4)")
	a.sync()
	a.stop()
	copyFile(t, w.path+".bak", w.path) // the same inode
	w.refused(replicate.ErrDiverged, []string{"the database is at TXID", "outwash adopt"})
	w.refused(replicate.ErrDiverged, []string{"the database is at TXID", "outwash adopt"}, "replica_restore=auto")
}

func TestTableDiverged(t *testing.T) {
	w := begun(t)
	copyFile(t, w.path, w.path+".bak")
	a := w.mustStart()
	a.exec("INSERT INTO t(b) VALUES(4)")
	a.sync()
	a.stop()
	n := w.machine("copy")
	copyFile(t, w.path+".bak", n.path)
	f := n.foreign()
	exec(t, f, "INSERT INTO t(b) VALUES('diverged')")
	must(t, f.Close())
	n.refused(replicate.ErrDiverged, []string{"outwash restore", "outwash adopt"})
	other := w.machine("different")
	f = other.foreign()
	exec(t, f, "CREATE TABLE x(a); INSERT INTO x VALUES(1)")
	must(t, f.Close())
	other.refused(replicate.ErrDiverged, []string{"outwash restore", "outwash adopt"})
}

// TestTableUnchecked: rows that break a CHECK are no damage.
func TestTableUnchecked(t *testing.T) {
	w := begun(t)
	f := w.foreign()
	exec(t, f, "CREATE TABLE u(a CHECK(a>0)); PRAGMA ignore_check_constraints=ON; INSERT INTO u VALUES(-1)")
	must(t, f.Close())
	a := w.mustStart()
	a.exec("INSERT INTO t(b) VALUES(4)")
	a.end()
}

// TestTableAgain: a database that is put back to what it was once doesn't go on
// from there by what followed then, though that is still in the spool.
func TestTableAgain(t *testing.T) {
	for _, journal := range []string{"delete", "wal"} {
		for _, how := range []string{"adopted", "repaired"} {
			t.Run(journal+"/"+how, func(t *testing.T) {
				w := newWorld(t, Options{})
				a := w.mustStart("_pragma=journal_mode(delete)")
				a.exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
				a.sync()
				a.stop()
				copyFile(t, w.path, w.path+".old")
				a = w.mustStart("_pragma=journal_mode(" + journal + ")")
				for range 3 {
					a.exec("INSERT INTO t(b) VALUES(randomblob(3000))")
					a.sync()
				}
				a.exec("PRAGMA wal_checkpoint(TRUNCATE)")
				if how == "repaired" {
					must(t, a.db.Close())
					copyFile(t, w.path+".old", w.path)
					a.sync()
					a.shutdown()
				} else {
					a.stop()
					copyFile(t, w.path+".old", w.path)
					w.adopt()
				}
				a = w.mustStart()
				if n := a.rows(); n != 0 {
					t.Error(n, "rows")
				}
				a.exec("INSERT INTO t(b) VALUES('now')")
				a.end()
			})
		}
	}
}

// adopt lets the database take the place of the replica's state, as "outwash
// adopt" does.
func (w *world) adopt() {
	w.t.Helper()
	dir, err := local.Open(w.path)
	must(w.t, err)
	d, err := capture.Open(capture.Options{Path: w.path, Dir: dir})
	must(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	e := replicate.Open(ctx, replicate.EngineOptions{
		Store: w.store, Source: d, Local: dir, Database: w.path,
		Adopt: func(context.Context, error, replicate.Tail) error { return nil },
	})
	_, err = e.Sync(ctx)
	must(w.t, errors.Join(err, e.Close(ctx), d.Close(), dir.Close()))
}

// TestTableTorn: a file that lost writes with the power isn't shipped as if that
// were what somebody had committed.
func TestTableTorn(t *testing.T) {
	w := begun(t)
	b, err := os.ReadFile(w.path)
	must(t, err)
	clear(b[4096:8192])
	must(t, os.WriteFile(w.path, b, 0o600))
	a, err := w.start()
	if err == nil { // it is used while it is compared
		a.db.Exec("INSERT INTO t(b) VALUES(1)")
		ctx := t.Context()
		_, err = Sync(ctx, w.path)
		a.db.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "outwash restore") {
		t.Error(err)
	}
	if h, err := replicate.ReadHistory(t.Context(), w.store); err != nil || len(w.restore(h.TXID)) == 0 {
		t.Error(err)
	}
}

func TestTableUnreachable(t *testing.T) {
	w := begun(t)
	w.cut()
	a := w.mustStart() // with lineage
	a.exec("INSERT INTO t(b) VALUES('waits')")
	w.heal()
	a.end()

	n := w.machine("stranger")
	n.cut()
	n.refused(replicate.ErrUnreachable, nil, "replica_open_timeout=50ms")
	n.heal()
}
