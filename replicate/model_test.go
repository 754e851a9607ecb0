package replicate

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/local"
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
	now     int64
	hook    func() // called when an entry is committed
}

func newModel(seed uint64) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 1)), enc: segment.NewBlockEncoder(), cur: &state{pageSize: 512}, now: 1_700_000_000_000_000}
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
		if len(list) == 64 || m.rng.IntN(5) == 0 {
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

// source is a process's capture of the model.
type source struct {
	m     *model
	ready chan struct{}

	mu       sync.Mutex
	begun    bool
	from     int // entries up to here are before the line's end that Begin got
	taken    int // … are taken
	acked    int // … are acknowledged
	first    *segment.Entry
	firstOut bool
	exports  int
	// stop > 0: Take hands out no entries beyond so many.
	stop int
}

func (m *model) source() *source {
	s := &source{m: m, ready: make(chan struct{}, 1)}
	m.mu.Lock()
	m.hook = s.signal
	m.mu.Unlock()
	return s
}

func (s *source) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *source) Ready() <-chan struct{} { return s.ready }

// find returns how many entries lead to the tail's state.
func (m *model) find(tail Tail) (int, bool) {
	if m.notOurs {
		return 0, false
	}
	for i := len(m.entries); i > 0; i-- {
		if e := m.entries[i-1]; e.Post == tail.Checksum && e.Commit == tail.Commit {
			return i, true
		}
	}
	pre, commit := m.cur.sum, m.cur.commit()
	if len(m.entries) > 0 {
		pre, commit = m.entries[0].Pre, m.entries[0].PreCommit
	}
	if tail.Checksum == pre && tail.Commit == commit {
		return 0, true
	}
	return 0, false
}

func (s *source) Evidence(_ context.Context, tail Tail) (Evidence, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	n, ok := s.m.find(tail)
	ev := Evidence{File: local.FilePresent, Size: int64(s.m.cur.commit()) * int64(s.m.cur.pageSize), PageSize: s.m.cur.pageSize, Continues: ok, Proof: "test"}
	if s.m.missing || s.m.cur.commit() == 0 {
		ev.File, ev.Size = local.FileMissing, 0
		ev.Continues = ok && s.m.spooled
		if ev.Continues {
			ev.Spooled = len(s.m.entries) - n
		}
	}
	return ev, nil
}

func (s *source) Begin(_ context.Context, start Start, tail Tail) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch start {
	case StartAdopt:
		changed := map[uint64]bool{}
		for i := range s.m.cur.pages {
			changed[uint64(i)+1] = true
		}
		cur := s.m.cur
		e := s.m.entry(&state{pageSize: cur.pageSize}, cur.pages, changed, cur.commit(), 1)
		e.Kind, e.Pre, e.PreCommit = segment.Adopt, tail.Checksum, tail.Commit
		s.first = e
		s.from = len(s.m.entries)
	default:
		n, ok := s.m.find(tail)
		if !ok {
			return errors.New("model: nothing to continue")
		}
		s.from = n
	}
	s.taken, s.acked, s.begun = s.from, s.from, true
	s.signal()
	return nil
}

func (s *source) Export(_ context.Context, tail Tail, write func(segment.Block, []byte) error) (*segment.Entry, error) {
	s.m.mu.Lock()
	st := s.m.cur
	n := len(s.m.entries)
	s.m.mu.Unlock()
	s.mu.Lock()
	s.exports++
	s.mu.Unlock()
	enc := segment.NewBlockEncoder()
	put := func(lo, hi int, stale bool) error {
		var plain []byte
		var b segment.Block
		for i := lo; i < hi; i++ {
			p := st.pages[i]
			if stale {
				p = append([]byte("stale"), p[5:]...)
			}
			plain = append(plain, p...)
			b.Pages = append(b.Pages, segment.Page{No: uint64(i) + 1, Hash: segment.PageHash(uint64(i)+1, p)})
		}
		var stored []byte
		stored, b.Codec, b.Base = enc.Encode(nil, plain, nil)
		b.Stored = uint32(len(stored))
		return write(b, stored)
	}
	for lo := 0; lo < len(st.pages); lo += 64 { // copied twice, the last one counts
		hi := min(lo+64, len(st.pages))
		if err := put(lo, hi, true); err != nil {
			return nil, err
		}
		mid := (lo + hi + 1) / 2
		if err := put(lo, mid, false); err != nil {
			return nil, err
		}
		if mid < hi {
			if err := put(mid, hi, false); err != nil {
				return nil, err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.taken, s.acked, s.begun = n, n, n, true
	return &segment.Entry{Kind: segment.Adopt, NeedsBase: true, Count: 1, PageSize: st.pageSize, Commit: st.commit(), MinCommit: st.commit(),
		Post: st.sum, FirstMono: 5, LastMono: 5, FirstRaw: 5, LastRaw: 5}, nil
}

func (s *source) Take(most int64) []*segment.Entry {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		return nil
	}
	var out []*segment.Entry
	var size int64
	if s.first != nil && !s.firstOut {
		s.firstOut = true
		out = append(out, s.first)
	}
	for s.taken < len(s.m.entries) && (s.stop == 0 || s.taken < s.stop) {
		e := s.m.entries[s.taken]
		if size += e.BodySize(); len(out) > 0 && size > most {
			break
		}
		cp := *e
		out = append(out, &cp)
		s.taken++
	}
	return out
}

func (s *source) Acknowledge(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.firstOut && s.first != nil {
		s.first = nil
		n--
	}
	s.acked += n
	if s.acked > s.taken {
		panic("acknowledged what was not taken")
	}
}

func (s *source) Backlog() Backlog {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var b Backlog
	if !s.begun {
		return Backlog{Entries: len(s.m.entries)}
	}
	if s.first != nil {
		b.Entries, b.TXIDs = 1, 1
	}
	for _, e := range s.m.entries[s.acked:] {
		if b.Oldest == 0 {
			b.Oldest = e.FirstRaw
		}
		b.Entries++
		b.Bytes += e.BodySize()
		b.TXIDs += e.Count
	}
	return b
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

func (s *source) Settled() uint64 { return 0 }
func (s *source) SyncFile() error { return nil }
func (s *source) Lost() bool      { return false }
