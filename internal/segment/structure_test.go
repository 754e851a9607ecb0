package segment

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// Objects whose check values all fit, but which don't add up.
func TestStructure(t *testing.T) {
	entry := func() *Entry { return plainEntry(1, 1, nil) }
	// parts makes an object from parts that can be tampered with.
	type parts struct {
		h       Header
		padding int
		blocks  []byte
		f       frameBuilder
		gap     []byte // between frame and root
		trail   []byte // after the root
	}
	build := func(edit func(p *parts)) []byte {
		e := entry()
		p := &parts{h: plainHeader(), padding: -1, blocks: bodyBytes(t, e)}
		if err := p.h.derive([]*Entry{e}); err != nil {
			t.Fatal(err)
		}
		p.f.block(&e.Blocks[0])
		if err := p.f.appendEntry(e, e.FirstMono); err != nil {
			t.Fatal(err)
		}
		edit(p)
		b, err := p.h.append(nil, p.padding)
		if err != nil {
			t.Fatal(err)
		}
		head := len(b)
		b = append(b, p.blocks...)
		first := len(b)
		fr, frame := p.f.take()
		b = append(append(b, frame...), p.gap...)
		at := len(b)
		b = (&Root{Frames: []Frame{fr}}).append(b, false, sumOf(p.blocks))
		b, _ = seal(append(b, p.trail...), head, first, at)
		return b
	}
	ext := func(b []byte, types ...uint16) []byte {
		for _, typ := range types {
			b = appendExtension(b, typ, nil)
		}
		return b
	}
	if _, err := Parse(build(func(*parts) {})); err != nil {
		t.Fatal(err)
	}
	size := len(build(func(*parts) {}))
	for _, tc := range []struct {
		name string
		edit func(p *parts)
		want string
	}{
		{"byte behind the blocks", func(p *parts) { p.blocks = append(p.blocks, 0) }, "blocks end at"},
		{"blocks too short", func(p *parts) { p.blocks = p.blocks[1:] }, "are left"},
		{"byte behind the frames", func(p *parts) { p.gap = []byte{0} }, "frames end at"},
		{"byte behind the root", func(p *parts) { p.trail = []byte{0} }, "after the last frame"},
		{"byte behind the records", func(p *parts) { p.f.structure = append(p.f.structure, 0) }, "record 0x00"},
		{"hash behind the records", func(p *parts) { p.f.hashes = append(p.f.hashes, make([]byte, 8)...) }, "8 bytes of hashes"},
		{"hash missing", func(p *parts) { p.f.hashes = p.f.hashes[:8] }, "needs 8 bytes"},
		{"block behind the entry", func(p *parts) { p.f.block(&Block{Codec: CodecZero, Pages: []Page{{1, 0}}}) }, "1 blocks after the last entry"},
		{"entry more", func(p *parts) { _ = p.f.appendEntry(entry(), testTime) }, "up to TXID 2"},
		{"checksum", func(p *parts) { p.h.Post++ }, "checksum after"},
		{"commit size", func(p *parts) { p.h.Commit++ }, "commit size after"},
		{"smallest size", func(p *parts) { p.h.MinCommit-- }, "smallest commit size"},
		{"last TXID", func(p *parts) { p.h.MaxTXID++ }, "last TXID"},
		{"number of entries", func(p *parts) { p.h.MaxTXID++; p.h.Entries++ }, "number of entries"},
		{"first time", func(p *parts) { p.h.FirstMono-- }, "last time"},
		{"last time", func(p *parts) { p.h.LastMono++ }, "last time"},
		{"replaces", func(p *parts) { p.h.Replaces = true }, "replaces"},
		{"length of a claim", func(p *parts) { p.padding = ClaimSize - size - extensionHeader }, "claims, and only they"},
		{"claim", func(p *parts) {
			p.h.Claim, p.h.Pre, p.h.PreCommit = true, p.h.Post, p.h.Commit
		}, "claims, and only they"},
		{"claim of its length", func(p *parts) {
			p.h.Claim, p.h.Pre, p.h.PreCommit = true, p.h.Post, p.h.Commit
			p.padding = ClaimSize - size - extensionHeader
		}, "claim is false by the entries"},
		{"flags of the entry", func(p *parts) { p.f.structure[bytes.LastIndexByte(p.f.structure, tagEntry)] = entryUnordered }, ""},
		{"extensions twice", func(p *parts) {
			s := p.f.structure[:len(p.f.structure)-1]
			p.f.structure = ext(append(s, 2*extensionHeader), 7, 7)
		}, "must ascend"},
		{"extension too long", func(p *parts) {
			s := p.f.structure[:len(p.f.structure)-1]
			p.f.structure = append(s, extensionHeader, 0, 7, 0xff, 0xff, 0xff, 0xff)
		}, "are left"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(build(tc.edit))
			if err == nil || !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, expected %q", err, tc.want)
			}
		})
	}
	b := build(func(*parts) {})
	if n := allocated(func() { _, _ = Parse(b) }); n > 32<<10 {
		t.Errorf("%d bytes allocated for an object of %d", n, len(b))
	}
}

// Bytes between the parts of a data object are refused although everything in
// it verifies.
func TestDataObjectGap(t *testing.T) {
	for _, g := range makeGoldens(t) {
		if g.data == nil {
			continue
		}
		o, err := Parse(g.object)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{0, o.Root.Frames[0].Size()} { // before the frame, behind it
			root := *o.Root
			root.Frames = slices.Clone(o.Root.Frames)
			off := root.Frames[0].Offset + at
			data := append(bytes.Clone(g.data[:off]), 0)
			data = append(data, g.data[off:]...)
			root.Size++
			if at == 0 {
				root.Frames[0].Offset++
			}
			b, err := o.Header.append(nil, -1)
			if err != nil {
				t.Fatal(err)
			}
			n := len(b)
			b, _ = seal(root.append(b, true, Hash{}), n, n, n)
			p, err := Parse(b)
			if err != nil {
				continue
			}
			f := p.Root.Frames[0]
			if _, err := p.Frames().Next(data[f.Offset:][:f.Size()]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: a byte at %d: Next: %v", g.name, off, err)
			}
			if _, err := p.ParseFrame(0, data[f.Offset:][:f.Size()]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: a byte at %d: ParseFrame: %v", g.name, off, err)
			}
		}
	}
}
