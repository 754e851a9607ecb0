package vfs

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/testclock"
	"github.com/outwash/outwash/replicate"
)

// TestHistorySettings: what the DSN says of history reaches the engine, Options where
// it says nothing; the first open decides. Stat and PRAGMA say how far it has come.
func TestHistorySettings(t *testing.T) {
	clock := testclock.New(time.Now())
	opts := Options{Keep: replicate.Keep{PagesEvery: time.Hour, SnapshotEvery: 10 * time.Hour}}
	opts.hooks.clock = clock
	w := newWorld(t, opts)
	began := clock.Now()
	c := w.open("replica_pages_every=30m", "_pragma=journal_mode(wal)", "_pragma=page_size(512)")
	exec(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t SELECT i, randomblob(300) FROM n")
	stat := func() replicate.HistoryStatus {
		t.Helper()
		s, err := Stat(w.path)
		must(t, err)
		return s.History
	}
	count := func(prefix string) (n int) {
		t.Helper()
		for _, err := range w.store.List(t.Context(), prefix, "") {
			must(t, err)
			n++
		}
		return n
	}
	w.sync()
	if h := stat(); h.Snapshot != nil || h.Pages != nil || !h.Next.Equal(began.Add(30*time.Minute)) {
		t.Errorf("at the beginning: %+v", h)
	}
	// Another open says something else: the first one counts.
	o := w.open("replica_pages_every=never", "replica_snapshot_every=never")
	for i := range 6 {
		clock.Move(31 * time.Minute)
		until(t, "what is due is written", func() bool {
			// It is looked at after an upload, unless something is being written.
			exec(t, o, "UPDATE t SET b=random() WHERE a=1")
			w.sync()
			return count(segment.SnapshotPrefix)+count(segment.PagesPrefix) > i
		})
	}
	must(t, o.Close())
	var h replicate.HistoryStatus
	until(t, "the status says it", func() bool {
		h = stat()
		return h.Snapshot != nil && h.Pages != nil && h.Next.After(clock.Now()) // of the last one
	})
	if h.Error != "" || h.Pages.TXID <= h.Snapshot.TXID || !h.Next.Equal(h.Pages.Time.Add(30*time.Minute)) {
		t.Errorf("%+v", h)
	}
	// The first is a snapshot, since there was none.
	if s, p := count(segment.SnapshotPrefix), count(segment.PagesPrefix); s != 1 || p != 5 {
		t.Errorf("%d snapshots and %d page segments in three hours", s, p)
	}
	var s replicate.Status
	must(t, json.Unmarshal([]byte(text(t, c, "PRAGMA replicated_status")), &s))
	if s.History.Snapshot == nil || s.History.Pages == nil || s.History.Pages.TXID != stat().Pages.TXID {
		t.Errorf("the pragma says %+v", s.History)
	}
	w.finish(c)
}
