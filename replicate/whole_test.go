package replicate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// point is an entry as a restore meets it.
type point struct {
	txid, sum uint64
	time      int64
	commit    uint64
}

// points lists the entries of a line.
func points(t *testing.T, store Store) (all []point) {
	t.Helper()
	for _, o := range walk(t, store) {
		for _, e := range o.Entries {
			all = append(all, point{e.MaxTXID, e.Post, e.LastMono, e.Commit})
		}
		if h := o.Header; h.External {
			if h.Entries != 1 {
				t.Fatalf("%d entries in a data object", h.Entries)
			}
			all = append(all, point{h.MaxTXID, h.Post, h.LastMono, h.Commit})
		}
	}
	return all
}

// A database of another page size takes the place of the one before, beginning a
// segment: restores give exactly the new one from there on and the old one up to
// there, by TXID and by time, also on top of a snapshot, and indexes tell both.
func TestPageSizeChanges(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			mc := newMachine(t, objstore.NewMem(), seed+60)
			base := seed%2 == 0
			if base {
				grown(mc.m, 300)
				mc.m.notOurs = true
			}
			p := mc.open()
			p.sync(t)
			for i := range 12 {
				if i%4 == 2 {
					mc.m.whole([]uint32{1024, 512, 4096, 65536}[rng.IntN(4)])
				} else {
					mc.m.commit()
				}
				if rng.IntN(3) == 0 {
					p.sync(t)
				}
			}
			p.sync(t)
			mc.m.notOurs = false
			p.close(t)
			mc.checkNewest()
			mc.checkHashes()
			all := points(t, mc.store)
			for i, pt := range all {
				same := i+1 < len(all) && all[i+1].time == pt.time
				for _, by := range []func(*RestoreOptions){
					func(o *RestoreOptions) { o.TXID = pt.txid },
					func(o *RestoreOptions) { o.Timestamp = timeOf(pt.time) },
				} {
					res, b, err := restoreTo(t, mc.store, by)
					switch {
					case pt.commit == 0 || base && pt.txid < 2:
						if !errors.Is(err, ErrNotRestorable) && !same {
							t.Fatalf("TXID %d, before there was anything: %v", pt.txid, err)
						}
					case err != nil:
						t.Fatalf("TXID %d: %v", pt.txid, err)
					case same && res.TXID != pt.txid: // by time: a later one of the same moment
					case res.TXID != pt.txid || !bytes.Equal(b, mc.m.states[pt.sum].image()):
						t.Fatalf("TXID %d: restored %d, another image", pt.txid, res.TXID)
					}
				}
			}
			n := 0
			for _, o := range walk(t, mc.store) {
				if o.Header.Replaces && (len(o.Entries) == 0 || !o.Entries[0].NeedsBase) {
					n++
				}
				for i, e := range o.Entries {
					if e.Whole && i > 0 {
						t.Error("a whole entry inside of a segment")
					}
				}
			}
			if n != 3 {
				t.Errorf("%d databases took another one's place", n)
			}
		})
	}
}

// A repair and an adopt entry with other pages than the tail's have all of them,
// and the page hashes go on from there.
func TestRepairWithOtherPageSize(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			mc := lived(t, objstore.NewMem(), 2)
			n := len(mc.m.entries)
			mc.m.whole(size)
			mc.m.entries = mc.m.entries[:n]
			p := mc.open()
			p.sync(t)
			mc.checkNewest()
			mc.checkHashes()
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.m.sneak()
			p = mc.open()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
			mc.checkHashes()
			mc.checkAll()
		})
	}
}

// What breaks a rule of the format breaks it at the next attempt, too: the engine
// says so and ends, rather than to try for ever.
func TestInvalidEntryIsNotTriedForEver(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 2)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	mc.m.mu.Lock()
	large(mc.m, 200)
	e := mc.m.entries[len(mc.m.entries)-1]
	e.Blocks[0].Pages[0].No = 0
	mc.m.mu.Unlock()
	if _, err := p.Sync(within(t)); !errors.Is(err, segment.ErrInvalid) || p.WriteError() == nil {
		t.Fatal(err)
	}
}
