package vfs

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// existing makes a database with content without this VFS.
func (w *world) existing(journal string, rows int) {
	w.t.Helper()
	c, err := sqlite3.Open(w.without(w.path))
	must(w.t, err)
	exec(w.t, c, "PRAGMA journal_mode="+journal+"; CREATE TABLE old(id INTEGER PRIMARY KEY, v)")
	exec(w.t, c, fmt.Sprintf("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<%d) INSERT INTO old SELECT x, randomblob(1000) FROM c", rows))
	must(w.t, c.Close())
}

// TestFirstContact takes over existing databases, small ones as an entry, larger
// ones as a snapshot, while writers go on.
func TestFirstContact(t *testing.T) {
	for _, journal := range []string{"delete", "wal"} {
		for _, rows := range []int{1, 500, 20000} {
			t.Run(fmt.Sprint(journal, rows), func(t *testing.T) {
				w := newWorld(t, Options{})
				w.existing(journal, rows)
				c := w.open("_pragma=busy_timeout(60000)", "_pragma=journal_mode(wal)")
				exec(t, c, "PRAGMA wal_autocheckpoint=50; CREATE TABLE new(v)")
				for i := range 200 {
					exec(t, c, fmt.Sprintf("INSERT INTO new VALUES(%d); UPDATE old SET v=randomblob(900) WHERE id=%d", i, 1+i*37%rows))
					if i%50 == 10 {
						exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
					}
				}
				w.sync()
				must(t, c.Close())
				w.shutdown()
				w.same()
				t.Log(w.mirror, w.store.Count(faultstore.Upload), "uploads")
			})
		}
	}
}

// TestFirstContactCrash kills the process while it takes over a database.
func TestFirstContactCrash(t *testing.T) {
	for at := 1; at < 6; at++ { // 0: without the root nothing is known, and the open fails
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			var n atomic.Int64
			w := newWorld(t, Options{CloseTimeout: -1})
			w.existing("wal", 8000)
			w.store.SetHooks(faultstore.Hooks{Before: w.dieAfter(&n, int64(at))})
			c := w.open()
			exec(t, c, "CREATE TABLE new(v); INSERT INTO new VALUES(1)")
			for end := time.Now().Add(slowest); n.Load() <= int64(at) && time.Now().Before(end); {
				if s, _ := Stat(w.path); s.State == replicate.StateReplicating && s.Backlog == 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			x := w.clone(Options{})
			x.heal()
			c, err := x.tryOpen()
			must(t, err)
			exec(t, c, "INSERT INTO new VALUES(2)")
			x.sync()
			must(t, c.Close())
			x.shutdown()
			x.same()
		})
	}
}

// TestMissingFile: the database file is gone and the replica has it.
func TestMissingFile(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	must(t, c.Close())
	w.shutdown()
	must(t, os.Remove(w.path))
	if c, err := w.tryOpen(); err == nil {
		c.Close()
		t.Fatal("a new database was begun over a replica that has one")
	} else if !strings.Contains(err.Error(), "restore") {
		t.Error(err)
	}
	must(t, os.WriteFile(w.path, nil, 0o600)) // as good as missing
	before := w.txid()
	c = w.open("replica_restore=auto")
	if w.txid() != before+1 {
		t.Error("what was restored to go on with is not claimed at once")
	}
	if got := text(t, c, "SELECT count(*) FROM t"); got != "1" {
		t.Error(got, "rows")
	}
	exec(t, c, "INSERT INTO t VALUES(2)")
	w.sync()
	must(t, c.Close())
	w.shutdown()
	w.same()
}

// txid is the newest in the store.
func (w *world) txid() uint64 {
	w.t.Helper()
	h, err := replicate.ReadHistory(w.t.Context(), w.store)
	must(w.t, err)
	return h.TXID
}
