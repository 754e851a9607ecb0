package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenDir = "../../testdata/segment"

// goldenSums pins the golden files: these bytes are in users' buckets. A change
// here is a change of the format.
var goldenSums = map[string]string{
	"claim-first":            "41a2cf05b131f617885a82c0790fcb267c001d7ee6edaa821270bd2402425d96",
	"claim-later":            "49b1b015989a0579b8cf64e182fc82a2ed946faa954984422741a5507c10dc43",
	"log":                    "872b1a31a43dc4eaa6c17052e1f5245c7cc0af3e809e759a0acdd8c3ee7ce273",
	"log-adopt":              "4e268a13a5b51c933e35055335b554fbd3db8088e3cf5266b385d65bd77d88db",
	"log-external":           "409ad71e0bbb9257737d5a8553d9ad7b91cadd13d9a1bf45a90f581b667861ec",
	"log-external.data":      "1ff8b73460102aaa52c83d9a34f660b65299f15f68ae36c44f76fd784abf1723",
	"log-one-commit":         "f14dc829201c388e458db506318fa75cbbbd141d9b3d59055b2c4e44f9176875",
	"log-whole":              "5e092651a5d4862d05fd75e73100ffa0be9b5375b08e27d280ad6a74bc312946",
	"outwash":                "02985cda422000723c2885679440cfa0dcc99310293b7ed45bbbec4e8dc617ee",
	"pages":                  "74cf400052389a62bdcac09b92557be1c121796eacdda24200d7f513513c3a7a",
	"snapshot":               "3e563cd1ee7cf3a1d208e290ab27e5fbcbbc561181c186ee809f3e2b1ec30825",
	"snapshot-external":      "929d7cf2c2e638d68c10d547b4f95675f30f82919d85bf59a63b13c9a1dabd99",
	"snapshot-external.data": "50eaf8a08a90e529eb878896f580c8338037351edf9997349b67a2e52a831d80",
}

// golden is one file: a segment, and its data object if it is external.
type golden struct {
	name     string
	object   []byte
	data     []byte
	entries  []*Entry // what went in
	pageSize uint32
}

// goldenDB makes the content of the golden files: no random numbers.
type goldenDB struct {
	t        testing.TB
	pageSize int
	pages    map[uint64][]byte
	commit   uint64
	sum      uint64
	now      int64
	enc      *BlockEncoder
}

func (g *goldenDB) text(no uint64, version int) []byte {
	var b []byte
	for i := 0; len(b) < g.pageSize; i++ {
		v := 0
		if i == 3 {
			v = version
		}
		b = fmt.Appendf(b, "page %d row %d version %d|", no, i, v)
	}
	return b[:g.pageSize]
}

// noise does not compress.
func (g *goldenDB) noise(no uint64) []byte {
	var b []byte
	for i := 0; len(b) < g.pageSize; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%d/%d", no, i))
		b = append(b, h[:]...)
	}
	return b
}

func (g *goldenDB) hash(no uint64) uint64 {
	if no == LockPage(uint32(g.pageSize)) {
		return 0
	}
	return PageHash(no, g.page(no))
}

func (g *goldenDB) page(no uint64) []byte {
	if p := g.pages[no]; p != nil {
		return p
	}
	return make([]byte, g.pageSize)
}

// entry changes pages and appends one entry; groups are its blocks' pages.
func (g *goldenDB) entry(kind EntryKind, commit uint64, patch bool, groups ...map[uint64][]byte) *Entry {
	e := &Entry{
		Kind: kind, Count: 1, PageSize: uint32(g.pageSize), Pre: g.sum, PreCommit: g.commit,
		Commit: commit, MinCommit: commit, FirstMono: g.now, LastMono: g.now + 2500, FirstRaw: g.now - 7, LastRaw: g.now + 2503,
		WAL: WALPosition{[2]uint32{0x1234, 0x5678}, uint64(g.now / 1_000_000 % 1000), [2]uint32{0x9abc, 0xdef0}},
	}
	g.now += 1_000_000
	var body []byte
	for _, group := range groups {
		var nos []uint64
		for no := range group {
			nos = append(nos, no)
		}
		slices.Sort(nos)
		var plain, dict []byte
		b := Block{}
		for _, no := range nos {
			plain = append(plain, group[no]...)
			if patch && no <= g.commit {
				dict = append(dict, g.page(no)...)
			}
			b.Pages = append(b.Pages, Page{no, PageHash(no, group[no])})
		}
		at := len(body)
		body, b.Codec, b.Base = g.enc.Encode(body, plain, dict)
		b.Stored = uint32(len(body) - at)
		e.Blocks = append(e.Blocks, b)
	}
	for no := uint64(1); no <= g.commit; no++ {
		g.sum ^= g.hash(no)
	}
	for _, group := range groups {
		for no, p := range group {
			g.pages[no] = p
		}
	}
	g.commit = commit
	for no := uint64(1); no <= g.commit; no++ {
		g.sum ^= g.hash(no)
	}
	e.Post = g.sum
	e.Body = BytesBody(body)
	return e
}

// external writes e as a data object and returns the descriptor too.
func (g *goldenDB) external(name string, h Header, entries ...*Entry) golden {
	g.t.Helper()
	var data bytes.Buffer
	w := NewDataWriter(&data, DataHeader{Name: testData, Kind: h.Kind, PageSize: h.PageSize, Database: h.Database, Session: h.Session})
	for _, e := range entries {
		body := bodyBytes(g.t, e)
		for _, b := range e.Blocks {
			if err := w.WriteBlock(b, body[:b.Stored]); err != nil {
				g.t.Fatal(err)
			}
			body = body[b.Stored:]
		}
		if err := w.EndEntry(e); err != nil {
			g.t.Fatal(err)
		}
	}
	root, err := w.Close()
	if err != nil {
		g.t.Fatal(err)
	}
	b, _, err := EncodeExternal(h, entries, root)
	if err != nil {
		g.t.Fatal(err)
	}
	return golden{name, b, data.Bytes(), entries, h.PageSize}
}

func makeGoldens(t testing.TB) []golden {
	const size = 512
	g := &goldenDB{t: t, pageSize: size, pages: map[uint64][]byte{}, now: testTime, enc: NewBlockEncoder()}
	var all []golden
	var chain Hash
	next, session := uint64(1), testSession
	owner := &Owner{Host: "db1.example.org", PID: 4711, Program: "packages", Since: time.Unix(1_700_000_000, 0).UTC()}
	header := func(kind Kind) Header {
		return Header{Kind: kind, PageSize: size, Database: testDB, Session: session, MinTXID: next, PrevChain: chain}
	}
	add := func(name string, h Header, entries ...*Entry) {
		b, c, err := Encode(h, entries)
		if err != nil {
			t.Fatal(name, err)
		}
		if h.Kind == KindLog {
			chain, next = c, entries[len(entries)-1].MaxTXID+1
		}
		all = append(all, golden{name, b, nil, entries, h.PageSize})
	}
	pages := func(version int, nos ...uint64) map[uint64][]byte {
		m := map[uint64][]byte{}
		for _, no := range nos {
			m[no] = g.text(no, version)
		}
		return m
	}

	h := header(KindLog)
	h.Owner = owner
	b, c, err := EncodeClaim(Header{PageSize: 4096, Database: testDB, Session: testSession, MinTXID: 1, Owner: owner, LastMono: testTime - 1})
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, golden{"claim-first", b, nil, []*Entry{{
		Kind: Claim, Count: 1, FirstMono: testTime - 1, LastMono: testTime - 1, FirstRaw: testTime - 1, LastRaw: testTime - 1, MinTXID: 1, MaxTXID: 1,
	}}, 4096})
	chain, next = c, 2

	// Everything that an inline log segment can hold.
	e1 := g.entry(Transaction, 5, true, pages(1, 1, 2, 3), map[uint64][]byte{4: make([]byte, size)})
	e2 := g.entry(Transaction, 7, true, pages(2, 2, 3, 6)) // page 7 is left out: zero
	e2.Extensions = []Extension{{0x0042, []byte("ignorable")}}
	e3 := g.entry(Merge, 9, true, map[uint64][]byte{8: g.noise(8)}, pages(3, 9))
	e3.Count = 40
	e4 := g.entry(Transaction, 9, true) // nothing changed
	e5 := g.entry(Repair, 8, true, pages(5, 3))
	e6 := g.entry(Squash, 8, true, pages(6, 2, 7))
	add("log", header(KindLog), e1, e2, e3, e4, e5, e6)
	add("log-one-commit", header(KindLog), g.entry(Transaction, 8, true, pages(7, 1, 3)))

	h = header(KindLog)
	h.Session[0]++
	h.Owner = owner
	h.Pre, h.PreCommit, h.LastMono = g.sum, g.commit, g.now
	h.WAL = all[len(all)-1].entries[0].WAL
	b, c, err = EncodeClaim(h)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, golden{"claim-later", b, nil, []*Entry{{
		Kind: Claim, Count: 1, Pre: g.sum, Post: g.sum, PreCommit: g.commit, Commit: g.commit, MinCommit: g.commit,
		FirstMono: g.now, LastMono: g.now, FirstRaw: g.now, LastRaw: g.now, MinTXID: next, MaxTXID: next, WAL: h.WAL,
	}}, size})
	chain, next = c, next+1
	session = h.Session

	// Taken over with content; then another page size: replaced whole.
	adopt := g.entry(Adopt, 8, false)
	adopt.NeedsBase = true
	add("log-adopt", header(KindLog), adopt)
	pre, preCommit := g.sum, g.commit
	g.pageSize, g.pages, g.commit, g.sum = 1024, map[uint64][]byte{}, 0, 0
	whole := g.entry(Transaction, 3, false, pages(1, 1, 2, 3))
	whole.Whole, whole.Pre, whole.PreCommit = true, pre, preCommit
	h = header(KindLog)
	h.PageSize = 1024
	add("log-whole", h, whole)

	g.pageSize, g.pages, g.commit, g.sum = size, map[uint64][]byte{}, 0, 0
	snapshot := g.entry(Snapshot, 6, false, pages(1, 1, 2, 3), pages(1, 4, 6))
	snapshot.Count = 46
	h = header(KindSnapshot)
	h.MinTXID = 1
	add("snapshot", h, snapshot)
	// Page 6 went with a shrink and came back as zeros without being written.
	pre = g.sum
	g.sum ^= g.hash(6)
	delete(g.pages, 6)
	g.sum ^= g.hash(6)
	changed := g.entry(Pages, 7, false, pages(2, 2, 3), pages(2, 7))
	changed.Pre, changed.Count, changed.MinCommit = pre, 100, 5
	h = header(KindPages)
	h.MinTXID = 47
	add("pages", h, changed)

	// In data objects: copied twice, and a log segment with patches.
	g.pages, g.commit, g.sum = map[uint64][]byte{}, 0, 0
	again := g.entry(Snapshot, 6, false, pages(1, 1, 2, 3), pages(1, 4, 5, 6), pages(2, 2, 5))
	again.Count = 500
	h = header(KindSnapshot)
	h.MinTXID = 1
	all = append(all, g.external("snapshot-external", h, again))
	l1 := g.entry(Transaction, 7, true, pages(3, 1, 2), pages(3, 7))
	l2 := g.entry(Merge, 7, true, pages(4, 1, 2, 5))
	l2.Count = 3
	h = header(KindLog)
	h.MinTXID = 501
	all = append(all, g.external("log-external", h, l1, l2))
	return all
}

func readGolden(t testing.TB, name string, made []byte) []byte {
	t.Helper()
	path := filepath.Join(goldenDir, name)
	if *update {
		if err := os.MkdirAll(goldenDir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, made, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); got != goldenSums[name] {
		t.Errorf("\t%q: %q, // is not what goldenSums has", name, got)
	}
	return b
}

// The golden files are what they were, and say what they said.
func TestGolden(t *testing.T) {
	for _, g := range makeGoldens(t) {
		t.Run(g.name, func(t *testing.T) {
			b := readGolden(t, g.name, g.object)
			o, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			canonical(t, o, b)
			if key, ok := rekey(o.Header.Key()); !ok || key != o.Header.Key() {
				t.Errorf("key %q", o.Header.Key())
			}
			entries := o.Entries
			if g.data != nil {
				data := readGolden(t, g.name+".data", g.data)
				recs, err := readData(o, data)
				if err != nil {
					t.Fatal(err)
				}
				var blocks []Block
				for _, r := range recs {
					if r.Block != nil {
						b := *r.Block
						blocks = append(blocks, b)
						continue
					}
					e := r.Entry
					var body []byte
					for i := range blocks {
						b := &blocks[i]
						body = append(body, data[b.Offset:][:b.Stored]...)
					}
					e.Blocks, e.Body, blocks = blocks, BytesBody(body), nil
					entries = append(entries, e)
				}
			}
			if len(entries) != len(g.entries) {
				t.Fatalf("%d entries, want %d", len(entries), len(g.entries))
			}
			for i := range entries {
				sameEntry(t, loose(entries[i]), loose(g.entries[i]), false)
			}
			if o.Header.WAL != g.entries[len(g.entries)-1].WAL {
				t.Errorf("WAL position %v", o.Header.WAL)
			}
			if o.Header.Kind == KindLog && (len(b) == ClaimSize) != (entries[0].Kind == Claim) {
				t.Errorf("%d bytes", len(b))
			}
		})
	}
}

func TestGoldenChain(t *testing.T) {
	var prev *Object
	for _, g := range makeGoldens(t) {
		o, err := Parse(g.object)
		if err != nil {
			t.Fatal(err)
		}
		if o.Header.Kind != KindLog || o.Header.External {
			continue
		}
		if prev == nil {
			err = o.Header.Follows(nil, Hash{})
		} else {
			err = o.Header.Follows(prev.Header, prev.Chain)
		}
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
		prev = o
	}
}

// Every changed, missing or additional byte is noticed.
func TestMalleability(t *testing.T) {
	for _, g := range makeGoldens(t) {
		t.Run(g.name, func(t *testing.T) {
			b := readGolden(t, g.name, g.object)
			o, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			refused := func(b []byte, what string, i int) {
				t.Helper()
				if _, err := Parse(b); err == nil {
					t.Fatalf("%s at %d of %d passes", what, i, len(b))
				}
			}
			for i := range b {
				for _, mask := range []byte{1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff} {
					b[i] ^= mask
					refused(b, fmt.Sprintf("mask %02x", mask), i)
					if i < o.Header.Length {
						if _, err := ParseHeader(b); err == nil {
							t.Fatalf("header with mask %02x at %d passes", mask, i)
						}
					}
					b[i] ^= mask
				}
				refused(b[:i], "cut", i)
				refused(slices.Delete(bytes.Clone(b), i, i+1), "deletion", i)
				refused(slices.Insert(bytes.Clone(b), i, b[i]), "doubling", i)
			}
			for n := range 100 {
				refused(append(bytes.Clone(b), make([]byte, n+1)...), "zeros", n)
			}
			refused(append(bytes.Clone(b), b...), "doubled", 0)
			if g.data == nil {
				return
			}
			data := bytes.Clone(g.data)
			for i := range data {
				data[i] ^= 1 << (i % 8)
				if _, err := readData(o, data); err == nil {
					t.Fatalf("data object with byte %d changed passes", i)
				}
				data[i] ^= 1 << (i % 8)
				if _, err := readData(o, data[:i]); err == nil {
					t.Fatalf("data object cut at %d passes", i)
				}
			}
		})
	}
}

// loose leaves out what another version of the zstd library may do otherwise.
func loose(e *Entry) *Entry {
	c := *e
	c.Body, c.Blocks = nil, nil
	for _, b := range e.Blocks {
		c.Blocks = append(c.Blocks, Block{Pages: b.Pages})
	}
	return &c
}
