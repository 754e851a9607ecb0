package replicate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// A lineState is what a line was after a TXID at which a log segment ends.
type lineState struct {
	*state
	header *segment.Header
	chain  segment.Hash
}

// lineStates returns the states of a line at the ends of its log segments, by TXID.
func (mc *machine) lineStates() map[uint64]lineState {
	mc.t.Helper()
	all := map[uint64]lineState{}
	for _, o := range walk(mc.t, mc.store) {
		st := mc.m.states[o.Header.Post]
		if st == nil {
			mc.t.Fatalf("TXID %d: unknown state", o.Header.MaxTXID)
		}
		all[o.Header.MaxTXID] = lineState{st, o.Header, o.Chain}
	}
	return all
}

// putPages makes the page segment of min to max from the line's log and the model's
// states. Some of its pages occur twice, an old image first, if it is external.
func (mc *machine) putPages(rng *rand.Rand, min, max uint64, external bool) exportKey {
	mc.t.Helper()
	changed, fewest, whole := map[uint64]bool{}, uint64(1<<62), false
	var first, last, pre *segment.Header
	var chain segment.Hash
	for _, o := range walk(mc.t, mc.store) {
		h := o.Header
		switch {
		case h.MaxTXID < min:
			pre = h
			continue
		case h.MaxTXID > max:
			continue
		case first == nil:
			first = h
		}
		last, chain = h, o.Chain
		fewest = minOf(fewest, h.MinCommit)
		whole = whole || pre != nil && h.PageSize != pre.PageSize && pre.Commit > 0 || h.Replaces
		for no := h.PreCommit + 1; no <= h.Commit; no++ {
			changed[no] = true
		}
		for _, no := range mc.pagesOf(o) {
			changed[no] = true
		}
		for no := fewest + 1; no <= h.Commit; no++ {
			changed[no] = true
		}
	}
	if first == nil || first.MinTXID != min || last.MaxTXID != max {
		mc.t.Fatalf("no log segments begin at %d and end at %d", min, max)
	}
	st := mc.m.states[last.Post]
	if whole {
		for no := range st.commit() {
			changed[no+1] = true
		}
	}
	e := &segment.Entry{
		Kind: segment.Pages, Whole: whole, PageSize: last.PageSize, Count: max - min + 1, Commit: last.Commit, MinCommit: minOf(fewest, last.Commit), Post: last.Post,
		Pre: first.Pre, PreCommit: first.PreCommit,
		FirstMono: first.FirstMono, LastMono: last.LastMono, FirstRaw: first.FirstMono, LastRaw: last.LastMono,
	}
	h := segment.Header{Kind: segment.KindPages, PageSize: last.PageSize, Database: last.Database, Session: last.Session, MinTXID: min, PrevChain: chain, Pre: first.Pre, PreCommit: first.PreCommit}
	return mc.putExport(rng, h, e, changed, external)
}

// pagesOf returns which pages a log segment has.
func (mc *machine) pagesOf(o *segment.Object) (pages []uint64) {
	mc.t.Helper()
	note := func(b *segment.Block) {
		for _, p := range b.Pages {
			pages = append(pages, p.No)
		}
	}
	for _, e := range o.Entries {
		for i := range e.Blocks {
			note(&e.Blocks[i])
		}
	}
	if o.Header.External {
		dec := o.Frames()
		for i := range o.Root.Frames {
			recs, err := nextFrame(mc.t.Context(), mc.store, o, dec, i)
			if err != nil {
				mc.t.Fatal(err)
			}
			for _, r := range recs {
				if r.Block != nil {
					note(r.Block)
				}
			}
		}
	}
	return pages
}

// putSnapshot makes the snapshot of a TXID at which a log segment ends.
func (mc *machine) putSnapshot(rng *rand.Rand, txid uint64, external bool) exportKey {
	mc.t.Helper()
	s, ok := mc.lineStates()[txid]
	if !ok {
		mc.t.Fatalf("no log segment ends with TXID %d", txid)
	}
	all := map[uint64]bool{}
	for no := range s.commit() {
		all[no+1] = true
	}
	e := &segment.Entry{
		Kind: segment.Snapshot, PageSize: s.header.PageSize, Count: txid, Commit: s.commit(), MinCommit: s.commit(), Post: s.sum,
		FirstMono: s.header.LastMono, LastMono: s.header.LastMono, FirstRaw: s.header.LastMono, LastRaw: s.header.LastMono,
	}
	h := segment.Header{Kind: segment.KindSnapshot, PageSize: s.header.PageSize, Database: s.header.Database, Session: s.header.Session, MinTXID: 1, PrevChain: s.chain}
	return mc.putExport(rng, h, e, all, external)
}

// putExport writes the pages of e's state, in blocks of random sizes.
func (mc *machine) putExport(rng *rand.Rand, h segment.Header, e *segment.Entry, pages map[uint64]bool, external bool) exportKey {
	mc.t.Helper()
	st := mc.m.states[e.Post]
	var bodies [][]byte
	add := func(list []uint64, spoil bool) {
		var b segment.Block
		var plain []byte
		for _, no := range list {
			page := bytes.Clone(st.pages[no-1])
			if spoil {
				page[0] ^= 0xff
			}
			b.Pages = append(b.Pages, segment.Page{No: no, Hash: segment.PageHash(no, page)})
			plain = append(plain, page...)
		}
		var body []byte
		body, b.Codec, b.Base = mc.m.enc.Encode(nil, plain, nil)
		b.Stored = uint32(len(body))
		e.Blocks, bodies = append(e.Blocks, b), append(bodies, body)
	}
	var list []uint64
	for no := uint64(1); no <= st.commit(); no++ {
		if pages[no] && (rng.IntN(4) > 0 || !allZero(st.pages[no-1]) || no <= minOf(h.PreCommit, e.MinCommit)) {
			list = append(list, no)
		}
	}
	for len(list) > 0 {
		n := minOf(1+rng.IntN(20), len(list))
		if external && rng.IntN(4) == 0 {
			add(list[:n], true) // a later image follows
		}
		add(list[:n], false)
		list = list[n:]
	}
	var object []byte
	var err error
	if external {
		var data bytes.Buffer
		name := segment.NewID()
		w := segment.NewDataWriter(&data, segment.DataHeader{Name: name, Kind: h.Kind, PageSize: h.PageSize, Database: h.Database, Session: h.Session})
		for i, b := range e.Blocks {
			if err := w.WriteBlock(b, bodies[i]); err != nil {
				mc.t.Fatal(err)
			}
		}
		if err := w.EndEntry(e); err != nil {
			mc.t.Fatal(err)
		}
		root, err := w.Close()
		if err != nil {
			mc.t.Fatal(err)
		}
		if object, _, err = segment.EncodeExternal(h, []*segment.Entry{e}, root); err != nil {
			mc.t.Fatal(err)
		}
		put(mc.t, mc.store, segment.DataKey(name), data.Bytes())
	} else {
		e.Body = segment.BytesBody(bytes.Join(bodies, nil))
		if object, _, err = segment.Encode(h, []*segment.Entry{e}); err != nil {
			mc.t.Fatal(err)
		}
	}
	header, err := segment.ParseHeader(object)
	if err != nil {
		mc.t.Fatal(err)
	}
	put(mc.t, mc.store, header.Key(), object)
	k, ok := parseExport(ObjectInfo{Key: header.Key(), Size: int64(len(object))})
	if !ok {
		mc.t.Fatal(header.Key())
	}
	return k
}

func minOf[T int | uint64](a, b T) T { return min(a, b) }

func allZero(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }

// ends lists where the line's log segments begin and end.
func (mc *machine) segments() (firsts, lasts []uint64) {
	for _, o := range walk(mc.t, mc.store) {
		firsts, lasts = append(firsts, o.Header.MinTXID), append(lasts, o.Header.MaxTXID)
	}
	return firsts, lasts
}

// Page segments, also such as begin before the one before them ends, make the states
// that the log makes, without it.
func TestPageSegments(t *testing.T) {
	seeds := uint64(18)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), seed+40)
			randomLine(mc, seed, func() {})
			rng := rand.New(rand.NewPCG(seed, 9))
			firsts, lasts := mc.segments()
			states := mc.lineStates()
			// The log can go on from page segments …
			var ends []uint64
			covered := uint64(0)
			for i, start := 0, 0; i < len(firsts); {
				from := start
				if rng.IntN(3) == 0 {
					from = rng.IntN(start + 1)
				}
				to := i + rng.IntN(minOf(6, len(firsts)-i))
				if rng.IntN(4) == 0 || seed%3 > 0 && i == 0 { // a database that was taken over needs its snapshot
					if states[lasts[to]].commit() > 0 {
						mc.putSnapshot(rng, lasts[to], rng.IntN(2) == 0)
						covered = lasts[to]
					}
				} else if states[lasts[to]].commit() > 0 {
					mc.putPages(rng, firsts[from], lasts[to], rng.IntN(2) == 0)
					covered = lasts[to]
				}
				if covered == lasts[to] {
					ends = append(ends, covered)
				}
				i = to + 1
				if covered == lasts[to] {
					start = i
				}
			}
			mc.checkNewest()
			mc.checkHashes()
			for _, txid := range ends {
				mc.checkTXID(txid)
			}
			mc.checkSome(20)
			// … and their ends need no log.
			newest := lasts[len(lasts)-1]
			mc.store.Delete(t.Context(), keys(t, mc.store, segment.LogPrefix)...)
			for _, txid := range ends {
				if res := mc.checkState(states, txid); res.Latest && txid != newest {
					t.Errorf("TXID %d is said to be the newest", txid)
				}
			}
		})
	}
}

// checkTXID restores a TXID at which a log segment ends, and compares.
func (mc *machine) checkTXID(txid uint64) RestoreResult {
	mc.t.Helper()
	return mc.checkState(mc.lineStates(), txid)
}

func (mc *machine) checkState(states map[uint64]lineState, txid uint64) RestoreResult {
	mc.t.Helper()
	res, b, err := restoreTo(mc.t, mc.store, func(o *RestoreOptions) { o.TXID, o.forget = txid, txid%2 == 0 })
	if err != nil {
		mc.t.Fatalf("TXID %d: %v", txid, err)
	}
	if !bytes.Equal(b, states[txid].image()) || res.TXID != txid {
		mc.t.Fatalf("TXID %d: restored another state: %+v", txid, res)
	}
	return res
}
