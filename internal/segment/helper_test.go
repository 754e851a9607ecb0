package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

var (
	testDB      = ID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	testSession = ID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	testData    = ID{0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf}
)

const testTime = 1_700_000_000_000_000

// model is a database that changes at random, the truth that segments are
// compared with.
type model struct {
	t        testing.TB
	rnd      *rand.Rand
	pageSize uint32
	pages    map[uint64][]byte // absent: zero
	commit   uint64
	sum      uint64
	now      int64
	enc      *BlockEncoder
	// states holds every state that an entry led to.
	states []map[uint64][]byte
}

func newModel(t testing.TB, seed uint64, pageSize uint32) *model {
	return &model{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), pageSize: pageSize,
		pages: map[uint64][]byte{}, now: testTime, enc: NewBlockEncoder(),
	}
}

func (m *model) content(no uint64) []byte {
	p := make([]byte, m.pageSize)
	switch m.rnd.IntN(5) {
	case 0: // zero
	case 1: // does not compress
		for i := range p {
			p[i] = byte(m.rnd.Uint32())
		}
	default:
		if old := m.pages[no]; old != nil {
			copy(p, old)
		} else {
			copy(p, bytes.Repeat(fmt.Appendf(nil, "page %d of the model; ", no), len(p)))
		}
		at := m.rnd.IntN(len(p) - 8)
		binary.BigEndian.PutUint64(p[at:], m.rnd.Uint64())
	}
	return p
}

// page returns a page of the current state.
func (m *model) page(no uint64) []byte {
	if p := m.pages[no]; p != nil {
		return p
	}
	return make([]byte, m.pageSize)
}

func (m *model) resize(commit uint64) {
	lock := LockPage(m.pageSize)
	for no := commit + 1; no <= m.commit; no++ {
		if no != lock {
			m.sum ^= PageHash(no, m.page(no))
		}
		delete(m.pages, no)
	}
	for no := m.commit + 1; no <= commit; no++ {
		if no != lock {
			m.sum ^= PageHash(no, m.page(no))
		}
	}
	m.commit = commit
}

func (m *model) set(no uint64, p []byte) {
	m.sum ^= PageHash(no, m.page(no)) ^ PageHash(no, p)
	m.pages[no] = p
}

// entry changes the database and returns the entry that says so.
func (m *model) entry(kind EntryKind) *Entry {
	e := &Entry{Kind: kind, Count: 1, PageSize: m.pageSize, Pre: m.sum, PreCommit: m.commit}
	if kind == Merge {
		e.Count = 1 + m.rnd.Uint64N(1000)
	}
	m.now += m.rnd.Int64N(1e6)
	e.FirstMono = m.now
	e.FirstRaw = m.now - m.rnd.Int64N(5e6)
	m.now += m.rnd.Int64N(1e6)
	e.LastMono = m.now
	e.LastRaw = m.now + m.rnd.Int64N(5e6)
	e.WAL = WALPosition{[2]uint32{m.rnd.Uint32(), m.rnd.Uint32()}, m.rnd.Uint64N(1e6) + 1, [2]uint32{m.rnd.Uint32(), m.rnd.Uint32()}}
	if m.rnd.IntN(4) == 0 {
		e.Extensions = []Extension{{0x0007, []byte("later")}, {0x0100, nil}}
	}
	before := m.clone()
	beforeCommit := m.commit
	commit := max(1, m.commit+m.rnd.Uint64N(6)-m.rnd.Uint64N(min(m.commit+1, 4)))
	m.resize(commit)
	changed := map[uint64]bool{}
	for range m.rnd.IntN(min(90, int(commit)+1)) {
		no := 1 + m.rnd.Uint64N(commit)
		if no != LockPage(m.pageSize) && !changed[no] {
			changed[no] = true
			m.set(no, m.content(no))
		}
	}
	e.Post, e.Commit, e.MinCommit = m.sum, m.commit, m.commit
	var nos []uint64
	for no := range changed {
		nos = append(nos, no)
	}
	slices.Sort(nos)
	most := min(MaxBlockPages, MaxBlockPlain/int(m.pageSize))
	var body []byte
	for len(nos) > 0 {
		n := min(len(nos), 1+m.rnd.IntN(most))
		var plain, dict []byte
		b := Block{}
		patch := m.rnd.IntN(3) > 0
		for _, no := range nos[:n] {
			p := m.page(no)
			plain = append(plain, p...)
			if no <= beforeCommit && patch {
				if old := before[no]; old != nil {
					dict = append(dict, old...)
				} else {
					dict = append(dict, make([]byte, m.pageSize)...)
				}
			}
			b.Pages = append(b.Pages, Page{no, PageHash(no, p)})
		}
		at := len(body)
		body, b.Codec, b.Base = m.enc.Encode(body, plain, dict)
		b.Stored = uint32(len(body) - at)
		e.Blocks = append(e.Blocks, b)
		nos = nos[n:]
	}
	if body != nil {
		e.Body = BytesBody(body)
	}
	m.states = append(m.states, m.clone())
	return e
}

func (m *model) clone() map[uint64][]byte {
	c := make(map[uint64][]byte, len(m.pages))
	for k, v := range m.pages {
		c[k] = v
	}
	return c
}

func (m *model) header(min uint64) Header {
	return Header{
		Kind: KindLog, PageSize: m.pageSize, Database: testDB, Session: testSession, MinTXID: min,
		PrevChain: Hash{9, 9, 9},
		Owner:     &Owner{Host: "db1.example.org", PID: 4711, Program: "packages", Since: time.Unix(1_700_000_000, 0).UTC()},
	}
}

// apply brings state, of commit pages, to what e says.
func apply(t testing.TB, state map[uint64][]byte, commit uint64, e *Entry, pageSize uint32) {
	t.Helper()
	dec := NewBlockDecoder()
	body := bodyBytes(t, e)
	for i := range e.Blocks {
		b := &e.Blocks[i]
		var dict []byte
		if b.Base == BasePatch {
			for _, p := range b.Pages {
				if p.No <= commit {
					old := state[p.No]
					if old == nil {
						old = make([]byte, pageSize)
					}
					dict = append(dict, old...)
				}
			}
		}
		plain, err := dec.Decode(nil, b, body[:b.Stored], pageSize, dict)
		if err != nil {
			t.Fatal(err)
		}
		body = body[b.Stored:]
		for i, p := range b.Pages {
			state[p.No] = plain[i*int(pageSize):][:pageSize]
		}
	}
	for no := range state {
		if no > e.Commit {
			delete(state, no)
		}
	}
	sum := uint64(0)
	zero := make([]byte, pageSize)
	for no := uint64(1); no <= e.Commit; no++ {
		if no == LockPage(pageSize) {
			continue
		}
		p := state[no]
		if p == nil {
			p = zero
		}
		sum ^= PageHash(no, p)
	}
	if sum != e.Post {
		t.Fatalf("%v of TXID %d: checksum %016x, expected %016x", e.Kind, e.MinTXID, sum, e.Post)
	}
}

func sameEntry(t testing.TB, got, want *Entry, spool bool) {
	t.Helper()
	g, w := *got, *want
	if !spool {
		if g.Pre != w.Pre || g.PreCommit != w.PreCommit {
			t.Errorf("state before: %x %d, want %x %d", g.Pre, g.PreCommit, w.Pre, w.PreCommit)
		}
		g.WAL, w.WAL = WALPosition{}, WALPosition{}
		g.PageSize = w.PageSize
		if !bytes.Equal(bodyBytes(t, &g), bodyBytes(t, &w)) {
			t.Error("bodies differ")
		}
	}
	g.Body, w.Body = nil, nil
	if len(g.Blocks) != len(w.Blocks) {
		t.Fatalf("%d blocks, want %d", len(g.Blocks), len(w.Blocks))
	}
	for i := range g.Blocks {
		b := g.Blocks[i]
		b.Offset = w.Blocks[i].Offset
		if a, b := fmt.Sprintf("%+v", b), fmt.Sprintf("%+v", w.Blocks[i]); a != b {
			t.Fatalf("block %d\n is %s\nnot %s", i, a, b)
		}
	}
	g.Blocks, w.Blocks = nil, nil
	if len(g.Extensions)+len(w.Extensions) == 0 {
		g.Extensions, w.Extensions = nil, nil
	}
	for _, e := range []*Entry{&g, &w} {
		if spool {
			e.MinTXID, e.MaxTXID = 0, 0
		}
		e.Extensions = slices.Clone(e.Extensions)
		for i := range e.Extensions {
			if len(e.Extensions[i].Value) == 0 {
				e.Extensions[i].Value = nil
			}
		}
	}
	if a, b := fmt.Sprintf("%+v", g), fmt.Sprintf("%+v", w); a != b {
		t.Fatalf("entry\n is %s\nnot %s", a, b)
	}
}

func bodyBytes(t testing.TB, e *Entry) []byte {
	t.Helper()
	if e.Body == nil && e.BodySize() != 0 {
		t.Fatal("no body")
	}
	body := make([]byte, e.BodySize())
	if e.Body != nil {
		if n, _ := e.Body.ReadAt(body, 0); n != len(body) || e.Body.Size() != int64(n) {
			t.Fatalf("body of %d bytes, expected %d", n, len(body))
		}
	}
	return body
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

// reseal makes the check values of an object fit its bytes again, as far as its
// lengths make sense: so that what is behind them is tested.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < headerMin+footerSize {
		return b
	}
	be := binary.BigEndian
	n := int64(be.Uint32(b[16:]))
	size := int64(len(b))
	f := b[size-footerSize:]
	first, root := int64(be.Uint64(f)), int64(be.Uint64(f[8:]))
	if n < headerMin || n > size-footerSize || first < n || first > root || root > size-footerSize {
		return b
	}
	be.PutUint64(b[n-8:], xxh64(b[:n-8]))
	be.PutUint64(f[16:], uint64(size))
	copy(f[24:], footerMagic)
	if b[9]&flagExternal == 0 && root+32 <= size-footerSize {
		sum := sha256.Sum256(b[n:first])
		copy(b[root:], sum[:])
	}
	chain := chainValue(b[:size-32], int(n), int(first))
	copy(f[32:], chain[:])
	return b
}

// canonical checks that b is the only way to write what o, parsed from it, says.
// Compression and padding are the writer's choice.
func canonical(t testing.TB, o *Object, b []byte) {
	t.Helper()
	h := *o.Header
	padding := -1
	var owner []byte
	err := walkExtensions(b[headerFixed:h.Length-8], func(x Extension) error {
		switch x.Type {
		case extPadding:
			padding = len(x.Value)
		case extOwner:
			owner = x.Value
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if owner == nil || h.Owner != nil && bytes.Equal(owner, h.Owner.marshal()) {
		got, err := h.append(nil, padding)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, b[:h.Length]) {
			t.Fatalf("header\n is %x\nnot %x", b[:h.Length], got)
		}
	}
	if h.External {
		if got := o.Root.append(nil, true, Hash{}); !bytes.Equal(got, b[h.Length:len(b)-footerSize]) {
			t.Fatalf("root\n is %x\nnot %x", b[h.Length:len(b)-footerSize], got)
		}
		return
	}
	var want records
	last := h.FirstMono
	for _, e := range o.Entries {
		for i := range e.Blocks {
			want.appendBlock(&e.Blocks[i])
		}
		if err := want.appendEntry(e, last); err != nil {
			t.Fatal(err)
		}
		last = e.LastMono
	}
	var got records
	for i := range o.Root.Frames {
		f := &o.Root.Frames[i]
		s, err := decompressStructure(b[f.Offset:][:f.Stored], int(f.Plain))
		if err != nil {
			t.Fatal(err)
		}
		got.structure = append(got.structure, s...)
		got.hashes = append(got.hashes, b[f.Offset+int64(f.Stored):][:f.Hashes]...)
	}
	if !bytes.Equal(got.structure, want.structure) || !bytes.Equal(got.hashes, want.hashes) {
		t.Fatalf("index\n is %x %x\nnot %x %x", got.structure, got.hashes, want.structure, want.hashes)
	}
	end := o.Root.Frames[len(o.Root.Frames)-1]
	root := o.Root.append(nil, false, sha256.Sum256(b[h.Length:o.Root.Frames[0].Offset]))
	if !bytes.Equal(root, b[end.Offset+end.Size():len(b)-footerSize]) {
		t.Fatal("root differs")
	}
}

// readData reads a data object through its descriptor: all of its index and all
// of its blocks.
func readData(o *Object, data []byte) ([]Record, error) {
	if int64(len(data)) != o.Root.Size {
		return nil, corruptf("size %d", len(data))
	}
	if err := o.VerifyDataHeader(data[:DataHeaderSize]); err != nil {
		return nil, err
	}
	var all []Record
	d := o.Frames()
	for i, f := range o.Root.Frames {
		stored := data[f.Offset:][:f.Size()]
		recs, err := d.Next(stored)
		if err != nil {
			return nil, err
		}
		blocks, err := o.ParseFrame(i, stored)
		if err != nil {
			return nil, fmt.Errorf("Next passes, ParseFrame does not: %w", err)
		}
		for _, r := range recs {
			if r.Block == nil {
				continue
			}
			if a, b := fmt.Sprint(*r.Block), fmt.Sprint(blocks[0]); a != b {
				return nil, fmt.Errorf("Next gives %s, ParseFrame %s", a, b)
			}
			blocks = blocks[1:]
			if err := r.Block.Verify(data[r.Block.Offset:][:r.Block.Stored]); err != nil {
				return nil, err
			}
		}
		all = append(all, recs...)
	}
	return all, d.Close()
}

func sumOf(b []byte) Hash { return sha256.Sum256(b) }
