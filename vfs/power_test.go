package vfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/replicate"
)

// TestPowerLoss: what a loss of power takes, the database goes on where it was,
// without a question, if SQLite has kept everything: with synchronous=FULL.
func TestPowerLoss(t *testing.T) {
	for _, tt := range []struct {
		name string
		work func(l *life, c *conn) error
	}{
		// The note that was made on the way to WAL mode must not come back.
		{"note", func(l *life, c *conn) error {
			return l.all(l.sync(), l.insert(c), l.sync(), l.hold(), l.insert(c))
		}},
		// The file is not what the log began with any more: the join must be there.
		{"checkpoint", func(l *life, c *conn) error {
			return l.all(l.insert(c), l.sync(), l.run(c, "PRAGMA wal_checkpoint(RESTART)"), l.hold(), l.insert(c), l.run(c, "PRAGMA wal_checkpoint"))
		}},
		// The position that was adopted must be known to have been this file's.
		{"adopted", func(l *life, c *conn) error {
			return l.all(l.sync(), l.hold(), l.insert(c), l.run(c, "PRAGMA wal_checkpoint(TRUNCATE)"))
		}},
	} {
		for seed := range uint64(20) {
			t.Run(fmt.Sprint(tt.name, "/", seed), func(t *testing.T) {
				l := &life{seed: seed, slot: &slot{dir: t.TempDir(), name: "power"}, counts: &counts{}, history: newHistory(true)}
				l.verbose = func(s string) { t.Log(s) }
				l.r = rand.New(rand.NewPCG(seed, 7))
				l.bucket = replicate.NewMemStore()
				l.conf = conf{pageSize: 1024, journal: "wal", synchronous: "FULL", closeTimeout: -1, maxLag: replicate.AsFast, begin: "PRAGMA synchronous=EXTRA;", setup: "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0", smooth: true, steady: true}
				var err error
				l.m, err = l.newMachine("a")
				must(t, err)
				if tt.name == "adopted" {
					must(t, l.bring())
				}
				must(t, l.start(nil))
				defer l.end()
				must(t, tt.work(l, l.m.p.conns[0]))
				l.end()
				must(t, l.powerLoss())
				must(t, l.sync())
				must(t, l.checkSame())
			})
		}
	}
}

func (l *life) all(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *life) insert(c *conn) error { return l.run(c, "BEGIN IMMEDIATE;"+l.body(3)+"COMMIT") }

// hold keeps the store from taking anything more.
func (l *life) hold() error {
	l.m.p.setWeather(held)
	return nil
}

// rebooted is the disk of a machine that was started anew.
type rebooted struct{ local.FS }

func (rebooted) BootID() string { return "another" }

// TestTornUnderLog: with synchronous=OFF a loss of power took a page that no frame
// of the log has, while the log itself continues the replica. What the file has is
// no state that anybody committed: nothing of it may go to the replica.
func TestTornUnderLog(t *testing.T) {
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprint("torn=", torn), func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; PRAGMA synchronous=OFF; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a, b)")
			exec(t, c, "INSERT INTO u VALUES(1, randomblob(20000)); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(1, 1)")
			before := w.sync()
			w.stall()
			exec(t, c, "INSERT INTO t VALUES(2, 2)")
			opts := Options{}
			opts.hooks.files = rebooted{local.OS{}}
			n := w.clone(opts)
			w.heal()
			if torn {
				b, err := os.ReadFile(n.path)
				must(t, err)
				clear(b[5*4096 : 6*4096])
				must(t, os.WriteFile(n.path, b, 0o600))
			}
			c, err := n.tryOpen()
			if torn {
				if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "outwash restore") {
					t.Error("the open of a torn database:", err)
				}
				if n.txid() != before {
					t.Error("something was stored")
				}
				must(t, mirror.Check(n.restore(0), true))
				return
			}
			must(t, err)
			exec(t, c, "INSERT INTO t VALUES(3, 3)")
			n.finish(c)
		})
	}
}

// TestTornUnderSpool: the same before anything is in the replica: spool and log
// lead to each other, but not to what is left of the file under them. There is
// nothing to restore in its place; whatever is taken over must be restorable.
func TestTornUnderSpool(t *testing.T) {
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprint("torn=", torn), func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; PRAGMA synchronous=OFF")
			w.stall()
			exec(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a, b)")
			exec(t, c, "INSERT INTO u VALUES(1, randomblob(20000)); PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(1, 1)")
			opts := Options{}
			opts.hooks.files = rebooted{local.OS{}}
			n := w.clone(opts)
			w.heal()
			if torn {
				b, err := os.ReadFile(n.path)
				must(t, err)
				b[5*4096+100] ^= 1 // of the blob: SQLite sees nothing wrong
				must(t, os.WriteFile(n.path, b, 0o600))
			}
			c = n.open()
			n.sync()
			n.restore(0)
			exec(t, c, "INSERT INTO t VALUES(3, 3)")
			n.finish(c)
		})
	}
}

// TestSpoolAheadOfDatabase: the spool has transactions that the database has lost
// with the power. The database is what its application sees, and goes on.
func TestSpoolAheadOfDatabase(t *testing.T) {
	for keep := range 3 {
		t.Run(fmt.Sprint("keep=", keep), func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=delete; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 1)")
			w.sync()
			w.stall()
			var states [][]byte
			for i := range 3 {
				b, err := os.ReadFile(w.path)
				must(t, err)
				states = append(states, b)
				exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d, randomblob(3000))", i+2))
			}
			opts := Options{}
			opts.hooks.files = rebooted{local.OS{}}
			n := w.clone(opts)
			w.heal()
			must(t, os.WriteFile(n.path, states[keep], 0o600))
			c = n.open()
			if got := text(t, c, "SELECT count(*) FROM t"); got != fmt.Sprint(keep+1) {
				t.Error(got, "rows")
			}
			exec(t, c, "INSERT INTO t(b) VALUES('goes on')")
			n.finish(c)
		})
	}
}

// TestLongFile: a loss of power left a file longer than its header says. SQLite
// commits to it with its length, so the replica's states have it, and what is
// restored from them is known again.
func TestLongFile(t *testing.T) {
	w := newWorld(t, Options{})
	f := w.foreign()
	exec(t, f, "PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	must(t, f.Close())
	b, err := os.ReadFile(w.path)
	must(t, err)
	must(t, os.WriteFile(w.path, append(b, make([]byte, 4096)...), 0o600))
	c := w.open()
	exec(t, c, "INSERT INTO t VALUES(1, 1)")
	w.sync()
	image := w.restore(0)
	if len(image) != len(b)+4096 {
		t.Fatalf("%d bytes are restored, the file had %d and a page", len(image), len(b))
	}
	n := w.machine("restored")
	must(t, os.WriteFile(n.path, image, 0o600))
	c = n.open()
	exec(t, c, "INSERT INTO t VALUES(2, 2)")
	n.finish(c)
}

// TestHotJournalAtOpen: a crash cut off the very first transaction in a rollback
// mode. What the file has is no database before the journal is played back.
func TestHotJournalAtOpen(t *testing.T) {
	w := newWorld(t, Options{})
	f := w.foreign()
	exec(t, f, "PRAGMA cache_size=2; BEGIN; CREATE TABLE t(a, b); INSERT INTO t VALUES(1, randomblob(100000))")
	n := w.machine("crashed")
	copyFile(t, w.path, n.path)
	copyFile(t, w.path+"-journal", n.path+"-journal")
	exec(t, f, "ROLLBACK")
	must(t, f.Close())
	c := n.open()
	exec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	n.finish(c)
}
