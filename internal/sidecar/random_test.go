//go:build linux

package sidecar_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

var (
	flagSeed   = flag.Uint64("seed", 0, "first seed of TestStockRandom")
	flagRounds = flag.Int("rounds", 3, "rounds of TestStockRandom, each with a seed of its own")
	flagTime   = flag.Duration("time", time.Second, "time of a round of TestStockRandom")
)

func pick[T any](r *rand.Rand, a ...T) T { return a[r.IntN(len(a))] }

// TestStockRandom: programs with stock SQLite work on a database at random, each with
// several connections: savepoints, rollbacks, transactions larger than the cache,
// VACUUM, checkpoints of all modes, connections and whole programs that come and go.
// Each entry of the log is applied to a mirror: what it makes must be a state
// between two transactions, with no commit left out.
func TestStockRandom(t *testing.T) {
	for i := range *flagRounds {
		seed := *flagSeed + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			h := newHost(t, nil)
			sum := h.random(seed, *flagTime)
			h.each = sum.check
			image, _ := h.finish().Image()
			must(t, sum.look(image, &segment.Entry{}))
			t.Log(sum)
			if sum.repairs > 0 {
				t.Errorf("%d repairs: something went by unseen", sum.repairs)
			}
			if sum.err != nil {
				t.Error(sum.err)
			}
			if sum.highest != sum.last {
				t.Errorf("the log ends at commit %d, the programs at %d", sum.last, sum.highest)
			}
		})
	}
}

// TestGuardHasTeeth switches the guard off: the random load must be noticed to be
// lost sight of, and repaired.
func TestGuardHasTeeth(t *testing.T) {
	for seed := range uint64(10) {
		h := newHost(t, nil)
		h.opts.Unguarded()
		h.opts.Logger = nil // it would tell of each repair
		sum := h.random(seed, time.Second)
		h.sync()
		h.stop()
		_, err := mirror.New().Follow(t.Context(), h.store, func(e *segment.Entry, m *mirror.Mirror) error { return sum.check(e, m) })
		if err = errors.Join(err, sum.err); err != nil || sum.repairs > 0 {
			t.Logf("seed %d: %v; %v", seed, sum, err)
			return
		}
	}
	t.Error("nothing notices that the guard is off")
}

// load sums up what programs did and what the log has of it.
type load struct {
	commits, highest, checkpoints, busy int
	waited                              time.Duration // the longest that was answered busy
	entries, repairs, merged            int
	looks, last                         int    // last: the counter then; -1: there were no tables
	since                               uint64 // TXIDs since then
	err                                 error
}

func (l *load) String() string {
	return fmt.Sprintf("%d commits, %d checkpoints of which %d were answered busy (after %v at most); %d entries, %d of them repairs, %d merged commits, %d states looked at",
		l.commits, l.checkpoints, l.busy, l.waited, l.entries, l.repairs, l.merged, l.looks)
}

// random runs programs until the time is over.
func (h *host) random(seed uint64, dur time.Duration) *load {
	h.t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	h.opts.MaxLag = pick(r, replicate.AsFast, 50*time.Millisecond, time.Second)
	work := stocksqlite.Work{
		Path: h.path, Random: true, Connections: 2, PageSize: pick(r, 512, 1024, 4096, 4096, 8192, 65536), AutoVacuum: r.IntN(3),
		CacheSize: 10, Synchronous: pick(r, "OFF", "NORMAL", "NORMAL", "FULL"), AutoCheckpoint: pick(r, -1, 20, 100, 1000), JournalLimit: pick(r, -1, 0, 50000),
	}
	h.t.Logf("page_size=%d auto_vacuum=%d synchronous=%s wal_autocheckpoint=%d journal_size_limit=%d max_lag=%v",
		work.PageSize, work.AutoVacuum, work.Synchronous, work.AutoCheckpoint, work.JournalLimit, h.opts.MaxLag)
	sum := &load{last: -1}
	add := func(w *stocksqlite.Worker, err error) {
		must(h.t, err)
		rep := w.Report()
		sum.commits += rep.Commits
		sum.highest = max(sum.highest, rep.Highest)
		for _, ck := range rep.Checkpoints {
			sum.checkpoints++
			if ck.Busy != 0 {
				sum.busy++
				sum.waited = max(sum.waited, ck.Took)
			}
		}
	}
	start := func() *stocksqlite.Worker {
		work.Seed = r.Uint64()
		w := stocksqlite.StartWork(h.t, work)
		w.Ready()
		return w
	}
	early := r.IntN(2) == 0 // the sidecar is there before the database is
	if early {
		h.start()
	}
	stays := start()
	if !early {
		h.start()
	}
	for end := time.Now().Add(dur); time.Now().Before(end); {
		w := start()
		time.Sleep(dur / 5)
		add(w, w.Stop())
	}
	add(stays, stays.Stop())
	return sum
}

// check is called for each entry. Asking the database itself takes its time, so that
// is done with one of lookEvery. (The mirror has proven the checksum of all.)
func (l *load) check(e *segment.Entry, m *mirror.Mirror) error {
	image, _ := m.Image()
	if len(image) == 0 {
		return nil // a claim
	}
	l.entries++
	switch e.Kind {
	case segment.Merge:
		l.merged += int(e.Count)
	case segment.Repair:
		l.repairs++
	}
	l.since += e.Count
	if l.since < lookEvery && e.Kind == segment.Transaction && l.last >= 0 {
		return nil
	}
	return l.look(image, e)
}

const lookEvery = 40

// look checks a state, and that no commit was left out on the way there.
func (l *load) look(image []byte, e *segment.Entry) error {
	s, err := stocksqlite.Check(image, -1)
	if err != nil {
		return err
	}
	l.looks++
	if d := s.Counter - l.last; l.last >= 0 && e.Kind != segment.Repair && (d < 0 || d > int(l.since)) {
		l.err = errors.Join(l.err, fmt.Errorf("%s of TXID %d to %d: from commit %d to %d in %d transactions", e.Kind, e.MinTXID, e.MaxTXID, l.last, s.Counter, l.since))
	}
	l.last, l.since = s.Counter, 0
	return nil
}
