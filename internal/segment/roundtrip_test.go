package segment

import (
	"errors"
	"fmt"
	"testing"
)

// Random entries of every page size come back as they were, and applied in
// order they make the model's states.
func TestRoundTrip(t *testing.T) {
	for _, size := range []uint32{512, 1024, 4096, 16384, 65536} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%d/%d", size, seed), func(t *testing.T) {
				m := newModel(t, seed, size)
				var entries []*Entry
				for i := range 1 + m.rnd.IntN(40) {
					kind := []EntryKind{Transaction, Transaction, Merge, Repair, Squash}[m.rnd.IntN(5)]
					e := m.entry(kind)
					if i == 0 {
						m.states = m.states[:1]
					}
					entries = append(entries, e)
				}
				b, chain, err := Encode(m.header(7), entries)
				if err != nil {
					t.Fatal(err)
				}
				o, err := Parse(b)
				if err != nil {
					t.Fatal(err)
				}
				if o.Chain != chain || o.Size != int64(len(b)) {
					t.Errorf("chain %v, want %v", o.Chain, chain)
				}
				if o.Header.WAL != entries[len(entries)-1].WAL {
					t.Errorf("WAL position %v", o.Header.WAL)
				}
				if *o.Header.Owner != *m.header(7).Owner {
					t.Errorf("owner %+v", o.Header.Owner)
				}
				if len(o.Entries) != len(entries) {
					t.Fatalf("%d entries, want %d", len(o.Entries), len(entries))
				}
				state, commit := map[uint64][]byte{}, uint64(0)
				for i, e := range o.Entries {
					sameEntry(t, e, entries[i], false)
					apply(t, state, commit, e, size)
					commit = e.Commit
				}
			})
		}
	}
}

func TestHeaderPrefix(t *testing.T) {
	m := newModel(t, 1, 4096)
	b, _, err := Encode(m.header(7), []*Entry{m.entry(Transaction)})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; {
		h, err := ParseHeader(b[:n])
		if err == nil {
			if h.Length != n {
				t.Errorf("header of %d bytes after %d", h.Length, n)
			}
			return
		}
		var more *NeedMoreError
		if !errors.As(err, &more) || more.N <= n {
			t.Fatalf("with %d bytes: %v", n, err)
		}
		n = more.N
	}
}
