package vfs

import (
	"os"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// peek is what outwash status does where no process answers.
func (w *world) peek() (local.View, capture.Peeked) {
	w.t.Helper()
	v, err := local.Look(w.path)
	must(w.t, err)
	end, err := replicate.ReadEnd(w.t.Context(), w.store, v.Lineage.Database, v.Lineage.Acknowledged().TXID)
	must(w.t, err)
	p, err := capture.Peek(w.path, v, end.Tail)
	must(w.t, err)
	return v, p
}

// TestPeek: what can be told from the files about a database that nobody replicates.
func TestPeek(t *testing.T) {
	begin := func(t *testing.T, journal string) *world {
		w := newWorld(t, Options{CloseTimeout: -1})
		if v, err := local.Look(w.path); err != nil || v.Exists {
			t.Fatalf("%+v, %v", v, err)
		}
		c := w.open()
		exec(t, c, "PRAGMA journal_mode="+journal+"; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)")
		w.sync()
		must(t, c.Close())
		return w
	}
	for _, journal := range []string{"wal", "delete"} {
		t.Run("clean close/"+journal, func(t *testing.T) {
			w := begin(t, journal)
			w.shutdown()
			v, p := w.peek()
			if v.InUse || v.Pending || !p.Whole || len(p.Spooled) != 0 || p.Commits != 0 {
				t.Errorf("%+v, %+v", v, p)
			}
			// A program without the VFS writes.
			c, err := sqlite3.Open(w.path)
			must(t, err)
			exec(t, c, "INSERT INTO t VALUES(1)")
			must(t, c.Close())
			if _, p := w.peek(); p.Whole || p.Why == "" {
				t.Errorf("%+v", p)
			}
		})
	}
	t.Run("in use", func(t *testing.T) {
		w := begin(t, "wal")
		c := w.open()
		for range 2 {
			exec(t, c, "INSERT INTO t VALUES(1)")
			w.sync()
			if v, p := w.peek(); !v.InUse || !p.Whole || p.Commits != 0 {
				t.Errorf("%+v, %+v", v, p)
			}
		}
		must(t, c.Close())
		w.shutdown()
	})
	t.Run("killed", func(t *testing.T) {
		w := begin(t, "wal")
		c := w.open()
		exec(t, c, "INSERT INTO t VALUES(0)")
		w.sync()
		w.stall()
		for i := range 3 {
			exec(t, c, "INSERT INTO t VALUES(1)")
			exec(t, c, "BEGIN; INSERT INTO t VALUES(2); ROLLBACK")
			if _, p := w.peek(); !p.Whole || p.Commits != i+1 || len(p.Spooled) != 0 || p.Logged.IsZero() {
				t.Errorf("%d: %+v", i, p)
			}
		}
		_, p := w.peek()
		w.kill()
		if _, q := w.peek(); q.Commits != p.Commits || !q.Whole {
			t.Errorf("%+v, before %+v", q, p)
		}
	})
	t.Run("spooled", func(t *testing.T) {
		w := begin(t, "wal")
		c := w.open()
		exec(t, c, "INSERT INTO t VALUES(0)")
		w.sync()
		w.stall()
		exec(t, c, "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(3)")
		if v, p := w.peek(); !p.Whole || len(p.Spooled) != 2 || p.Commits != 1 || v.SpoolBytes == 0 {
			t.Errorf("%+v", p)
		}
		w.kill()
		if _, p := w.peek(); !p.Whole || len(p.Spooled) != 2 || p.Commits != 1 {
			t.Errorf("%+v", p)
		}
		spool, err := os.ReadFile(w.path + local.Suffix + "/spool")
		must(t, err)
		// A torn tail counts for nothing, and is left as it is.
		must(t, os.WriteFile(w.path+local.Suffix+"/spool", spool[:len(spool)-1], 0o600))
		if _, p := w.peek(); p.Whole {
			t.Errorf("%+v", p)
		}
		if b, err := os.ReadFile(w.path + local.Suffix + "/spool"); err != nil || len(b) != len(spool)-1 {
			t.Error(len(b), err)
		}
	})
	t.Run("nothing known", func(t *testing.T) {
		w := begin(t, "wal")
		w.shutdown()
		must(t, os.RemoveAll(w.path+local.Suffix))
		if v, p := w.peek(); v.Exists || p.Whole || !strings.Contains(p.Why, "no note of a clean close") {
			t.Errorf("%+v, %+v", v, p)
		}
		must(t, os.Remove(w.path))
		if _, p := w.peek(); p.Whole {
			t.Errorf("%+v", p)
		}
	})
}
