package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

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
