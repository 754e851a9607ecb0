package segment

import (
	"encoding/binary"
	"fmt"
	"math"
)

const entryRecordVersion = 1

// AppendEntry appends a self-contained record of e without its body, for the
// local spool. It is no part of the replica format and carries no check value.
// e is not checked; [ParseEntry] does that.
func AppendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, entryRecordVersion)
	dst = appendU32(dst, e.PageSize)
	for _, v := range []uint64{e.Pre, e.PreCommit, uint64(e.FirstMono)} {
		dst = appendU64(dst, v)
	}
	dst = appendWAL(dst, e.WAL)
	var r records
	m := *e
	m.Unordered = false
	for i := range e.Blocks {
		r.appendBlock(&e.Blocks[i])
		if i > 0 && e.Blocks[i].First() <= e.Blocks[i-1].Last() {
			m.Unordered = true
		}
	}
	if err := r.appendEntry(&m, e.FirstMono); err != nil {
		// Only extensions can be refused, and they are ignorable.
		m.Extensions = nil
		_ = r.appendEntry(&m, e.FirstMono)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.structure)))
	return append(append(dst, r.structure...), r.hashes...)
}

// ParseEntry decodes a record of [AppendEntry], of which b is the whole.
// Blocks' offsets count from the beginning of the body; Body is nil.
func ParseEntry(b []byte) (*Entry, error) {
	e, err := parseEntry(b)
	if err != nil {
		if !isKnown(err) {
			err = corruptf("%w", err)
		}
		return nil, fmt.Errorf("entry record: %w", err)
	}
	return e, nil
}

func parseEntry(b []byte) (*Entry, error) {
	c := cursor{b: b}
	if v := c.u8("version"); c.err == nil && v != entryRecordVersion {
		return nil, unknownf("version %d, this Outwash knows %d", v, entryRecordVersion)
	}
	size := c.u32("page size")
	pre, preCommit, first := c.u64("checksum before"), c.u64("commit size before"), c.u64("first time")
	wal := c.wal()
	structure := c.bytes(int(c.uvarint("structure length", uint64(c.left()))), "structure")
	if c.err != nil {
		return nil, c.err
	}
	if size != 0 {
		if err := checkPageSize(size); err != nil {
			return nil, err
		}
	}
	if first > math.MaxInt64 || preCommit > math.MaxInt64/MinPageSize || preCommit == 0 && pre != 0 {
		return nil, fmt.Errorf("time %d, %d pages before, checksum %016x", first, preCommit, pre)
	}
	r := rules{kind: KindLog, pageSize: size, maxTXID: MaxTXID, post: pre, commit: preCommit, last: int64(first)}
	rr := newRecordReader(structure, b[c.off:], false)
	var blocks []Block
	pos := int64(0)
	for rr.more() {
		blk, e, err := rr.next(int64(first))
		if err == nil && blk != nil {
			err = r.block(blk)
		} else if err == nil {
			err = r.entry(e)
		}
		switch {
		case err != nil:
			return nil, err
		case blk != nil:
			blk.Offset = pos
			pos += int64(blk.Stored)
			blocks = append(blocks, *blk)
			continue
		case rr.more():
			return nil, fmt.Errorf("%d bytes after the entry", rr.s.left())
		case e.FirstMono != int64(first):
			return nil, fmt.Errorf("first time is %d, expected %d", e.FirstMono, first)
		}
		e.Blocks, e.PageSize, e.Pre, e.PreCommit, e.WAL = blocks, size, pre, preCommit, wal
		return e, rr.end()
	}
	return nil, fmt.Errorf("no entry after %d blocks", len(blocks))
}
