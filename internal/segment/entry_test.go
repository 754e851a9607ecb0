package segment

import (
	"bytes"
	"errors"
	"testing"
)

func TestEntryRecord(t *testing.T) {
	m := newModel(t, 3, 4096)
	for i := range 50 {
		e := m.entry([]EntryKind{Transaction, Merge, Repair}[i%3])
		b := AppendEntry([]byte("before"), e)[6:]
		got, err := ParseEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		sameEntry(t, got, e, true)
		pos := int64(0)
		for _, b := range got.Blocks {
			if b.Offset != pos {
				t.Fatalf("offset %d, want %d", b.Offset, pos)
			}
			pos += int64(b.Stored)
		}
		if again := AppendEntry(nil, got); !bytes.Equal(again, b) {
			t.Fatal("not canonical")
		}
		for n := range b {
			if _, err := ParseEntry(b[:n]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("cut at %d of %d: %v", n, len(b), err)
			}
		}
		if _, err := ParseEntry(append(bytes.Clone(b), 0)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("trailing byte: %v", err)
		}
		b[0]++
		if _, err := ParseEntry(b); !errors.Is(err, ErrVersion) {
			t.Fatalf("other version: %v", err)
		}
	}
}

// An export's blocks stand as they were copied.
func TestEntryRecordUnordered(t *testing.T) {
	e := &Entry{Kind: Repair, Count: 1, PageSize: 512, Commit: 100, MinCommit: 100, Blocks: []Block{zeroBlock(5, 3), zeroBlock(6, 1)}}
	got, err := ParseEntry(AppendEntry(nil, e))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Unordered || e.Unordered {
		t.Errorf("unordered is %v, and %v in the original", got.Unordered, e.Unordered)
	}
	got.PreCommit, got.Pre = 3, 4
	h := plainHeader()
	b, _, err := Encode(h, []*Entry{got})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if !o.Entries[0].Unordered {
		t.Error("lost")
	}
}
