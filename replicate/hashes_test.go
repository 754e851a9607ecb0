package replicate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// hashesOf returns the page hashes of a replica's end.
func hashesOf(t *testing.T, store Store) ([]uint64, lineEnd, error) {
	t.Helper()
	info, err := readRoot(t.Context(), store)
	if err != nil || info == nil {
		t.Fatalf("root: %v", err)
	}
	l := &line{store, info.Database}
	end, err := l.end(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := l.pageHashes(t.Context(), &end)
	return hashes, end, err
}

// checkHashes compares the page hashes that indexes tell with those of the model
// and of a restore.
func (mc *machine) checkHashes() {
	mc.t.Helper()
	got, end, err := hashesOf(mc.t, mc.store)
	if err != nil {
		mc.t.Fatal(err)
	}
	if end.Commit == 0 {
		if len(got) != 0 {
			mc.t.Fatalf("%d hashes of an empty line", len(got))
		}
		return
	}
	want := make([]uint64, len(mc.m.cur.pages))
	for i, p := range mc.m.cur.pages {
		want[i] = segment.PageHash(uint64(i)+1, p)
	}
	if !slices.Equal(got, want) {
		mc.t.Fatalf("TXID %d: the indexes tell other hashes than the %d pages have", end.TXID, len(want))
	}
	res, _, err := restoreTo(mc.t, mc.store)
	if err != nil {
		mc.t.Fatal(err)
	}
	if !slices.Equal(got, res.PageHashes()) {
		mc.t.Fatalf("TXID %d: the indexes tell other hashes than a restore", end.TXID)
	}
}

// randomLine lets a machine live for some sessions, calling check after each:
// it begins empty, with few pages or with many, shrinks and grows, has entries
// that need data objects, and is replaced by a database of another page size.
func randomLine(mc *machine, seed uint64, check func()) {
	t, rng := mc.t, rand.New(rand.NewPCG(seed, 3))
	if n := []int{0, 40, 300}[seed%3]; n > 0 {
		grown(mc.m, n)
		mc.m.notOurs = true
	}
	for range 4 {
		p := mc.open()
		if err := p.wait(t); err != nil {
			t.Fatal(err)
		}
		for range 1 + rng.IntN(8) {
			switch rng.IntN(8) {
			case 0:
				mc.m.mu.Lock()
				large(mc.m, 150+rng.IntN(100))
				mc.m.mu.Unlock()
			case 1:
				mc.m.whole([]uint32{512, 1024, 2048}[rng.IntN(3)])
			default:
				mc.m.commit()
			}
			if rng.IntN(2) == 0 {
				p.sync(t)
			}
		}
		p.sync(t)
		mc.m.notOurs = false
		if rng.IntN(2) == 0 {
			p.kill()
		} else {
			p.close(t)
		}
		check()
	}
}

func TestPageHashesFromIndexes(t *testing.T) {
	seeds := uint64(18)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), seed+40)
			randomLine(mc, seed, mc.checkHashes)
		})
	}
}

// Data objects are read by their indexes alone.
func TestPageHashesReadNoPages(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	grown(mc.m, 3000)
	mc.m.notOurs = true
	p := mc.open()
	p.wait(t)
	p.close(t)
	info, _ := readRoot(t.Context(), mc.store)
	rs := &readingStore{Store: mc.store}
	l := &line{rs, info.Database}
	end, err := l.end(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.pageHashes(t.Context(), &end); err != nil {
		t.Fatal(err)
	}
	if n := rs.fetched.Load(); n > 3000*40 {
		t.Errorf("%d bytes were read for 3000 pages", n)
	}
}

func TestPageHashesOfDamagedLine(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	grown(mc.m, 300)
	mc.m.notOurs = true
	p := mc.open()
	p.sync(t) // else the commit can become part of the snapshot
	mc.m.commit()
	p.sync(t)
	p.close(t)
	key := keys(t, mc.store, segment.SnapshotPrefix)[0]
	b := get(t, mc.store, key)
	mc.store.Delete(t.Context(), key)
	if _, _, err := hashesOf(t, mc.store); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("without its snapshot: %v", err)
	}
	put(t, mc.store, key, b)
	data := keys(t, mc.store, segment.DataPrefix)[0]
	b = get(t, mc.store, data)
	b[len(b)-3] ^= 1
	put(t, mc.store, data, b)
	if _, _, err := hashesOf(t, mc.store); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("with a flipped bit: %v", err)
	}
}
