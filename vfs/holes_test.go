package vfs

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// TestHoleFailedCommitOtherProcess: process A dies right after a commit whose
// fsync failed, so that nobody knows of it. Process B has the WAL-index open all
// the while (no recovery makes the frames a commit), checkpoints and restarts the
// WAL, with this VFS or without it. A's file is opened again.
func TestHoleFailedCommitOtherProcess(t *testing.T) {
	for _, restarter := range []string{"plain", "replicated"} {
		for _, then := range []string{
			"PRAGMA wal_checkpoint(PASSIVE); INSERT INTO u VALUES(3)",
			"PRAGMA wal_checkpoint(RESTART); INSERT INTO u VALUES(3)",
			"PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO u VALUES(3)",
			"INSERT INTO u VALUES(3); PRAGMA wal_checkpoint(PASSIVE); INSERT INTO u VALUES(4)",
		} {
			t.Run(restarter+"/"+then, func(t *testing.T) {
				w, v := faultyWorld(t)
				c := w.open("replica_close_timeout=0")
				exec(t, c, "PRAGMA journal_mode=wal; PRAGMA synchronous=FULL; CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO t VALUES(1)")
				still := w.remember()
				b := w.foreign()
				text(t, b, "SELECT count(*) FROM t")
				v.sync.Store(true)
				if err := c.Exec("INSERT INTO t VALUES(2)"); !errors.Is(err, sqlite3.IOERR_FSYNC) {
					t.Fatal(err)
				}
				v.sync.Store(false)
				w.kill()
				w.abandon()
				if restarter == "plain" {
					exec(t, b, then)
				}
				c2 := w.open()
				if restarter != "plain" {
					exec(t, c2, then)
				}
				if got := text(t, c2, "SELECT count(*) FROM t"); got != "1" {
					t.Error(got, "rows: the failed commit has become one")
				}
				exec(t, c2, "INSERT INTO t VALUES(9)")
				w.sync()
				must(t, queryImage(w.restore(0), "SELECT group_concat(a,'') FROM t", "19"))
				must(t, b.Close())
				exec(t, c2, "PRAGMA wal_checkpoint(TRUNCATE)") // c holds the log, as nobody would
				w.sync()
				must(t, w.compareFile())
				still()
				c.Close()
				must(t, c2.Close())
			})
		}
	}
}

// abandon forgets the world's database, which was killed: its lock is free.
func (w *world) abandon() {
	for _, db := range w.databases() {
		db.set.mu.Lock()
		delete(db.set.byPath, db.path)
		db.set.mu.Unlock()
		must(w.t, db.dir.Close())
	}
}

// TestHoleTruncateDuringExport: between two passes of an export the log is taken
// away, by our own connection or another program's, with and without the last
// close. Nobody is refused, and nothing is lost.
func TestHoleTruncateDuringExport(t *testing.T) {
	for _, who := range []string{"own", "foreign"} {
		for _, how := range []string{"TRUNCATE", "close"} {
			t.Run(who+"/"+how, func(t *testing.T) {
				var w *world
				var f, mine *sqlite3.Conn
				var done atomic.Bool
				w = newWorld(t, Options{CloseTimeout: -1}) // the hook stands in the engine's way
				opts := w.opts
				source := opts.hooks.source
				opts.hooks.source = func(path string, s replicate.Source) replicate.Source {
					return source(path, &between{s, func() {
						if done.Swap(true) {
							return
						}
						by := f
						if who == "own" {
							mine = w.open()
							by = mine
						}
						exec(t, by, "PRAGMA busy_timeout=120000; UPDATE old SET v=randomblob(1000) WHERE id<9")
						if how == "close" {
							must(t, by.Close())
						} else if got := text(t, by, "PRAGMA wal_checkpoint(TRUNCATE)"); got != "0" {
							t.Error("TRUNCATE returns", got)
						}
					}})
				}
				Register(w.name, opts)
				w.existing("wal", 9000)
				f = w.foreign()
				c := w.open()
				if how == "close" { // let that be the last one
					must(t, c.Close())
				}
				w.sync()
				if !done.Load() {
					t.Fatal("the export took one pass")
				}
				for _, x := range []*sqlite3.Conn{f, mine} {
					if x != nil {
						x.Close()
					}
				}
				if how == "close" {
					c = w.open()
				}
				exec(t, c, "UPDATE old SET v=NULL WHERE id=1")
				w.finish(c)
			})
		}
	}
}

// TestHoleFreedPages: pages that a transaction allocates and frees again are never
// written in rollback-journal modes; the file has grown by them all the same.
func TestHoleFreedPages(t *testing.T) {
	for _, journal := range []string{"delete", "truncate", "persist", "memory", "wal"} {
		t.Run(journal, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.each = func(e *segment.Entry) error {
				if e.Kind == segment.Repair {
					return errors.New("repaired, although nobody else wrote")
				}
				img, _ := w.mirror.Image()
				return mirror.Check(img, true)
			}
			c := w.open()
			exec(t, c, "PRAGMA journal_mode="+journal+"; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a)")
			for i := range 4 {
				before := w.sync()
				exec(t, c, fmt.Sprintf("BEGIN; INSERT INTO t VALUES(1,zeroblob(%d)); INSERT INTO t VALUES(%d,randomblob(40000)); DELETE FROM t WHERE a=1; COMMIT", 400000*(i+1), i+2))
				if got := w.sync(); got != before+1 && before > 0 {
					t.Errorf("TXID %d after %d", got, before)
				}
				if journal != "wal" {
					must(t, w.compareFile())
					want, err := os.ReadFile(w.path)
					must(t, err)
					must(t, mirror.Compare(want, w.restore(0), 4096))
				}
				exec(t, c, "INSERT INTO u VALUES(1)") // a page that was free
			}
			w.finish(c)
		})
	}
}
