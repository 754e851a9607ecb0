package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// stall makes the store refuse every new log segment, as an outage would.
func (w *world) stall() {
	w.store.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create {
			return faultstore.ErrInjected
		}
		return nil
	}})
}

// cut makes the store unreachable.
func (w *world) cut() {
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
}

// dieAfter makes every write fail once n of them were begun.
func (w *world) dieAfter(count *atomic.Int64, n int64) func(context.Context, faultstore.Call) error {
	return func(_ context.Context, c faultstore.Call) error {
		if (c.Op == faultstore.Create || c.Op == faultstore.Upload) && count.Add(1) > n {
			return faultstore.ErrInjected
		}
		return nil
	}
}

func (w *world) heal() { w.store.SetHooks(faultstore.Hooks{}) }

// TestCrashAfterGate kills the process (by going on with copies of its files)
// after the log lost commits that the store does not have. With the gate they
// are in the spool; without it, the database is refused: it is never continued
// with a hole.
func TestCrashAfterGate(t *testing.T) {
	for _, tt := range []struct {
		gate string
		lose func(t *testing.T, c *sqlite3.Conn)
	}{
		{"restart", func(t *testing.T, c *sqlite3.Conn) {
			exec(t, c, "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES(100)")
		}},
		{"truncate", func(t *testing.T, c *sqlite3.Conn) {
			exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
		}},
		{"delete", func(t *testing.T, c *sqlite3.Conn) { must(t, c.Close()) }},
	} {
		for _, off := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/off=%v", tt.gate, off), func(t *testing.T) {
				opts := Options{CloseTimeout: -1}
				// The checkpoint gate spools ahead of the others.
				opts.hooks.off = map[string]bool{tt.gate: off, "checkpoint": off}
				w := newWorld(t, opts)
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
				w.sync()
				w.stall()
				exec(t, c, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)")
				tt.lose(t, c)
				n := w.clone(Options{})
				n.heal()
				c, err := n.tryOpen()
				if off {
					if err == nil {
						defer c.Close()
						_, err = syncNow(n)
					}
					if err == nil {
						t.Fatal("the gate was off and nobody noticed that commits are missing")
					}
					t.Log(err)
					return
				}
				must(t, err)
				rows := text(t, c, "SELECT count(*) FROM t")
				exec(t, c, "INSERT INTO t VALUES(200)")
				n.sync()
				must(t, c.Close())
				n.shutdown()
				n.same()
				t.Logf("%s rows; %v", rows, n.mirror)
			})
		}
	}
}

// TestCrashEverywhere kills the process at each failpoint and at moments between,
// and goes on: the restored database is a committed prefix before, and whole
// after.
func TestCrashWithBacklog(t *testing.T) {
	for commits := range 8 {
		for _, checkpoint := range []string{"", "PASSIVE", "TRUNCATE"} {
			t.Run(fmt.Sprint(commits, checkpoint), func(t *testing.T) {
				w := newWorld(t, Options{})
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
				w.sync()
				w.stall()
				for i := range commits {
					exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
					if i == commits/2 && checkpoint != "" {
						exec(t, c, "PRAGMA wal_checkpoint("+checkpoint+")")
					}
				}
				n := w.clone(Options{})
				n.heal()
				c = n.open()
				if got := text(t, c, "SELECT count(*) FROM t"); got != fmt.Sprint(commits) {
					t.Fatalf("%s rows of %d", got, commits)
				}
				n.sync()
				exec(t, c, "INSERT INTO t VALUES(-1)")
				must(t, c.Close())
				n.shutdown()
				n.same()
			})
		}
	}
}

// TestStoreOutage: commits go on while the store is away, and arrive after.
func TestStoreOutage(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=20; CREATE TABLE t(a, b)")
	w.sync()
	w.stall()
	for i := range 300 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d, randomblob(3000))", i))
	}
	s := text(t, c, "PRAGMA replicated_status")
	if !strings.Contains(s, `"spooled":`) || strings.Contains(s, `"spooled":0,`) {
		t.Error("nothing is spooled:", s)
	}
	w.heal()
	w.sync()
	must(t, c.Close())
	w.shutdown()
	w.same()
}

// TestRefusals: what is not captured fails, with a reason.
func TestRefusals(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	defer c.Close()
	for _, params := range [][]string{{"replica_lag=1s"}, {"replica_max_lag=never"}, {"replica_restore=yes"}} {
		c, err := w.tryOpen(params...)
		if err == nil {
			c.Close()
			t.Errorf("%v was accepted", params)
		} else {
			t.Log(err)
		}
	}
}

// TestLateUpload: an upload of the killed process arrives after its successor
// has read the line. The successor looks again and goes on.
func TestLateUpload(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	w.sync()
	inner := w.store.Inner()
	var late []byte
	const key = "log/0000000000000003"
	w.store.SetHooks(faultstore.Hooks{After: func(ctx context.Context, c faultstore.Call, err error) error {
		if c.Op != faultstore.Create || late != nil {
			return faultstore.ErrInjected
		}
		r, _, err := inner.Get(ctx, key, replicate.Range{})
		if err != nil {
			return err
		}
		defer r.Close()
		if late, err = io.ReadAll(r); err != nil {
			return err
		}
		return errors.Join(inner.Delete(ctx, key), faultstore.ErrInjected)
	}})
	exec(t, c, "INSERT INTO t VALUES(1)")
	for w.databases()[0].engine.Status().Retries == 0 {
		time.Sleep(time.Millisecond)
	}
	exec(t, c, "INSERT INTO t VALUES(2); INSERT INTO t VALUES(3)")
	n := w.clone(Options{})
	n.store.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create && c.Key == key {
			inner.Create(ctx, key, late)
		}
		return nil
	}})
	c = n.open()
	exec(t, c, "INSERT INTO t VALUES(4)")
	n.sync()
	n.store.SetHooks(faultstore.Hooks{})
	if got := text(t, c, "SELECT count(*) FROM t"); got != "4" {
		t.Error(got, "rows")
	}
	must(t, c.Close())
	n.shutdown()
	n.same()
}

// TestCrashBeforeSpooling: the process dies after the WAL was begun anew and
// before anything of the new one is in spool or store. What says that the new WAL
// follows the old one must still be there.
func TestCrashBeforeSpooling(t *testing.T) {
	var dying atomic.Bool
	opts := Options{}
	opts.hooks.failpoint = func(name string) error {
		if name == "spool-append" && dying.Load() {
			return faultstore.ErrInjected
		}
		return nil
	}
	w := newWorld(t, opts)
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	for i := range 3 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		w.sync()
		exec(t, c, "PRAGMA wal_checkpoint(PASSIVE)")
	}
	w.stall()
	dying.Store(true)
	exec(t, c, "PRAGMA wal_autocheckpoint=10; INSERT INTO t VALUES(randomblob(10000000))")
	n := w.clone(Options{})
	n.heal()
	c = n.open()
	n.sync()
	if got := text(t, c, "SELECT count(*) FROM t"); got != "4" {
		t.Error(got, "rows")
	}
	must(t, c.Close())
	n.shutdown()
	n.same()
}

// TestChecksums: databases in whose pages the driver keeps checksums are refused,
// when they are opened and when they become such.
func TestChecksums(t *testing.T) {
	w := newWorld(t, Options{})
	c, err := sqlite3.Open("file:" + w.path)
	must(t, err)
	must(t, c.EnableChecksums("main"))
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	must(t, c.Close())
	if c, err := w.tryOpen(); err == nil {
		c.Close()
		t.Error("accepted")
	} else if !strings.Contains(err.Error(), "checksums") {
		t.Error(err)
	}

	w = newWorld(t, Options{CloseTimeout: -1})
	c = w.open()
	defer c.Close()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	w.sync()
	if err := c.EnableChecksums("main"); err != nil {
		t.Log(err)
	}
	for range 3 {
		err = c.Exec("INSERT INTO t VALUES(1)")
		Sync(t.Context(), w.path)
	}
	if !errors.Is(err, sqlite3.READONLY) {
		t.Error("writes go on:", err)
	}
	if s, err := Stat(w.path); err != nil || s.State != replicate.StateFailed || !strings.Contains(s.Error, "checksums") {
		t.Errorf("%v %+v", err, s)
	}
}

// TestCrashBeforeTheFirstAnswer: the WAL has everything, the store too, and nobody
// has learnt that. The note that was made when the database went to WAL mode does
// not make it a database of which nothing is known.
func TestCrashBeforeTheFirstAnswer(t *testing.T) {
	opts := Options{}
	frozen, more := make(chan struct{}), make(chan struct{})
	opts.hooks.failpoint = func(name string) error {
		switch name {
		case "log-before":
			close(frozen)
			<-more
		case "log-after":
			return faultstore.ErrInjected
		}
		return nil
	}
	w := newWorld(t, opts)
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	<-frozen
	exec(t, c, "INSERT INTO t VALUES(0)")
	close(more)
	if _, err := syncNow(w); err == nil {
		t.Fatal("it did not die")
	}
	n := w.clone(Options{})
	c = n.open()
	exec(t, c, "INSERT INTO t VALUES(1)")
	n.sync()
	must(t, c.Close())
	n.shutdown()
	n.same()
}
