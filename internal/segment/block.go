package segment

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// BlockEncoder compresses blocks. It is reusable and not safe for concurrent use.
// Between two blocks it holds nothing: a coder's tables take a megabyte, which a
// process with a thousand databases has for those that are compressing just now.
type BlockEncoder struct{}

// patchCoder is a zstd encoder that writes into a slice.
type patchCoder struct {
	zstd *zstd.Encoder
	out  appender
}

var patchCoders = sync.Pool{New: func() any { return &patchCoder{zstd: newEncoder()} }}

// appender is a slice that can be written to.
type appender []byte

func (a *appender) Write(b []byte) (int, error) {
	*a = append(*a, b...)
	return len(b), nil
}

// NewBlockEncoder returns a BlockEncoder.
func NewBlockEncoder() *BlockEncoder { return &BlockEncoder{} }

// Encode appends the stored form of plain, the pages of one block, to dst. dict
// is the concatenation of the versions that the pages replace, empty if the
// block is to stand alone. plain and dict are not kept. The result is never
// longer than plain.
func (e *BlockEncoder) Encode(dst, plain, dict []byte) (out []byte, codec Codec, base Base) {
	if allZero(plain) {
		return dst, CodecZero, BaseNone
	}
	n := len(dst)
	if len(dict) > 0 {
		if out = encodePatch(dst, plain, dict); len(out) > n && len(out)-n < len(plain) {
			return out, CodecZstd, BasePatch
		}
		dst = out[:n]
	}
	z := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(z)
	if out = z.EncodeAll(plain, dst); len(out)-n < len(plain) {
		return out, CodecZstd, BaseNone
	}
	return append(out[:n], plain...), CodecRaw, BaseNone
}

// encodePatch returns dst itself if dict can't be used.
func encodePatch(dst, plain, dict []byte) []byte {
	c := patchCoders.Get().(*patchCoder)
	defer func() {
		c.out = nil
		patchCoders.Put(c)
	}()
	c.out = dst
	if err := c.zstd.ResetWithOptions(&c.out, zstd.WithEncoderDictRaw(0, dict)); err != nil {
		return dst
	}
	if len(plain) >= streamLimit {
		return c.zstd.EncodeAll(plain, dst)
	}
	// A stream that ends within its first block makes the same frame as
	// EncodeAll, but with the tables that the reset has just made of dict:
	// EncodeAll makes them once more, which is half of the work.
	_, err := c.zstd.Write(plain)
	if err == nil {
		err = c.zstd.Close()
	}
	if err != nil || checkFrame(c.out[len(dst):], len(plain)) != nil {
		return c.zstd.EncodeAll(plain, dst)
	}
	return c.out
}

// streamLimit is the smallest block size of the library: a longer stream could
// be a frame of several blocks without content size.
const streamLimit = 1 << 16

// BlockDecoder decodes blocks. It is reusable and not safe for concurrent use.
type BlockDecoder struct{ zstd *zstd.Decoder }

// NewBlockDecoder returns a BlockDecoder.
func NewBlockDecoder() *BlockDecoder { return &BlockDecoder{} }

// Decode appends b's pages to dst and verifies the hash of each. dict is what
// the encoder was given; it must be empty unless b.Base is BasePatch. On an
// error dst is returned as it was.
func (d *BlockDecoder) Decode(dst []byte, b *Block, stored []byte, pageSize uint32, dict []byte) ([]byte, error) {
	out, err := d.decode(dst, b, stored, pageSize, dict)
	if err != nil {
		if !isKnown(err) {
			err = corruptf("%w", err)
		}
		return dst, fmt.Errorf("block of %d pages: %w", len(b.Pages), err)
	}
	return out, nil
}

func (d *BlockDecoder) decode(dst []byte, b *Block, stored []byte, pageSize uint32, dict []byte) ([]byte, error) {
	if err := checkPageSize(pageSize); err != nil {
		return nil, err
	}
	if err := checkBlock(b, KindLog, pageSize); err != nil {
		return nil, err
	}
	if int64(len(stored)) != int64(b.Stored) {
		return nil, fmt.Errorf("%d stored bytes, expected %d", len(stored), b.Stored)
	}
	if (len(dict) > 0) != (b.Base == BasePatch) || len(dict)%int(pageSize) != 0 || len(dict) > len(b.Pages)*int(pageSize) {
		return nil, fmt.Errorf("base rule %d with %d bytes of replaced pages", b.Base, len(dict))
	}
	n, plain := len(dst), len(b.Pages)*int(pageSize)
	switch b.Codec {
	case CodecRaw:
		dst = append(dst, stored...)
	case CodecZero:
		dst = append(dst, make([]byte, plain)...)
	case CodecZstd:
		if d.zstd == nil {
			d.zstd = newDecoder(MaxBlockPlain)
		}
		opt := zstd.WithDecoderDictDelete()
		if len(dict) > 0 {
			opt = zstd.WithDecoderDictRaw(0, dict)
		}
		err := d.zstd.ResetWithOptions(nil, opt)
		if err == nil {
			dst, err = decodeFrame(d.zstd, dst, stored, plain)
		}
		if err != nil {
			return nil, err
		}
	}
	for i, p := range b.Pages {
		page := dst[n+i*int(pageSize):][:pageSize]
		if got := PageHash(p.No, page); got != p.Hash {
			return nil, fmt.Errorf("page %d has hash %016x, expected %016x", p.No, got, p.Hash)
		}
	}
	return dst, nil
}

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if string(b[:n]) != zeros[:n] {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeros = string(make([]byte, 4096))
