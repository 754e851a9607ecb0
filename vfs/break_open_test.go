package vfs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore/faultstore"
)

// TestIdleCloseRace: a database that is closed because it is idle is opened at
// that moment. No connection may find itself without replication.
func TestIdleCloseRace(t *testing.T) {
	w := newWorld(t, Options{IdleTimeout: 1})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	must(t, c.Close())
	for i := range 20 {
		c, err := w.tryOpen()
		if err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
		if err := c.Exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", i)); err != nil {
			t.Fatalf("insert %d: %v", i, err)
		}
		must(t, c.Close())
	}
	c = w.open()
	if got := text(t, c, "SELECT count(*) FROM t"); got != "20" {
		t.Error(got, "rows")
	}
	w.finish(c)
}

// TestPools: database/sql opens and closes connections per query, on several
// goroutines.
func TestPools(t *testing.T) {
	for _, idle := range []time.Duration{0, 1} {
		t.Run(fmt.Sprint(idle), func(t *testing.T) {
			w := newWorld(t, Options{IdleTimeout: idle})
			dsn := DSN(w.path, "", "replica_max_lag=0", "_pragma=busy_timeout(60000)")
			db, err := sql.Open("sqlite3", strings.Replace(dsn, "vfs="+Name, "vfs="+w.name, 1))
			must(t, err)
			db.SetMaxIdleConns(0)
			_, err = db.Exec("CREATE TABLE t(a)")
			must(t, err)
			var wg sync.WaitGroup
			for g := range 3 {
				wg.Go(func() {
					for i := range 15 {
						if _, err := db.Exec("INSERT INTO t VALUES(?)", g*1000+i); err != nil {
							t.Error(err)
						}
						var n int
						if err := db.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil || n <= i {
							t.Error(n, err)
						}
					}
				})
			}
			wg.Wait()
			must(t, db.Close())
			w.finish(w.open())
		})
	}
}

// TestOpenTimeout: an open that can't be decided in time doesn't take the time of
// a close besides.
func TestOpenTimeout(t *testing.T) {
	w := newWorld(t, Options{CloseTimeout: time.Hour})
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	start := time.Now()
	c, err := w.tryOpen("replica_open_timeout=100ms")
	if err == nil {
		c.Close()
		t.Fatal("opened without having asked the store")
	}
	if d := time.Since(start); d > slowest {
		t.Errorf("it took %v: %v", d, err)
	}
	w.heal()
	c = w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	w.finish(c)
}

// TestOpenAfterRefusal: an open right after a refused one decides anew.
func TestOpenAfterRefusal(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	must(t, c.Close())
	w.shutdown()
	b, err := os.ReadFile(w.path)
	must(t, err)
	for range 10 {
		must(t, os.Remove(w.path))
		if c, err := w.tryOpen(); err == nil {
			c.Close()
			t.Fatal("opened without its file")
		}
		must(t, os.WriteFile(w.path, b, 0o600))
		c, err := w.tryOpen()
		if err != nil {
			t.Fatal("the file is back:", err)
		}
		must(t, c.Close())
		w.shutdown()
	}
}

// TestReopen: after a clean close, a kill, and without local state; after changes
// by another program meanwhile.
func TestReopen(t *testing.T) {
	for _, end := range []string{"clean", "kill"} {
		for _, local_ := range []string{"kept", "deleted"} {
			for _, wal := range []string{"", "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES(7)"} {
				t.Run(end+"/"+local_+"/"+wal, func(t *testing.T) {
					w := newWorld(t, Options{})
					c := w.open()
					exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1); "+wal)
					w.sync()
					if end == "clean" {
						must(t, c.Close())
						w.shutdown()
					} else {
						w = w.clone(Options{})
					}
					if local_ == "deleted" {
						must(t, os.RemoveAll(w.path+local.Suffix))
					}
					c = w.open()
					exec(t, c, "INSERT INTO t VALUES(2)")
					w.sync()
					if n := w.mirror.String(); n == "" {
						t.Error(n)
					}
					w.finish(c)
				})
			}
		}
	}
}

// TestWrongDatabase: what is at the path is not what the replica has.
func TestWrongDatabase(t *testing.T) {
	for _, how := range []string{"other", "older", "newer", "empty table"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
			must(t, c.Close())
			w.shutdown()
			older, err := os.ReadFile(w.path)
			must(t, err)
			c = w.open()
			exec(t, c, "INSERT INTO t VALUES(2)")
			must(t, c.Close())
			w.shutdown()
			switch how {
			case "older":
				must(t, os.WriteFile(w.path, older, 0o600))
			case "newer":
				f := w.foreign()
				exec(t, f, "INSERT INTO t VALUES(3)")
				must(t, f.Close())
			case "other":
				must(t, os.Remove(w.path))
				w.existing("wal", 10)
				must(t, os.RemoveAll(w.path+local.Suffix))
			case "empty table":
				must(t, os.Remove(w.path))
				f := w.foreign()
				exec(t, f, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
				must(t, f.Close())
			}
			before := w.store.Count(faultstore.Create)
			c, err = w.tryOpen()
			if err == nil {
				err = c.Exec("INSERT INTO t VALUES(9)")
				c.Close()
			}
			t.Log(err)
			if err == nil && how != "newer" {
				t.Error("a database that the replica doesn't know was continued")
			}
			if n := w.store.Count(faultstore.Create); err != nil && n != before {
				t.Error("something was written to the replica:", n-before)
			}
		})
	}
}

// TestStaleWAL: only the database file is removed; its WAL is still there when the
// replica is restored to the path.
func TestStaleWAL(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	w.sync()
	stale, err := os.ReadFile(w.path + "-wal")
	must(t, err)
	exec(t, c, "INSERT INTO t VALUES(2); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(3)")
	must(t, c.Close())
	w.shutdown()
	must(t, os.Remove(w.path))
	must(t, os.WriteFile(w.path+"-wal", stale, 0o600))
	c, err = w.tryOpen("replica_restore=auto")
	if err != nil {
		t.Log("refused:", err)
		return
	}
	if got := text(t, c, "SELECT count(*) FROM t"); got != "3" {
		t.Error(got, "rows")
	}
	w.finish(c)
}

// TestPassThrough: names without parameters, replica=off, read-only.
func TestPassThrough(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	dir := filepath.Dir(w.path)
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	exec(t, c, "VACUUM INTO '"+dir+"/copy.db'")
	exec(t, c, "ATTACH '"+dir+"/other.db' AS o; CREATE TABLE o.x(a); INSERT INTO o.x SELECT a FROM t; INSERT INTO t SELECT a+1 FROM o.x")
	exec(t, c, "ATTACH '"+w.path+"' AS self; INSERT INTO self.t VALUES(3); DETACH self")
	for _, f := range []string{"copy.db", "other.db"} {
		if _, err := os.Stat(filepath.Join(dir, f+local.Suffix)); err == nil {
			t.Error(f, "is being replicated")
		}
	}
	r := w.open("mode=ro")
	if got := text(t, r, "SELECT count(*) FROM t"); got != "3" {
		t.Error(got, "rows")
	}
	if err := r.Exec("INSERT INTO t VALUES(0)"); !errors.Is(err, sqlite3.READONLY) {
		t.Error(err)
	}
	off := w.open("replica=off") // joins
	exec(t, off, "INSERT INTO t VALUES(4)")
	must(t, off.Close())
	must(t, r.Close())
	w.finish(c)

	// Alone, they replicate nothing.
	for _, p := range []string{"mode=ro", "replica=off"} {
		c := w.open(p)
		if got := text(t, c, "SELECT count(*) FROM t"); got != "4" {
			t.Error(got, "rows")
		}
		if len(w.databases()) != 0 {
			t.Error(p, "replicates")
		}
		must(t, c.Close())
	}
	w.finish(w.open())
}

// TestSeveralDatabases: one connection, several replicated databases, transactions
// over both; in every journal mode.
func TestSeveralDatabases(t *testing.T) {
	for _, modes := range [][2]string{{"wal", "wal"}, {"delete", "delete"}, {"truncate", "persist"}, {"wal", "delete"}, {"memory", "wal"}} {
		t.Run(modes[0]+"+"+modes[1], func(t *testing.T) {
			b := newWorld(t, Options{})
			b.name += "b"
			Register(b.name, b.opts)
			a := newWorld(t, Options{})
			for _, w := range []*world{a, b} {
				w.strict()
			}
			c := a.open()
			exec(t, c, "PRAGMA journal_mode="+modes[0]+"; CREATE TABLE t(a)")
			exec(t, c, "ATTACH 'file:"+b.path+"?vfs="+b.name+"&replica_max_lag=0' AS b; PRAGMA b.journal_mode="+modes[1]+"; CREATE TABLE b.t(a)")
			first := [2]uint64{a.sync(), b.sync()}
			for i := range 20 {
				end := "COMMIT"
				if i%5 == 4 {
					end = "ROLLBACK"
				}
				exec(t, c, fmt.Sprintf("BEGIN; INSERT INTO t VALUES(%d); INSERT INTO b.t VALUES(%d); %s", i, i, end))
				if i%7 == 0 {
					exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
				}
			}
			if got := [2]uint64{a.sync(), b.sync()}; got != [2]uint64{first[0] + 16, first[1] + 16} {
				t.Errorf("TXIDs %d after 16 commits behind %d", got, first)
			}
			must(t, c.Close())
			for _, w := range []*world{a, b} {
				w.shutdown()
				w.same()
			}
		})
	}
}
