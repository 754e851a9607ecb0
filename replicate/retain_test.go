package replicate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// A retainWorld is a replica without bytes: what is listed of it, and how it came
// to be.
type retainWorld struct {
	t       *testing.T
	rng     *rand.Rand
	seed    uint64
	keep    Keep
	now     time.Time
	log     []retainSegment
	exports []heldExport
	data    map[string]ObjectInfo
	asleep  []heldExport // data is uploaded, the descriptor is not published yet
	last    [2]uint64    // what two exporting sessions believe to have exported
	names   int
	honest  bool                 // no publisher ever sleeps
	good    map[exportPoint]bool // page segments whose end could be restored when they were published
}

type exportPoint struct{ min, max uint64 }

type retainSegment struct {
	logObject
	max   uint64
	stray bool // a claim in a gap: not of the line
}

func newRetainWorld(t *testing.T, seed uint64) *retainWorld {
	w := &retainWorld{t: t, rng: rand.New(rand.NewPCG(seed, 5)), seed: seed, now: time.Unix(1_700_000_000, 0),
		data: map[string]ObjectInfo{}, good: map[exportPoint]bool{}}
	pick := func(list ...time.Duration) time.Duration { return list[w.rng.IntN(len(list))] }
	const day = 24 * time.Hour
	w.keep = Keep{
		Log:       pick(10*time.Minute, time.Hour, 3*time.Hour, day, 3*day),
		Pages:     pick(time.Minute, 2*time.Hour, day, 4*day, Forever),
		Snapshots: pick(time.Minute, 3*time.Hour, 2*day, 5*day, Forever),
	}
	if w.rng.IntN(12) == 0 {
		w.keep.Log = Forever
	}
	w.honest = w.rng.IntN(2) == 0
	w.claim()
	return w
}

func (w *retainWorld) failf(format string, a ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, keep %+v: %s", w.seed, w.keep, fmt.Sprintf(format, a...))
}

func (w *retainWorld) tail() uint64 {
	if len(w.log) == 0 {
		return 0
	}
	return w.log[len(w.log)-1].max
}

func (w *retainWorld) claim() {
	w.log = append(w.log, retainSegment{logObject{w.tail() + 1, segment.ClaimSize, w.now.UnixMicro()}, w.tail() + 1, false})
}

func (w *retainWorld) name(txid uint64) string {
	w.names++
	id := segment.ID{15: byte(w.names), 14: byte(w.names >> 8), 13: 1}
	if txid != 0 {
		return segment.LogDataKey(txid, id)
	}
	return segment.DataKey(id)
}

func (w *retainWorld) addData(txid uint64) string {
	key := w.name(txid)
	w.data[key] = ObjectInfo{Key: key, Size: 1 << 20, Modified: w.now}
	return key
}

// write makes a log segment, sometimes with data, and with data of attempts that
// came to nothing.
func (w *retainWorld) write() {
	if w.rng.IntN(15) == 0 {
		w.claim()
	}
	min := w.tail() + 1
	for w.rng.IntN(6) == 0 {
		w.addData(min)
	}
	w.log = append(w.log, retainSegment{logObject{min, 500 + int64(w.rng.IntN(100)), w.now.UnixMicro()}, min + uint64(w.rng.IntN(4)), false})
}

// export makes a page segment or snapshot of the line's end.
func (w *retainWorld) export() {
	s := w.rng.IntN(2) * w.rng.IntN(2) // the second session exports less often
	x := heldExport{exportKey: exportKey{kind: segment.KindPages, min: w.last[s] + 1, max: w.tail(), sum: 7, size: 700}}
	if w.rng.IntN(5) == 0 || x.min > x.max {
		x.kind, x.min = segment.KindSnapshot, 1
	} else if w.rng.IntN(8) == 0 {
		x.min = 1 + w.rng.Uint64N(x.min)
	}
	if w.rng.IntN(3) > 0 {
		x.data = w.addData(0)
	}
	if w.last[s] = x.max; !w.honest && w.rng.IntN(6) == 0 {
		w.asleep = append(w.asleep, x)
		return
	}
	w.publish(x)
}

func (w *retainWorld) publish(x heldExport) {
	for _, o := range w.exports {
		if o.key() == x.key() {
			return
		}
	}
	x.modified = w.now
	w.exports = append(w.exports, x)
	slices.SortFunc(w.exports, func(a, b heldExport) int {
		if a.kind != b.kind {
			return int(b.kind) - int(a.kind)
		}
		if a.key() < b.key() {
			return -1
		}
		return 1
	})
	if w.valid(x) && w.plannable(x.max) {
		w.good[exportPoint{x.min, x.max}] = true
	}
}

func (w *retainWorld) valid(x heldExport) bool {
	_, ok := w.data[x.data]
	return x.data == "" || ok
}

// plannable reports whether what is there restores TXID p.
func (w *retainWorld) plannable(p uint64) bool {
	var exports []exportKey
	for _, x := range w.exports {
		if x.max <= p && w.valid(x) {
			exports = append(exports, x.exportKey)
		}
	}
	at := uint64(0)
	if base := chooseBase(exports, p); len(base) > 0 {
		at = base[len(base)-1].max
	}
	if at == p {
		return true
	}
	i := 0
	for i < len(w.log) && w.log[i].max < max(at, 1) {
		i++
	}
	for next := uint64(0); i < len(w.log); i++ {
		s := w.log[i]
		if next == 0 && s.txid > max(at, 1) || next != 0 && s.txid != next {
			return false
		}
		if s.max >= p {
			return true
		}
		next = s.max + 1
	}
	return false
}

func (w *retainWorld) holdings() holdings {
	h := holdings{now: time.UnixMicro(w.log[len(w.log)-1].modified), exports: slices.Clone(w.exports)}
	for _, s := range w.log {
		h.log = append(h.log, s.logObject)
	}
	for _, o := range w.data {
		h.data = append(h.data, o)
	}
	slices.SortFunc(h.data, func(a, b ObjectInfo) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return h
}

// remove deletes, and checks that nothing is that must never be.
func (w *retainWorld) remove(h holdings, d deletion) {
	newest := w.log[len(w.log)-1].txid
	last := uint64(0)
	for _, o := range slices.Concat(d.segments, d.data, d.orphans) {
		if h.now.Sub(o.Modified) <= retainMargin {
			w.failf("%s goes at the age of %v", o.Key, h.now.Sub(o.Modified))
		}
		if txid, ok := segment.ParseLogKey(o.Key); ok {
			if o.Size == segment.ClaimSize || txid == newest || txid <= last {
				w.failf("%s goes", o.Key)
			}
			last = txid
			w.log = slices.DeleteFunc(w.log, func(s retainSegment) bool { return s.txid == txid })
		}
		delete(w.data, o.Key)
		w.exports = slices.DeleteFunc(w.exports, func(x heldExport) bool { return x.key() == o.Key })
	}
}

// promised lists every point that must be restorable, by the words of Keep and what
// was published until then.
func (w *retainWorld) promised(now, until time.Time) (points []uint64) {
	keep := w.keep.withDefaults()
	young := func(modified time.Time, age time.Duration) bool { return age == Forever || now.Sub(modified) <= age }
	for _, s := range w.log {
		if young(time.UnixMicro(s.modified), keep.Log) && !s.stray {
			points = append(points, s.txid, s.max)
		}
	}
	newest := uint64(0)
	for _, x := range w.exports {
		switch {
		case !w.valid(x) || x.modified.After(until):
		case x.kind == segment.KindSnapshot:
			newest = max(newest, x.max)
			if young(x.modified, keep.Snapshots) {
				points = append(points, x.max)
			}
		case young(x.modified, keep.Pages) && w.good[exportPoint{x.min, x.max}]:
			points = append(points, x.max)
		}
	}
	if newest != 0 {
		points = append(points, newest)
	}
	return points
}

// round is one retention, or two at once that see different things.
func (w *retainWorld) round() {
	h := w.holdings()
	began := w.now
	r := newRetention(h, w.keep)
	w.sameWhenCut(h, r)
	plans := []deletion{r.deletion()}
	w.lessWhenCut(h, plans[0])
	seen := []holdings{h}
	if w.rng.IntN(3) == 0 {
		w.step()
		h := w.holdings()
		plans, seen = append(plans, newRetention(h, w.keep).deletion()), append(seen, h)
		if w.rng.IntN(2) == 0 {
			slices.Reverse(plans)
			slices.Reverse(seen)
		}
	}
	now := w.holdings().now
	before := w.promised(now, now.Add(-retainMargin))
	for i := range plans {
		w.remove(seen[i], plans[i])
	}
	// What was published meanwhile, so late that it lies below what was about to be
	// deleted, or that its data was, can't be promised any more.
	for _, x := range w.exports {
		if x.modified.After(began) {
			w.good[exportPoint{x.min, x.max}] = w.plannable(x.max)
		}
	}
	points := slices.Concat(before, w.promised(now, now))
	slices.Sort(points)
	for _, p := range slices.Compact(points) {
		if !w.plannable(p) {
			w.failf("TXID %d was promised and can't be restored", p)
		}
	}
}

// sameWhenCut checks that the part of the log that engines list leads to the same.
func (w *retainWorld) sameWhenCut(h holdings, whole *retention) {
	if w.keep.Log == Forever {
		return
	}
	for i, o := range h.log {
		if !o.claim() && h.now.Sub(time.UnixMicro(o.modified)) <= max(w.keep.Log, retainMargin) {
			h.log = h.log[:i+1]
			break
		}
	}
	a, b := whole.deletion(), newRetention(h, w.keep).deletion()
	if !slices.Equal(a.segments, b.segments) || !slices.Equal(a.data, b.data) {
		w.failf("from a part of the log %v goes, %v; from all of it %v, %v", b.segments, b.data, a.segments, a.data)
	}
}

// step lets time pass and something happen.
func (w *retainWorld) step() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(40)+1) * time.Minute)
	if w.rng.IntN(60) == 0 {
		w.now = w.now.Add(time.Duration(w.rng.IntN(72)) * time.Hour)
	}
	for range 1 + w.rng.IntN(3) {
		w.write()
	}
	if w.rng.IntN(3) == 0 {
		w.export()
	}
	for n := len(w.asleep); n > 0 && w.rng.IntN(25) == 0; n = 0 {
		w.publish(w.asleep[0])
		w.asleep = w.asleep[1:]
	}
	// A writer that was asleep leaves a claim in a gap.
	if !w.honest && w.rng.IntN(40) == 0 {
		i := w.rng.IntN(len(w.log))
		if s := w.log[i]; i+1 < len(w.log) && w.log[i+1].txid > s.max+1 {
			w.log = slices.Insert(w.log, i+1, retainSegment{logObject{s.max + 1, segment.ClaimSize, w.now.UnixMicro()}, s.max + 1, true})
		}
	}
}

// Every promised point stays restorable, whatever was written, published late,
// swept, and deleted by whom.
func TestRetainKeepsPromises(t *testing.T) {
	worlds := 600
	if testing.Short() {
		worlds = 150
	}
	deleted := 0
	for seed := range uint64(worlds) {
		w := newRetainWorld(t, seed)
		for range 60 + w.rng.IntN(60) {
			w.step()
			if w.rng.IntN(3) == 0 {
				before := len(w.log) + len(w.exports) + len(w.data)
				w.round()
				deleted += max(0, before-len(w.log)-len(w.exports)-len(w.data))
			}
		}
	}
	if deleted < worlds*20 {
		t.Errorf("%d objects deleted in %d worlds", deleted, worlds)
	}
	t.Logf("%d objects deleted in %d worlds", deleted, worlds)
}

// The store's clock jumps. Ahead by ten years: what was is old then, but the newest
// state stays, with its base. Back again: what is written from then on is kept as
// promised, and goes as it should, although what was written meanwhile is of the
// future.
func TestRetainClockJumps(t *testing.T) {
	for seed := range uint64(25) {
		w := newRetainWorld(t, seed)
		w.keep, w.honest = Keep{}, true
		for range 60 {
			w.step()
		}
		w.export()
		now := w.now
		w.now = w.now.Add(10 * 365 * 24 * time.Hour)
		w.write()
		h := w.holdings()
		w.remove(h, newRetention(h, w.keep).deletion())
		if !w.plannable(w.tail()) || !w.plannable(w.log[len(w.log)-1].txid) {
			w.failf("after a jump ahead the newest state can't be restored")
		}
		w.export()
		back := w.tail()
		w.now = now.Add(time.Hour)
		for range 150 {
			w.step()
			h := w.holdings()
			points := w.promised(h.now, h.now)
			w.remove(h, newRetention(h, w.keep).deletion())
			for _, p := range points {
				if p > back && !w.plannable(p) {
					w.failf("TXID %d was promised and can't be restored", p)
				}
			}
		}
		// Time hasn't caught up, but the log doesn't grow any more for that.
		written := 0
		for _, s := range w.log {
			if !s.claim() && s.max > back {
				written++
			}
		}
		if written > 230 {
			w.failf("%d log segments are kept, of 24 hours and somewhat more", written)
		}
	}
}
