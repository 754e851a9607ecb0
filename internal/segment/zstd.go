package segment

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	zstdMagic    = uint32(0xFD2FB528)
	minFrame     = 9       // magic, descriptor, content size, one empty-handed block
	maxZstdBlock = 1 << 17 // Block_Maximum_Size
)

// checkFrame accepts exactly one zstd frame of the form that the format allows:
// a single segment with its content size in the shortest field, no dictionary
// ID, no checksum, nothing after it (RFC 8878, section 3.1.1). It is what bounds
// the decoder's memory.
func checkFrame(b []byte, plain int) error {
	if len(b) < minFrame {
		return fmt.Errorf("zstd frame of %d bytes, at least %d expected", len(b), minFrame)
	}
	if m := binary.LittleEndian.Uint32(b); m != zstdMagic {
		return fmt.Errorf("zstd frame begins with %08x, expected %08x", m, zstdMagic)
	}
	size := 0 // code of the content size's field
	switch {
	case plain >= 1<<16+256:
		size = 2
	case plain >= 256:
		size = 1
	}
	if want := byte(size<<6 | 1<<5); b[4] != want {
		return fmt.Errorf("zstd frame header descriptor 0x%02x, expected 0x%02x (single segment, content size, no dictionary ID, no checksum)", b[4], want)
	}
	var content int
	off := 5 + 1<<size
	switch size {
	case 0:
		content = int(b[5])
	case 1:
		content = int(binary.LittleEndian.Uint16(b[5:])) + 256
	case 2:
		content = int(binary.LittleEndian.Uint32(b[5:]))
	}
	if content != plain {
		return fmt.Errorf("zstd frame of %d bytes of content, expected %d", content, plain)
	}
	for last := false; !last; {
		if len(b)-off < 3 {
			return fmt.Errorf("zstd frame ends within a block header at %d", off)
		}
		h := int(b[off]) | int(b[off+1])<<8 | int(b[off+2])<<16
		off += 3
		last = h&1 != 0
		n := h >> 3
		if n > maxZstdBlock {
			return fmt.Errorf("zstd block of %d bytes, at most %d expected", n, maxZstdBlock)
		}
		switch h >> 1 & 3 {
		case 1: // RLE: n is the plain length
			n = 1
		case 3:
			return fmt.Errorf("zstd block of the reserved type")
		}
		if n > len(b)-off {
			return fmt.Errorf("zstd block of %d bytes at %d, %d are left", n, off, len(b)-off)
		}
		off += n
	}
	if off != len(b) {
		return fmt.Errorf("%d bytes after the zstd frame", len(b)-off)
	}
	return nil
}

// decodeFrame appends the content of the frame b, plain bytes long, to dst.
func decodeFrame(d *zstd.Decoder, dst, b []byte, plain int) ([]byte, error) {
	if err := checkFrame(b, plain); err != nil {
		return dst, err
	}
	// The library wants some room beyond the end, or it allocates again.
	dst = slices.Grow(dst, plain+64)
	out, err := d.DecodeAll(b, dst[len(dst):])
	if err != nil {
		return dst, fmt.Errorf("zstd: %w", err)
	}
	if len(out) != plain {
		return dst, fmt.Errorf("zstd frame of %d bytes, expected %d", len(out), plain)
	}
	if n := len(dst); plain > 0 && &out[0] == &dst[:n+1][n] {
		return dst[:n+plain], nil // in place, as there was room
	}
	return append(dst, out...), nil
}

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true),
		// The last page of a block reaches the first one of its base.
		zstd.WithWindowSize(2*MaxBlockPlain))
	if err != nil {
		panic(err) // constant options
	}
	return e
}

func newDecoder(most uint64) *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(most))
	if err != nil {
		panic(err) // constant options
	}
	return d
}

// Coders are pooled: see BlockEncoder, and structures are rare.
var (
	encoders          = sync.Pool{New: func() any { return newEncoder() }} // without dictionary
	structureDecoders = sync.Pool{New: func() any { return newDecoder(maxStructure) }}
)

// compressStructure returns b itself if zstd doesn't make it shorter.
func compressStructure(b []byte) []byte {
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	if out := e.EncodeAll(b, make([]byte, 0, len(b)/2+64)); len(out) < len(b) {
		return out
	}
	return b
}

// decompressStructure returns b itself if it is stored as it is.
func decompressStructure(b []byte, plain int) ([]byte, error) {
	if len(b) == plain {
		return b, nil
	}
	d := structureDecoders.Get().(*zstd.Decoder)
	defer structureDecoders.Put(d)
	return decodeFrame(d, nil, b, plain)
}
