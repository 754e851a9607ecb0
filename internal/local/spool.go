package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
	"github.com/outwash/outwash/internal/segment"
)

// Spool holds captured entries that the store has not acknowledged and the WAL
// is about to lose. It is a file of self-checking records, so that a torn tail
// is recognised and one fsync makes everything before it count:
//
//	header  magic "OWSPOOL\x01"
//	record  u64 XXH64 of what follows | u8 type | 3 zero | u32 meta length | u64 body length | body | meta
//
// A record's meta is, for an entry, the WAL position before it and
// segment.AppendEntry; for a join, the position, the checksum there, and the salts
// that follow.
// It is not safe for concurrent use; bodies of its entries may be read any time
// for as long as somebody has them.
type Spool struct {
	dir   *Dir
	f     File
	block int64 // is written as a whole; 1: any bytes
	end   int64 // of the last whole record
	size  int64 // where the next one begins: at end, or with the next block

	writes uint64      // counts what was written
	synced uint64      // writes up to here are durable
	ahead  chan result // of SyncAhead; nil: none runs
	// failed is the first failed sync. What was written before it may be lost
	// though a later sync succeeds: only Rewrite ends it.
	failed error
	join   *Join  // the last one
	joined uint64 // what writes was then
}

// result of a sync: writes up to n are durable unless err is set.
type result struct {
	n   uint64
	err error
}

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

const (
	spoolMagic     = "OWSPOOL\x01"
	recordHeader   = 24
	recordEntry    = 1
	recordJoin     = 2
	maxMeta        = 1 << 30
	walPosition    = 24
	spoolReadSize  = 256 << 10
	spoolWriteSize = 1 << 20
)

// OpenSpool opens the spool; a torn tail is cut off.
func (d *Dir) OpenSpool() (*Spool, error) {
	f, err := d.fs.OpenFile(d.file("spool"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	s := newSpool(d, f)
	err = s.start()
	if err == nil {
		err = d.syncDir() // it may be new: what is synced is nothing without its name
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("local: %s: %w", f.Name(), err)
	}
	return s, nil
}

func newSpool(d *Dir, f File) *Spool {
	s := &Spool{dir: d, f: f, block: 1}
	if b, ok := f.(BlockFile); ok {
		s.block = b.BlockSize()
	}
	return s
}

// nextBlock is where a block begins, at off or after it.
func (s *Spool) nextBlock(off int64) int64 { return (off + s.block - 1) / s.block * s.block }

// start finds the end of the valid records.
func (s *Spool) start() error {
	magic := make([]byte, len(spoolMagic))
	if n, err := s.f.ReadAt(magic, 0); n < len(magic) {
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return s.begin()
	}
	if string(magic) == string(make([]byte, len(magic))) {
		return s.begin() // the power was lost before its first sync
	}
	if string(magic) != spoolMagic {
		return fmt.Errorf("not a spool of this version (starts with %q); move it away to go on without it", magic)
	}
	fi, err := s.f.Stat()
	if err != nil {
		return err
	}
	recs, end, err := s.records(fi.Size())
	if err != nil {
		return err
	}
	for _, r := range recs {
		if r.Join != nil {
			s.join = r.Join
		}
	}
	if err := s.f.Truncate(end); err != nil {
		return err
	}
	s.end, s.size = end, s.nextBlock(end)
	return nil
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

// Append writes entries with their bodies, many in one write; the bodies read
// from the spool afterwards.
func (s *Spool) Append(recs []Record) error {
	off := s.size
	var b []byte
	for _, r := range recs {
		e := r.Entry
		n := int64(0)
		if e.Body != nil {
			n = e.Body.Size()
		}
		start := len(b)
		b = append(b, make([]byte, recordHeader+n)...)
		if n > 0 {
			if _, err := e.Body.ReadAt(b[start+recordHeader:], 0); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("local: %w", err)
			}
		}
		e.Body = s.section(off+int64(start)+recordHeader, n)
		b = segment.AppendEntry(appendPosition(b, r.Before), e)
		putHeader(b[start:], recordEntry, n)
		if len(b) >= spoolWriteSize {
			if _, err := s.f.WriteAt(b, off); err != nil {
				return fmt.Errorf("local: %w", err)
			}
			off += int64(len(b))
			b = b[:0]
		}
	}
	if _, err := s.f.WriteAt(b, off); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	s.size = off + int64(len(b))
	s.end = s.size
	s.writes++
	return nil
}

// putHeader completes a record that is in memory as a whole.
func putHeader(b []byte, kind byte, body int64) {
	b[8] = kind
	binary.BigEndian.PutUint32(b[12:], uint32(int64(len(b))-recordHeader-body))
	binary.BigEndian.PutUint64(b[16:], uint64(body))
	binary.BigEndian.PutUint64(b, xxhash.Sum64(b[8:]))
}

// Join appends a join record.
func (s *Spool) Join(j Join) error {
	w := s.newRecord(recordJoin)
	be := binary.BigEndian
	meta := be.AppendUint64(appendPosition(nil, j.End), j.Checksum)
	err := w.commit(be.AppendUint32(be.AppendUint32(meta, j.Next[0]), j.Next[1]))
	if err == nil {
		s.join, s.joined = &j, s.writes
	}
	return err
}

// SyncJoin makes the last join durable, and what was written before it.
func (s *Spool) SyncJoin() error {
	if s.join == nil || s.synced >= s.joined {
		return nil
	}
	if s.ahead != nil {
		s.settle()
	}
	if s.failed == nil && s.synced >= s.joined {
		return nil
	}
	return s.Sync()
}

// SyncAhead starts to make durable what is written so far, without waiting: the
// next Sync has less to do.
func (s *Spool) SyncAhead() {
	if s.ahead != nil || s.synced == s.writes {
		return
	}
	done, n := make(chan result, 1), s.writes
	s.ahead = done
	go func() { done <- result{n, s.f.Sync()} }()
}

// Sync makes all records durable.
func (s *Spool) Sync() error {
	if s.ahead != nil {
		s.settle()
	}
	if s.failed == nil && s.synced != s.writes {
		s.failed = s.f.Sync()
		s.synced = s.writes
	}
	if s.failed != nil {
		return fmt.Errorf("local: sync %s: %w", s.f.Name(), s.failed)
	}
	s.size = s.nextBlock(s.end) // what is durable is not written again
	return nil
}

// settle waits for SyncAhead.
func (s *Spool) settle() {
	r := <-s.ahead
	s.ahead, s.synced = nil, r.n
	if s.failed == nil {
		s.failed = r.err
	}
}

// Size is the spool's length in bytes.
func (s *Spool) Size() int64 { return s.size }

// Rewrite replaces the spool by one that has only these entries and the last
// join. Whatever moment it is interrupted at, the old or the new one is there.
// Bodies of the old one stay readable as long as somebody has them.
func (s *Spool) Rewrite(recs []Record) error {
	f, err := s.dir.fs.OpenFile(s.dir.file("spool.new"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	n := newSpool(s.dir, f)
	err = n.begin()
	if err == nil && s.join != nil {
		err = n.Join(*s.join)
	}
	if err == nil {
		err = n.Append(recs)
	}
	if err == nil {
		err = n.Sync()
	}
	if err == nil {
		err = s.dir.fs.Rename(f.Name(), s.dir.file("spool"))
	}
	if err == nil {
		err = s.dir.syncDir()
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("local: rewrite the spool: %w", err)
	}
	if s.ahead != nil {
		s.settle()
	}
	// The old file is not closed: it is when the last body is gone.
	*s = *n
	return nil
}

// begin writes an empty spool.
func (s *Spool) begin() error {
	if err := s.f.Truncate(0); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	if _, err := s.f.WriteAt([]byte(spoolMagic), 0); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	s.size = int64(len(spoolMagic))
	s.end = s.size
	s.writes++
	return nil
}

// Close closes the file; bodies can't be read afterwards.
func (s *Spool) Close() error {
	if s.ahead != nil {
		s.settle()
	}
	return s.f.Close()
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
