package local

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A PageSet does what a map does.
func TestPageSet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s PageSet
	m := map[uint64]bool{}
	for range 5000 {
		no := r.Uint64N(1000)
		switch r.IntN(8) {
		case 0, 1, 2, 3:
			s.Add(no)
			m[no] = true
		case 4, 5:
			s.Remove(no)
			delete(m, no)
		case 6:
			if r.IntN(50) == 0 {
				s.Cut(no)
				maps.DeleteFunc(m, func(k uint64, _ bool) bool { return k > no })
			}
		default:
			o := s.Clone()
			o.Add(no)
			s.Merge(o)
			m[no] = true
		}
		if s.Len() != len(m) || s.Has(no) != m[no] {
			t.Fatalf("page %d: %d pages, has %v; want %d, %v", no, s.Len(), s.Has(no), len(m), m[no])
		}
	}
	if got, want := slices.Collect(s.All()), slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	from := slices.Collect(s.From(500))
	if len(from) == 0 || from[0] < 500 || !s.Has(from[0]) {
		t.Errorf("from 500: %v", from)
	}
	for no := range s.All() {
		s.Remove(no)
	}
	if s.Len() != 0 {
		t.Errorf("%d pages left", s.Len())
	}
}
