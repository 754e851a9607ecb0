package segment

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	cutStructure = 64 << 10 // a frame is cut when one of them is reached
	cutHashes    = 256 << 10

	maxStructure  = 1 << 20  // of a frame, plain
	maxHashes     = 4 << 20  // of a frame
	maxStructures = 64 << 20 // of an inline segment, plain
	maxRoot       = 16 << 20

	footerSize  = 64
	footerMagic = "owfooter"
)

// frameBuilder collects records and makes frames of them.
type frameBuilder struct {
	records
	min, max uint64 // pages
}

func (f *frameBuilder) block(b *Block) {
	f.appendBlock(b)
	if f.min == 0 {
		f.min = b.First()
	}
	f.min = min(f.min, b.First())
	f.max = max(f.max, b.Last())
}

func (f *frameBuilder) full() bool {
	return len(f.structure) >= cutStructure || len(f.hashes) >= cutHashes
}

func (f *frameBuilder) empty() bool { return len(f.structure) == 0 }

// take returns the frame and its bytes, and begins the next.
func (f *frameBuilder) take() (Frame, []byte) {
	s := compressStructure(f.structure)
	fr := Frame{Stored: uint32(len(s)), Plain: uint32(len(f.structure)), Hashes: uint32(len(f.hashes))}
	if f.sums {
		fr.MinPage, fr.MaxPage = f.min, f.max
	}
	b := make([]byte, 0, fr.Size())
	b = append(append(b, s...), f.hashes...)
	f.structure, f.hashes = f.structure[:0], f.hashes[:0]
	f.min, f.max = 0, 0
	return fr, b
}

// append appends the root; sum is that of the blocks and for inline segments.
func (r *Root) append(dst []byte, external bool, sum Hash) []byte {
	if external {
		dst = append(dst, r.Data[:]...)
		dst = appendU64(dst, uint64(r.Size))
	} else {
		dst = append(dst, sum[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Frames)))
	for i := range r.Frames {
		f := &r.Frames[i]
		for _, v := range []uint32{f.Stored, f.Plain, f.Hashes} {
			dst = binary.AppendUvarint(dst, uint64(v))
		}
		if external {
			for _, v := range []uint64{uint64(f.Offset), f.MinPage, f.MaxPage} {
				dst = binary.AppendUvarint(dst, v)
			}
			dst = append(dst, f.Sum[:]...)
		}
	}
	return dst
}

// parseRoot decodes a root. Inline frames lie from first to end.
func parseRoot(b []byte, external bool, first, end int64) (*Root, Hash, error) {
	if len(b) > maxRoot {
		return nil, Hash{}, fmt.Errorf("root of %d bytes, at most %d expected", len(b), maxRoot)
	}
	r := &Root{}
	var sum Hash
	c := cursor{b: b}
	least := uint64(3) // bytes a frame takes here
	if external {
		copy(r.Data[:], c.bytes(16, "name of the data object"))
		r.Size = int64(c.u64("size of the data object"))
		least = 38
		first, end = DataHeaderSize, r.Size
		if c.err == nil && (r.Size < DataHeaderSize || r.Data.IsZero()) {
			c.fail("data object %v of %d bytes", r.Data, r.Size)
		}
	} else {
		copy(sum[:], c.bytes(32, "SHA-256 of the blocks"))
	}
	n := c.uvarint("number of frames", uint64(c.left())/least)
	if c.err == nil && n == 0 {
		c.fail("no index frames")
	}
	if c.err == nil {
		r.Frames = make([]Frame, n)
	}
	pos, total := first, int64(0)
	for i := range r.Frames {
		f := &r.Frames[i]
		f.Stored = uint32(c.uvarint("stored length of a structure", maxStructure))
		f.Plain = uint32(c.uvarint("length of a structure", maxStructure))
		f.Hashes = uint32(c.uvarint("length of hashes", maxHashes))
		f.Offset = pos
		if external {
			f.Offset = int64(c.uvarint("offset of a frame", math.MaxInt64))
			f.MinPage = c.uvarint("smallest page", math.MaxInt64)
			f.MaxPage = c.uvarint("largest page", math.MaxInt64)
			copy(f.Sum[:], c.bytes(32, "SHA-256 of a frame"))
		}
		if c.err != nil {
			break
		}
		if f.Stored < 1 || f.Stored > f.Plain || f.Hashes < 8 || f.Hashes%8 != 0 {
			c.fail("frame %d: structure of %d bytes stored, %d plain, %d of hashes", i, f.Stored, f.Plain, f.Hashes)
		}
		if (f.MinPage == 0) != (f.MaxPage == 0) || f.MinPage > f.MaxPage {
			c.fail("frame %d: pages %d to %d", i, f.MinPage, f.MaxPage)
		}
		if f.Offset < pos || f.Size() > end-f.Offset {
			c.fail("frame %d: %d bytes at %d, expected within %d to %d", i, f.Size(), f.Offset, pos, end)
		}
		pos = f.Offset + f.Size()
		total += int64(f.Plain)
	}
	switch {
	case c.err != nil:
	case c.left() != 0:
		c.fail("%d bytes after the last frame", c.left())
	case pos != end:
		c.fail("frames end at %d, expected %d", pos, end)
	case !external && total > maxStructures:
		c.fail("structures of %d bytes, at most %d expected", total, maxStructures)
	}
	if c.err != nil {
		return nil, Hash{}, fmt.Errorf("root: %w", c.err)
	}
	return r, sum, nil
}

// footer is the last 64 bytes of a segment but the chain value.
type footer struct{ first, root, size int64 }

func (f footer) append(dst []byte) []byte {
	dst = appendU64(appendU64(appendU64(dst, uint64(f.first)), uint64(f.root)), uint64(f.size))
	return append(dst, footerMagic...)
}

func parseFooter(b []byte, header int) (f footer, chain Hash, err error) {
	c := cursor{b: b[len(b)-footerSize:]}
	f = footer{int64(c.u64("")), int64(c.u64("")), int64(c.u64(""))}
	if m := c.bytes(8, ""); string(m) != footerMagic {
		return f, chain, fmt.Errorf("footer: %q, expected %q", m, footerMagic)
	}
	copy(chain[:], c.bytes(32, ""))
	if f.size != int64(len(b)) {
		return f, chain, fmt.Errorf("object of %d bytes, its footer says %d", len(b), f.size)
	}
	if f.first < int64(header) || f.root < f.first || f.root > f.size-footerSize {
		return f, chain, fmt.Errorf("footer: index at %d, root at %d; expected in order from %d to %d", f.first, f.root, header, f.size-footerSize)
	}
	return f, chain, nil
}
