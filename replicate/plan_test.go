package replicate

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func TestChoosePlan(t *testing.T) {
	logs := func(txids ...uint64) (l []logKey) {
		for _, x := range txids {
			l = append(l, logKey{txid: x})
		}
		return l
	}
	snap := []exportKey{{kind: segment.KindSnapshot, min: 1, max: 10}}
	pages := append(snap, exportKey{kind: segment.KindPages, min: 9, max: 14}, exportKey{kind: segment.KindPages, min: 15, max: 20})
	for _, c := range []struct {
		name  string
		base  []exportKey
		logs  []logKey
		t     target
		first uint64 // 0: no segments
		n     int
		open  bool
		gap   bool
	}{
		{"from nothing", nil, logs(1, 2, 5), target{}, 1, 3, true, false},
		{"begins exactly behind the snapshot", snap, logs(8, 11, 12), target{}, 11, 2, true, false},
		{"snapshot inside a segment", snap, logs(3, 8, 12), target{}, 8, 2, true, false},
		{"snapshot is the end", snap, logs(3, 10), target{}, 10, 1, true, false},
		{"log begins after the snapshot", snap, logs(12, 13), target{}, 0, 0, false, true},
		{"by TXID", snap, logs(9, 12, 15, 20), target{txid: 16}, 9, 3, false, false},
		{"behind page segments", pages, logs(9, 15, 21, 25), target{txid: 26}, 21, 2, true, false},
		{"the page segments' last TXID inside a segment", pages, logs(15, 19, 21), target{txid: 21}, 21, 1, true, false},
		{"the log behind page segments is gone", pages, logs(22, 30), target{txid: 25}, 0, 0, false, true},
		{"no log", nil, nil, target{}, 0, 0, true, false},
		{"beginning is gone", nil, logs(7), target{}, 0, 0, false, true},
	} {
		p, err := choosePlan(c.base, c.logs, c.t, len(c.logs))
		if errors.Is(err, ErrCorrupt) != c.gap || len(p.logs) != c.n || c.n > 0 && p.logs[0].txid != c.first || !c.gap && p.open != c.open {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
	}
}

func snapAt(max uint64) exportKey { return exportKey{kind: segment.KindSnapshot, min: 1, max: max} }
func pagesFrom(min, max uint64) exportKey {
	return exportKey{kind: segment.KindPages, min: min, max: max}
}

func TestBoundaries(t *testing.T) {
	for _, c := range []struct {
		name    string
		exports []exportKey
		want    []uint64
	}{
		{"none", nil, nil},
		{"page segments from the beginning", []exportKey{pagesFrom(1, 4), pagesFrom(5, 9)}, []uint64{4, 9}},
		{"page segments behind nothing", []exportKey{pagesFrom(3, 4), pagesFrom(5, 9)}, nil},
		{"one is missing, a snapshot comes later", []exportKey{snapAt(5), pagesFrom(8, 9), snapAt(12), pagesFrom(13, 14)}, []uint64{5, 12, 14}},
		{"a page segment spans a snapshot", []exportKey{snapAt(5), snapAt(8), pagesFrom(6, 10)}, []uint64{5, 8, 10}},
		{"both end at one TXID", []exportKey{snapAt(5), pagesFrom(2, 5), pagesFrom(6, 7), snapAt(7)}, []uint64{5, 7}},
	} {
		byEnd(c.exports)
		var got []uint64
		for _, k := range boundaries(c.exports) {
			got = append(got, k.max)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, expected %v", c.name, got, c.want)
		}
	}
}

// A boundary is what a base can be chosen for that ends there.
func TestBoundariesAreBases(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var exports []exportKey
		for range rng.IntN(10) {
			max := 1 + rng.Uint64N(20)
			if rng.IntN(4) == 0 {
				exports = append(exports, snapAt(max))
			} else {
				exports = append(exports, pagesFrom(max-rng.Uint64N(min(max, 6)), max))
			}
		}
		byEnd(exports)
		var want []uint64
		for txid := uint64(1); txid <= 20; txid++ {
			if endOf(chooseBase(exports, txid)) == txid {
				want = append(want, txid)
			}
		}
		var got []uint64
		for _, k := range boundaries(exports) {
			got = append(got, k.max)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v: boundaries %v, bases end at %v", exports, got, want)
		}
	}
}

func TestStrayClaims(t *testing.T) {
	logs := []logKey{{1, segment.ClaimSize}, {2, 500}, {5, segment.ClaimSize}, {9, 700}, {12, segment.ClaimSize}, {13, 800}, {14, segment.ClaimSize}}
	for i, want := range []bool{false, false, true, false, false, false, true} {
		if got := stray(logs, i, true); got != want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if stray(logs, 6, false) || stray(logs, 7, true) {
		t.Error("the end of the line is taken for a hole")
	}
}

// Where the log goes on behind a base, and where it doesn't.
func TestJoint(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	p := mc.open()
	for range 6 {
		mc.m.commit()
		p.sync(t)
	}
	p.close(t)
	info, _ := readRoot(t.Context(), mc.store)
	l := &line{mc.store, info.Database}
	all, err := l.listLog(t.Context(), 1)
	if err != nil || len(all) != 7 {
		t.Fatal(all, err)
	}
	_, lasts := mc.segments()
	claim := func(txid uint64) logKey { return logKey{txid, segment.ClaimSize} }
	for _, c := range []struct {
		name  string
		at    uint64
		until uint64
		logs  []logKey
		first int
		gap   bool
	}{
		{"from the beginning", 0, segment.MaxTXID, all, 0, false},
		{"at a segment's end", lasts[3], segment.MaxTXID, all, 4, false},
		{"whose segment is gone", lasts[3], segment.MaxTXID, all[4:], 0, false},
		{"the next one is gone", lasts[3], segment.MaxTXID, slices.Concat(all[:4], all[5:]), 0, true},
		{"all before is gone", lasts[1], segment.MaxTXID, all[4:], 0, true},
		{"the line's end", lasts[6], segment.MaxTXID, all, 7, false},
		{"the line's end, which isn't: there is an export behind it", lasts[6], lasts[6] + 5, all, 0, true},
		{"a claim in a hole", 100, segment.MaxTXID, []logKey{claim(100), claim(101), {110, 500}}, 0, true},
		{"a claim that a segment follows", 100, segment.MaxTXID, []logKey{claim(100), claim(101), {102, 500}}, 1, false},
		{"a claim that is the end", 100, segment.MaxTXID, []logKey{claim(101)}, 0, false},
		{"a claim and nothing, though there is an export", 100, 120, []logKey{claim(101)}, 0, true},
	} {
		first, err := l.joint(t.Context(), c.at, c.until, c.logs)
		if errors.Is(err, errGap) != c.gap || !c.gap && (err != nil || first != c.first) {
			t.Errorf("%s: %d, %v", c.name, first, err)
		}
	}
}

// A snapshot or page segment whose header is damaged keeps nobody from restoring the
// times before it for which the log is there; for others it is named.
func TestTimesBesideDamagedExport(t *testing.T) {
	mc, _ := written(t, 6, 20, 1, 2)
	rng := rand.New(rand.NewPCG(1, 1))
	firsts, lasts := mc.segments()
	var exports []exportKey
	for i, start := 5, 1; i < len(lasts); i += 5 {
		if i == 10 {
			exports = append(exports, mc.putSnapshot(rng, lasts[i], true))
		}
		exports = append(exports, mc.putPages(rng, firsts[start], lasts[i], i == 15))
		start = i + 1
	}
	points := mc.points()
	for _, log := range []bool{true, false} {
		if !log { // of the first half
			for _, first := range firsts[1:11] {
				mc.store.Delete(t.Context(), segment.LogKey(first))
			}
		}
		for _, k := range exports {
			whole := get(t, mc.store, k.key())
			b := bytes.Clone(whole)
			b[100] ^= 1
			put(t, mc.store, k.key(), b)
			for _, p := range points {
				res, image, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.Timestamp = time.UnixMicro(p.time) })
				switch {
				case err == nil && res.Exact && (res.TXID != p.txid || !bytes.Equal(image, p.state.image())):
					t.Errorf("%s is damaged: at the time of TXID %d: another state: %+v", k.key(), p.txid, res)
				case err == nil && !res.Exact && (log || len(res.Notes) == 0 || slices.ContainsFunc(res.Notes, func(s string) bool { return strings.Contains(s, k.key()) })):
					t.Errorf("%s is damaged: at the time of TXID %d: not exact: %+v", k.key(), p.txid, res)
				case errors.Is(err, ErrCorrupt) && strings.Contains(err.Error(), k.key()) && (!log || p.txid >= k.max):
				case err != nil && (log || !errors.Is(err, ErrNotRestorable)):
					t.Errorf("%s is damaged: at the time of TXID %d: %v", k.key(), p.txid, err)
				}
			}
			put(t, mc.store, k.key(), whole)
		}
	}
}
