package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// A linePoint is a TXID that an entry of the line leaves.
type linePoint struct {
	txid  uint64
	time  int64
	state *state
}

// points returns the line's states with content, in order; of segments with a data
// object only the last.
func (mc *machine) points() (all []linePoint) {
	for _, o := range walk(mc.t, mc.store) {
		h := o.Header
		for _, e := range o.Entries {
			if e.Commit > 0 {
				all = append(all, linePoint{e.MaxTXID, e.LastMono, mc.m.states[e.Post]})
			}
		}
		if h.External && h.Commit > 0 {
			all = append(all, linePoint{h.MaxTXID, h.LastMono, mc.m.states[h.Post]})
		}
	}
	return all
}

// remains are the segments and exports that can be used.
type remains struct {
	logs    []*segment.Object
	exports []exportKey
}

// reaches says whether anything leads to a TXID.
func (r *remains) reaches(txid uint64) bool {
	at := endOf(chooseBase(r.exports, txid))
	for _, o := range r.logs {
		needsBase := len(o.Entries) > 0 && o.Entries[0].NeedsBase
		if o.Header.MinTXID <= at+1 && o.Header.MaxTXID > at && at < txid && !(needsBase && o.Header.MaxTXID > at) {
			at = o.Header.MaxTXID
		}
	}
	return at >= txid
}

// Whatever is deleted: every TXID and every time is restored as it was, or refused,
// and refused only where nothing leads there. A time's answer that may not be the
// last one says so.
func TestRestoreWithWhatIsLeft(t *testing.T) {
	seeds := uint64(18)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel() // a refusal is looked at again for a while
			mc := newMachine(t, objstore.NewMem(), seed+40)
			randomLine(mc, seed, func() {})
			rng := rand.New(rand.NewPCG(seed, 11))
			firsts, lasts := mc.segments()
			states := mc.lineStates()
			exports, err := listExports(t.Context(), mc.store)
			if err != nil {
				t.Fatal(err)
			}
			for i, start := 0, 0; i < len(firsts); i += 1 + rng.IntN(3) {
				switch {
				case states[lasts[i]].commit() == 0 || seed%3 > 0 && i < 3:
				case rng.IntN(4) == 0:
					exports = append(exports, mc.putSnapshot(rng, lasts[i], rng.IntN(2) == 0))
				default:
					exports = append(exports, mc.putPages(rng, firsts[start], lasts[i], rng.IntN(2) == 0))
					start = i + 1
				}
			}
			points := mc.points()
			var left remains
			var gone []string
			// Retention's work, or anybody's.
			cut, damage := rng.IntN(len(firsts)), rng.IntN(3) == 0
			segs := walk(t, mc.store)
			for i, o := range segs {
				if i+1 < len(segs) && !o.Header.Claim && (i < cut || damage && rng.IntN(6) == 0) {
					gone = append(gone, segment.LogKey(o.Header.MinTXID))
				} else {
					left.logs = append(left.logs, o)
				}
			}
			l := &line{mc.store, segs[0].Header.Database}
			for _, k := range exports {
				o, err := l.export(t.Context(), k)
				if err != nil {
					t.Fatal(err)
				}
				switch rng.IntN(8) {
				case 0:
					gone = append(gone, k.key())
				case 1:
					if o.Header.External {
						gone = append(gone, o.DataKey())
						break
					}
					fallthrough
				default:
					left.exports = append(left.exports, k)
				}
			}
			if err := mc.store.Delete(t.Context(), gone...); err != nil {
				t.Fatal(err)
			}
			for i, p := range points {
				if rng.IntN(2) > 0 && i+1 < len(points) {
					continue
				}
				res, b, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.TXID = p.txid })
				switch reached := left.reaches(p.txid); {
				case err == nil && (!bytes.Equal(b, p.state.image()) || res.TXID != p.txid || !res.Exact):
					t.Fatalf("TXID %d: another state: %+v", p.txid, res)
				case err == nil != reached:
					t.Fatalf("TXID %d: %v, can be reached: %v; gone are %v", p.txid, err, reached, gone)
				case err != nil && !errors.Is(err, ErrNotRestorable) && !errors.Is(err, ErrCorrupt):
					t.Fatalf("TXID %d: %v", p.txid, err)
				}
				mc.checkTime(points, i, p.time+rng.Int64N(2)*(rng.Int64N(3000)))
			}
			if _, b, err := restoreTo(t, mc.store); err == nil && !bytes.Equal(b, mc.m.cur.image()) {
				t.Fatal("the newest state is another one")
			}
		})
	}
}

// checkTime restores a time, whose state is that of a point from i on.
func (mc *machine) checkTime(points []linePoint, i int, us int64) {
	mc.t.Helper()
	for i+1 < len(points) && points[i+1].time <= us {
		i++
	}
	res, b, err := restoreTo(mc.t, mc.store, func(o *RestoreOptions) { o.Timestamp = time.UnixMicro(us) })
	if err != nil {
		if !errors.Is(err, ErrNotRestorable) && !errors.Is(err, ErrCorrupt) {
			mc.t.Fatalf("at %d: %v", us, err)
		}
		return
	}
	j := slices.IndexFunc(points, func(p linePoint) bool { return p.txid == res.TXID })
	switch {
	case j < 0 && res.TXID > points[i].txid: // a claim behind it
		j = i
	case j < 0 || j > i || res.Exact && j != i && points[i].state != points[j].state:
		mc.t.Fatalf("at %d: TXID %d, expected %d: %+v", us, res.TXID, points[i].txid, res)
	case !res.Exact && len(res.Notes) == 0:
		mc.t.Fatalf("at %d: not exact, and nothing about it: %+v", us, res)
	}
	if !bytes.Equal(b, points[j].state.image()) {
		mc.t.Fatalf("at %d: TXID %d: another state", us, res.TXID)
	}
}

// history makes a replica with a long log, page segments and snapshots; the log of
// the first half is gone.
func longHistory(t *testing.T, commits int) (*machine, []linePoint) {
	mc := newMachine(t, objstore.NewMem(), 77)
	p := mc.open()
	for range commits {
		mc.m.mu.Lock()
		mc.m.commitN(1, 2)
		mc.m.mu.Unlock()
		p.sync(t)
	}
	p.close(t)
	firsts, lasts := mc.segments()
	rng := rand.New(rand.NewPCG(1, 1))
	for i, start := 20, 0; i < len(lasts); i += 20 {
		if i%100 == 0 {
			mc.putSnapshot(rng, lasts[i], false)
		}
		mc.putPages(rng, firsts[start], lasts[i], i%40 == 0)
		start = i + 1
	}
	points := mc.points()
	for _, first := range firsts[1 : len(firsts)/2] {
		mc.store.Delete(t.Context(), segment.LogKey(first))
	}
	return mc, points
}

// A time is found with few requests, however long the history is.
func TestRequestsOfTime(t *testing.T) {
	mc, points := longHistory(t, 400)
	for _, i := range []int{30, 150, 250, 251, 333, 399} {
		p := points[i]
		fs := faultstore.New(mc.store)
		var logs, exports, heads atomic.Int32
		fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
			switch {
			case c.Op != faultstore.Get:
			case strings.HasPrefix(c.Key, segment.LogPrefix):
				logs.Add(1)
			case strings.HasPrefix(c.Key, segment.DataPrefix):
				heads.Add(1)
			default:
				exports.Add(1)
			}
			return nil
		}})
		res, b, err := restoreTo(t, fs, func(o *RestoreOptions) { o.Timestamp = time.UnixMicro(p.time); o.Parallelism = 1 })
		if err != nil {
			t.Fatal(err)
		}
		if res.Requests != fs.Total() {
			t.Errorf("%d requests are reported, %d were made", res.Requests, fs.Total())
		}
		// 2 for the exports, 1 for the log, 1 to look behind the newest export.
		if n := fs.Count(faultstore.List); n > 4 {
			t.Errorf("TXID %d: %d listings", p.txid, n)
		}
		// Halving 25 exports, those of the base and two beside it; halving 20 log
		// segments, and reading them.
		if exports.Load() > 1+5+6+2 || logs.Load() > 1+5+20+3 {
			t.Errorf("TXID %d: %d reads of exports, %d of log segments", p.txid, exports.Load(), logs.Load())
		}
		t.Logf("TXID %d: %d listings, %d reads of exports, %d of data, %d of the log; exact %v", p.txid, fs.Count(faultstore.List), exports.Load(), heads.Load(), logs.Load(), res.Exact)
		if i > 200 && (res.TXID != p.txid || !res.Exact || !bytes.Equal(b, p.state.image())) {
			t.Errorf("TXID %d: %+v", p.txid, res)
		}
		if i < 200 && (res.TXID > p.txid || res.Exact) {
			t.Errorf("TXID %d, whose log is gone: %+v", p.txid, res)
		}
		dry, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Timestamp: time.UnixMicro(p.time), DryRun: true})
		if err != nil || dry.Requests < res.Requests-3 || dry.Requests > res.Requests+3 || dry.Objects != res.Objects || dry.TXID != res.TXID || dry.Exact != res.Exact || dry.Checksum != res.Checksum {
			t.Errorf("TXID %d: a dry run says %+v, %v; it was %+v", p.txid, dry, err, res)
		}
	}
}

// A boundary needs no log at all, not even a sound one.
func TestBoundaryNeedsNoLog(t *testing.T) {
	mc, points := longHistory(t, 60)
	for _, key := range keys(t, mc.store, segment.LogPrefix) {
		put(t, mc.store, key, []byte("rubbish"))
	}
	exports, err := listExports(t.Context(), mc.store)
	if err != nil || len(exports) < 2 {
		t.Fatal(exports, err)
	}
	for _, k := range exports {
		fs := faultstore.New(mc.store)
		res, b, err := restoreTo(t, fs, func(o *RestoreOptions) { o.TXID = k.max })
		i := slices.IndexFunc(points, func(p linePoint) bool { return p.txid == k.max })
		if err != nil || !bytes.Equal(b, points[i].state.image()) || res.Latest {
			t.Errorf("%s: %+v, %v", k.key(), res, err)
		}
	}
}

// Retention goes on while a restore runs: whatever it finds gone, and when, the
// restore is right.
func TestObjectsRetiredMeanwhile(t *testing.T) {
	for n := 1; ; n++ {
		mc := newMachine(t, objstore.NewMem(), 5)
		p := mc.open()
		for range 24 {
			mc.m.commit()
			p.sync(t)
		}
		p.close(t)
		rng := rand.New(rand.NewPCG(uint64(n), 4))
		firsts, lasts := mc.segments()
		mc.putSnapshot(rng, lasts[5], true)
		mc.putPages(rng, firsts[6], lasts[10], true)
		var done atomic.Bool
		fs := faultstore.New(mc.store)
		fs.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error {
			if fs.Total() < n || done.Swap(true) {
				return nil
			}
			var old []string
			for _, prefix := range []string{segment.SnapshotPrefix, segment.PagesPrefix, segment.DataPrefix} {
				old = append(old, keys(t, mc.store, prefix)...)
			}
			for _, first := range firsts[1:18] {
				old = append(old, segment.LogKey(first))
			}
			mc.putSnapshot(rng, lasts[15], true)
			mc.putPages(rng, firsts[16], lasts[20], true)
			return mc.store.Delete(context.Background(), old...)
		}})
		res, b, err := restoreTo(t, fs, func(o *RestoreOptions) { o.Parallelism = 1 + n%4 })
		if err != nil || !bytes.Equal(b, mc.m.cur.image()) || !res.Latest || len(res.Notes) > 0 {
			t.Fatalf("retired before request %d: %v, %+v", n, err, res)
		}
		if !done.Load() {
			if n < 20 {
				t.Fatalf("only %d requests", n)
			}
			return
		}
	}
}

// A publisher that slept for a day names data that was swept meanwhile: what was
// before it stands in, and where nothing does, the data object is named.
func TestExportWithoutItsData(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 9)
	p := mc.open()
	for range 12 {
		mc.m.commit()
		p.sync(t)
	}
	p.close(t)
	rng := rand.New(rand.NewPCG(2, 2))
	firsts, lasts := mc.segments()
	mc.putSnapshot(rng, lasts[4], false)
	k := mc.putPages(rng, firsts[5], lasts[8], true)
	data := keys(t, mc.store, segment.DataPrefix)[0]
	mc.store.Delete(t.Context(), data)
	for _, dry := range []bool{false, true} {
		res, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: filepath.Join(t.TempDir(), "db"), DryRun: dry})
		if err != nil || !res.Latest || res.PageSegments != 0 || len(res.Notes) != 1 || !strings.Contains(res.Notes[0], data) || !strings.Contains(res.Notes[0], k.key()) {
			t.Fatalf("dry run %v: %v, %+v", dry, err, res)
		}
	}
	mc.checkHashes()
	h, err := ReadHistory(t.Context(), mc.store)
	if err != nil || len(h.PageSegments) != 1 || !h.PageSegments[0].Void {
		t.Errorf("history: %v, %+v", err, h.PageSegments)
	}
	mc.store.Delete(t.Context(), segment.LogKey(firsts[6]))
	_, _, err = restoreTo(t, mc.store)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), data) || !strings.Contains(err.Error(), segment.LogKey(firsts[6])) {
		t.Errorf("nothing leads there: %v", err)
	}
}

// brittle bodies break off after some bytes.
type brittle struct {
	io.ReadCloser
	left int
}

func (b *brittle) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// Connections that are dropped cost what was under way, not what had come.
func TestDroppedConnections(t *testing.T) {
	mc := replica(t)
	whole, _, err := restoreTo(t, mc.store)
	if err != nil {
		t.Fatal(err)
	}
	fs := faultstore.New(mc.store)
	fs.SetHooks(faultstore.Hooks{Body: func(_ faultstore.Call, body io.ReadCloser) io.ReadCloser { return &brittle{body, 700} }})
	res, b, err := restoreTo(t, fs)
	if err != nil || !bytes.Equal(b, mc.m.cur.image()) || res.Fetched != whole.Fetched || res.Requests != fs.Total() {
		t.Fatalf("%v: %d bytes instead of %d, %d requests of %d", err, res.Fetched, whole.Fetched, res.Requests, fs.Total())
	}
}

// What is read on isn't what was begun with: there is a new plan, and no mixture.
func TestObjectChangedWhileRead(t *testing.T) {
	mc := replica(t)
	for _, prefix := range []string{segment.DataPrefix, segment.SnapshotPrefix, segment.LogPrefix} {
		all := keys(t, mc.store, prefix)
		key := all[len(all)-1]
		fs := faultstore.New(mc.store)
		var done atomic.Bool
		fs.SetHooks(faultstore.Hooks{Body: func(c faultstore.Call, body io.ReadCloser) io.ReadCloser {
			if c.Key != key || done.Swap(true) {
				return body
			}
			b := get(t, mc.store, key)
			put(t, mc.store, key, append(bytes.Clone(b), 1)) // another version …
			put(t, mc.store, key, b)                         // … and the first bytes again
			return &brittle{body, 5}
		}})
		res, b, err := restoreTo(t, fs, func(o *RestoreOptions) { o.Parallelism = 1 })
		if err != nil || !done.Load() || !bytes.Equal(b, mc.m.cur.image()) || !res.Latest || len(res.Notes) > 0 {
			t.Errorf("%s: %v, %+v", key, err, res)
		}
	}
}
