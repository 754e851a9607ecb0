package vfs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// Bugs that other programs had, and the tests that they aren't here:
//
//	one missing frame ends a restore            TestOthersBugs/missing frame
//	stale disk overwrites newer remote state    TestTableEarlierPosition, TestTableStaleCopy, TestWrongDatabase/older
//	an outage leaves gaps, an unbounded queue   TestOthersBugs/outage without gaps, TestBacklogLimits
//	a listing longer than one page              storetest testListMany, s3store TestListPageIsRetried
//	checkpoint by another connection            TestOthersBugs/checkpoint by another connection, TestP8ForeignWriter
//	the first generation has no snapshot        TestOthersBugs/no snapshot
//	frames rewritten behind the commit frame,
//	a bulk transaction rolled back              TestP1SpilledCommit
//	a paused writer recreates a deleted key     replicate TestIdleCopyWakesAfterRetention; killtest TestPausedWriter
//	the verifier passes though a file is gone   TestOthersBugs/anything gone, replicate TestDamage
//	the backlog limit counts the wrong queue    TestOthersBugs/acknowledged isn't backlog, TestBacklogLimits
//	disk full wedges replication                TestDiskFullSpool, TestDiskFullDatabase
//	WAL reuse at an equal offset                TestOthersBugs/WAL reuse at an equal offset
//
// That retention deletes new backups when the clock jumps: replicate
// TestRetainClockJumps.
func TestOthersBugs(t *testing.T) {
	t.Run("missing frame", missingFrame)
	t.Run("outage without gaps", outageWithoutGaps)
	t.Run("checkpoint by another connection", otherCheckpoints)
	t.Run("no snapshot", noSnapshot)
	t.Run("anything gone", anythingGone)
	t.Run("acknowledged isn't backlog", acknowledgedIsNoBacklog)
	t.Run("WAL reuse at an equal offset", equalOffset)
}

// missingFrame: a segment in the middle of the log is gone. Restores to before it
// work, all others fail by its name, and none is silently shorter.
func missingFrame(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	for i := range 12 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		w.sync()
	}
	w.finish(c)
	const gone = 7
	key := segment.LogKey(gone)
	must(t, w.store.Inner().Delete(t.Context(), key))
	for txid := uint64(2); txid <= 14; txid++ {
		_, err := w.tryRestore(txid)
		if txid < gone {
			must(t, err)
		} else if !errors.Is(err, replicate.ErrCorrupt) || !strings.Contains(err.Error(), key) {
			t.Errorf("TXID %d: %v", txid, err)
		}
	}
	if _, err := w.tryRestore(0); !errors.Is(err, replicate.ErrCorrupt) || !strings.Contains(err.Error(), key) {
		t.Errorf("newest: %v", err)
	}
}

func (w *world) tryRestore(txid uint64) (replicate.RestoreResult, error) {
	return replicate.Restore(w.t.Context(), replicate.RestoreOptions{Store: w.store, Output: w.t.TempDir() + "/out", TXID: txid})
}

// outageWithoutGaps: each commit of an outage can be restored afterwards, and
// nothing waits any more.
func outageWithoutGaps(t *testing.T) {
	for _, checkpoint := range []string{"SELECT 1", "PRAGMA wal_checkpoint(TRUNCATE)"} {
		t.Run(checkpoint, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.strict()
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
			before := w.sync()
			w.stall()
			for i := range 20 {
				exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d); %s", i, checkpoint))
			}
			w.heal()
			if after := w.sync(); after != before+20 {
				t.Errorf("TXID %d, want %d", after, before+20)
			}
			for n := range uint64(20) {
				must(t, queryImage(w.restore(before+n), "SELECT count(*) FROM t", fmt.Sprint(n)))
			}
			s, err := Stat(w.path)
			must(t, err)
			if s.Backlog != 0 || s.BacklogBytes != 0 || s.Spooled != 0 || s.LagSeconds != 0 {
				t.Errorf("%+v", s)
			}
			w.finish(c)
		})
	}
}

// otherCheckpoints: other connections checkpoint between the commits of one, each
// in its own way.
func otherCheckpoints(t *testing.T) {
	w := newWorld(t, Options{})
	w.strict()
	c, own := w.open(), w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	f := w.foreign()
	before := w.sync()
	n := uint64(0)
	for _, by := range []string{"PASSIVE", "FULL", "RESTART"} {
		for range 3 {
			exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", n))
			exec(t, own, "PRAGMA wal_checkpoint("+by+")")
			exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", n))
			exec(t, f, "PRAGMA wal_checkpoint("+by+")") // what it had is found at the next gate
			n += 2
		}
	}
	if got := w.sync(); got != before+n {
		t.Errorf("TXID %d, want %d", got, before+n)
	}
	must(t, own.Close())
	must(t, f.Close())
	w.finish(c)
}

// noSnapshot: a line that began empty has none, and each TXID is restored from its
// log alone, through the sessions that extended it.
func noSnapshot(t *testing.T) {
	w := newWorld(t, Options{})
	rows := map[uint64]string{}
	for i := range 3 {
		c := w.open()
		exec(t, c, fmt.Sprintf("PRAGMA journal_mode=wal; CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES(%d)", i))
		rows[w.sync()] = fmt.Sprint(i + 1)
		w.finish(c)
	}
	for info, err := range w.store.List(t.Context(), segment.SnapshotPrefix, "") {
		t.Error(info.Key, err)
	}
	for txid, n := range rows {
		must(t, queryImage(w.restore(txid), "SELECT count(*) FROM t", n))
	}
}

// anythingGone deletes each object of a replica in turn: with a snapshot, an entry
// too large for the log, and small ones.
func anythingGone(t *testing.T) {
	w := newWorld(t, Options{})
	w.existing("wal", 4500)
	c := w.open()
	w.sync()
	exec(t, c, "CREATE TABLE t(a, b)")
	for i := range 3 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d,1)", i))
		w.sync()
	}
	exec(t, c, "INSERT INTO t VALUES(4,randomblob(10000000))")
	w.sync()
	exec(t, c, "INSERT INTO t VALUES(5,1)")
	w.finish(c)
	whole := w.restore(0)

	h, err := replicate.ReadHistory(t.Context(), w.store)
	must(t, err)
	var newest string
	objects := map[string][]byte{}
	for info, err := range w.store.Inner().List(t.Context(), "", "") {
		must(t, err)
		objects[info.Key] = w.object(info.Key)
		if strings.HasPrefix(info.Key, segment.LogPrefix) {
			newest = info.Key
		}
	}
	read := map[string]bool{} // by a restore of the newest state
	w.store.SetHooks(faultstore.Hooks{Before: w.noteReads(read)})
	w.restore(0)
	w.heal()
	named := 0
	for key, b := range objects {
		must(t, w.store.Inner().Delete(t.Context(), key))
		r, err := w.tryRestore(0)
		switch {
		case key == newest: // can't be told from a line that ends there
			if err != nil || r.TXID >= h.TXID {
				t.Errorf("%s gone: TXID %d, %v", key, r.TXID, err)
			}
		case key == segment.InfoKey:
			if !errors.Is(err, replicate.ErrNoReplica) {
				t.Errorf("%s gone: %v", key, err)
			}
			named++
		case read[key] || err != nil:
			if !errors.Is(err, replicate.ErrCorrupt) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s gone: %v", key, err)
			}
			named++
		}
		must(t, w.store.Inner().Create(t.Context(), key, b))
	}
	t.Logf("%d objects, a restore reads %d, %d were missed by name", len(objects), len(read), named)
	if named < 7 {
		t.Error("the replica is too small for this test")
	}
	must(t, mirror.Compare(whole, w.restore(0), 4096))
}

// acknowledgedIsNoBacklog: only what isn't in the store counts against the limits.
func acknowledgedIsNoBacklog(t *testing.T) {
	opts := Options{}
	opts.hooks.limits = func(o *capture.Options) { o.EntryLimit, o.SpoolLimit, o.MemoryLimit = 10, 60_000, 50_000 }
	w := newWorld(t, opts)
	w.strict()
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=10; CREATE TABLE t(a)")
	before := w.sync()
	for i := range 100 {
		exec(t, c, "INSERT INTO t VALUES(randomblob(10000))")
		if i%3 == 2 {
			w.sync()
		}
	}
	if after := w.sync(); after != before+100 {
		t.Errorf("TXID %d, want %d", after, before+100)
	}
	w.finish(c)
}

// equalOffset: the log is begun anew and has as many frames as before when it is
// looked at next: it has another content all the same.
func equalOffset(t *testing.T) {
	for _, mode := range []string{"PASSIVE", "RESTART", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.strict()
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,0); PRAGMA wal_checkpoint(TRUNCATE)")
			txid := w.sync()
			for i := range 20 {
				exec(t, c, "UPDATE t SET b=b+1") // one frame each
				if i%2 == 0 {
					w.sync()
				}
				exec(t, c, "PRAGMA wal_checkpoint("+mode+")")
				txid++
			}
			if got := w.sync(); got != txid {
				t.Errorf("TXID %d, want %d", got, txid)
			}
			must(t, queryImage(w.restore(0), "SELECT b FROM t", "20"))
			w.finish(c)
		})
	}
}
