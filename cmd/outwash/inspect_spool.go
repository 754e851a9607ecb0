package main

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/outwash/outwash/internal/segment"
)

// The records of a spool, see internal/local. That package can't be used to look
// at one: it repairs what it opens, and an engine may be writing.
const (
	spoolMagic  = "OWSPOOL\x01"
	spoolHeader = 24
	spoolEntry  = 1
	spoolJoin   = 2
	spoolWAL    = 24 // the WAL position in front of a record's meta
)

// spool decodes a spool. What doesn't add up at the end is a torn tail, which
// the engine ignores as well.
func (x *inspector) spool() error {
	x.r.Kind = "spool"
	magic, err := x.obj.read(x.ctx, 0, int64(len(spoolMagic)))
	if err != nil {
		return err
	}
	if string(magic) != spoolMagic {
		return fmt.Errorf("spool version %q: %w", magic[len("OWSPOOL"):], segment.ErrVersion)
	}
	off := int64(len(spoolMagic))
	for off < x.obj.size {
		n, err := x.spoolRecord(off)
		if err != nil {
			return fmt.Errorf("record at %d: %w", off, err)
		}
		if n == 0 {
			x.r.TornTail = x.obj.size - off
			break
		}
		off += n
	}
	x.r.Verified = []string{"the check value of every record"}
	return nil
}

// spoolRecord returns the length of the record at off; 0: it is not whole.
func (x *inspector) spoolRecord(off int64) (int64, error) {
	h, err := x.obj.read(x.ctx, off, spoolHeader)
	if err != nil || len(h) < spoolHeader {
		return 0, err
	}
	be := binary.BigEndian
	metaLen, bodyLen := int64(be.Uint32(h[12:])), int64(be.Uint64(h[16:]))
	left := x.obj.size - off - spoolHeader
	if bodyLen < 0 || bodyLen > left || metaLen > left-bodyLen || metaLen < spoolWAL {
		return 0, nil
	}
	sum := xxhash.New()
	sum.Write(h[8:])
	const piece = 1 << 20
	for at := int64(0); at < bodyLen; at += piece {
		b, err := x.obj.read(x.ctx, off+spoolHeader+at, min(piece, bodyLen-at))
		if err != nil {
			return 0, err
		}
		sum.Write(b)
	}
	meta, err := x.obj.read(x.ctx, off+spoolHeader+bodyLen, metaLen)
	if err != nil {
		return 0, err
	}
	sum.Write(meta)
	if sum.Sum64() != be.Uint64(h) {
		return 0, nil
	}
	switch h[8] {
	case spoolJoin:
		x.r.Joins++
	case spoolEntry:
		e, err := segment.ParseEntry(meta[spoolWAL:])
		if err != nil {
			return 0, err
		}
		er := x.r.addEntry(e)
		for i := range e.Blocks {
			er.addBlock(&e.Blocks[i], x.blocks)
		}
	default:
		return 0, fmt.Errorf("type %d: %w", h[8], segment.ErrVersion)
	}
	return spoolHeader + bodyLen + metaLen, nil
}
