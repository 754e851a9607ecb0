package vfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/testclock"
	"github.com/outwash/outwash/replicate"
)

// TestHistoryOfSQL has a database written through database/sql, by several
// connections at once, while hours pass by the engine's clock: page segments and
// snapshots come in the middle of it all. Each of them is restored, without the log
// that it stands for, and is exactly a state that was captured.
func TestHistoryOfSQL(t *testing.T) {
	for _, mode := range []string{"wal", "truncate"} {
		t.Run(mode, func(t *testing.T) { historyOfSQL(t, mode) })
	}
}

func historyOfSQL(t *testing.T, mode string) {
	clock := testclock.New(time.Now())
	w := newWorld(t, Options{
		hooks: hooks{clock: clock},
		Keep:  replicate.Keep{PagesEvery: time.Hour, SnapshotEvery: 5 * time.Hour},
	})
	states := map[uint64][32]byte{} // by checksum
	w.each = func(e *segment.Entry) error {
		image, _ := w.mirror.Image()
		states[e.Post] = sha256.Sum256(image)
		return nil
	}
	count := func() (n int) {
		for _, prefix := range []string{segment.SnapshotPrefix, segment.PagesPrefix} {
			for _, err := range w.store.Inner().List(t.Context(), prefix, "") {
				must(t, err)
				n++
			}
		}
		return n
	}
	for session := range 2 {
		db, err := sql.Open("sqlite3", "file:"+w.path+"?vfs="+w.name+"&_pragma=busy_timeout(120000)&_pragma=journal_mode("+mode+")&_txlock=immediate")
		must(t, err)
		if session == 0 {
			_, err = db.Exec("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB); CREATE INDEX tv ON t(v)")
			must(t, err)
		}
		var stop atomic.Bool
		var writers sync.WaitGroup
		failed := make([]error, 3)
		for i := range failed {
			writers.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), uint64(session)))
				for n := 0; failed[i] == nil && !stop.Load(); n++ {
					failed[i] = historyWrite(db, rng, n)
					if failed[i] == nil && n%8 == 7 { // the mirror is slower than SQLite
						_, failed[i] = Sync(t.Context(), w.path)
					}
				}
			})
		}
		for range 8 {
			before := count()
			clock.Move(time.Hour + time.Minute)
			for end := time.Now().Add(slowest); count() == before; runtime.Gosched() {
				if time.Now().After(end) {
					s, err := Stat(w.path)
					t.Fatalf("nothing was written: %+v, %v", s, err)
				}
				clock.Move(time.Millisecond) // waits between attempts
			}
		}
		stop.Store(true)
		writers.Wait()
		for _, err := range failed {
			must(t, err)
		}
		w.sync()
		must(t, db.Close())
		w.shutdown()
	}
	w.same()
	snapshots, pages := 0, 0
	for _, prefix := range []string{segment.SnapshotPrefix, segment.PagesPrefix} {
		for o, err := range w.store.Inner().List(t.Context(), prefix, "") {
			must(t, err)
			txid, sum, ok := segment.ParseSnapshotKey(o.Key)
			if ok {
				snapshots++
			} else {
				_, txid, sum, ok = segment.ParsePagesKey(o.Key)
				pages++
			}
			if !ok {
				t.Fatalf("foreign key %s", o.Key)
			}
			image := restoreWithoutLog(t, w.store.Inner(), txid)
			if states[sum] != sha256.Sum256(image) {
				t.Errorf("%s is not the state that was captured", o.Key)
			}
		}
	}
	t.Logf("%d states, %d snapshots, %d page segments", len(states), snapshots, pages)
	if snapshots < 3 || pages < 6 {
		t.Errorf("%d snapshots, %d page segments", snapshots, pages)
	}
}

// historyWrite makes one transaction, or vacuums.
func historyWrite(db *sql.DB, rng *rand.Rand, n int) error {
	k := rng.IntN(2000)
	var err error
	switch rng.IntN(12) {
	case 0:
		_, err = db.Exec("DELETE FROM t WHERE k BETWEEN ? AND ?", k, k+300)
	case 1:
		if n%9 == 0 {
			_, err = db.Exec("VACUUM")
		} else {
			_, err = db.Exec("PRAGMA wal_checkpoint(PASSIVE)")
		}
	case 2, 3:
		_, err = db.Exec("WITH RECURSIVE c(x) AS (SELECT ? UNION ALL SELECT x+1 FROM c LIMIT 150) INSERT OR REPLACE INTO t SELECT x, randomblob(300) FROM c", k)
	default:
		_, err = db.Exec("INSERT OR REPLACE INTO t VALUES(?, randomblob(?))", k, rng.IntN(2000))
	}
	if err != nil {
		return fmt.Errorf("write %d: %w", n, err)
	}
	return nil
}

// restoreWithoutLog restores TXID txid from a replica that has no log up to it, but
// for claims.
func restoreWithoutLog(t *testing.T, store replicate.Store, txid uint64) []byte {
	t.Helper()
	reduced := replicate.NewMemStore()
	for o, err := range store.List(t.Context(), "", "") {
		must(t, err)
		if first, ok := segment.ParseLogKey(o.Key); ok && first <= txid && o.Size != segment.ClaimSize {
			continue
		}
		r, _, err := store.Get(t.Context(), o.Key, replicate.Range{})
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		must(t, r.Close())
		_, err = reduced.Upload(t.Context(), o.Key, bytes.NewReader(b))
		must(t, err)
	}
	out := filepath.Join(t.TempDir(), "restored.db")
	_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: reduced, Output: out, TXID: txid})
	must(t, err)
	b, err := os.ReadFile(out)
	must(t, err)
	return b
}
