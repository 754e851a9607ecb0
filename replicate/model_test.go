package replicate

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/segment"
)

// A state is a database's content after a commit; never changed.
type state struct {
	pageSize uint32
	pages    [][]byte
	sum      uint64
}

func (s *state) commit() uint64 { return uint64(len(s.pages)) }

func (s *state) image() []byte {
	var b []byte
	for _, p := range s.pages {
		b = append(b, p...)
	}
	return b
}

// model is a machine's database: its commits as entries, and what outlives a
// process. Sources are made of it, one for each process.
type model struct {
	rng *rand.Rand
	enc *segment.BlockEncoder

	mu      sync.Mutex
	cur     *state
	states  map[uint64]*state // by checksum
	entries []*segment.Entry  // all commits
	missing bool              // the file is gone
	spooled bool              // … but the entries are in the spool
	notOurs bool              // nothing connects it with any replica
	file    string            // identity of the file
	inFile  *state            // what of it a checkpoint brought into the file; nil: cur
	synced  *state            // what a loss of power leaves of the file
	history []*state          // states that the file went through; see power_test.go
	settles bool              // commits are in the file at once
	settled uint64            // or else: so many TXIDs of a source are
	syncs   int
	now     int64
	hook    func() // called when an entry is committed
}

func newModel(seed uint64) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 1)), enc: segment.NewBlockEncoder(), cur: &state{pageSize: 512}, file: "file", now: 1_700_000_000_000_000}
	m.states = map[uint64]*state{0: m.cur}
	return m
}

func (m *model) page() []byte {
	p := make([]byte, m.cur.pageSize)
	for i := 8; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], m.rng.Uint64()&0x0303030303030303)
	}
	binary.LittleEndian.PutUint64(p, m.rng.Uint64())
	return p
}

// commit makes one random commit, or several merged into one entry.
func (m *model) commit() *segment.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 1
	if m.rng.IntN(6) == 0 {
		n = 2 + m.rng.IntN(4)
	}
	return m.commitN(n, 1+m.rng.IntN(12))
}

// commitN makes n commits that change up to pages pages each, as one entry.
func (m *model) commitN(n, pages int) *segment.Entry {
	old := m.cur
	next := append([][]byte(nil), old.pages...)
	low := uint64(1 << 62)
	changed := map[uint64]bool{}
	for range n {
		switch m.rng.IntN(5) {
		case 0: // grow, some pages stay zero
			for range 1 + m.rng.IntN(pages) {
				next = append(next, make([]byte, old.pageSize))
			}
		case 1: // shrink
			if len(next) > 3 {
				next = next[:len(next)-1-m.rng.IntN(len(next)/2)]
			}
		}
		if len(next) == 0 {
			next = append(next, nil)
		}
		for range pages {
			i := m.rng.IntN(len(next))
			next[i] = m.page()
			changed[uint64(i)+1] = true
		}
		if next[0] == nil {
			next[0], changed[1] = m.page(), true
		}
		low = min(low, uint64(len(next)))
	}
	e := m.entry(old, next, changed, low, n)
	m.entries = append(m.entries, e)
	if m.hook != nil {
		m.hook()
	}
	return e
}

func checksum(pages [][]byte) uint64 {
	var sum uint64
	for i, p := range pages {
		sum ^= segment.PageHash(uint64(i)+1, p)
	}
	return sum
}

func (m *model) entry(old *state, next [][]byte, changed map[uint64]bool, low uint64, n int) *segment.Entry {
	st := &state{pageSize: old.pageSize, pages: next, sum: checksum(next)}
	m.cur, m.states[st.sum] = st, st
	m.history = append(m.history, st)
	m.now += 1000
	e := &segment.Entry{
		Kind: segment.Transaction, PageSize: st.pageSize, Count: uint64(n), Commit: st.commit(), MinCommit: low,
		Pre: old.sum, PreCommit: old.commit(), Post: st.sum,
		FirstMono: m.now - int64(n-1)*10, LastMono: m.now, FirstRaw: m.now - int64(n-1)*10, LastRaw: m.now,
		WAL: segment.WALPosition{Salt: [2]uint32{1, 2}, Frame: uint64(m.now % 1000000)},
	}
	if n > 1 {
		e.Kind = segment.Merge
	} else {
		e.MinCommit = e.Commit
	}
	var body, plain, dict []byte
	var list []segment.Page
	flush := func() {
		if len(list) == 0 {
			return
		}
		before := len(body)
		if m.rng.IntN(2) == 0 {
			dict = nil
		}
		var b segment.Block
		body, b.Codec, b.Base = m.enc.Encode(body, plain, dict)
		b.Stored, b.Pages = uint32(len(body)-before), list
		e.Blocks = append(e.Blocks, b)
		list, plain, dict = nil, nil, nil
	}
	for i, p := range next {
		no := uint64(i) + 1
		if !changed[no] {
			continue
		}
		list = append(list, segment.Page{No: no, Hash: segment.PageHash(no, p)})
		plain = append(plain, p...)
		if no <= old.commit() {
			dict = append(dict, old.pages[i]...)
		}
		if len(list) == 64 || len(plain)+len(p) > segment.MaxBlockPlain || m.rng.IntN(5) == 0 {
			flush()
		}
	}
	flush()
	e.Body = segment.BytesBody(body)
	return e
}

// whole replaces the database, with another page size.
func (m *model) whole(pageSize uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.cur
	m.cur = &state{pageSize: pageSize}
	next := make([][]byte, 5)
	changed := map[uint64]bool{}
	for i := range next {
		next[i], changed[uint64(i)+1] = m.page(), true
	}
	next[3] = make([]byte, pageSize)
	delete(changed, 4)
	e := m.entry(&state{pageSize: pageSize}, next, changed, 5, 1)
	e.Kind, e.Whole, e.Pre, e.PreCommit = segment.Repair, true, old.sum, old.commit()
	m.entries = append(m.entries, e)
}

func TestModelStates(t *testing.T) {
	m := newModel(1)
	for range 50 {
		m.commit()
	}
	if len(m.states) < 40 {
		t.Fatalf("%d states", len(m.states))
	}
}
