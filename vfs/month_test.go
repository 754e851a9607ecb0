package vfs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/testclock"
	"github.com/outwash/outwash/replicate"
)

// A month is a database that lives for so long, as the clock of everything says.
type month struct {
	*world
	clock  *testclock.Clock
	rng    *rand.Rand
	began  time.Time
	c      *sqlite3.Conn
	states map[uint64][32]byte // SHA-256 of the database, by TXID
	newest uint64

	opened  time.Time // the session
	commits int
	claims  int
	log     map[int]int // log segments created, by day
}

func newMonth(t *testing.T) *month {
	m := &month{clock: testclock.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), rng: rand.New(rand.NewPCG(35, 1)), states: map[uint64][32]byte{}, log: map[int]int{}}
	m.began = m.clock.Now()
	opts := Options{}
	opts.hooks.clock = m.clock
	opts.hooks.limits = func(o *capture.Options) { o.Now = m.clock.Now }
	m.world = newWorld(t, opts)
	m.store = faultstore.New(objstore.NewMemAt(m.clock.Now))
	m.store.SetHooks(faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error {
		if err == nil && c.Op == faultstore.Create && strings.HasPrefix(c.Key, segment.LogPrefix) {
			m.mu.Lock()
			m.log[m.day()]++
			m.mu.Unlock()
		}
		return err
	}})
	m.open()
	exec(t, m.c, "CREATE TABLE t(n INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)")
	exec(t, m.c, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<3000) INSERT INTO t SELECT n, randomblob(100) FROM c")
	m.sync()
	return m
}

func (m *month) day() int { return int(m.clock.Now().Sub(m.began) / (24 * time.Hour)) }

func (m *month) open() {
	m.c = m.world.open("replica_max_lag=0")
	m.opened = m.clock.Now()
	m.claims++
}

// reopen ends the program and starts it again.
func (m *month) reopen() {
	m.t.Helper()
	must(m.t, m.c.Close())
	m.shutdown()
	m.open()
}

// commit makes one and waits for all that comes of it.
func (m *month) commit() {
	m.t.Helper()
	m.change()
	m.sync()
}

func (m *month) change() {
	m.t.Helper()
	first := m.rng.IntN(2900)
	exec(m.t, m.c, fmt.Sprintf("UPDATE t SET b = randomblob(100) WHERE n BETWEEN %d AND %d", first, first+m.rng.IntN(20)))
}

// sync waits until the bucket has what was committed, and until all that became due
// by that is done. Only an upload begins what is due, and not while the engine is
// still at what was due before: then the next one does.
func (m *month) sync() {
	m.t.Helper()
	m.uploaded()
	end, next := time.Now().Add(slowest), time.Now().Add(100*time.Millisecond)
	for ; !m.settled(); runtime.Gosched() {
		switch now := time.Now(); {
		case now.After(end):
			s, _ := Stat(m.path)
			m.t.Fatalf("%s: what is due isn't done: %+v, %+v", m.clock.Now(), s.History, s.Retention)
		case now.After(next):
			next = now.Add(100 * time.Millisecond)
			m.clock.Move(time.Second)
			m.change()
			m.uploaded()
		}
	}
}

func (m *month) uploaded() {
	m.t.Helper()
	m.newest = m.world.sync()
	image, _ := m.mirror.Image()
	m.states[m.newest] = sha256.Sum256(image)
	m.commits++
}

// settled reports whether what was due is done.
func (m *month) settled() bool {
	s, err := Stat(m.path)
	must(m.t, err)
	if s.History.Error != "" || s.Retention.Error != "" {
		m.t.Fatalf("%s: %+v", m.clock.Now(), s)
	}
	now := m.clock.Now()
	exported := now.Sub(m.opened) < time.Minute || s.History.Next.After(now)
	last := s.Retention.Last
	if last.Before(m.opened) {
		last = m.opened
	}
	return exported && now.Sub(last) < time.Hour
}

func (m *month) list(prefix string) (all []objstore.Info) {
	m.t.Helper()
	for o, err := range m.store.Inner().List(context.Background(), prefix, "") {
		must(m.t, err)
		all = append(all, o)
	}
	return all
}

// hour is one with commits; or without.
func (m *month) hour(commits int) {
	m.t.Helper()
	end := m.clock.Now().Add(time.Hour)
	for range commits {
		m.clock.Move(time.Duration(1+m.rng.IntN(600)) * time.Second)
		m.commit()
	}
	m.clock.Move(end.Sub(m.clock.Now()))
}

// promised lists the TXIDs that docs/history.md promises by what is listed.
func (m *month) promised() (all []uint64, log, pages, snapshots int) {
	segs := m.list(segment.LogPrefix)
	now := segs[len(segs)-1].Modified
	from := uint64(0)
	for _, o := range segs {
		txid, _ := segment.ParseLogKey(o.Key)
		if from == 0 && o.Size != segment.ClaimSize && now.Sub(o.Modified) <= replicate.DefaultKeepLog {
			from = txid
		}
	}
	for txid := from; txid <= m.newest; txid++ {
		if _, ok := m.states[txid]; ok {
			all, log = append(all, txid), log+1
		}
	}
	for _, o := range m.list(segment.PagesPrefix) {
		if now.Sub(o.Modified) <= replicate.DefaultKeepPages {
			_, txid, _, _ := segment.ParsePagesKey(o.Key)
			all, pages = append(all, txid), pages+1
		}
	}
	for _, o := range m.list(segment.SnapshotPrefix) {
		txid, _, _ := segment.ParseSnapshotKey(o.Key)
		if now.Sub(o.Modified) <= replicate.DefaultKeepSnapshots {
			all, snapshots = append(all, txid), snapshots+1
		}
	}
	return all, log, pages, snapshots
}

// check restores everything that is promised, and compares it.
func (m *month) check() {
	m.t.Helper()
	all, log, pages, snapshots := m.promised()
	out := filepath.Join(m.t.TempDir(), "restored.db")
	for _, txid := range all {
		if _, err := replicate.Restore(m.t.Context(), replicate.RestoreOptions{Store: m.store.Inner(), Output: out, TXID: txid, Force: true}); err != nil {
			m.t.Fatalf("day %d: TXID %d: %v", m.day(), txid, err)
		}
		b, err := os.ReadFile(out)
		must(m.t, err)
		if want, ok := m.states[txid]; !ok || sha256.Sum256(b) != want {
			m.t.Fatalf("day %d: TXID %d is restored as another state (known: %v)", m.day(), txid, ok)
		}
	}
	m.t.Logf("day %2d: restored %d transactions, %d ends of page segments, %d snapshots; %s", m.day(), log, pages, snapshots, m.objects())
}

func (m *month) objects() string {
	var parts []string
	for _, p := range []string{segment.LogPrefix, segment.PagesPrefix, segment.SnapshotPrefix, segment.DataPrefix} {
		n, bytes := 0, int64(0)
		for _, o := range m.list(p) {
			n, bytes = n+1, bytes+o.Size
		}
		parts = append(parts, fmt.Sprintf("%s %d (%d KiB)", p, n, bytes>>10))
	}
	return strings.Join(parts, ", ")
}

// bounded checks objects and bytes against docs/history.md.
func (m *month) bounded() {
	m.t.Helper()
	const hours = 18 // a day has, with commits
	size := func(prefix string, claims bool) (n int, bytes, most int64) {
		for _, o := range m.list(prefix) {
			if (prefix != segment.LogPrefix) || claims == (o.Size == segment.ClaimSize) {
				n, bytes, most = n+1, bytes+o.Size, max(most, o.Size)
			}
		}
		return n, bytes, most
	}
	claims, _, _ := size(segment.LogPrefix, true)
	log, _, _ := size(segment.LogPrefix, false)
	pages, pageBytes, _ := size(segment.PagesPrefix, false)
	snapshots, snapshotBytes, largest := size(segment.SnapshotPrefix, false)
	if claims != m.claims {
		m.t.Errorf("day %d: %d claims of %d sessions", m.day(), claims, m.claims)
	}
	// The log of a day, and what lies between it and the page segment before it.
	if most := m.log[m.day()-1] + m.log[m.day()-2]; log > most+4 {
		m.t.Errorf("day %d: %d log segments, %d were written in two days", m.day(), log, most)
	}
	// Seven days, and back to the snapshot before.
	if most := 8*hours + 1; pages > most || pageBytes > int64(most)*largest/2 {
		m.t.Errorf("day %d: %d page segments of %d bytes", m.day(), pages, pageBytes)
	}
	if snapshots > 31 || snapshotBytes > 31*largest {
		m.t.Errorf("day %d: %d snapshots of %d bytes", m.day(), snapshots, snapshotBytes)
	}
	if n := len(m.list(segment.DataPrefix)); n > pages+snapshots {
		m.t.Errorf("day %d: %d data objects", m.day(), n)
	}
}

// TestMonth: thirty-five days of a database, with bursts, nights, restarts, and five
// days of rest. Every promised point is restored on several days; objects, bytes and
// requests are as docs/history.md says.
func TestMonth(t *testing.T) {
	days := 35
	if testing.Short() {
		days = 4
	}
	m := newMonth(t)
	resting := 0
	for m.day() < days {
		day, before, uploads := m.day(), m.store.Total(), m.commits+m.claims
		rest := day >= 15 && day < 20
		reads := 0 // of a session that begins: each descriptor, and what an open reads
		for hour := range 24 {
			commits := m.rng.IntN(5)
			if rest || hour < 6 { // the night
				commits = 0
			}
			m.hour(commits)
			if !rest && hour == 12 && day%3 == 0 {
				m.reopen()
				reads = 40 + len(m.list(segment.PagesPrefix)) + len(m.list(segment.SnapshotPrefix))
			}
		}
		for range 1000 {
			runtime.Gosched() // whoever would like to make requests may
		}
		requests := m.store.Total() - before
		uploads = m.commits + m.claims - uploads
		t.Logf("day %2d: %d requests for %d uploads; %s", day, requests, uploads, m.objects())
		// In an hour with commits: what is due is written (1), read (1), and at most
		// twice it is looked for what can go (5 listings, 3 deletions).
		switch most := uploads + 18*(2+2*8) + reads; {
		case rest:
			// What the last upload began may end now: one look for what can go.
			if resting += requests; resting > 5+3 {
				t.Errorf("day %d: nobody writes, and %d requests were made", day, resting)
			}
		case requests > most:
			t.Errorf("day %d: %d requests for %d uploads, expected at most %d", day, requests, uploads, most)
		}
		if !rest {
			m.bounded()
		}
		switch day {
		case 2, 9, 19, 34:
			m.check()
		}
	}
	must(t, m.c.Close())
	m.shutdown()
	m.same()
}
