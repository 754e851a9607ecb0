package vfs

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// TestAfterExclusive: once a connection has let the database go that it had for
// itself, the WAL-index says again how far the log is committed.
func TestAfterExclusive(t *testing.T) {
	for _, how := range []string{"back to normal", "close", "close, the WAL is kept"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			if how == "back to normal" {
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b)")
			}
			exec(t, c, "PRAGMA locking_mode=exclusive; PRAGMA journal_mode=wal; CREATE TABLE IF NOT EXISTS t(a, b)")
			for range 20 {
				exec(t, c, "INSERT INTO t VALUES(1,randomblob(9000))")
			}
			if how == "back to normal" {
				exec(t, c, "PRAGMA locking_mode=normal; SELECT count(*) FROM t; INSERT INTO t VALUES(1,1)")
			} else {
				if how != "close" {
					_, err := c.FileControl("main", sqlite3.FCNTL_PERSIST_WAL, true)
					must(t, err)
					exec(t, c, "INSERT INTO t VALUES(1,1)")
				}
				must(t, c.Close())
				c = w.open()
				exec(t, c, "PRAGMA journal_mode=wal")
			}
			for range 3 {
				exec(t, c, "INSERT INTO t VALUES(2,2)")
				w.sync()
				must(t, queryImage(w.restore(0), "SELECT count(*) FROM t", text(t, c, "SELECT count(*) FROM t")))
			}
			w.finish(c)
		})
	}
}

// TestZeroedJournal: a journal that PERSIST has left is no hot one, so that what is
// written after somebody looked at it is no playback.
func TestZeroedJournal(t *testing.T) {
	for _, journal := range []string{"memory", "off", "delete", "truncate"} {
		t.Run(journal, func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=persist; CREATE TABLE t(a, b)")
			must(t, c.Close())
			if _, err := os.Stat(w.path + "-journal"); err != nil {
				t.Fatal("the test tests nothing:", err)
			}
			c = w.open("_pragma=journal_mode(" + journal + ")")
			for range 3 {
				exec(t, c, "INSERT INTO t VALUES(1,1)")
				w.sync()
			}
			if r, _ := w.stats(); r > 0 {
				t.Error(r, "repairs")
			}
			w.finish(c)
		})
	}
}

// TestRefusedWrites: in the rollback-journal modes, writes that are refused leave
// what was there, for the connection, too, and the next ones are refused as well.
func TestRefusedWrites(t *testing.T) {
	for _, journal := range []string{"delete", "truncate", "persist", "memory", "off"} {
		for _, locking := range []string{"normal", "exclusive"} {
			for _, begun := range []bool{false, true} {
				t.Run(fmt.Sprint(journal, " ", locking, " ", begun), func(t *testing.T) {
					w := newWorld(t, Options{})
					c := w.open("_pragma=locking_mode("+locking+")", "_pragma=cache_size(5)")
					exec(t, c, "PRAGMA journal_mode="+journal+"; CREATE TABLE t(a, b); INSERT INTO t VALUES(1,1)")
					w.sync()
					db := w.databases()[0]
					if begun {
						exec(t, c, "BEGIN; INSERT INTO t VALUES(2,2)")
					}
					db.shut.Store(true)
					if begun {
						if err := c.Exec("COMMIT"); !errors.Is(err, sqlite3.READONLY) {
							t.Error(err)
						}
						c.Exec("ROLLBACK")
					}
					for range 3 {
						err := c.Exec("INSERT INTO t SELECT 2,randomblob(50000)")
						if !errors.Is(err, sqlite3.READONLY) {
							t.Error(err)
						}
						if got := text(t, c, "SELECT count(*) FROM t"); got != "1" {
							t.Error(got, "rows")
						}
					}
					db.shut.Store(false)
					exec(t, c, "INSERT INTO t VALUES(2,2)")
					if got := text(t, c, "SELECT count(*) FROM t"); got != "2" {
						t.Error(got, "rows after")
					}
					w.finish(c)
				})
			}
		}
	}
}
