package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

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
	// lost: entries that waited were given up.
	lost bool
	// changes > 0: so many calls of Evidence, or of Begin, find that the database changed.
	changedEvidence, changedBegin int
	proof                         string // of Continues
	onEvidence, onBegin           func()
	losses                        int               // so many times Begin leads to a loss at once
	checkBegin                    func(Start, Tail) // with the model locked
	// lockedEvidence, lockedBegin > 0: so many find it locked.
	lockedEvidence, lockedBegin int

	secured   int   // calls of Durable
	secureErr error // of Durable

	begunTimes int
	copyErr    func() error   // of Copy
	onCopy     func(pass int) // between the passes of Copy
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

// find returns how many entries lead to the tail's state, if those after it lead
// to the present one.
func (m *model) find(tail Tail) (int, bool) {
	if m.notOurs {
		return 0, false
	}
	is := func(sum, commit uint64) bool { return tail.Checksum == sum && tail.Commit == commit }
	if is(m.cur.sum, m.cur.commit()) {
		return len(m.entries), true
	}
	next := m.cur.sum
	for i := len(m.entries); i > 0; i-- {
		e := m.entries[i-1]
		if e.Post != next {
			return 0, false
		}
		if is(e.Post, e.Commit) {
			return i, true
		}
		if next = e.Pre; is(e.Pre, e.PreCommit) {
			return i - 1, true
		}
	}
	return 0, false
}

// sneak changes the database while nobody captures it.
func (m *model) sneak() {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.entries)
	hook := m.hook
	m.hook = nil
	m.commitN(1, 5)
	m.entries, m.hook = m.entries[:n], hook
}

// back puts an older state into the file.
func (m *model) back(st *state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cur = st
}

func (s *source) Evidence(_ context.Context, tail Tail) (Evidence, error) {
	if s.onEvidence != nil {
		s.onEvidence()
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.changedEvidence > 0 {
		s.changedEvidence--
		return Evidence{}, fmt.Errorf("model: %w", local.ErrChanged)
	}
	if s.lockedEvidence > 0 {
		s.lockedEvidence--
		return Evidence{}, fmt.Errorf("model: %w", local.ErrLocked)
	}
	n, ok := s.m.find(tail)
	cur := s.m.cur
	ev := Evidence{File: local.FilePresent, Size: int64(cur.commit()) * int64(cur.pageSize), PageSize: cur.pageSize,
		Continues: ok, Proof: cmp.Or(s.proof, "test"), Identity: s.m.file}
	if !ok {
		ev.Proof, ev.Scanned, ev.Checksum, ev.Commit = "", true, cur.sum, cur.commit()
	}
	if s.m.missing || cur.commit() == 0 {
		ev = Evidence{File: local.FileMissing, Continues: ok && s.m.spooled}
		if ev.Continues {
			ev.Spooled = len(s.m.entries) - n
		}
	}
	return ev, nil
}

func (s *source) Begin(_ context.Context, start Start, tail Tail) error {
	if s.onBegin != nil {
		s.onBegin()
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changedBegin > 0 {
		s.changedBegin--
		return fmt.Errorf("model: %w", local.ErrChanged)
	}
	if s.lockedBegin > 0 {
		s.lockedBegin--
		return fmt.Errorf("model: %w", local.ErrLocked)
	}
	if s.checkBegin != nil {
		s.checkBegin(start, tail)
	}
	s.first, s.firstOut, s.lost = nil, false, false
	switch start {
	case StartAdopt, StartRepair:
		s.first = s.m.differing(start, tail)
		s.from = len(s.m.entries)
	default:
		n, ok := s.m.find(tail)
		if !ok {
			return errors.New("model: nothing to continue")
		}
		s.from = n
	}
	s.taken, s.acked, s.begun = s.from, s.from, true
	s.begunTimes++
	if s.losses > 0 {
		s.losses--
		s.lost = true
	}
	s.signal()
	return nil
}

// differing is the entry that makes the tail's state the database's; nil if it is.
func (m *model) differing(start Start, tail Tail) *segment.Entry {
	cur := m.cur
	whole := tail.Commit > 0 && tail.PageSize != cur.pageSize
	changed := map[uint64]bool{}
	for i, p := range cur.pages {
		no := uint64(i) + 1
		if whole || i >= len(tail.Pages) || tail.Pages[i] != segment.PageHash(no, p) {
			changed[no] = true
		}
	}
	if len(changed) == 0 && cur.commit() == tail.Commit {
		return nil
	}
	e := m.entry(&state{pageSize: cur.pageSize}, cur.pages, changed, cur.commit(), 1)
	e.Kind, e.Whole, e.Pre, e.PreCommit = segment.Repair, whole, tail.Checksum, tail.Commit
	if start == StartAdopt {
		e.Kind = segment.Adopt
	}
	return e
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
	s.begunTimes++
	return &segment.Entry{Kind: segment.Adopt, NeedsBase: true, Count: 1, PageSize: st.pageSize, Commit: st.commit(), MinCommit: st.commit(),
		Post: st.sum, FirstMono: 5, LastMono: 5, FirstRaw: 5, LastRaw: 5}, nil
}

func (s *source) Take(most int64) []*segment.Entry {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun || s.lost {
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

// count counts the TXIDs of what the source emitted so far.
func (s *source) count() (n uint64) {
	if s.first != nil || s.firstOut {
		n++
	}
	for _, e := range s.m.entries[s.from:] {
		n += e.Count
	}
	return n
}

func (s *source) Settled() uint64 {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.settles {
		return s.count()
	}
	return s.m.settled
}

// Durable implements Source: the fake's log lasts through a loss of power up to there.
func (s *source) Durable(segment.WALPosition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secured++
	return s.secureErr
}

func (s *source) SyncFile() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.synced = s.m.inFile; s.m.inFile == nil {
		s.m.synced = s.m.cur
	}
	s.m.syncs++
	return nil
}

func (s *source) Lost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// lose gives up what waits and isn't taken.
func (s *source) lose() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	s.m.entries = s.m.entries[:s.taken:s.taken]
	s.signal()
}

// Copy copies in several passes. onCopy, called between them, may change the database.
func (s *source) Copy(ctx context.Context, req CopyRequest) (c Copied, err error) {
	begin := func() (st *state, emitted uint64, ok bool) {
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.m.cur, s.count(), s.begun && !s.lost
	}
	if s.copyErr != nil {
		if err := s.copyErr(); err != nil {
			return c, err
		}
	}
	st, emitted, ok := begin()
	began := s.begins()
	if !ok {
		return c, fmt.Errorf("model: %w", local.ErrCopyLost)
	}
	wanted, err := req.Pages(ctx, emitted)
	if err != nil {
		return c, err
	}
	if wanted != nil {
		wanted = wanted.Clone()
	}
	enc := segment.NewBlockEncoder()
	put := func(st *state, want func(no uint64) bool) error {
		var b segment.Block
		var plain []byte
		flush := func() error {
			if len(b.Pages) == 0 {
				return nil
			}
			var stored []byte
			stored, b.Codec, b.Base = enc.Encode(nil, plain, nil)
			b.Stored = uint32(len(stored))
			err := req.Write(b, stored)
			clear(stored) // it is not to be kept
			b, plain = segment.Block{}, nil
			return err
		}
		for i, p := range st.pages {
			no := uint64(i) + 1
			if !want(no) {
				continue
			}
			b.Pages = append(b.Pages, segment.Page{No: no, Hash: segment.PageHash(no, p)})
			plain = append(plain, p...)
			if len(b.Pages) == 5 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return flush()
	}
	differs := func(a, b *state) func(no uint64) bool {
		return func(no uint64) bool {
			return no > a.commit() || string(a.pages[no-1]) != string(b.pages[no-1])
		}
	}
	// What changed between emitted and the first image is among what is noted.
	copied := st
	if err := put(st, func(no uint64) bool { return wanted == nil || wanted.Has(no) }); err != nil {
		return c, err
	}
	for pass := range 3 {
		if s.onCopy != nil {
			s.onCopy(pass)
		}
		if pass == 1 { // a state that isn't the last one
			s.m.mu.Lock()
			s.mu.Lock()
			req.Final(s.count())
			s.mu.Unlock()
			s.m.mu.Unlock()
		}
		now, _, _ := begin()
		if now.pageSize != copied.pageSize {
			return c, fmt.Errorf("model: %w", local.ErrCopyLost)
		}
		if pass < 2 {
			if err := put(now, differs(copied, now)); err != nil {
				return c, err
			}
			copied = now
		}
	}
	s.m.mu.Lock()
	s.mu.Lock()
	last := s.m.cur
	c = Copied{Emitted: s.count(), Checksum: last.sum, Commit: last.commit(), PageSize: last.pageSize}
	if n := len(s.m.entries); n > 0 {
		c.LastMono, c.LastRaw, c.WAL = s.m.entries[n-1].LastMono, s.m.entries[n-1].LastRaw, s.m.entries[n-1].WAL
	}
	req.Final(c.Emitted)
	ok = !s.lost && s.begunTimes == began && last.pageSize == st.pageSize
	s.mu.Unlock()
	s.m.mu.Unlock()
	if !ok {
		return c, fmt.Errorf("model: %w", local.ErrCopyLost)
	}
	return c, put(last, differs(copied, last))
}

func (s *source) begins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begunTimes
}
