package replicate

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func verify(t *testing.T, store Store, change ...func(*VerifyOptions)) VerifyResult {
	t.Helper()
	opts := VerifyOptions{Store: store, wait: func(context.Context) error { return nil }, orphanAge: time.Nanosecond}
	for _, f := range change {
		f(&opts)
	}
	res, err := Verify(within(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func readData(o *VerifyOptions) { o.ReadData = true }

func showFindings(r VerifyResult) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n  %s %s: %s; %s; %s", f.Kind, f.Key, f.What, f.Cost, f.Do)
	}
	return b.String()
}

// whole checks that there is no finding.
func whole(t *testing.T, store Store, change ...func(*VerifyOptions)) VerifyResult {
	t.Helper()
	r := verify(t, store, change...)
	if len(r.Findings) > 0 || r.Err() != nil {
		t.Fatalf("an intact replica: %v%s", r.Err(), showFindings(r))
	}
	return r
}

// lifeStates are the model's states at TXIDs, as the log has them.
func lifeStates(t *testing.T, mc *machine) map[uint64]*state {
	t.Helper()
	at := map[uint64]*state{}
	for _, o := range segmentsOf(t, mc.store) {
		at[o.Header.MaxTXID] = mc.m.states[o.Header.Post]
	}
	return at
}

// segmentsOf returns the log segments that there are.
func segmentsOf(t *testing.T, store Store) (all []*segment.Object) {
	t.Helper()
	for _, key := range keys(t, store, segment.LogPrefix) {
		o, err := segment.Parse(get(t, store, key))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

// export writes the page segment of TXIDs min to max, or the snapshot of max if min
// is 0, from the model's states; external puts its blocks into a data object.
func (mc *machine) export(min, max uint64, external bool) string {
	t := mc.t
	t.Helper()
	at := lifeStates(t, mc)
	st, old := at[max], &state{}
	var log *segment.Object
	low := ^uint64(0)
	first := int64(0)
	for _, o := range segmentsOf(t, mc.store) {
		if o.Header.MaxTXID == max {
			log = o
		}
		if o.Header.MaxTXID >= min && o.Header.MaxTXID <= max {
			low = slices.Min([]uint64{low, o.Header.MinCommit})
		}
		if o.Header.MinTXID == min {
			first = o.Header.FirstMono
		}
	}
	h := segment.Header{PageSize: st.pageSize, Database: log.Header.Database, Session: log.Header.Session, MinTXID: 1, PrevChain: log.Chain, Kind: segment.KindSnapshot}
	last := log.Header.LastMono
	e := &segment.Entry{Kind: segment.Snapshot, PageSize: st.pageSize, Count: max, Commit: st.commit(), MinCommit: st.commit(), Post: st.sum,
		FirstMono: last, LastMono: last, FirstRaw: last, LastRaw: last}
	if min != 0 {
		old = at[min-1]
		h.Kind, h.MinTXID = segment.KindPages, min
		e.Kind, e.Count, e.MinCommit, e.Pre, e.PreCommit, e.FirstMono, e.FirstRaw = segment.Pages, max-min+1, low, old.sum, old.commit(), first, first
	}
	kept := slices.Min([]uint64{old.commit(), e.MinCommit})
	zero := make([]byte, st.pageSize)
	var body []byte
	for i, p := range st.pages {
		no := uint64(i) + 1
		if no <= kept && bytes.Equal(p, old.pages[i]) || no > kept && bytes.Equal(p, zero) {
			continue
		}
		b := segment.Block{Pages: []segment.Page{{No: no, Hash: segment.PageHash(no, p)}}}
		n := len(body)
		body, b.Codec, b.Base = mc.m.enc.Encode(body, p, nil)
		b.Stored = uint32(len(body) - n)
		e.Blocks = append(e.Blocks, b)
	}
	e.Body = segment.BytesBody(body)
	var obj []byte
	var err error
	if external {
		name := segment.NewID()
		var data bytes.Buffer
		w := segment.NewDataWriter(&data, segment.DataHeader{Name: name, Kind: h.Kind, PageSize: h.PageSize, Database: h.Database, Session: h.Session})
		if err := writeEntry(w, e); err != nil {
			t.Fatal(err)
		}
		root, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		put(t, mc.store, segment.DataKey(name), data.Bytes())
		if obj, _, err = segment.EncodeExternal(h, []*segment.Entry{e}, root); err != nil {
			t.Fatal(err)
		}
	} else if obj, _, err = segment.Encode(h, []*segment.Entry{e}); err != nil {
		t.Fatal(err)
	}
	parsed, err := segment.Parse(obj)
	if err != nil {
		t.Fatal(err)
	}
	put(t, mc.store, parsed.Header.Key(), obj)
	return parsed.Header.Key()
}

// condensed makes a replica with all kinds of objects: claims of two sessions, a
// large log segment, page segments inline and external, two snapshots. cut removes
// the log below the first page segment, as retention does.
//
//	first ends[0] snapshot … ends[1] pages … ends[2] pages, external … ends[3] snapshot, external …
func condensed(t *testing.T, seed uint64) (mc *machine, ends []uint64) {
	t.Helper()
	mc = newMachine(t, objstore.NewMem(), seed)
	for session := range 2 {
		p := mc.open()
		for i := range 9 {
			if i == 5 {
				mc.m.mu.Lock()
				large(mc.m, 200)
				mc.m.mu.Unlock()
			} else {
				mc.m.commit()
			}
			p.sync(t)
			if i%4 == 3 {
				ends = append(ends, p.Status().TXID)
			}
		}
		if session == 1 {
			mc.m.commit()
			p.sync(t)
		}
		p.close(t)
	}
	mc.export(0, ends[0], false)
	mc.export(ends[0]+1, ends[1], false)
	mc.export(ends[1]+1, ends[2], true)
	mc.export(0, ends[3], true)
	return mc, ends
}

// retire removes the log up to txid, but claims, as retention does.
func retire(t *testing.T, store Store, txid uint64) {
	t.Helper()
	for _, key := range keys(t, store, segment.LogPrefix) {
		b := get(t, store, key)
		o, err := segment.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if o.Header.MaxTXID > txid || o.Header.Claim {
			continue
		}
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if o.Header.External {
			store.Delete(t.Context(), o.DataKey())
		}
	}
}

func TestVerifyWhole(t *testing.T) {
	for seed := range uint64(4) {
		mc, ends := condensed(t, 70+seed)
		for _, cut := range append([]uint64{0}, ends...) {
			store := clone(t, mc.store)
			retire(t, store, cut)
			whole(t, store)
			r := whole(t, store, readData)
			if r.Blocks == 0 || r.BlocksRead != r.Blocks || r.Snapshots != 2 || r.PageSegments != 2 {
				t.Fatalf("%+v", r)
			}
		}
	}
}

func TestVerifyRandomLines(t *testing.T) {
	for seed := range uint64(9) {
		mc := newMachine(t, objstore.NewMem(), seed+400)
		randomLine(mc, seed, func() { whole(t, mc.store, readData) })
	}
}

// reachable is what can be restored, found out in the plainest way: a base, and log
// segments that follow one another.
func reachable(t *testing.T, store Store) map[uint64]bool {
	t.Helper()
	list, err := listExports(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	logs := map[uint64]*segment.Object{}
	newest := uint64(0)
	for _, key := range keys(t, store, segment.LogPrefix) {
		o, err := segment.Parse(get(t, store, key))
		if err != nil {
			t.Fatal(err)
		}
		logs[o.Header.MinTXID] = o
		newest = max(newest, o.Header.MaxTXID)
	}
	for _, k := range list {
		newest = max(newest, k.max)
	}
	all := map[uint64]bool{}
	for txid := uint64(1); txid <= newest; txid++ {
		at := uint64(0)
		if base := chooseBase(list, txid); len(base) > 0 {
			at = base[len(base)-1].max
		}
		commit := uint64(1)
		for at < txid && logs[at+1] != nil {
			at, commit = logs[at+1].Header.MaxTXID, logs[at+1].Header.Commit
		}
		if at >= txid && commit > 0 {
			all[txid] = true
		}
	}
	return all
}

func checkRestorable(t *testing.T, store Store, r VerifyResult) map[uint64]bool {
	t.Helper()
	all := reachable(t, store)
	n := 0
	for _, rg := range r.Restorable {
		for txid := rg.From; txid <= rg.To; txid++ {
			if n++; !all[txid] {
				t.Errorf("TXID %d can't be restored: %v", txid, r.Restorable)
			}
		}
	}
	if n != len(all) {
		t.Errorf("%d TXIDs can be restored: %v", len(all), r.Restorable)
	}
	return all
}

func lost(r VerifyResult, txid uint64) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return slices.ContainsFunc(f.Lost, func(l TXIDs) bool { return l.From <= txid && txid <= l.To })
	})
}

// Whatever is deleted is named, if something needs it; and what can't be restored
// without it is told, neither more nor less.
func TestVerifyEachObjectDeleted(t *testing.T) {
	harmless := 0
	for seed := range uint64(3) {
		mc, ends := condensed(t, 81+seed)
		for _, cut := range append([]uint64{0}, ends...) {
			base := clone(t, mc.store)
			retire(t, base, cut)
			before := checkRestorable(t, base, whole(t, base))
			logs := keys(t, base, segment.LogPrefix)
			for _, key := range keys(t, base, "") {
				at := fmt.Sprintf("seed %d, cut at %d, %s gone", seed, cut, key)
				store := clone(t, base)
				store.Delete(t.Context(), key)
				r := verify(t, store)
				txid, isLog := segment.ParseLogKey(key)
				if key == logs[len(logs)-1] || isLog && txid != 1 && txid <= cut {
					continue // it can't be told; a claim that retention has left means nothing
				}
				costs := false
				if strings.HasPrefix(key, segment.DataPrefix) || key == segment.InfoKey {
					costs = true
				} else {
					after := checkRestorable(t, store, r)
					if k, ok := parseExport(ObjectInfo{Key: key}); ok && !needed(keysOf(t, base), key) && !after[k.max] && len(after) == len(before)-1 {
						continue // nothing that is left builds on it
					}
					for txid := range before {
						if gone := !after[txid]; gone != lost(r, txid) {
							t.Errorf("%s: TXID %d lost: %v%s", at, txid, gone, showFindings(r))
						} else if gone {
							costs = true
						}
					}
				}
				if isLog || costs {
					if r.Err() == nil || !named(r, key) {
						t.Errorf("%s: %v%s", at, r.Err(), showFindings(r))
					}
				} else if harmless++; r.Err() != nil {
					t.Errorf("%s, and everything can be restored: %v%s", at, r.Err(), showFindings(r))
				}
			}
		}
	}
	if harmless == 0 {
		t.Error("no snapshot or page segment was dispensable")
	}
}

func keysOf(t *testing.T, store Store) []exportKey {
	t.Helper()
	list, err := listExports(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// needed reports whether a restore to the end of another export begins with it.
func needed(list []exportKey, key string) bool {
	return slices.ContainsFunc(list, func(k exportKey) bool {
		return k.key() != key && slices.ContainsFunc(chooseBase(list, k.max), func(b exportKey) bool { return b.key() == key })
	})
}

// named reports whether a finding is about the object, or as much of its name as
// can be known.
func named(r VerifyResult, key string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		if !f.Damage() {
			return false
		}
		if f.Key == key {
			return true
		}
		if k, ok := parseExport(ObjectInfo{Key: key}); ok && f.Kind == FindingGap {
			if strings.Contains(f.What, fmt.Sprintf("ends with TXID %d:", k.max)) {
				return true
			}
			return strings.Contains(f.Key, fmt.Sprintf("-%016x-", k.max)) || strings.Contains(f.What, fmt.Sprintf("lead to TXID %d,", k.max))
		}
		return false
	})
}

// A log segment whose pages don't make its checksum is found also where no snapshot
// leads to it: when it is looked at again, the state before it is not at hand.
func TestVerifyWrongChecksumWithoutBase(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 5)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	log := walk(t, mc.store)
	o := log[len(log)-1]
	o.Entries[len(o.Entries)-1].Post ^= 1
	b, _, err := segment.Encode(*o.Header, o.Entries)
	if err != nil {
		t.Fatal(err)
	}
	put(t, mc.store, o.Header.Key(), b)
	if r := verify(t, mc.store); !named(r, o.Header.Key()) {
		t.Error(showFindings(r))
	}
}
