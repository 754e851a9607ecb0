package replicate

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func (c *autoClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// condense has exports due often.
func condense(pages, snapshot time.Duration) func(*EngineOptions) {
	return func(o *EngineOptions) { o.Keep.PagesEvery, o.Keep.SnapshotEvery = pages, snapshot }
}

// settled waits until no export is under way, nor about to begin.
func (p *process) settled(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		p.history.mu.Lock()
		over := !p.history.running && !p.history.wanted(p.clock.Now())
		p.history.mu.Unlock()
		select {
		case <-p.done:
			over = true
		default:
		}
		if over {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("an export does not end: %+v", p.history.dueness())
		}
	}
}

// exportsOf reads the snapshots and page segments, the oldest first.
func exportsOf(t *testing.T, store Store) (list []exportKey) {
	t.Helper()
	list, err := listExports(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// readExport returns an export's entry and its pages.
func readExport(t *testing.T, store Store, k exportKey) (*segment.Object, *segment.Entry, map[uint64][]byte) {
	t.Helper()
	o, err := segment.Parse(get(t, store, k.key()))
	if err != nil {
		t.Fatalf("%s: %v", k.key(), err)
	}
	if o.Header.Key() != k.key() {
		t.Fatalf("%s says that it is %s", k.key(), o.Header.Key())
	}
	var blocks []*segment.Block
	var entry *segment.Entry
	data := []byte(nil)
	if o.Header.External {
		data = get(t, store, o.DataKey())
		dec := o.Frames()
		for _, f := range o.Root.Frames {
			recs, err := dec.Next(data[f.Offset:][:f.Size()])
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range recs {
				if r.Entry != nil {
					entry = r.Entry
				} else {
					blocks = append(blocks, r.Block)
				}
			}
		}
		if err := dec.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		entry = o.Entries[0]
		data = make([]byte, entry.BodySize())
		if len(data) > 0 {
			if _, err := readAt(entry.Body, data, 0); err != nil {
				t.Fatal(err)
			}
		}
		var off int64
		for i := range entry.Blocks {
			entry.Blocks[i].Offset = off
			off += int64(entry.Blocks[i].Stored)
			blocks = append(blocks, &entry.Blocks[i])
		}
	}
	pages := map[uint64][]byte{}
	bd := segment.NewBlockDecoder()
	for _, b := range blocks {
		plain, err := bd.Decode(nil, b, data[b.Offset:][:b.Stored], o.Header.PageSize, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range b.Pages {
			pages[p.No] = plain[i*int(o.Header.PageSize):][:o.Header.PageSize]
		}
	}
	return o, entry, pages
}

// applyExport applies an entry by the words of FORMAT.md.
func applyExport(st *state, pageSize uint32, en *segment.Entry, pages map[uint64][]byte) []byte {
	kept := min(st.commit(), en.MinCommit)
	if en.Kind == segment.Snapshot {
		kept = 0
	}
	var image []byte
	for no := uint64(1); no <= en.Commit; no++ {
		switch {
		case pages[no] != nil:
			image = append(image, pages[no]...)
		case no <= kept:
			image = append(image, st.pages[no-1]...)
		default:
			image = append(image, make([]byte, pageSize)...)
		}
	}
	return image
}

// checkExports checks everything that a snapshot or page segment says against the
// log and the model's states, on top of each state that a page segment fits on. It
// returns how many there are of both.
func (mc *machine) checkExports() (snapshots, pages int) {
	t := mc.t
	t.Helper()
	type at struct {
		commit, low, sum uint64
		chain            segment.Hash // of the segment that ends there
		end              bool
	}
	line := map[uint64]at{0: {}}
	for _, o := range walk(t, mc.store) {
		entries := o.Entries
		if o.Header.External {
			entries = nil
			dec := o.Frames()
			for i := range o.Root.Frames {
				recs, err := nextFrame(t.Context(), mc.store, o, dec, i)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range recs {
					if r.Entry != nil {
						entries = append(entries, r.Entry)
					}
				}
			}
		}
		for _, en := range entries {
			line[en.MaxTXID] = at{commit: en.Commit, low: en.MinCommit, sum: en.Post, chain: o.Chain, end: en.MaxTXID == o.Header.MaxTXID}
		}
	}
	list := exportsOf(t, mc.store)
	ends := map[uint64]bool{0: true}
	for _, k := range list {
		ends[k.max] = true
	}
	for _, k := range list {
		o, en, got := readExport(t, mc.store, k)
		h, end := o.Header, line[k.max]
		want := mc.m.states[k.sum]
		if !end.end || end.sum != k.sum || h.PrevChain != end.chain || h.Commit != end.commit || want == nil {
			t.Fatalf("%s is not the line's: %+v, %+v", k.key(), h, end)
		}
		if k.kind == segment.KindSnapshot {
			snapshots++
			if !bytes.Equal(applyExport(&state{}, h.PageSize, en, got), want.image()) {
				t.Fatalf("%s: another image", k.key())
			}
			continue
		}
		pages++
		before := line[k.min-1]
		if !ends[k.min-1] || h.Pre != before.sum || h.PreCommit != before.commit {
			t.Fatalf("%s does not follow an export: %+v", k.key(), h)
		}
		low := uint64(math.MaxUint64)
		for txid := k.min; txid <= k.max; txid++ {
			if p, ok := line[txid]; ok {
				low = min(low, p.low)
			}
		}
		if h.MinCommit != low {
			t.Fatalf("%s: smallest commit size %d, expected %d", k.key(), h.MinCommit, low)
		}
		for txid := k.min - 1; txid <= k.max; txid++ {
			if p, ok := line[txid]; ok && !bytes.Equal(applyExport(mc.m.states[p.sum], h.PageSize, en, got), want.image()) {
				t.Fatalf("%s on top of TXID %d: another image", k.key(), txid)
			}
		}
	}
	return snapshots, pages
}

// A database lives for days, in several sessions, some of which crash; commits come
// while pages are copied. Every page segment and snapshot is exactly what it says.
func TestExports(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	snapshots, pages, external, whole := 0, 0, 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 31))
			mc := newMachine(t, objstore.NewMem(), seed+500)
			if seed%2 == 0 {
				grown(mc.m, 300)
				mc.m.notOurs = true
			}
			clock := mc.clock.(*autoClock)
			for session := range 5 {
				p := mc.open(condense(time.Hour, 12*time.Hour), func(o *EngineOptions) {
					if seed%3 == 1 {
						o.inline = 8 << 10 // most have data objects
					}
				})
				p.src.onCopy = func(int) { mc.m.commit() }
				p.sync(t)
				mc.m.notOurs = false
				for i := range 12 {
					clock.add(time.Duration(rng.IntN(90)) * time.Minute)
					switch {
					case seed > 3 && i == 5 && session == 2:
						p.settled(t)
						mc.m.whole(1024)
						whole++
					default:
						mc.m.commit()
					}
					p.sync(t)
					if rng.IntN(3) > 0 {
						p.settled(t)
					}
				}
				p.settled(t)
				if e := p.Status().History.Error; e != "" && !strings.Contains(e, local.ErrCopyLost.Error()) {
					t.Fatal(e)
				}
				if rng.IntN(2) == 0 {
					p.kill()
				} else {
					p.close(t)
				}
			}
			p := mc.open(condense(Forever, Forever))
			p.sync(t)
			p.close(t)
			s, n := mc.checkExports()
			if s == 0 || n == 0 {
				t.Errorf("%d snapshots, %d page segments", s, n)
			}
			for _, k := range exportsOf(t, mc.store) {
				if o, _, _ := readExport(t, mc.store, k); o.Header.External {
					external++
				}
			}
			snapshots, pages = snapshots+s, pages+n
			mc.checkNewest()
			mc.checkSome(10)
		})
	}
	t.Logf("%d snapshots, %d page segments, %d of them with data objects, %d other page sizes", snapshots, pages, external, whole)
	if external < 5 && !testing.Short() {
		t.Errorf("%d exports with a data object", external)
	}
}
