package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/outwash/outwash/internal/segment"
)

// clean is the clean-close record: the page hashes of the database as it was
// when everything was acknowledged and the log was gone, or all of it backfilled. It counts only while
// the file's fingerprint is the recorded one.
//
//	magic "OWCLEAN\x01" | u64 XXH64 of what follows | salt 2×4 | frame 8 | checksum 2×4 |
//	page size 4 | fingerprint length 4 | fingerprint | page hashes, 8 bytes each
type clean struct {
	pos         segment.WALPosition
	table       table
	fingerprint string
}

const (
	cleanMagic = "OWCLEAN\x01"
	cleanFixed = 8 + 24 + 4 + 4 // after the magic
	// clockTick is more than the step of any file system's clock that SQLite is
	// used on: a file changed longer ago than this can't be changed again
	// without its times telling.
	clockTick = 20 * time.Millisecond
)

// writeClean writes the record if the log is gone, or let go, and the database is
// as the gate left it.
func (d *DB) writeClean() error {
	if _, err := os.Stat(d.opts.Path + "-wal"); !errors.Is(err, fs.ErrNotExist) && !d.free || d.emptied == "" || d.leftover.sectors.Len() > 0 {
		return nil
	}
	if idx, err := d.index(); d.free && (err != nil || idx.Backfilled < idx.MaxFrame) {
		return nil // more was committed since the log was let go
	}
	fi, err := os.Stat(d.opts.Path)
	if err != nil {
		return nil
	}
	if age := time.Since(fi.ModTime()); age < clockTick {
		time.Sleep(clockTick - max(0, age))
	}
	if fingerprint(d.opts.Path) != d.emptied {
		return nil
	}
	// With the power could go what was written, but not that it was written.
	if err := d.syncOther(&d.durable.file, d.opts.Dir.SyncFile); err != nil {
		return err
	}
	be := binary.BigEndian
	b := make([]byte, 0, len(cleanMagic)+cleanFixed+len(d.emptied)+8*len(d.table.hashes))
	b = append(b, cleanMagic...)
	b = be.AppendUint64(b, 0)
	p := d.lastPos
	b = be.AppendUint32(be.AppendUint32(b, p.Salt[0]), p.Salt[1])
	b = be.AppendUint64(b, p.Frame)
	b = be.AppendUint32(be.AppendUint32(b, p.Checksum[0]), p.Checksum[1])
	b = be.AppendUint32(b, d.table.pageSize)
	b = be.AppendUint32(b, uint32(len(d.emptied)))
	b = append(b, d.emptied...)
	for _, h := range d.table.hashes {
		b = be.AppendUint64(b, h)
	}
	be.PutUint64(b[len(cleanMagic):], xxhash.Sum64(b[len(cleanMagic)+8:]))
	return d.opts.Dir.Replace("clean", b, true)
}

// readClean returns the record if it is that of state s and the file is still
// the one it speaks of; nil if not.
func (d *DB) readClean(s state) (*clean, error) {
	b, err := d.opts.Dir.ReadFile("clean")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	c := parseClean(b)
	if c == nil || c.pos != s.pos || c.table.sum != s.checksum || c.table.size() != s.commit ||
		c.fingerprint != fingerprint(d.opts.Path) {
		return nil, nil
	}
	return c, nil
}

func parseClean(b []byte) *clean {
	if len(b) < len(cleanMagic)+cleanFixed || string(b[:len(cleanMagic)]) != cleanMagic {
		return nil
	}
	be := binary.BigEndian
	b = b[len(cleanMagic):]
	if xxhash.Sum64(b[8:]) != be.Uint64(b) {
		return nil
	}
	b = b[8:]
	c := &clean{pos: segment.WALPosition{
		Salt:     [2]uint32{be.Uint32(b), be.Uint32(b[4:])},
		Frame:    be.Uint64(b[8:]),
		Checksum: [2]uint32{be.Uint32(b[16:]), be.Uint32(b[20:])},
	}}
	c.table.pageSize = be.Uint32(b[24:])
	n := int64(be.Uint32(b[28:]))
	b = b[32:]
	if n > int64(len(b)) || (int64(len(b))-n)%8 != 0 {
		return nil
	}
	c.fingerprint = string(b[:n])
	for b = b[n:]; len(b) > 0; b = b[8:] {
		h := be.Uint64(b)
		c.table.hashes = append(c.table.hashes, h)
		c.table.sum ^= h
	}
	return c
}
