package local

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/outwash/outwash/internal/segment"
)

// Record is what one spool record says: an entry, or a join.
type Record struct {
	Entry  *segment.Entry // Body reads from the spool
	Before segment.WALPosition
	Join   *Join
}

// Join says that the WAL generation with salts Next was started when the one
// before had been captured up to End, to its end: state at End = state at the
// start of Next. The zero Next says that the WAL was deleted.
type Join struct {
	End      segment.WALPosition
	Checksum uint64 // of the state at End
	Next     [2]uint32
}

// Records reads all records.
func (s *Spool) Records() ([]Record, error) {
	recs, _, err := s.records(s.end)
	if err != nil {
		err = fmt.Errorf("local: %s: %w", s.f.Name(), err)
	}
	return recs, err
}

// records reads the valid records and says where they end.
func (s *Spool) records(size int64) (recs []Record, end int64, err error) {
	end = int64(len(spoolMagic))
	for {
		rec, next, err := s.readRecord(end, size)
		if b := s.nextBlock(end); err == nil && next == 0 && b != end {
			rec, next, err = s.readRecord(b, size)
		}
		if err != nil || next == 0 {
			return recs, end, err
		}
		recs = append(recs, rec)
		end = next
	}
}

// readRecord returns end 0 where the valid records stop.
func (s *Spool) readRecord(off, size int64) (rec Record, end int64, err error) {
	var h [recordHeader]byte
	if off+recordHeader > size {
		return rec, 0, nil
	}
	if _, err := s.f.ReadAt(h[:], off); err != nil {
		return rec, 0, err
	}
	be := binary.BigEndian
	metaLen, bodyLen := int64(be.Uint32(h[12:])), int64(be.Uint64(h[16:]))
	left := size - off - recordHeader
	if bodyLen < 0 || bodyLen > left || metaLen > maxMeta || metaLen > left-bodyLen {
		return rec, 0, nil
	}
	sum := xxhash.New()
	sum.Write(h[8:])
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(s.f, off+recordHeader, bodyLen), make([]byte, spoolReadSize)); err != nil {
		return rec, 0, err
	}
	meta := make([]byte, metaLen)
	if _, err := s.f.ReadAt(meta, off+recordHeader+bodyLen); err != nil {
		return rec, 0, err
	}
	sum.Write(meta)
	if sum.Sum64() != be.Uint64(h[:]) || metaLen < walPosition {
		return rec, 0, nil
	}
	rec.Before = parsePosition(meta)
	switch h[8] {
	case recordEntry:
		if rec.Entry, err = segment.ParseEntry(meta[walPosition:]); err != nil {
			return rec, 0, err
		}
		rec.Entry.Body = s.section(off+recordHeader, bodyLen)
	case recordJoin:
		if metaLen != walPosition+16 {
			return rec, 0, nil
		}
		m := meta[walPosition:]
		rec.Join = &Join{End: rec.Before, Checksum: be.Uint64(m), Next: [2]uint32{be.Uint32(m[8:]), be.Uint32(m[12:])}}
	default:
		return rec, 0, fmt.Errorf("record type %d at %d: written by a newer Outwash", h[8], off)
	}
	return rec, off + recordHeader + bodyLen + metaLen, nil
}

func (s *Spool) section(off, n int64) segment.Body { return io.NewSectionReader(s.f, off, n) }

// putHeader completes a record that is in memory as a whole.
func putHeader(b []byte, kind byte, body int64) {
	b[8] = kind
	binary.BigEndian.PutUint32(b[12:], uint32(int64(len(b))-recordHeader-body))
	binary.BigEndian.PutUint64(b[16:], uint64(body))
	binary.BigEndian.PutUint64(b, xxhash.Sum64(b[8:]))
}

// EntryWriter writes the body of a new entry record, whose size nobody needs to
// know beforehand. Until Commit the record does not count.
type EntryWriter struct {
	s    *Spool
	off  int64 // of the record
	n    int64 // body bytes written
	kind byte
}

// NewEntry starts a record at the spool's end. Only one may be open.
func (s *Spool) NewEntry() *EntryWriter { return s.newRecord(recordEntry) }

func (s *Spool) newRecord(kind byte) *EntryWriter {
	return &EntryWriter{s: s, off: s.size, kind: kind}
}

// Write appends to the body.
func (w *EntryWriter) Write(b []byte) (int, error) {
	n, err := w.s.f.WriteAt(b, w.off+recordHeader+w.n)
	w.n += int64(n)
	if err != nil {
		err = fmt.Errorf("local: %w", err)
	}
	return n, err
}

// Commit completes the record and returns the body, readable from the spool.
func (w *EntryWriter) Commit(e *segment.Entry, before segment.WALPosition) (segment.Body, error) {
	if err := w.commit(segment.AppendEntry(appendPosition(nil, before), e)); err != nil {
		return nil, err
	}
	return w.s.section(w.off+recordHeader, w.n), nil
}

func (w *EntryWriter) commit(meta []byte) error {
	if len(meta) > maxMeta {
		return fmt.Errorf("local: spool record of %d bytes", len(meta))
	}
	var h [recordHeader]byte
	h[8] = w.kind
	binary.BigEndian.PutUint32(h[12:], uint32(len(meta)))
	binary.BigEndian.PutUint64(h[16:], uint64(w.n))
	sum := xxhash.New()
	sum.Write(h[8:])
	// The header comes first in the hash and is known last: read the body back
	// (it is in the page cache).
	if w.n > 0 {
		if _, err := io.CopyBuffer(sum, io.NewSectionReader(w.s.f, w.off+recordHeader, w.n), make([]byte, min(spoolReadSize, w.n))); err != nil {
			return fmt.Errorf("local: %w", err)
		}
	}
	sum.Write(meta)
	binary.BigEndian.PutUint64(h[:], sum.Sum64())
	_, err := w.s.f.WriteAt(meta, w.off+recordHeader+w.n)
	if err == nil {
		_, err = w.s.f.WriteAt(h[:], w.off)
	}
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	w.s.size = w.off + recordHeader + w.n + int64(len(meta))
	w.s.end = w.s.size
	w.s.writes++
	return nil
}

func appendPosition(b []byte, p segment.WALPosition) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(be.AppendUint32(b, p.Salt[0]), p.Salt[1])
	b = be.AppendUint64(b, p.Frame)
	return be.AppendUint32(be.AppendUint32(b, p.Checksum[0]), p.Checksum[1])
}

func parsePosition(b []byte) segment.WALPosition {
	be := binary.BigEndian
	return segment.WALPosition{
		Salt:     [2]uint32{be.Uint32(b), be.Uint32(b[4:])},
		Frame:    be.Uint64(b[8:]),
		Checksum: [2]uint32{be.Uint32(b[16:]), be.Uint32(b[20:])},
	}
}
