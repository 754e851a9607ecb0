package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// hostile builds an inline object around a root and frames of the test's making.
func hostile(t testing.TB, frames []byte, root []byte, edit func(h *Header)) []byte {
	t.Helper()
	h := plainHeader()
	h.MaxTXID, h.Post, h.Commit, h.MinCommit, h.Entries = 2, 1, 1, 1, 1
	if edit != nil {
		edit(&h)
	}
	b, err := h.append(nil, -1)
	if err != nil {
		t.Fatal(err)
	}
	first := len(b)
	b = append(b, frames...)
	at := len(b)
	b = append(b, root...)
	b, _ = seal(b, first, first, at)
	if b[9]&flagExternal == 0 {
		return reseal(b)
	}
	return b
}

func uvarints(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// Lengths that lie do not make the decoder allocate.
func TestHostileLengths(t *testing.T) {
	sum := make([]byte, 32)
	zip := func(n int) []byte { return newEncoder().EncodeAll(make([]byte, n), nil) }
	bomb := zip(maxStructure)
	claims := bytes.Clone(bomb[:9]) // a frame that says 1 MiB and has nothing
	claims = append(claims, 1, 0, 0)
	many := bytes.Repeat([]byte{1, 2, 8}, 1000)
	for _, tc := range []struct {
		name   string
		frames []byte
		root   []byte
		edit   func(h *Header)
		most   uint64 // bytes
	}{
		{"2^63 frames", nil, uvarints(sum, math.MaxUint64), nil, 64 << 10},
		{"as many frames as would fit", nil, uvarints(sum, 10000), nil, 64 << 10},
		{"no frames", nil, uvarints(sum, 0), nil, 64 << 10},
		{"no root", nil, nil, nil, 64 << 10},
		{"frame of 4 GiB", nil, uvarints(sum, 1, 1<<32, 1<<32, 8), nil, 64 << 10},
		{"frame of 1 MiB that is not there", nil, uvarints(sum, 1, maxStructure, maxStructure, maxHashes), nil, 64 << 10},
		{"many empty frames", nil, append(uvarints(sum, 1000), many...), nil, 256 << 10},
		{"1 MiB of nothing", append(bytes.Clone(bomb), make([]byte, 8)...), uvarints(sum, 1, uint64(len(bomb)), maxStructure, 8), nil, 4 << 20},
		{"1 MiB promised", append(bytes.Clone(claims), make([]byte, 8)...), uvarints(sum, 1, uint64(len(claims)), maxStructure, 8), nil, 4 << 20},
		{"external, 2^60 frames", nil, uvarints(append(bytes.Repeat([]byte{1}, 16), 0, 0, 0, 1, 0, 0, 0, 0), 1<<60), func(h *Header) { h.External = true }, 64 << 10},
		{"external, negative size", nil, uvarints(append(bytes.Repeat([]byte{1}, 16), 0xff, 0, 0, 1, 0, 0, 0, 0), 1), func(h *Header) { h.External = true }, 64 << 10},
		{"2^63 entries", nil, uvarints(sum, 0), func(h *Header) { h.Entries, h.MaxTXID = 1<<62, 1<<62 }, 64 << 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := hostile(t, tc.frames, tc.root, tc.edit)
			var err error
			if n := allocated(func() { _, err = Parse(b) }); n > tc.most {
				t.Errorf("%d bytes were allocated for an object of %d", n, len(b))
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("error %v, expected ErrCorrupt or ErrVersion", err)
			}
		})
	}
	for _, n := range []uint32{0, 199, headerMax + 1, math.MaxUint32} {
		b := makeGoldens(t)[0].object
		binary.BigEndian.PutUint32(b[16:], n)
		var err error
		if n := allocated(func() { _, err = ParseHeader(b) }); n > 64<<10 {
			t.Errorf("%d bytes were allocated", n)
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("header length %d: %v", n, err)
		}
	}
}

// What this version does not know is refused by name, not as damage.
func TestNewer(t *testing.T) {
	golden := makeGoldens(t)[1].object
	for _, tc := range []struct {
		name string
		at   int
		v    byte
	}{
		{"version", 7, 2}, {"kind", 8, 5}, {"flags", 9, 8}, {"page hash", 10, 2}, {"object hash", 11, 2}, {"encryption", 12, 1},
	} {
		b := bytes.Clone(golden)
		b[tc.at] = tc.v
		if _, err := Parse(reseal(b)); !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	sum := make([]byte, 32)
	structure := func(s ...byte) []byte {
		return hostile(t, append(bytes.Clone(s), make([]byte, 8)...), uvarints(sum, 1, uint64(len(s)), uint64(len(s)), 8), nil)
	}
	for name, b := range map[string][]byte{
		"record":    structure(9),
		"codec":     structure(tagBlock, 3, 0, 0, 1, 1),
		"base":      structure(tagBlock, 1, 2, 20, 1, 1),
		"kind":      structure(tagEntry, 99, 0, 1, 1, 0, 0, 0, 0, 0, 0),
		"flag":      structure(tagEntry, 1, 8, 1, 1, 0, 0, 0, 0, 0, 0),
		"extension": structure(tagEntry, 1, 0, 1, 1, 0, 0, 0, 0, 0, 6, 0x80, 9, 0, 0, 0, 0),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := hostile(t, nil, uvarints(sum, 0), func(g *Header) { g.Extensions = []Extension{{0x7009, nil}} })
	b[headerFixed] = 0xf0 // 0x7009 becomes 0xf009: critical
	if _, err := Parse(reseal(b)); !errors.Is(err, ErrVersion) {
		t.Errorf("critical extension: %v", err)
	}
}

// Longer forms of the same number are refused.
func TestShortestForm(t *testing.T) {
	for _, b := range [][]byte{{0x80, 0}, {0xff, 0x80, 0}, bytes.Repeat([]byte{0xff}, 10), bytes.Repeat([]byte{0x80}, 11), {0x80}, {}} {
		c := cursor{b: b}
		if v := c.uvarint("number", math.MaxUint64); c.err == nil {
			t.Errorf("%x passes as %d", b, v)
		}
	}
	c := cursor{b: binary.AppendUvarint(nil, math.MaxUint64)}
	if v := c.uvarint("number", math.MaxUint64); v != math.MaxUint64 || c.err != nil {
		t.Error(v, c.err)
	}
}
