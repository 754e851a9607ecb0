package replicate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// regions are places in an object, by what they belong to.
func regions(t *testing.T, store Store, key string, rng *rand.Rand) map[string][]int {
	b := get(t, store, key)
	in := func(from, to int) (list []int) {
		for range 6 {
			list = append(list, from+rng.IntN(to-from))
		}
		return append(list, from, to-1)
	}
	if strings.HasPrefix(key, segment.DataPrefix) {
		all := map[string][]int{"data header": in(0, segment.DataHeaderSize)}
		for _, k := range keys(t, store, "") {
			o, err := segment.Parse(get(t, store, k))
			if err != nil || !o.Header.External || o.DataKey() != key {
				continue
			}
			at := segment.DataHeaderSize
			for i := range o.Root.Frames {
				f := &o.Root.Frames[i]
				if int(f.Offset) > at {
					all["data blocks"] = append(all["data blocks"], in(at, int(f.Offset))...)
				}
				at = int(f.Offset + f.Size())
				all["data frames"] = append(all["data frames"], in(int(f.Offset), at)...)
			}
		}
		return all
	}
	o, err := segment.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]int{"header": in(0, o.Header.Length), "footer": in(len(b)-64, len(b)), "root": in(len(b)-80, len(b)-64)}
	if !o.Header.External {
		first := int(o.Root.Frames[0].Offset)
		if first > o.Header.Length {
			all["blocks"] = in(o.Header.Length, first)
		}
		all["index"] = in(first, first+int(o.Root.Frames[0].Size()))
	}
	return all
}

// Whatever byte is flipped, the object is named; only the blocks of data objects
// have to be asked for.
func TestVerifyEachRegionFlipped(t *testing.T) {
	mc, ends := condensed(t, 91)
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[string]bool{}
	for _, cut := range []uint64{0, ends[1]} {
		base := clone(t, mc.store)
		retire(t, base, cut)
		for _, key := range keys(t, base, "") {
			if key == segment.InfoKey {
				continue
			}
			whole := get(t, base, key)
			for region, places := range regions(t, base, key, rng) {
				seen[region] = true
				for _, at := range places {
					b := bytes.Clone(whole)
					b[at] ^= 1 << rng.IntN(8)
					put(t, base, key, b)
					what := fmt.Sprintf("%s, byte %d of %d (%s)", key, at, len(b), region)
					r := verify(t, base)
					if region == "data blocks" {
						if r.Err() != nil {
							t.Errorf("%s: without -read-data: %v%s", what, r.Err(), showFindings(r))
						}
						r = verify(t, base, readData)
					}
					f, ok := findingOf(r, key)
					if !ok || r.Err() == nil || !errors.Is(r.Err(), ErrCorrupt) && !errors.Is(r.Err(), ErrVersion) {
						t.Errorf("%s: %v%s", what, r.Err(), showFindings(r))
					}
					if txid, isLog := segment.ParseLogKey(key); isLog && txid > cut+1 && len(f.Lost) == 0 && f.Kind != FindingNewer && !covering(t, base, txid) {
						t.Errorf("%s: costs nothing%s", what, showFindings(r))
					}
				}
			}
			put(t, base, key, whole)
		}
		for _, cutOff := range []int{1, 100} { // shorter than it should be
			for _, key := range keys(t, base, "") {
				b := get(t, base, key)
				if key == segment.InfoKey || len(b) <= cutOff {
					continue
				}
				put(t, base, key, b[:len(b)-cutOff])
				if r := verify(t, base); r.Err() == nil || !named(r, key) {
					t.Errorf("%s without its last %d bytes: %v%s", key, cutOff, r.Err(), showFindings(r))
				}
				put(t, base, key, b)
			}
		}
	}
	if len(seen) != 8 {
		t.Errorf("regions: %v", seen)
	}
}

// covering reports whether a snapshot or page segment has the state after the segment
// of a single TXID.
func covering(t *testing.T, store Store, txid uint64) bool {
	return slices.ContainsFunc(keysOf(t, store), func(k exportKey) bool { return k.max >= txid })
}

func findingOf(r VerifyResult, key string) (Finding, bool) {
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Key == key })
	if i < 0 {
		return Finding{}, false
	}
	return r.Findings[i], true
}

func TestVerifyRoot(t *testing.T) {
	mc, _ := condensed(t, 92)
	whole := get(t, mc.store, segment.InfoKey)
	for name, b := range map[string][]byte{
		"another database": bytes.Replace(whole, []byte(walk(t, mc.store)[0].Header.Database.String()), []byte(segment.ID{7}.String()), 1),
		"cut":              whole[:len(whole)/2],
		"empty":            {},
		"not JSON":         bytes.Repeat([]byte("x"), 100),
	} {
		put(t, mc.store, segment.InfoKey, b)
		r := verify(t, mc.store)
		if !named(r, segment.InfoKey) || len(r.Findings) != 1 {
			t.Errorf("%s: %s", name, showFindings(r))
		}
	}
	put(t, mc.store, segment.InfoKey, bytes.Replace(whole, []byte(`"format": 1`), []byte(`"format": 9`), 1))
	if _, err := Verify(t.Context(), VerifyOptions{Store: mc.store}); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer format: %v", err)
	}
	if _, err := Verify(t.Context(), VerifyOptions{Store: objstore.NewMem()}); !errors.Is(err, ErrNoReplica) {
		t.Errorf("nothing: %v", err)
	}
}

// Segments of another database, and of another line of the same database, are named
// wherever they stand.
func TestVerifySpliced(t *testing.T) {
	a, _ := condensed(t, 93)
	other, _ := condensed(t, 93) // the same commits, another database ID
	for _, key := range keys(t, a.store, segment.LogPrefix) {
		txid, _ := segment.ParseLogKey(key)
		store := clone(t, a.store)
		put(t, store, key, get(t, other.store, key))
		r := verify(t, store)
		if f, ok := findingOf(r, key); !ok || f.Kind != FindingForeign {
			t.Errorf("%s of another database: %s", key, showFindings(r))
		}
		if txid == 1 {
			continue
		}
		// What another writer would have put there.
		o, err := segment.Parse(get(t, a.store, key))
		if err != nil {
			t.Fatal(err)
		}
		h := segment.Header{Kind: segment.KindLog, PageSize: o.Header.PageSize, Database: o.Header.Database, Session: segment.ID{9}, MinTXID: txid,
			PrevChain: segment.Hash{1}, Pre: o.Header.Pre, PreCommit: o.Header.PreCommit, LastMono: o.Header.LastMono}
		b, _, err := segment.EncodeClaim(h)
		if err != nil {
			t.Fatal(err)
		}
		if o.Header.MaxTXID != txid {
			continue
		}
		put(t, store, key, b)
		r = verify(t, store)
		if !named(r, key) {
			t.Errorf("%s of another line: %s", key, showFindings(r))
		}
	}
	for _, prefix := range []string{segment.PagesPrefix, segment.SnapshotPrefix} {
		for _, key := range keys(t, other.store, prefix) {
			store := clone(t, a.store)
			put(t, store, key, get(t, other.store, key))
			r := verify(t, store)
			if f, ok := findingOf(r, key); !ok || f.Kind != FindingForeign {
				t.Errorf("%s of another database: %s", key, showFindings(r))
			}
		}
	}
}

// Snapshots and page segments of another line of the same database: their own
// hashes are right, and so are their keys.
func TestVerifyExportOfAnotherLine(t *testing.T) {
	for _, cut := range []bool{false, true} {
		mc, ends := condensed(t, 94)
		if cut {
			retire(t, mc.store, ends[3])
		}
		for _, k := range keysOf(t, mc.store) {
			o, err := segment.Parse(get(t, mc.store, k.key()))
			if err != nil {
				t.Fatal(err)
			}
			if o.Header.External || cut && k.max != ends[3] {
				continue
			}
			h := *o.Header
			h.PrevChain[0] ^= 1
			b, _, err := segment.Encode(h, o.Entries)
			if err != nil {
				t.Fatal(err)
			}
			store := clone(t, mc.store)
			put(t, store, k.key(), b)
			if r := verify(t, store); !named(r, k.key()) {
				t.Errorf("cut %v, %s of another line: %s", cut, k.key(), showFindings(r))
			}
			// A page segment that leaves a page out doesn't make its checksum.
			o, _ = segment.Parse(get(t, mc.store, k.key()))
			e := o.Entries[0]
			n := int64(e.Blocks[0].Stored)
			body := make([]byte, e.Body.Size())
			readAt(e.Body, body, 0)
			e.Blocks, e.Body = e.Blocks[1:], segment.BytesBody(body[n:])
			if b, _, err = segment.Encode(*o.Header, o.Entries); err != nil {
				t.Fatal(err)
			}
			put(t, store, k.key(), b)
			if r := verify(t, store); !named(r, k.key()) {
				t.Errorf("cut %v, %s without a page: %s", cut, k.key(), showFindings(r))
			}
		}
	}
}

// What a stale writer left in a hole of the log is told, and is no damage; nor are
// claims there, or data objects that nobody names.
func TestVerifyLeftovers(t *testing.T) {
	mc, ends := condensed(t, 95)
	var hole uint64
	for _, o := range walk(t, mc.store) {
		if o.Header.MaxTXID < ends[2] && !o.Header.Claim && o.Header.MinTXID > ends[1]+2 {
			hole = o.Header.MinTXID
		}
	}
	db := walk(t, mc.store)[0].Header.Database
	stale := func(kind string) []byte {
		h := segment.Header{Kind: segment.KindLog, PageSize: 512, Database: db, Session: segment.ID{9}, MinTXID: hole, PrevChain: segment.Hash{1}}
		if kind == "claim" {
			h.Pre, h.PreCommit, h.LastMono = 5, 7, 1
			b, _, err := segment.EncodeClaim(h)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		b, _, err := segment.Encode(h, []*segment.Entry{{Kind: segment.Transaction, Count: 1, Pre: 5, PreCommit: 7, Post: 5, Commit: 7, MinCommit: 7, FirstMono: 1, LastMono: 1}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	retire(t, mc.store, ends[3])
	put(t, mc.store, segment.LogKey(hole), stale("claim"))
	whole(t, mc.store)
	put(t, mc.store, segment.LogKey(hole), stale("transaction"))
	r := verify(t, mc.store)
	if f, ok := findingOf(r, segment.LogKey(hole)); !ok || f.Kind != FindingStray || len(r.Findings) != 1 || r.Err() != nil {
		t.Errorf("a stale writer's transaction: %v%s", r.Err(), showFindings(r))
	}
	mc.store.Delete(t.Context(), segment.LogKey(hole))

	orphan := segment.DataKey(segment.ID{3})
	put(t, mc.store, orphan, make([]byte, 1234))
	r = verify(t, mc.store)
	if f, ok := findingOf(r, orphan); !ok || f.Kind != FindingOrphan || f.Bytes != 1234 || len(r.Findings) != 1 || r.Err() != nil {
		t.Errorf("an orphan: %v%s", r.Err(), showFindings(r))
	}
	whole(t, mc.store, func(o *VerifyOptions) { o.orphanAge = 0 }) // it may be named yet
}

// A hole in the log, and the line's end cut off below a snapshot.
func TestVerifyGap(t *testing.T) {
	mc, ends := condensed(t, 96)
	store := clone(t, mc.store)
	var from, to uint64
	for _, o := range walk(t, store) {
		if h := o.Header; h.MinTXID > ends[0] && h.MaxTXID < ends[1] {
			store.Delete(t.Context(), segment.LogKey(h.MinTXID))
			if from == 0 {
				from = h.MinTXID
			}
			to = h.MaxTXID
		}
	}
	r := verify(t, store)
	if f, ok := findingOf(r, segment.LogKey(from)); !ok || f.Kind != FindingGap || !lost(r, from) || !lost(r, to) || lost(r, ends[1]) {
		t.Errorf("%d to %d: %s", from, to, showFindings(r))
	}
	store = clone(t, mc.store)
	for _, o := range walk(t, store) {
		if o.Header.MaxTXID >= ends[3] {
			store.Delete(t.Context(), segment.LogKey(o.Header.MinTXID))
		}
	}
	if r = verify(t, store); r.Err() == nil || !strings.Contains(r.Findings[0].Key, segment.LogPrefix) {
		t.Errorf("the log ends below a snapshot: %s", showFindings(r))
	}
}

// A database is being taken over: that is no damage. Without its snapshot what
// follows is.
func TestVerifyAdopt(t *testing.T) {
	mc := replica(t)
	whole(t, mc.store, readData)
	snapshot := keys(t, mc.store, segment.SnapshotPrefix)[0]
	store := clone(t, mc.store)
	store.Delete(t.Context(), snapshot)
	if r := verify(t, store); !named(r, snapshot) || !lost(r, 2) || !lost(r, 4) {
		t.Errorf("without its snapshot: %s", showFindings(r))
	}
	for _, key := range keys(t, store, segment.LogPrefix)[2:] {
		store.Delete(t.Context(), key)
	}
	r := verify(t, store)
	if f, ok := findingOf(r, segment.LogKey(2)); !ok || f.Kind != FindingVoid || r.Err() != nil {
		t.Errorf("unfinished: %v%s", r.Err(), showFindings(r))
	}
}

// One damaged snapshot doesn't have all that is below each page segment behind it read
// again and again.
func TestVerifyDamagedBaseIsNotReadAgain(t *testing.T) {
	mc, _ := written(t, 93, 40, 1, 2)
	rng := rand.New(rand.NewPCG(1, 1))
	firsts, lasts := mc.segments()
	start := 5
	mc.putSnapshot(rng, lasts[start-1], false)
	var broken exportKey
	for i := start; i < len(lasts); i++ {
		k := mc.putPages(rng, firsts[i], lasts[i], false)
		if i == start+15 {
			broken = k
		}
	}
	whole := verify(t, mc.store)
	b := get(t, mc.store, broken.key())
	b[len(b)/2] ^= 1
	put(t, mc.store, broken.key(), b)
	damaged := verify(t, mc.store)
	if damaged.Err() == nil || !named(damaged, broken.key()) {
		t.Fatalf("%v%s", damaged.Err(), showFindings(damaged))
	}
	// Besides what it takes anyway: a second look at what is wrong, and once what is below.
	if damaged.Requests > whole.Requests+80 {
		t.Errorf("%d requests, %d for a replica that is whole", damaged.Requests, whole.Requests)
	}
}
