package segment_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// reader restores from docs/FORMAT.md alone: it uses nothing of package segment.
type reader struct {
	t        *testing.T
	pageSize uint64
	commit   uint64
	pages    map[uint64][]byte
}

func (r *reader) must(ok bool, what string) {
	r.t.Helper()
	if !ok {
		r.t.Fatal(what)
	}
}

func (r *reader) file(name string) []byte {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join("../../testdata/segment", name))
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *reader) unzip(b, dict []byte) []byte {
	r.t.Helper()
	opts := []zstd.DOption{zstd.WithDecoderConcurrency(1)}
	if len(dict) > 0 {
		opts = append(opts, zstd.WithDecoderDictRaw(0, dict))
	}
	d, err := zstd.NewReader(nil, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(b, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// object applies the segment to r and returns its chain value.
func (r *reader) object(name string) []byte {
	be := binary.BigEndian
	b := r.file(name)
	r.must(string(b[:8]) == "OUTWASH\x01", "magic")
	head := be.Uint32(b[16:])
	r.must(xxhash.Sum64(b[:head-8]) == be.Uint64(b[head-8:]), "header check value")
	r.pageSize = uint64(be.Uint32(b[20:]))
	external := b[9]&1 != 0
	foot := b[len(b)-64:]
	first, root := be.Uint64(foot), be.Uint64(foot[8:])
	r.must(be.Uint64(foot[16:]) == uint64(len(b)) && string(foot[24:32]) == "owfooter", "footer")
	sum := sha256.New()
	sum.Write(b[:head])
	sum.Write(b[first : len(b)-32])
	r.must(bytes.Equal(sum.Sum(nil), foot[32:]), "chain value")

	rb := b[root : len(b)-64]
	store, pos := b, uint64(head) // where blocks are
	if external {
		store, pos = r.file(name+".data"), 64
		r.must(hex.EncodeToString(rb[:16]) == "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf", "data object's name")
		r.must(be.Uint64(rb[16:]) == uint64(len(store)), "data object's size")
		rb = rb[24:]
	} else {
		s := sha256.Sum256(b[head:first])
		r.must(bytes.Equal(s[:], rb[:32]), "SHA-256 of the blocks")
		rb = rb[32:]
	}
	uv := func(b *[]byte) uint64 {
		v, n := binary.Uvarint(*b)
		r.must(n > 0, "uvarint")
		*b = (*b)[n:]
		return v
	}
	type block struct {
		codec, base byte
		stored      []byte
		pages, hash []uint64
	}
	var open []block
	at := first
	entries := uint64(0)
	for range uv(&rb) {
		stored, plain, hashes := uv(&rb), uv(&rb), uv(&rb)
		if external {
			at = uv(&rb)
			uv(&rb)
			uv(&rb)
			s := sha256.Sum256(store[at:][:stored+hashes])
			r.must(bytes.Equal(s[:], rb[:32]), "SHA-256 of the frame")
			rb = rb[32:]
		}
		s, h := store[at:][:stored], store[at+stored:][:hashes]
		if stored < plain {
			s = r.unzip(s, nil)
		}
		at += stored + hashes
		for len(s) > 0 {
			if s[0] == 1 {
				s = s[3:] // tag, kind, flags
				uv(&s)
				commit := uv(&s)
				least := commit - uv(&s)
				for range 4 {
					uv(&s) // times
				}
				n := uv(&s)
				s = s[n:]
				// Patches are about the state before the entry.
				var plains [][]byte
				for _, b := range open {
					var dict []byte
					if b.base == 1 {
						for _, no := range b.pages {
							if no <= r.commit {
								dict = append(dict, r.page(no)...)
							}
						}
					}
					p := b.stored
					switch b.codec {
					case 1:
						p = r.unzip(b.stored, dict)
					case 2:
						p = make([]byte, r.pageSize*uint64(len(b.pages)))
					}
					plains = append(plains, p)
				}
				for no := range r.pages {
					if no > min(r.commit, least) {
						delete(r.pages, no)
					}
				}
				for i, b := range open {
					for j, no := range b.pages {
						page := plains[i][uint64(j)*r.pageSize:][:r.pageSize]
						r.must(r.hash(no, page) == b.hash[j], "page hash")
						r.pages[no] = page
					}
				}
				r.commit, open = commit, nil
				sum := uint64(0)
				for no := uint64(1); no <= commit; no++ {
					sum ^= r.hash(no, r.page(no))
				}
				r.must(sum == be.Uint64(h), "checksum")
				h = h[8:]
				entries++
				continue
			}
			r.must(s[0] == 2, "tag")
			b := block{codec: s[1], base: s[2]}
			s = s[3:]
			n := uv(&s)
			b.stored = store[pos:][:n]
			pos += n
			no := uint64(0)
			for range uv(&s) {
				no += uv(&s)
				b.pages = append(b.pages, no)
				b.hash = append(b.hash, be.Uint64(h))
				no, h = no+1, h[8:]
			}
			if external {
				s := sha256.Sum256(b.stored)
				r.must(bytes.Equal(s[:], h[:32]), "SHA-256 of the block")
				h = h[32:]
			}
			open = append(open, b)
		}
		r.must(len(h) == 0, "hashes left")
		if external {
			pos = at
		}
	}
	r.must(entries == be.Uint64(b[152:]) && r.commit == be.Uint64(b[104:]), "header's counts")
	return foot[32:]
}

func (r *reader) page(no uint64) []byte {
	if p := r.pages[no]; p != nil {
		return p
	}
	return make([]byte, r.pageSize)
}

func (r *reader) hash(no uint64, page []byte) uint64 {
	return xxhash.Sum64(append(binary.BigEndian.AppendUint64(nil, no), page...))
}

func TestIndependentReader(t *testing.T) {
	r := &reader{t: t, pages: map[uint64][]byte{}}
	chain := make([]byte, 32)
	for _, name := range []string{"claim-first", "log", "log-one-commit", "claim-later"} {
		b := r.file(name)
		r.must(bytes.Equal(b[160:192], chain), "previous chain value of "+name)
		chain = r.object(name)
	}
	r.must(bytes.HasPrefix(r.pages[1], []byte("page 1 row 0 version 0|page 1 row 1")), "content")
	r.must(bytes.Contains(r.pages[1], []byte("page 1 row 3 version 7|")), "content")

	r = &reader{t: t, pages: map[uint64][]byte{}}
	r.object("snapshot")
	r.must(len(r.pages) == 5 && r.commit == 6, "snapshot")
	r.object("pages")

	r = &reader{t: t, pages: map[uint64][]byte{}}
	r.object("snapshot-external")
	r.object("log-external")
	r.must(bytes.Contains(r.pages[2], []byte("page 2 row 3 version 4|")), "content")
}
