//go:build linux

package sidecar

import (
	"os"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/internal/wal"
)

// load writes for a while, with TRUNCATE checkpoints by a connection of its own.
func (w *world) load(work stocksqlite.Work) stocksqlite.Report {
	w.t.Helper()
	work.Path = w.path
	p := stocksqlite.StartWork(w.t, work)
	must(w.t, p.Wait())
	return p.Report()
}

// loadUntil writes until so many commits and checkpoints are done.
func (w *world) loadUntil(work stocksqlite.Work, commits, checkpoints int) stocksqlite.Report {
	w.t.Helper()
	work.Path = w.path
	p := stocksqlite.StartWork(w.t, work)
	p.WaitDone(commits, checkpoints)
	must(w.t, p.Stop())
	return p.Report()
}

// restarted waits until the log was begun anew so many times, while somebody writes.
func (w *world) restarted(times int) (largest int64) {
	w.t.Helper()
	var salt [2]uint32
	w.eventually("the log is begun anew", func() bool {
		if fi, err := os.Stat(w.path + "-wal"); err == nil {
			largest = max(largest, fi.Size())
		}
		f, err := os.Open(w.path + "-shm")
		must(w.t, err)
		defer f.Close()
		if idx, err := wal.ReadIndex(f); err == nil && idx.Salt != salt {
			salt = idx.Salt
			times--
		}
		return times < 0 // the first is the log as it was
	})
	return largest
}

// TestLoad: the log is restarted many times under load, all checkpoints of the
// application return 0, and each commit has its TXID; nothing goes by unseen.
func TestLoad(t *testing.T) {
	opts := Options{}
	opts.EachItsEntry()
	w := newWorld(t, opts)
	w.load(stocksqlite.Work{Commits: 1})
	w.ready()
	before := w.sync()
	r := w.loadUntil(stocksqlite.Work{Rate: 300, Truncate: 100 * time.Millisecond, AutoCheckpoint: 200}, 900, 20)
	for _, ck := range r.Checkpoints {
		if ck.Busy != 0 && ck.Log >= 0 { // below: beside another one of the application's own
			t.Errorf("%+v", ck)
		}
	}
	after := w.sync()
	if after < before+uint64(r.Commits) {
		t.Errorf("%d commits went from TXID %d to %d", r.Commits, before, after)
	}
	t.Logf("%d commits, %d checkpoints, TXID %d to %d", r.Commits, len(r.Checkpoints), before, after)
	w.same()
	if n := w.repairs(); n != 0 || w.count(segment.Repair) > 0 || w.count(segment.Merge) > 0 {
		t.Errorf("%d repairs, %d merges", n, w.count(segment.Merge))
	}
}

// TestLoadUnguarded shows the teeth of TestLoad: without the guard commits go by.
func TestLoadUnguarded(t *testing.T) {
	w := newWorld(t, Options{hooks: hooks{unguarded: true}})
	w.load(stocksqlite.Work{Commits: 1})
	w.ready()
	p := stocksqlite.StartWork(t, stocksqlite.Work{Path: w.path, Rate: 300, Truncate: 100 * time.Millisecond, AutoCheckpoint: 200})
	w.eventually("something is missed without the guard", func() bool { return w.repairs() > 0 })
	must(t, p.Stop())
	w.same() // a repair finds it
}

// TestTakeOver: a large database is taken over while its application writes, and does
// TRUNCATE checkpoints, all of which return 0.
func TestTakeOver(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal; PRAGMA synchronous=off")
	p.Must(table)
	for range 40 {
		p.Must("INSERT INTO t(a) SELECT randomblob(1000000)")
	}
	must(t, p.Close())
	w.load(stocksqlite.Work{Commits: 1})
	work := stocksqlite.StartWork(t, stocksqlite.Work{Path: w.path, Rate: 100, Truncate: 50 * time.Millisecond})
	work.Ready()
	w.start()
	w.sync()
	must(t, work.Stop())
	r := work.Report()
	if up := w.db.Status().Uploaded; up < 40_000_000 {
		t.Errorf("%d bytes were uploaded", up)
	}
	t.Logf("%d commits, %d checkpoints", r.Commits, len(r.Checkpoints))
	for _, ck := range r.Checkpoints {
		if ck.Busy != 0 && ck.Log >= 0 {
			t.Errorf("%+v", ck)
		}
	}
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestRandomLoad: transactions of all kinds, by several connections.
func TestRandomLoad(t *testing.T) {
	w := newWorld(t, Options{})
	w.load(stocksqlite.Work{Commits: 1})
	w.ready()
	r := w.loadUntil(stocksqlite.Work{Random: true, Seed: uint64(time.Now().UnixNano()), Connections: 3, Truncate: 200 * time.Millisecond, AutoCheckpoint: 50}, 500, 50)
	t.Logf("%d commits, %d checkpoints", r.Commits, len(r.Checkpoints))
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestNoPause: writers that never pause don't make the log grow without end. (Random
// ones do, with or without a sidecar: a TRUNCATE that waits for the WRITE lock lets no
// other checkpoint through.)
func TestNoPause(t *testing.T) {
	w := newWorld(t, Options{hooks: hooks{force: 8 << 20}})
	w.load(stocksqlite.Work{Commits: 1})
	w.ready()
	work := stocksqlite.StartWork(t, stocksqlite.Work{Path: w.path, Connections: 2})
	work.Ready()
	t.Logf("the log had %d MiB at most", w.restarted(5)>>20)
	must(t, work.Stop())
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestHotWriter: the log of one writer that never pauses is restarted, though the only
// moments for that are the ends of its own checkpoints. (A log that isn't is checkpointed
// at every commit: most of the writer's time went there.)
func TestHotWriter(t *testing.T) {
	w := newWorld(t, Options{hooks: hooks{force: 1 << 40}})
	w.load(stocksqlite.Work{Commits: 1})
	w.ready()
	work := stocksqlite.StartWork(t, stocksqlite.Work{Path: w.path})
	work.Ready()
	largest := w.restarted(5)
	must(t, work.Stop())
	t.Logf("%d commits, the log had %d MiB at most", work.Report().Commits, largest>>20)
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestNeverCheckpoints: an application that leaves checkpoints to others finds its
// log bounded.
func TestNeverCheckpoints(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=off")
	p.Must(table)
	w.ready()
	for range 6 {
		p.Must("INSERT INTO t(a) SELECT randomblob(100000) FROM (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<100) SELECT x FROM n)")
	}
	w.eventually("backfilled", func() bool {
		f, err := os.Open(w.path + "-shm")
		must(t, err)
		defer f.Close()
		idx, err := wal.ReadIndex(f)
		return err == nil && idx.MaxFrame-idx.Backfilled < ownPages
	})
	p.Must("INSERT INTO t(a) VALUES(1)")
	w.same()
}
