package vfs

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// Every mode that SQLite has, and the test that it is replicated in:
//
//	journal modes, locking modes, page sizes   TestModes
//	switching between journal modes            TestRandomModes/switching (under load), TestSwitchModes
//	auto_vacuum, VACUUM, secure_delete,
//	journal_size_limit, psow, mmap_size        TestSettings
//	PERSIST_WAL                                TestP7PersistWAL
//	beyond the lock page                       TestLockPage
//	several databases in a transaction         TestSeveralDatabases
//	read-only, immutable                       TestReadOnly, TestPassThrough
//	foreign writers in rollback-journal modes  TestForeignRollback

// strict makes every entry count: each is one transaction that is sound, and none
// a repair.
func (w *world) strict() {
	w.each = func(e *segment.Entry) error {
		if e.Kind == segment.Repair {
			return errors.New("repaired, although nobody else wrote")
		}
		img, _ := w.mirror.Image()
		return mirror.Check(img, true)
	}
}

// TestSettings does the same work under each setting, in a log and without: grow,
// free, shrink, roll back. Each commit is a transaction.
func TestSettings(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		for _, s := range []struct{ name, dsn, sql string }{
			{"auto_vacuum full", "_pragma=auto_vacuum(1)", ""},
			{"auto_vacuum incremental", "_pragma=auto_vacuum(2)", ""},
			{"VACUUM", "", ""},
			{"secure_delete", "", "PRAGMA secure_delete=on"},
			{"secure_delete fast", "", "PRAGMA secure_delete=fast"},
			{"journal_size_limit", "", "PRAGMA journal_size_limit=4096"},
			{"psow off", "psow=0", ""},
			{"mmap_size", "", "PRAGMA mmap_size=10000000"},
			{"synchronous off", "", "PRAGMA synchronous=off"},
			{"synchronous extra", "", "PRAGMA synchronous=extra"},
			{"cell_size_check", "", "PRAGMA cell_size_check=on; PRAGMA temp_store=file; PRAGMA cache_spill=1"},
		} {
			t.Run(journal+"/"+s.name, func(t *testing.T) {
				w := newWorld(t, Options{})
				w.strict()
				params := []string{"_pragma=page_size(1024)"}
				if s.dsn != "" {
					params = append(params, s.dsn)
				}
				c := w.open(append(params, "_pragma=journal_mode("+journal+")")...)
				exec(t, c, "PRAGMA cache_size=5; PRAGMA synchronous=off; "+s.sql+"; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
				before := w.sync()
				for i, sql := range []string{
					spillSQL,
					"DELETE FROM t WHERE a%2=0",
					"PRAGMA incremental_vacuum(30)",
					"BEGIN; " + spillSQL + "DELETE FROM t WHERE a%3=0; ROLLBACK",
					"BEGIN; " + spillSQL + "DELETE FROM t WHERE a>300; COMMIT",
					"UPDATE t SET b=zeroblob(500) WHERE a%5=0",
					"PRAGMA wal_checkpoint(TRUNCATE)",
					"VACUUM",
					"DELETE FROM t WHERE a>20",
					"PRAGMA incremental_vacuum",
					"INSERT INTO t VALUES(1000,randomblob(3000))",
				} {
					exec(t, c, sql)
					now := w.sync()
					if now > before+1 || now == before && i < 2 {
						t.Errorf("%s: TXID %d after %d", sql, now, before)
					}
					before = now
					if journal == "delete" && !strings.Contains(sql, "ROLLBACK") { // that changes free pages
						must(t, w.compareFile())
					}
				}
				w.finish(c)
			})
		}
	}
}

// TestSwitchModes: between each pair of journal modes, with a commit after each
// switch, while another connection commits as well.
func TestSwitchModes(t *testing.T) {
	w := newWorld(t, Options{})
	w.strict()
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	modes := []string{"wal", "delete", "wal", "truncate", "wal", "persist", "wal", "memory", "delete", "truncate", "persist", "delete", "memory", "wal"}
	before := w.sync()
	for i, mode := range modes {
		if got := text(t, c, "PRAGMA journal_mode="+mode); got != mode {
			t.Fatalf("journal_mode is %s, not %s", got, mode)
		}
		mid := w.sync()
		if mid > before+1 { // page 1 says whether there is a WAL
			t.Errorf("%s: TXID %d after %d", mode, mid, before)
		}
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		o := w.open()
		exec(t, o, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		if got := w.sync(); got != mid+2 {
			t.Errorf("%s: TXID %d, want %d", mode, got, mid+2)
		}
		before = mid + 2
		must(t, o.Close())
	}
	if r, x := w.stats(); r+x > 0 {
		t.Errorf("%d repairs, %d commits found at gates", r, x)
	}
	w.finish(c)
}

// TestSwitchEarly: an application that was killed in WAL mode leaves it right after
// it is opened again, while it is still being found out what its log holds. It
// waits for that; it isn't told of an I/O error.
func TestSwitchEarly(t *testing.T) {
	w, c := smallWorld(t, Options{})
	exec(t, c, "INSERT INTO t VALUES(1,1)")
	w.sync()
	w.crash(c)
	begin := make(chan struct{})
	opts := w.opts
	source := opts.hooks.source
	opts.hooks.source = func(path string, s replicate.Source) replicate.Source {
		return source(path, &before{s, func() { <-begin }})
	}
	Register(w.name, opts)
	c = w.open()
	done := make(chan error, 1)
	go func() {
		for {
			err := c.Exec("PRAGMA journal_mode=delete")
			if !errors.Is(err, sqlite3.BUSY) { // who read it has yet to let go
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
		t.Fatal("it didn't wait:", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(begin)
	must(t, <-done)
	exec(t, c, "INSERT INTO t VALUES(2,2)")
	w.finish(c)
}

// TestReadOnly: who only reads starts no replication, takes no lock and leaves no
// file behind, whether or not somebody else replicates the database.
func TestReadOnly(t *testing.T) {
	for _, params := range [][]string{{"mode=ro"}, {"mode=ro", "immutable=1"}, {"immutable=1"}} {
		for _, journal := range []string{"wal", "delete"} {
			t.Run(fmt.Sprint(params, journal), func(t *testing.T) {
				w := newWorld(t, Options{})
				w.existing(journal, 3)
				list := func() (names []string) {
					files, err := os.ReadDir(filepath.Dir(w.path))
					must(t, err)
					for _, f := range files {
						if !strings.HasSuffix(f.Name(), "-shm") && !strings.HasSuffix(f.Name(), "-wal") { // SQLite's
							names = append(names, f.Name())
						}
					}
					return names
				}
				before, requests := list(), w.store.Total()
				r, err := w.tryOpen(params...)
				must(t, err)
				if got := text(t, r, "SELECT count(*) FROM old"); got != "3" {
					t.Error(got, "rows")
				}
				if params[0] == "mode=ro" {
					if n := len(w.databases()); n != 0 {
						t.Error("it replicates")
					}
					if got := list(); !slices.Equal(got, before) || w.store.Total() != requests {
						t.Errorf("files %v, %d requests", got, w.store.Total()-requests)
					}
					if err := r.Exec("INSERT INTO old VALUES(9,9)"); !errors.Is(err, sqlite3.READONLY) {
						t.Error(err)
					}
				}
				// Somebody else can replicate it meanwhile, as another process would.
				if len(w.databases()) == 0 {
					dir, err := local.Open(w.path)
					must(t, err)
					must(t, dir.Close())
				}
				must(t, r.Close())
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; INSERT INTO old VALUES(7,7)")
				w.finish(c)
			})
		}
	}
}

// TestForeignRollback: other programs write between our transactions, in
// rollback-journal modes. They follow so close that the file system's clock can't
// tell them apart; SQLite's change counter does.
func TestForeignRollback(t *testing.T) {
	for _, journal := range []string{"delete", "truncate", "persist", "memory"} {
		t.Run(journal, func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode="+journal+"; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,0); INSERT INTO u VALUES(1,0)")
			w.sync()
			f := w.foreign()
			exec(t, f, "PRAGMA synchronous=off; PRAGMA journal_mode="+journal)
			exec(t, c, "PRAGMA synchronous=off")
			for i := range 30 {
				exec(t, c, "UPDATE t SET b=b+1")
				if i%3 > 0 {
					exec(t, f, "UPDATE u SET b=b+1")
				}
				if i%3 == 2 {
					exec(t, f, "UPDATE u SET b=b+1")
				}
				if i%5 == 4 {
					w.sync()
					must(t, w.compareFile())
				}
			}
			exec(t, f, "UPDATE u SET b=-1")
			w.sync() // by itself, without a transaction of ours
			must(t, w.compareFile())
			must(t, f.Close())
			w.finish(c)
		})
	}
}

// TestSettingsSQL: a pool of database/sql that switches modes by PRAGMAs of its
// DSN replicates every commit.
func TestSettingsSQL(t *testing.T) {
	for _, mode := range []string{"wal", "delete", "persist"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.strict()
			db, err := sql.Open("sqlite3", "file:"+w.path+"?vfs="+w.name+"&_pragma=busy_timeout(60000)&_pragma=journal_mode("+mode+")&_pragma=secure_delete(1)&_txlock=immediate")
			must(t, err)
			_, err = db.Exec("CREATE TABLE t(a)")
			must(t, err)
			first := w.sync()
			for i := range 20 {
				tx, err := db.Begin()
				must(t, err)
				_, err = tx.Exec("INSERT INTO t VALUES(?)", i)
				must(t, err)
				must(t, tx.Commit())
			}
			if got := w.sync(); got != first+20 {
				t.Errorf("TXID %d after 20 commits behind %d", got, first)
			}
			must(t, db.Close())
			w.finish(w.open())
		})
	}
}
