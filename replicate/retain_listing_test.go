package replicate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// A snapshot whose data was lost is deleted by hand and written anew, under the same
// key, as outwash snapshot says. A session that had read the old descriptor keeps the
// new one, and its data.
func TestRetainDescriptorWrittenAnew(t *testing.T) {
	s := newRetainStore()
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 10)
	snap, lost := s.export(t, 0, 10, true)
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 10)
	if err := s.Mem.Delete(t.Context(), snap, lost); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Minute)
	_, data := s.export(t, 0, 10, true)
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 11, 20)
	e.retain(t.Context(), 20)
	got := s.keys(t)
	for _, k := range []string{snap, data, segment.LogKey(10)} {
		if !slices.Contains(got, k) {
			t.Errorf("%s is gone", k)
		}
	}
	if slices.Contains(got, segment.LogKey(9)) {
		t.Errorf("there remain %v", got)
	}
}

// A listing of the log that lacks a segment is no proof that it is gone: its data
// stays, and goes with it.
func TestRetainListingLacksLogSegment(t *testing.T) {
	s := newRetainStore()
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 10)
	live := segment.LogDataKey(5, segment.ID{5})
	left := segment.LogDataKey(1, segment.ID{6}) // an attempt that another session's claim ended
	s.put(t, live, 10)
	s.put(t, left, 10)
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 11, 20)
	s.hidden = func(key string) bool { return key == segment.LogKey(5) }
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 20)
	if !slices.Equal(s.deleted, []string{left}) {
		t.Errorf("deleted: %v", s.deleted)
	}
	s.export(t, 0, 10, false)
	s.now = s.now.Add(2 * time.Hour)
	s.logs(t, 21, 21)
	s.take()
	e.retain(t.Context(), 21)
	if !slices.Contains(s.deleted, segment.LogKey(5)) || !slices.Contains(s.deleted, live) {
		t.Errorf("deleted: %v", s.deleted)
	}
}

// What only the second listing of descriptors has isn't void because the listing of
// data lacks its data, too.
func TestRetainListingLacksExport(t *testing.T) {
	s := newRetainStore()
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 10)
	snap, data := s.export(t, 0, 10, true)
	orphan := segment.DataKey(segment.ID{7})
	s.put(t, orphan, 100)
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 11, 20)
	first := true
	s.hidden = func(key string) bool {
		if key == snap && first {
			first = false
			return true
		}
		return key == data
	}
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 20)
	got := s.keys(t)
	if !slices.Contains(got, snap) || !slices.Contains(got, data) || slices.Contains(got, orphan) {
		t.Errorf("there remain %v", got)
	}
}

// A replica whose log was kept for years is not listed whole, but emptied a piece
// each time, from a snapshot to the next; claims don't count.
func TestRetainPieces(t *testing.T) {
	s := newRetainStore()
	for txid := uint64(1); txid <= 30; txid++ {
		s.put(t, segment.LogKey(txid), segment.ClaimSize)
	}
	s.logs(t, 31, 100)
	s.export(t, 0, 100, false)
	s.logs(t, 101, 200)
	s.export(t, 0, 200, false)
	s.logs(t, 201, 400)
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 401, 410)
	e, _ := retainEngine(s, Keep{})
	e.retainer.most = 20
	for _, first := range []uint64{100, 200, 200} {
		s.take()
		e.retain(t.Context(), 410)
		var left uint64
		for _, k := range s.keys(t) {
			if txid, ok := segment.ParseLogKey(k); ok && txid > 30 {
				left = txid
				break
			}
		}
		if left != first || first == 100 && s.listed > 30+70+20 {
			t.Errorf("the log begins with %d, not with %d; listings gave %d objects", left, first, s.listed)
		}
		for _, k := range s.deleted {
			if txid, ok := segment.ParseLogKey(k); ok && txid <= 30 || strings.HasPrefix(k, segment.SnapshotPrefix+"00000000000000c8") {
				t.Errorf("%s goes", k)
			}
		}
	}
}

// lessWhenCut checks that nothing goes because only a piece of the log is listed.
func (w *retainWorld) lessWhenCut(h holdings, whole deletion) {
	h.log = h.log[:1+w.rng.IntN(len(h.log))]
	piece := newRetention(h, w.keep).deletion()
	for _, o := range slices.Concat(piece.segments, piece.data, piece.orphans) {
		if !slices.Contains(slices.Concat(whole.segments, whole.data, whole.orphans), o) {
			w.failf("%s goes because the log is listed to %d only", o.Key, h.log[len(h.log)-1].txid)
		}
	}
}

// A log that is kept for longer than snapshots keeps those of its time, as
// docs/history.md says.
func TestRetainLongLogKeepsSnapshots(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Unix(1_700_000_000, 0)
	h := holdings{now: now}
	for i := range 400 {
		at := now.Add(time.Duration(i-399) * day)
		h.log = append(h.log, logObject{uint64(i + 1), 300, at.UnixMicro()})
		h.exports = append(h.exports, heldExport{exportKey: exportKey{kind: segment.KindSnapshot, min: 1, max: uint64(i + 1), modified: at}})
	}
	for _, c := range []struct {
		keep Keep
		want int
	}{{Keep{}, 31}, {Keep{Log: 365 * day}, 366}} {
		left := len(h.exports)
		for _, o := range newRetention(h, c.keep).deletion().segments {
			if strings.HasPrefix(o.Key, segment.SnapshotPrefix) {
				left--
			}
		}
		if left != c.want {
			t.Errorf("keep %+v: %d snapshots stay, %d expected", c.keep, left, c.want)
		}
	}
}
