package local

import (
	"iter"
	"math/bits"
	"slices"
)

// A PageSet is a growing set of page numbers, a bit each. Its zero value is empty.
type PageSet struct {
	words []uint64
	n     int
}

// Len returns how many pages there are.
func (s *PageSet) Len() int { return s.n }

// Has reports whether page no is there.
func (s *PageSet) Has(no uint64) bool {
	return no/64 < uint64(len(s.words)) && s.words[no/64]&(1<<(no%64)) != 0
}

// Add puts page no in.
func (s *PageSet) Add(no uint64) {
	for uint64(len(s.words)) <= no/64 {
		s.words = append(s.words, make([]uint64, max(1, len(s.words)))...)
	}
	if m := uint64(1) << (no % 64); s.words[no/64]&m == 0 {
		s.words[no/64] |= m
		s.n++
	}
}

// Remove takes page no out.
func (s *PageSet) Remove(no uint64) {
	if s.Has(no) {
		s.words[no/64] &^= 1 << (no % 64)
		s.n--
	}
}

// Cut takes out all pages beyond last.
func (s *PageSet) Cut(last uint64) {
	for no := range s.From(last + 1) {
		s.Remove(no)
	}
}

// Merge adds what o has.
func (s *PageSet) Merge(o *PageSet) {
	for no := range o.All() {
		s.Add(no)
	}
}

// Clone returns a copy.
func (s *PageSet) Clone() *PageSet { return &PageSet{slices.Clone(s.words), s.n} }

// All yields the pages, ascending. Those that it has yielded may be removed
// meanwhile.
func (s *PageSet) All() iter.Seq[uint64] { return s.From(0) }

// From yields the pages from no on, ascending, as All does.
func (s *PageSet) From(no uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := no / 64; i < uint64(len(s.words)); i++ {
			w := s.words[i]
			if i == no/64 {
				w &= ^uint64(0) << (no % 64)
			}
			for ; w != 0; w &= w - 1 {
				if !yield(i*64 + uint64(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
