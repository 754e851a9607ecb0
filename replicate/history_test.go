package replicate

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
)

// What can be restored is listed truthfully: ranges, and single points before them.
func TestHistoryAfterRetention(t *testing.T) {
	mc, points := longHistory(t, 200)
	h, err := ReadHistory(t.Context(), mc.store)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.PageSegments) != 10 || len(h.Snapshots) != 2 || len(h.Ranges) != 5 || h.Ranges[4].From != 101 || h.Ranges[4].To != h.TXID {
		t.Fatalf("%d page segments, %d snapshots, %+v", len(h.PageSegments), len(h.Snapshots), h.Ranges)
	}
	listed := func(txid uint64) bool {
		return slices.ContainsFunc(h.Ranges, func(r TXIDRange) bool { return r.From <= txid && txid <= r.To })
	}
	for _, p := range points {
		_, err := Restore(t.Context(), RestoreOptions{Store: mc.store, TXID: p.txid, Output: filepath.Join(t.TempDir(), "db")})
		if err == nil != listed(p.txid) || err != nil && !errors.Is(err, ErrNotRestorable) {
			t.Fatalf("TXID %d: listed %v, %v", p.txid, listed(p.txid), err)
		}
	}
	for _, r := range h.Ranges[:4] {
		if r.From != r.To || r.FromTime.IsZero() || r.FromTime != r.ToTime {
			t.Errorf("%+v", r)
		}
	}
}
