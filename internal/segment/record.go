package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

const (
	tagEntry = 0x01
	tagBlock = 0x02

	entryNeedsBase = 1 << 0
	entryUnordered = 1 << 1
	entryWhole     = 1 << 2
	entryFlags     = entryNeedsBase | entryUnordered | entryWhole

	maxEntryExtensions = 1 << 16 // bytes of an entry's extensions
)

// records is an index, or a part of it, as two strings: the structure
// compresses, the hashes don't.
type records struct {
	structure, hashes []byte
	sums              bool // blocks have a SHA-256
}

// appendEntry appends an entry's record. last is the monotone time before it.
func (r *records) appendEntry(e *Entry, last int64) error {
	var flags byte
	if e.NeedsBase {
		flags |= entryNeedsBase
	}
	if e.Unordered {
		flags |= entryUnordered
	}
	if e.Whole {
		flags |= entryWhole
	}
	s := append(r.structure, tagEntry, byte(e.Kind), flags)
	for _, v := range []uint64{
		e.Count, e.Commit, e.Commit - e.MinCommit,
		uint64(e.FirstMono - last), uint64(e.LastMono - e.FirstMono),
	} {
		s = binary.AppendUvarint(s, v)
	}
	s = binary.AppendVarint(s, e.FirstRaw-e.FirstMono)
	s = binary.AppendVarint(s, e.LastRaw-e.LastMono)
	var ext []byte
	prev := -1
	for _, x := range e.Extensions {
		if int(x.Type) <= prev || x.Critical() {
			return fmt.Errorf("entry extension 0x%04x: types must ascend, and no critical one is known", x.Type)
		}
		prev = int(x.Type)
		ext = appendExtension(ext, x.Type, x.Value)
	}
	if len(ext) > maxEntryExtensions {
		return fmt.Errorf("entry extensions of %d bytes, at most %d", len(ext), maxEntryExtensions)
	}
	s = binary.AppendUvarint(s, uint64(len(ext)))
	r.structure = append(s, ext...)
	r.hashes = appendU64(r.hashes, e.Post)
	return nil
}

func (r *records) appendBlock(b *Block) {
	s := append(r.structure, tagBlock, byte(b.Codec), byte(b.Base))
	s = binary.AppendUvarint(s, uint64(b.Stored))
	s = binary.AppendUvarint(s, uint64(len(b.Pages)))
	next := uint64(0)
	for _, p := range b.Pages {
		s = binary.AppendUvarint(s, p.No-next)
		next = p.No + 1
		r.hashes = appendU64(r.hashes, p.Hash)
	}
	r.structure = s
	if r.sums {
		r.hashes = append(r.hashes, b.Sum[:]...)
	}
}

// recordReader decodes what records encodes.
type recordReader struct {
	s, h  cursor
	sums  bool
	pages []Page // to cut blocks' pages from
}

func newRecordReader(structure, hashes []byte, sums bool) *recordReader {
	return &recordReader{s: cursor{b: structure}, h: cursor{b: hashes}, sums: sums}
}

// more reports whether another record follows.
func (r *recordReader) more() bool { return r.s.left() > 0 }

// end checks that structure and hashes ended together.
func (r *recordReader) end() error {
	if n := r.h.left(); n != 0 {
		return fmt.Errorf("%d bytes of hashes after the last record", n)
	}
	return nil
}

// next decodes a record; one of the results is nil. last is the monotone time
// before an entry.
func (r *recordReader) next(last int64) (*Block, *Entry, error) {
	switch tag := r.s.u8("record"); tag {
	case tagBlock:
		b, err := r.block()
		return b, nil, err
	case tagEntry:
		e, err := r.entry(last)
		return nil, e, err
	default:
		return nil, nil, unknownf("index record 0x%02x", tag)
	}
}

func (r *recordReader) block() (*Block, error) {
	b := &Block{Codec: Codec(r.s.u8("codec")), Base: Base(r.s.u8("base"))}
	if r.s.err == nil && b.Codec > CodecZero {
		return nil, unknownf("block codec %d", b.Codec)
	}
	if r.s.err == nil && b.Base > BasePatch {
		return nil, unknownf("block base rule %d", b.Base)
	}
	b.Stored = uint32(r.s.uvarint("stored length", MaxBlockPlain))
	n := int(r.s.uvarint("number of pages", MaxBlockPages))
	hashes := r.h.bytes(8*n, "page hashes")
	if r.s.err != nil {
		return nil, r.s.err
	}
	if r.h.err != nil {
		return nil, r.h.err
	}
	if len(r.pages) < n {
		// The hashes that are left bound what can come.
		r.pages = make([]Page, min(4096, n+r.h.left()/8))
	}
	b.Pages, r.pages = r.pages[:n:n], r.pages[n:]
	next := uint64(0)
	for i := range b.Pages {
		no := next + r.s.uvarint("page number", math.MaxInt64-next)
		b.Pages[i] = Page{No: no, Hash: binary.BigEndian.Uint64(hashes[8*i:])}
		next = min(no+1, math.MaxInt64)
	}
	if r.sums {
		copy(b.Sum[:], r.h.bytes(len(b.Sum), "block SHA-256"))
	}
	if r.s.err != nil {
		return nil, r.s.err
	}
	return b, r.h.err
}

func (r *recordReader) entry(last int64) (*Entry, error) {
	e := &Entry{Kind: EntryKind(r.s.u8("kind"))}
	flags := r.s.u8("flags")
	if u := flags &^ entryFlags; u != 0 {
		return nil, unknownf("entry flags 0x%02x", u)
	}
	e.NeedsBase = flags&entryNeedsBase != 0
	e.Unordered = flags&entryUnordered != 0
	e.Whole = flags&entryWhole != 0
	e.Count = r.s.uvarint("TXIDs covered", MaxTXID)
	e.Commit = r.s.uvarint("commit size", math.MaxInt64)
	e.MinCommit = e.Commit - r.s.uvarint("commit size over the smallest one", e.Commit)
	e.FirstMono = last + int64(r.s.uvarint("first time", uint64(math.MaxInt64-last)))
	e.LastMono = e.FirstMono + int64(r.s.uvarint("last time", uint64(math.MaxInt64-e.FirstMono)))
	e.FirstRaw = e.FirstMono + r.s.svarint("first raw time")
	e.LastRaw = e.LastMono + r.s.svarint("last raw time")
	ext := r.s.bytes(int(r.s.uvarint("extensions length", maxEntryExtensions)), "extensions")
	e.Post = r.h.u64("checksum after")
	if r.s.err != nil {
		return nil, r.s.err
	}
	if r.h.err != nil {
		return nil, r.h.err
	}
	// Raw times are never negative, so that the sums can't wrap into valid ones.
	err := walkExtensions(ext, func(x Extension) error {
		if x.Critical() {
			return unknownf("entry extension 0x%04x", x.Type)
		}
		e.Extensions = append(e.Extensions, Extension{x.Type, bytes.Clone(x.Value)})
		return nil
	})
	return e, err
}
