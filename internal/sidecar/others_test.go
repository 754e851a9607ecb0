//go:build linux

package sidecar_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// Bugs that other programs had, as far as they are about databases that others write,
// and the tests that they aren't here (vfs/others_test.go has those of the replica):
//
//	stale disk overwrites newer remote state    TestOthersBugs/stale disk
//	an outage leaves gaps, an unbounded queue   TestOthersBugs/outage without gaps, TestOthersBugs/long outage
//	checkpoint by another connection            TestOthersBugs/checkpoint by another program
//	frames rewritten behind the commit frame,
//	a bulk transaction rolled back              TestOthersBugs/rolled back, TestPythonRolledBackSpill
//	the backlog limit counts the wrong queue    TestOthersBugs/acknowledged isn't backlog
//	disk full wedges replication                TestOthersBugs/long outage, vfs TestDiskFullSpool
//	WAL reuse at an equal offset                TestOthersBugs/WAL reuse at an equal offset
func TestOthersBugs(t *testing.T) {
	t.Run("stale disk", staleDisk)
	t.Run("outage without gaps", outageWithoutGaps)
	t.Run("long outage", longOutage)
	t.Run("checkpoint by another program", otherCheckpoints)
	t.Run("rolled back", rolledBack)
	t.Run("acknowledged isn't backlog", acknowledgedIsNoBacklog)
	t.Run("WAL reuse at an equal offset", equalOffset)
}

// away has the store fail whatever writes to it.
func (h *host) away() {
	h.store.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create || c.Op == faultstore.Upload || c.Op == faultstore.Put {
			return faultstore.ErrInjected
		}
		return nil
	}})
}

func (h *host) heal() { h.store.SetHooks(faultstore.Hooks{}) }

// staleDisk: the machine's disk is put back to an earlier state, all of it.
func staleDisk(t *testing.T) {
	h := newHost(t, nil)
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('early')")
	h.ready()
	must(t, p.Close())
	h.stop()
	old := filepath.Join(t.TempDir(), "old")
	must(t, os.CopyFS(old, os.DirFS(filepath.Dir(h.path))))
	p = h.app()
	p.Must("INSERT INTO t VALUES('late')")
	newest := h.ready()
	must(t, p.Close())
	h.stop()
	must(t, os.RemoveAll(filepath.Dir(h.path)))
	must(t, os.CopyFS(filepath.Dir(h.path), os.DirFS(old)))
	h.start()
	ctx, cancel := limit()
	defer cancel()
	if txid, err := h.db.Sync(ctx); err == nil {
		t.Errorf("the old disk was replicated, as TXID %d", txid)
	} else {
		t.Log(err)
	}
	query(t, h.restore(0), "SELECT group_concat(a) FROM t", "early,late")
	if hist, err := replicate.ReadHistory(t.Context(), h.store); err != nil || hist.TXID != newest {
		t.Errorf("the replica is at TXID %d, was at %d, %v", hist.TXID, newest, err)
	}
}

// outageWithoutGaps: each commit of an outage can be restored afterwards, though the
// application checkpoints as if nothing were the matter.
func outageWithoutGaps(t *testing.T) {
	for _, mode := range []string{"none", "PASSIVE", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.app()
			p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a)")
			before := h.ready()
			h.onlyTransactions(before + 1)
			h.away()
			for i := range 20 {
				p.Must(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
				if mode == "none" {
					continue
				}
				if ck, err := p.Checkpoint(mode); err != nil || ck.Busy != 0 {
					t.Errorf("%+v, %v", ck, err)
				}
			}
			h.heal()
			if after := h.sync(); after != before+20 {
				t.Errorf("TXID %d, want %d", after, before+20)
			}
			for n := range uint64(20) {
				query(t, h.restore(before+n), "SELECT count(*) FROM t", fmt.Sprint(n))
			}
			if s := h.db.Status(); s.Backlog != 0 || s.BacklogBytes != 0 || s.Spooled != 0 || s.LagSeconds != 0 {
				t.Errorf("%+v", s)
			}
			must(t, p.Close())
			h.finish()
		})
	}
}

// longOutage: what waits is more than there is room for. The application is not held
// up; when the store is back, the rest is one transaction.
func longOutage(t *testing.T) {
	h := newHost(t, nil)
	h.opts.Capture(func(o *capture.Options) { o.EntryLimit, o.SpoolLimit = 10, 60_000 })
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a, b)")
	h.ready()
	h.away()
	for i := range 60 {
		p.Must("INSERT INTO t VALUES(?, randomblob(9000))", i)
		if i%3 == 2 {
			if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
				t.Errorf("%+v, %v", ck, err)
			}
		}
		if n := h.localBytes(); n > 200_000 {
			t.Fatalf("%d bytes are kept on this machine", n)
		}
	}
	h.heal()
	h.sync()
	query(t, h.restore(0), "SELECT count(*) FROM t", "60")
	must(t, p.Close())
	repairs := 0
	h.each = func(e *segment.Entry, _ *mirror.Mirror) error {
		if e.Kind == segment.Repair {
			repairs++
		}
		return nil
	}
	h.finish()
	if repairs == 0 {
		t.Error("nothing was given up: the limits are not what is tested")
	}
}

// otherCheckpoints: another program checkpoints between the commits of one, in each
// way, and comes and goes.
func otherCheckpoints(t *testing.T) {
	h := newHost(t, nil)
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)")
	before := h.ready()
	h.onlyTransactions(before + 1)
	n := uint64(0)
	for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
		for i := range 4 {
			other := h.app()
			p.Must(fmt.Sprintf("INSERT INTO t VALUES(%d)", n))
			if ck, err := other.Checkpoint(mode); err != nil || ck.Busy != 0 {
				t.Errorf("%+v, %v", ck, err)
			}
			p.Must(fmt.Sprintf("INSERT INTO t VALUES(%d)", n))
			n += 2
			if i%2 == 0 {
				must(t, other.Close())
			} else {
				other.Kill()
			}
		}
	}
	if got := h.sync(); got != before+n {
		t.Errorf("TXID %d, want %d", got, before+n)
	}
	must(t, p.Close())
	h.finish()
}

// rolledBack: transactions larger than the cache, of which a part or all is rolled
// back after it went into the log.
func rolledBack(t *testing.T) {
	h := newHost(t, nil)
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; PRAGMA cache_size=5; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	before := h.ready()
	h.onlyTransactions(before + 1)
	const many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<200) INSERT INTO t(b) SELECT randomblob(900) FROM c;"
	rows := 0
	for i := range 12 {
		p.Must("BEGIN; " + many + "UPDATE t SET b=randomblob(890) WHERE a%3=0; ROLLBACK")
		p.Must("BEGIN; INSERT INTO t(b) VALUES(1); SAVEPOINT s; " + many +
			"UPDATE t SET b=randomblob(890) WHERE a>(SELECT max(a) FROM t)-20; UPDATE t SET b=randomblob(880) WHERE a>(SELECT max(a) FROM t)-40; ROLLBACK TO s; COMMIT")
		rows++
		if i%4 == 3 {
			p.Must("BEGIN; " + many + "UPDATE t SET b=randomblob(890) WHERE a%3=0; COMMIT")
			rows += 200
		}
	}
	h.sync()
	must(t, p.Close())
	h.finish()
	query(t, h.restore(0), "SELECT count(*) FROM t", fmt.Sprint(rows))
}

// acknowledgedIsNoBacklog: only what isn't in the store counts against the limits.
func acknowledgedIsNoBacklog(t *testing.T) {
	h := newHost(t, nil)
	h.opts.Capture(func(o *capture.Options) { o.EntryLimit, o.SpoolLimit, o.MemoryLimit = 10, 60_000, 50_000 })
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=10; CREATE TABLE t(a)")
	before := h.ready()
	h.onlyTransactions(before + 1)
	for i := range 100 {
		p.Must("INSERT INTO t VALUES(randomblob(10000))")
		if i%3 == 2 {
			h.sync()
		}
	}
	if after := h.sync(); after != before+100 {
		t.Errorf("TXID %d, want %d", after, before+100)
	}
	must(t, p.Close())
	h.finish()
}

// equalOffset: the log is begun anew and has as many frames as before when it is
// looked at next: it has another content all the same.
func equalOffset(t *testing.T) {
	for _, mode := range []string{"PASSIVE", "RESTART", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.app()
			p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,0)")
			_, err := p.Checkpoint("TRUNCATE")
			must(t, err)
			txid := h.ready()
			h.onlyTransactions(txid + 1)
			for i := range 20 {
				p.Must("UPDATE t SET b=b+1") // one frame each
				if i%2 == 0 {
					h.sync()
				}
				if ck, err := p.Checkpoint(mode); err != nil || ck.Busy != 0 {
					t.Errorf("%+v, %v", ck, err)
				}
				txid++
			}
			if got := h.sync(); got != txid {
				t.Errorf("TXID %d, want %d", got, txid)
			}
			query(t, h.restore(0), "SELECT b FROM t", "20")
			must(t, p.Close())
			h.finish()
		})
	}
}
