//go:build linux

package sidecar

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// again is the world with another sidecar, as after a restart.
func (w *world) again() {
	w.t.Helper()
	w.ready()
}

// session is the one that runs.
func (w *world) session() *session {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	return w.db.session
}

func (w *world) state() replicate.State { return w.db.Status().State }

// TestJournalDelete: a database in another journal mode is put into WAL mode, which
// the log says; also one that was put back while nothing replicated it.
func TestJournalDelete(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=delete")
	p.Must(table)
	w.ready()
	if got := p.Connection(1).Text("PRAGMA journal_mode"); got != "wal" || w.logged("in WAL mode now") != 1 {
		t.Errorf("the journal mode is %s", got)
	}
	p.Must("INSERT INTO t(a) VALUES(1)")
	w.same()
	w.close()
	must(t, p.Connection(1).CloseConn())
	p.Must("PRAGMA journal_mode=delete")
	p.Must("INSERT INTO t(a) VALUES(2)")
	w.again()
	p.Must("INSERT INTO t(a) VALUES(3)")
	w.same()
	if w.logged("in WAL mode now") != 2 {
		t.Error("it isn't said a second time")
	}
}

// TestPageSizeChanged: while stopped.
func TestPageSizeChanged(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	p.Must("INSERT INTO t(a) VALUES(randomblob(10000))")
	w.same()
	w.close()
	p.Must("PRAGMA journal_mode=delete")
	p.Must("PRAGMA page_size=8192")
	p.Must("VACUUM")
	w.again()
	p.Must("INSERT INTO t(a) VALUES(3)")
	w.same()
}

// TestVacuum: while the sidecar runs.
func TestVacuum(t *testing.T) {
	w, p := walWorld(t, Options{})
	p.Must("INSERT INTO t(a) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<500) SELECT randomblob(3000) FROM n")
	w.ready()
	p.Must("DELETE FROM t WHERE id%2")
	p.Must("VACUUM")
	p.Must("INSERT INTO t(a) VALUES(3)")
	w.same()
	if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Error(ck, err)
	}
	p.Must("INSERT INTO t(a) VALUES(3)")
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestSecondProcess: another sidecar is refused as long as the first one runs, and
// goes on by itself then; so is a program with the VFS.
func TestSecondProcess(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	o := w.opts
	o.hooks.backoff = 10 * time.Millisecond
	second, err := Open(context.Background(), o)
	must(t, err)
	defer second.Close(t.Context())
	<-second.Ready()
	if s := second.Status(); s.State != replicate.StateFailed || !strings.Contains(s.Error, "another process") || s.Remedy == "" {
		t.Errorf("%+v", s)
	}
	c, err := sqlite3.Open(vfs.DSN(w.path, "mem://x", "replica_open_timeout=100ms"))
	if err == nil {
		err = c.Exec("SELECT * FROM t")
		c.Close()
	}
	if err == nil {
		t.Error("a program with the VFS was let in")
	}
	w.close()
	w.db = second
	w.eventually("the second goes on", func() bool { return second.Status().State == replicate.StateReplicating })
	p.Must("INSERT INTO t(a) VALUES(1)")
	w.same()
}

// TestFenced: final until the sidecar is started anew.
func TestFenced(t *testing.T) {
	w, p := replicatedWorld(t, Options{hooks: hooks{backoff: 10 * time.Millisecond}})
	w.sync()
	other := newWorld(t, Options{Restore: true})
	other.store = w.store
	other.ready() // on another machine, it seems
	q := other.stock()
	q.Must("INSERT INTO t(a) VALUES('other')")
	other.sync()
	p.Must("INSERT INTO t(a) VALUES('this')")
	w.eventually("fenced", func() bool { return w.state() == replicate.StateFenced })
	if s := w.db.Status(); s.FencedBy == nil || s.Remedy == "" {
		t.Errorf("%+v", s)
	}
	time.Sleep(50 * time.Millisecond)
	if w.state() != replicate.StateFenced {
		t.Error("it was tried again")
	}
	other.same()
}

// TestCrash: the sidecar ends without a word, and commits go on without it; the next
// one has them all.
func TestCrash(t *testing.T) {
	for _, truncate := range []bool{false, true} {
		w := newWorld(t, Options{})
		p := w.stock()
		p.Must("PRAGMA journal_mode=wal")
		p.Must(table)
		w.ready()
		p.Must("INSERT INTO t(a) VALUES(1)")
		w.sync()
		w.crash()
		for range 10 {
			p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
		}
		if truncate {
			ck, err := p.Checkpoint("TRUNCATE")
			if must(t, err); ck.Busy != 0 {
				t.Fatal(ck)
			}
			p.Must("INSERT INTO t(a) VALUES(2)")
		}
		w.again()
		w.same()
		if truncate != (w.count(segment.Repair) == 1) {
			t.Errorf("truncated: %t, %d repairs", truncate, w.count(segment.Repair))
		}
	}
}

// crash ends the sidecar as SIGKILL would: the locks are gone, nothing is written.
func (w *world) crash() {
	w.t.Helper()
	w.db.stop()
	<-w.db.done
}

// TestShortProof: the next start after Close reads nothing of the database but its
// header, whatever became of the log meanwhile.
func TestShortProof(t *testing.T) {
	for _, how := range []string{"log", "empty log", "no log", "log goes on", "new log"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, Options{})
			p := w.stock()
			p.Must("PRAGMA journal_mode=wal")
			p.Must(table)
			w.ready()
			p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
			mode := "PASSIVE"
			if how == "empty log" {
				mode = "TRUNCATE"
			}
			ck, err := p.Checkpoint(mode)
			must(t, err)
			if ck.Busy != 0 {
				t.Fatal(ck)
			}
			w.sync()
			w.eventually("slot 0", func() bool { slot, zero := w.guardState(); return zero && slot == 0 })
			w.close()
			want := 0
			switch how {
			case "no log":
				must(t, p.Close())
				if _, err := os.Stat(w.path + "-wal"); err == nil {
					t.Fatal("the log is still there")
				}
				p = w.stock()
			case "log goes on":
				must(t, p.Connection(1).Exec("BEGIN; SELECT * FROM t"))
				p.Must("INSERT INTO t(a) VALUES(1)")
				want = 1
			case "new log":
				p.Must("INSERT INTO t(a) VALUES(1)")
				want = 1
			}
			w.again()
			if n := w.session().capture.Stats().Passes; n != 0 {
				t.Errorf("the database was read %d times", n)
			}
			w.same()
			if got := w.count(segment.Transaction); got != 1+want {
				t.Errorf("%d transactions, %d expected", got, 1+want)
			}
			p.Must("INSERT INTO t(a) VALUES(1)")
			w.same()
			if n := w.repairs(); n != 0 {
				t.Errorf("%d repairs", n)
			}
		})
	}
}

// TestUnreachable: the store doesn't answer: the application's checkpoints return 0
// all the same, and all that is committed is in the replica in the end.
func TestUnreachable(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	w.sync()
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	for range 20 {
		p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
		if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
	}
	w.store.SetHooks(faultstore.Hooks{})
	w.same()
	if n := w.count(segment.Transaction); n != 20 || w.repairs() != 0 {
		t.Errorf("%d transactions, %d repairs", n, w.repairs())
	}
}
