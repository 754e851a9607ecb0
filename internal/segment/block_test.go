package segment

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

func makeBlock(no uint64, plain []byte, pageSize int, codec Codec, base Base, stored int) *Block {
	b := &Block{Codec: codec, Base: base, Stored: uint32(stored)}
	for i := 0; i < len(plain); i += pageSize {
		b.Pages = append(b.Pages, Page{no, PageHash(no, plain[i:i+pageSize])})
		no++
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func change(b []byte, every int) []byte {
	b = bytes.Clone(b)
	for i := every / 3; i < len(b); i += every {
		b[i]++
	}
	return b
}

func text(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "row %d of a table that compresses; ", i)
	}
	return b[:n]
}

func TestBlock(t *testing.T) {
	full := random(MaxBlockPlain)
	for _, tc := range []struct {
		name     string
		pageSize int
		plain    []byte
		dict     []byte
		codec    Codec
		base     Base
		most     int // stored bytes
	}{
		{"zero", 4096, make([]byte, 64*4096), nil, CodecZero, BaseNone, 0},
		{"zero over content", 4096, make([]byte, 4096), text(4096), CodecZero, BaseNone, 0},
		{"last byte set", 512, append(make([]byte, 1023), 1), nil, CodecZstd, BaseNone, 100},
		{"text", 4096, text(4096), nil, CodecZstd, BaseNone, 2000},
		{"smallest", 512, text(512), nil, CodecZstd, BaseNone, 511},
		{"random", 4096, full[:8192], nil, CodecRaw, BaseNone, 8192},
		{"random over random", 4096, random(8192), full[:8192], CodecRaw, BaseNone, 8192},
		{"text over random", 4096, text(8192), full[:8192], CodecZstd, BasePatch, 3000},
		{"patch", 4096, change(full[:8192], 4096), full[:8192], CodecZstd, BasePatch, 100},
		{"patch, some pages new", 4096, change(full[:12288], 4096), full[:8192], CodecZstd, BasePatch, 4300},
		{"patch, one small page", 512, change(full[:512], 512), full[:512], CodecZstd, BasePatch, 60},
		{"patch, full block", 4096, change(full, 4096), full, CodecZstd, BasePatch, MaxBlockPlain - 1},
		{"patch, text, full block", 4096, change(text(64*4096), 4096), text(64 * 4096), CodecZstd, BasePatch, 14000},
		{"patch, longest stream", 4096, change(full[:streamLimit-4096], 4096), full[:streamLimit-4096], CodecZstd, BasePatch, 1000},
		{"patch, too long for a stream", 4096, change(full[:streamLimit], 4096), full[:streamLimit], CodecZstd, BasePatch, 1000},
		{"patch, unchanged", 4096, full[:4096], full[:4096], CodecZstd, BasePatch, 30},
		{"64 KiB page", 65536, change(full[:65536], 65536), full[:65536], CodecZstd, BasePatch, 300},
		{"64 KiB page, text", 65536, text(65536), nil, CodecZstd, BaseNone, 40000},
		{"base is a formatted dictionary", 4096, change(full[:4096], 4096),
			append([]byte{0x37, 0xa4, 0x30, 0xec}, full[4:4096]...), CodecZstd, BasePatch, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			enc, dec := NewBlockEncoder(), NewBlockDecoder()
			var first []byte
			for range 3 { // state left behind would show
				prefix := []byte("before")
				out, codec, base := enc.Encode(bytes.Clone(prefix), tc.plain, tc.dict)
				if !bytes.HasPrefix(out, prefix) {
					t.Fatal("dst was overwritten")
				}
				stored := out[len(prefix):]
				if codec != tc.codec || base != tc.base || len(stored) > tc.most {
					t.Fatalf("codec %d, base %d, %d bytes; expected %d, %d, at most %d", codec, base, len(stored), tc.codec, tc.base, tc.most)
				}
				if first != nil && !bytes.Equal(first, stored) {
					t.Error("the same block came out differently")
				}
				first = bytes.Clone(stored)
				dict := tc.dict
				if base == BaseNone {
					dict = nil
				}
				b := makeBlock(100, tc.plain, tc.pageSize, codec, base, len(stored))
				got, err := dec.Decode(bytes.Clone(prefix), b, stored, uint32(tc.pageSize), dict)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, append(prefix, tc.plain...)) {
					t.Fatal("content differs")
				}
				// In between, something else.
				enc.Encode(nil, text(8192), full[:4096])
				enc.Encode(nil, text(4096), nil)
				if codec != CodecZstd {
					continue
				}
				if want := []byte{0x20, 0x60, 0xa0}; bytes.IndexByte(want, stored[4]) < 0 {
					t.Errorf("frame header descriptor 0x%02x, expected one of %x", stored[4], want)
				}
				// The tool takes such a base for what it looks like.
				if len(dict) < 4 || binary.LittleEndian.Uint32(dict) != 0xec30a437 {
					zstdTool(t, stored, tc.plain, dict)
				}
			}
		})
	}
}

// zstdTool opens a block with the reference implementation, if it is there.
func zstdTool(t *testing.T, stored, plain, dict []byte) {
	tool, err := exec.LookPath("zstd")
	if err != nil {
		return
	}
	dir := t.TempDir()
	in, base := filepath.Join(dir, "block.zst"), filepath.Join(dir, "base")
	args := []string{"-d", "-c", in}
	if len(dict) > 0 {
		args = append([]string{"--patch-from=" + base}, args...)
	}
	if err := errors.Join(os.WriteFile(in, stored, 0o600), os.WriteFile(base, dict, 0o600)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", tool, args, err)
	}
	if !bytes.Equal(out, plain) {
		t.Fatalf("%s %v gives other content", tool, args)
	}
}

// What a hostile frame could try.
func TestBlockRefused(t *testing.T) {
	const size = 4096
	plain, dict := text(2*size), change(text(2*size), 100)
	enc := NewBlockEncoder()
	stored, codec, _ := enc.Encode(nil, plain, nil)
	patch, _, _ := enc.Encode(nil, plain, dict)
	frame := func(opts ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false)}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(plain, nil)
	}
	edit := func(b []byte, f func(b []byte) []byte) []byte { return f(bytes.Clone(b)) }
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, 1, 2, 3, 4)
	// 2^30 bytes, promised by RLE blocks; and by the content size.
	bomb := edit(stored[:7], func(b []byte) []byte {
		for range 500 {
			b = append(b, 0x02|byte(maxZstdBlock<<3&0xff), byte(maxZstdBlock<<3>>8&0xff), byte(maxZstdBlock<<3>>16), 7)
		}
		return append(b, 1, 0, 0)
	})
	huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0}
	other := bytes.Clone(plain)
	other[size]++
	for _, tc := range []struct {
		name   string
		stored []byte
		mutate func(b *Block)
		dict   []byte
	}{
		{"empty", nil, nil, nil},
		{"cut", stored[:len(stored)-1], nil, nil},
		{"trailing byte", append(bytes.Clone(stored), 0), nil, nil},
		{"two frames", append(bytes.Clone(stored), stored...), nil, nil},
		{"skippable before", append(bytes.Clone(skippable), stored...), nil, nil},
		{"skippable after", append(bytes.Clone(stored), skippable...), nil, nil},
		{"only skippable", skippable, nil, nil},
		{"checksum", frame(zstd.WithEncoderCRC(true)), nil, nil},
		{"window descriptor", frame(zstd.WithSingleSegment(false)), nil, nil},
		{"dictionary ID", frame(zstd.WithEncoderDictRaw(7, dict)), nil, nil},
		{"reserved bit", edit(stored, func(b []byte) []byte { b[4] |= 8; return b }), nil, nil},
		{"unused bit", edit(stored, func(b []byte) []byte { b[4] |= 16; return b }), nil, nil},
		{"other content size", edit(stored, func(b []byte) []byte { b[5]++; return b }), nil, nil},
		{"longer size field", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0x20, 0, 0}, stored[7:]...), nil, nil},
		{"RLE bomb", bomb, nil, nil},
		{"huge content size", huge, nil, nil},
		{"patch without base", patch, nil, nil},
		{"patch, base unused", stored, func(b *Block) { b.Base = BasePatch }, nil},
		{"patch, other base", patch, func(b *Block) { b.Base = BasePatch }, random(2 * size)},
		{"patch, base too long", patch, func(b *Block) { b.Base = BasePatch }, append(dict, dict...)},
		{"patch, odd base", patch, func(b *Block) { b.Base = BasePatch }, dict[:100]},
		{"other page", enc1(enc, other), nil, nil},
		{"wrong page number", stored, func(b *Block) { b.Pages[1].No++ }, nil},
		{"unknown codec", stored, func(b *Block) { b.Codec = 3 }, nil},
		{"unknown base", stored, func(b *Block) { b.Base = 2 }, nil},
		{"raw", stored, func(b *Block) { b.Codec = CodecRaw }, nil},
		{"zero", stored, func(b *Block) { b.Codec = CodecZero }, nil},
		{"no pages", stored, func(b *Block) { b.Pages = nil }, nil},
		{"65 pages", stored, func(b *Block) { b.Pages = make([]Page, 65) }, nil},
		{"lock page", stored, func(b *Block) { b.Pages[0].No, b.Pages[1].No = LockPage(size)-1, LockPage(size) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := makeBlock(1, plain, size, codec, BaseNone, len(tc.stored))
			if tc.mutate != nil {
				tc.mutate(b)
			}
			dst := []byte("kept")
			var out []byte
			var err error
			if n := allocated(func() { out, err = NewBlockDecoder().Decode(dst, b, tc.stored, size, tc.dict) }); n > 4<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("error %v, expected ErrCorrupt or ErrVersion", err)
			}
			if string(out) != "kept" {
				t.Errorf("result %.20q", out)
			}
		})
	}
}

func enc1(e *BlockEncoder, plain []byte) []byte {
	out, _, _ := e.Encode(nil, plain, nil)
	return out
}

func TestPageHash(t *testing.T) {
	page := text(4096)
	want := xxhash.Sum64(append(binary.BigEndian.AppendUint64(nil, 77), page...))
	if got := PageHash(77, page); got != want {
		t.Errorf("%016x, want %016x", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { PageHash(77, page) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if LockPage(4096) != 262145 || LockPage(512) != 2097153 || LockPage(65536) != 16385 {
		t.Error("lock page")
	}
}

// The library leaves some allocations in a reset; what must not happen is that
// tables or buffers are made anew for each block.
func TestBlockAllocations(t *testing.T) {
	// Coders come from pools, which collections empty and processors don't share.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	plain := text(8192)
	dict := change(plain, 1000)
	enc, dec := NewBlockEncoder(), NewBlockDecoder()
	var out, page []byte
	run := func() {
		var codec Codec
		var base Base
		out, codec, base = enc.Encode(out[:0], plain, dict)
		b := Block{Codec: codec, Base: base, Stored: uint32(len(out)), Pages: []Page{{1, PageHash(1, plain[:4096])}, {2, PageHash(2, plain[4096:])}}}
		var err error
		if page, err = dec.Decode(page[:0], &b, out, 4096, dict); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, func() { out, _, _ = enc.Encode(out[:0], plain, dict) }); n > 8 {
		t.Errorf("%v allocations to encode a patch", n)
	}
	if n := testing.AllocsPerRun(100, func() { enc.Encode(out[:0], plain, nil) }); n > 4 {
		t.Errorf("%v allocations to encode", n)
	}
	if n := testing.AllocsPerRun(100, run); n > 40 {
		t.Errorf("%v allocations to encode and decode", n)
	}
	if n := allocated(func() {
		for range 100 {
			run()
		}
	}); n > 100*8<<10 {
		t.Errorf("%d bytes allocated for each block", n/100)
	}
}

func BenchmarkPageHash(b *testing.B) {
	page := text(4096)
	b.SetBytes(4096)
	for b.Loop() {
		PageHash(1, page)
	}
}

func BenchmarkEncodePatch(b *testing.B) {
	plain := text(12288)
	dict := change(plain, 3000)
	enc := NewBlockEncoder()
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		out, _, _ = enc.Encode(out[:0], plain, dict)
	}
}

func BenchmarkDecodePatch(b *testing.B) {
	plain := text(12288)
	dict := change(plain, 3000)
	out, codec, base := NewBlockEncoder().Encode(nil, plain, dict)
	blk := makeBlock(1, plain, 4096, codec, base, len(out))
	dec := NewBlockDecoder()
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	var got []byte
	for b.Loop() {
		var err error
		if got, err = dec.Decode(got[:0], blk, out, 4096, dict); err != nil {
			b.Fatal(err)
		}
	}
}
