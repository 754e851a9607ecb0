package vfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// What another program may do to a database: TestRepairForeign does each of them,
// while connections are open, while none is but replication goes on, and while the
// program is down. Afterwards the replica has the new state, and what it had
// before can still be restored.
//
// See also TestForeignRandom, TestP8ForeignWriter (every pair of what they do and
// what we do next), TestForeignWhileEmpty, TestForeignDuringExport, TestForeignBeforeBegin.
var foreignActs = []struct{ name, sql string }{
	{"appends", "INSERT INTO u VALUES(2); INSERT INTO t VALUES(3,'x')"},
	{"checkpoints", "INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(PASSIVE)"},
	{"restarts", "INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(3,'x')"},
	{"truncates", "INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE)"},
	{"deletes", "INSERT INTO u VALUES(2); PRAGMA journal_mode=delete; PRAGMA journal_mode=wal; INSERT INTO t VALUES(3,'x')"},
	{"switches mode", "INSERT INTO u VALUES(2); PRAGMA journal_mode=truncate; INSERT INTO t VALUES(3,'x')"},
	{"vacuums", "DELETE FROM u; DELETE FROM t WHERE a=1; VACUUM"},
	{"page size", "INSERT INTO u VALUES(2); PRAGMA journal_mode=delete; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=wal; INSERT INTO t VALUES(3,'x')"},
}

func TestRepairForeign(t *testing.T) {
	for _, when := range []string{"connected", "idle", "down", "down after a crash"} {
		for _, act := range foreignActs {
			t.Run(when+"/"+act.name, func(t *testing.T) { repairForeign(t, when, act.sql) })
		}
	}
}

// leave brings a world whose database c has open to where other programs find it.
func (w *world) leave(c *sqlite3.Conn, when string) {
	w.t.Helper()
	switch when {
	case "idle":
		must(w.t, c.Close())
	case "down":
		must(w.t, c.Close())
		w.shutdown()
	case "down after a crash":
		w.crash(c)
	}
}

func repairForeign(t *testing.T, when, sql string) {
	w, c := smallWorld(t, Options{})
	still := w.remember()
	w.leave(c, when)
	w.foreignSQL(sql)
	switch when {
	case "connected":
		w.sync()
	case "idle":
		w.sync()
		w.sameContent()
		c = w.open()
	default:
		c = w.open()
	}
	exec(t, c, "PRAGMA journal_mode=wal; INSERT INTO t VALUES(9,'us')")
	w.finish(c)
	still()
}

// smallWorld is a world with a small database, in the store.
func smallWorld(t testing.TB, opts Options) (*world, *sqlite3.Conn) {
	w := newWorld(t, opts)
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO t VALUES(1,'us'); INSERT INTO u VALUES(1); PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES(0,randomblob(9000))")
	w.sync()
	return w, c
}

// foreignSQL runs SQL as another program, by the sqlite3 command line if it is
// there. What it isn't let do (switch the mode, while others have it open) it
// doesn't do.
func (w *world) foreignSQL(sql string) {
	w.t.Helper()
	if exe, err := osexec.LookPath("sqlite3"); err == nil {
		out, err := osexec.Command(exe, "-cmd", ".timeout 1", w.path, sql).CombinedOutput()
		if err != nil {
			w.t.Logf("sqlite3: %v: %s", err, out)
		}
		return
	}
	f := w.foreign()
	if err := f.Exec("PRAGMA busy_timeout=1; " + sql); err != nil {
		w.t.Log(err)
	}
	must(w.t, f.Close())
}

// sameContent checks that a restore has the rows that the database has now.
func (w *world) sameContent() {
	w.t.Helper()
	const query = "SELECT (SELECT group_concat(a||':'||hex(b)) FROM (SELECT * FROM t ORDER BY a,b))||'/'||(SELECT ifnull(group_concat(a),'') FROM (SELECT * FROM u ORDER BY a))"
	f := w.foreign()
	defer f.Close()
	must(w.t, queryImage(w.restore(0), query, text(w.t, f, query)))
}

// TestRepairPrograms: each of the same acts by each program that is there, one
// after another while we are connected, and each is replicated before the next.
func TestRepairPrograms(t *testing.T) {
	run := map[string]func(w *world, sql string) ([]byte, error){
		"plain connection": func(w *world, sql string) ([]byte, error) {
			f := w.foreign()
			defer f.Close()
			return nil, f.Exec("PRAGMA busy_timeout=1; " + sql)
		},
		"sqlite3": func(w *world, sql string) ([]byte, error) {
			return osexec.Command("sqlite3", "-cmd", ".timeout 1", w.path, sql).CombinedOutput()
		},
		"python3": func(w *world, sql string) ([]byte, error) {
			return osexec.Command("python3", "-c", "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=0.01,isolation_level=None)\nfor s in sys.argv[2].split(';'): c.execute(s).fetchall()", w.path, sql).CombinedOutput()
		},
	}
	for name, program := range run {
		t.Run(name, func(t *testing.T) {
			if name != "plain connection" {
				if out, err := program(newWorld(t, Options{}), "SELECT 1"); err != nil {
					t.Logf("not here: %v %s", err, out)
					return
				}
			}
			w, c := smallWorld(t, Options{})
			for i, act := range foreignActs {
				still := w.remember()
				if out, err := program(w, act.sql); err != nil {
					t.Logf("%s: %v: %s", act.name, err, out)
				}
				w.sync()
				w.sameContent()
				exec(t, c, fmt.Sprintf("INSERT INTO u VALUES(%d)", i))
				still()
			}
			w.finish(c)
		})
	}
}

// TestRepairLostWAL: the WAL is deleted. With connections open SQLite itself goes
// on in a file without a name, which nobody else can read: that is said, and what
// was committed is replicated once it is in the database file. After a crash what
// the WAL had is gone: what is left is refused by name, or the replica's next
// state.
func TestRepairLostWAL(t *testing.T) {
	for _, when := range []string{"connected", "idle", "down", "down after a crash"} {
		t.Run(when, func(t *testing.T) {
			w, c := smallWorld(t, Options{CloseTimeout: -1})
			still := w.remember()
			w.leave(c, when)
			if err := os.Remove(w.path + "-wal"); err != nil {
				t.Log(err)
			}
			switch when {
			case "connected":
				exec(t, c, "INSERT INTO t VALUES(8,'us')")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				synced := make(chan error, 1)
				go func() {
					_, err := Sync(ctx, w.path)
					synced <- err
				}()
				until(t, "it is said that the log can't be read", func() bool {
					s, err := Stat(w.path)
					must(t, err)
					return s.Error != ""
				})
				cancel()
				if err := <-synced; err == nil {
					t.Error("it was replicated from where it can't be read?")
				}
				still()
				must(t, c.Close())
				// Who opens while capture tries to read shares the index of the log that is gone.
				until(t, "nobody has the lost log's index", func() bool {
					var err error
					if c, err = w.tryOpen(); err != nil {
						return false
					}
					if err = c.Exec("SELECT * FROM t"); err != nil {
						must(t, c.Close())
					}
					return err == nil
				})
			case "down after a crash":
				var err error
				if c, err = w.tryOpen(); err != nil {
					if err := refusal(w); !errors.Is(err, replicate.ErrDiverged) && !errors.Is(err, replicate.ErrRepair) {
						t.Error("not refused by name:", err)
					}
					still()
					return
				}
			default:
				c = w.open()
			}
			exec(t, c, "INSERT INTO t VALUES(9,'us'); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(10,'us')")
			w.finish(c)
			still()
		})
	}
}

// refusal returns why the world's database is refused.
func refusal(w *world) error {
	w.t.Helper()
	registry.Lock()
	v := registry.byName[w.name]
	registry.Unlock()
	p, err := parseParams(nil, v.opts)
	must(w.t, err)
	db, err := v.open(w.path, p)
	if err == nil {
		db.release(false)
	}
	return err
}

// TestRepairLostSpool: commits wait in the spool when the program dies, the log
// that had them is gone, and so is the spool, or it is damaged.
func TestRepairLostSpool(t *testing.T) {
	for _, how := range []string{"removed", "emptied", "cut", "flipped"} {
		t.Run(how, func(t *testing.T) {
			w, c := smallWorld(t, Options{CloseTimeout: -1})
			still := w.remember()
			w.stall()
			exec(t, c, "INSERT INTO t VALUES(2,'x'); INSERT INTO t VALUES(3,randomblob(5000)); PRAGMA wal_checkpoint(TRUNCATE)")
			w.crash(c)
			w.heal()
			spool := w.path + "-replicated/spool"
			b, err := os.ReadFile(spool)
			if err != nil || len(b) < 1000 {
				t.Fatal(len(b), err)
			}
			switch how {
			case "removed":
				must(t, os.Remove(spool))
			case "emptied":
				must(t, os.WriteFile(spool, nil, 0o600))
			case "cut":
				must(t, os.WriteFile(spool, b[:len(b)/2], 0o600))
			case "flipped":
				b[len(b)/3] ^= 4
				must(t, os.WriteFile(spool, b, 0o600))
			}
			c, err = w.tryOpen()
			if err != nil {
				t.Fatal(err)
			}
			exec(t, c, "INSERT INTO t VALUES(4,'us')")
			w.finish(c)
			still()
		})
	}
}

// TestPeersRecreated: the database is deleted and made anew, while it is open,
// while it is not but replication goes on, and while the program is down. Nothing
// of it gets into the replica of the old one, and whoever opens it hears why.
func TestPeersRecreated(t *testing.T) {
	for _, when := range []string{"connected", "idle", "down"} {
		for _, anew := range []string{"nothing", "plain", "same pages"} {
			t.Run(when+"/"+anew, func(t *testing.T) {
				w, c := smallWorld(t, Options{CloseTimeout: time.Second})
				still := w.remember()
				txid := w.txid()
				switch when {
				case "idle":
					must(t, c.Close())
				case "down":
					must(t, c.Close())
					w.shutdown()
				}
				old, err := os.ReadFile(w.path)
				must(t, err)
				for _, s := range []string{"", "-wal", "-shm"} {
					os.Remove(w.path + s)
				}
				switch anew {
				case "plain":
					f := w.foreign()
					exec(t, f, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); INSERT INTO t VALUES('other','one')")
					must(t, f.Close())
				case "same pages": // as cp and mv would
					must(t, os.WriteFile(w.path, old, 0o600))
				}
				var err2 error
				if when == "connected" {
					if err := c.Exec("INSERT INTO t VALUES(5,'us')"); err != nil {
						t.Log("write:", err)
					}
					if _, err := syncNow(w); err != nil {
						t.Log("sync:", err)
					}
					c.Close()
				}
				c, err2 = w.tryOpen()
				switch {
				case err2 != nil:
					err := refusal(w) // SQLite's error doesn't say it to errors.Is
					t.Log("refused:", err)
					if !errors.Is(err, replicate.ErrDiverged) && !errors.Is(err, replicate.ErrMissing) && !errors.Is(err, replicate.ErrRepair) {
						t.Error("not by name")
					}
				case anew != "same pages":
					c.Close()
					t.Fatal("another database was continued")
				default:
					exec(t, c, "INSERT INTO t VALUES(6,'us')")
					w.finish(c)
				}
				still()
				if err2 != nil && when != "connected" && w.txid() != txid {
					t.Errorf("the replica was extended from %d to %d", txid, w.txid())
				}
			})
		}
	}
}

// TestRepairBytes: a repair uploads the pages that differ and little else, and
// needs nothing on this machine but the lineage.
func TestRepairBytes(t *testing.T) {
	for _, when := range []string{"connected", "down"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.existing("wal", 4000) // 5 MB
			c := w.open()
			exec(t, c, "INSERT INTO old VALUES(0,'us')")
			still := w.remember()
			if when == "down" {
				must(t, c.Close())
				w.shutdown()
				for name := range w.files() {
					switch name {
					case w.path, w.path + "-replicated/lineage", w.path + "-replicated/position":
					default:
						must(t, os.Remove(name))
					}
				}
			}
			before := w.restore(0)
			f := w.foreign()
			exec(t, f, "UPDATE old SET v=randomblob(1000) WHERE id%200=7; PRAGMA wal_checkpoint(TRUNCATE); UPDATE old SET v=hex(randomblob(500)) WHERE id%200=9; PRAGMA wal_checkpoint(TRUNCATE)")
			must(t, f.Close())
			sent := w.stored()
			if when == "down" {
				c = w.open()
			}
			w.sync()
			got := w.stored() - sent
			pages, zstd := w.differing(before)
			t.Logf("%d pages differ: %d bytes compressed, %d uploaded", pages, zstd, got)
			if pages < 30 || float64(got) > 1.2*float64(zstd) {
				t.Errorf("%d pages differ, %d bytes compressed: a repair of %d bytes", pages, zstd, got)
			}
			if s := w.store.Count(faultstore.Upload); when == "connected" && s > 1 {
				t.Errorf("%d uploads: the snapshot should be the only one", s)
			}
			exec(t, c, "INSERT INTO old VALUES(-1,'us')")
			w.finish(c)
			still()
		})
	}
}

// stored is how many bytes the store has.
func (w *world) stored() (n int64) {
	w.t.Helper()
	for info, err := range w.store.Inner().List(w.t.Context(), "", "") {
		must(w.t, err)
		n += info.Size
	}
	return n
}

// differing counts the pages in which the restored database differs from what it
// was, and how many bytes they are compressed, as a whole.
func (w *world) differing(before []byte) (pages int, compressed int64) {
	w.t.Helper()
	after := w.restore(0)
	const size = 4096
	var plain []byte
	for i := 0; i < len(after); i += size {
		if i < len(before) && string(before[i:i+size]) == string(after[i:i+size]) {
			continue
		}
		plain = append(plain, after[i:i+size]...)
	}
	enc, err := zstd.NewWriter(nil)
	must(w.t, err)
	defer enc.Close()
	return len(plain) / size, int64(len(enc.EncodeAll(plain, nil)))
}
