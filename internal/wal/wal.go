// Package wal reads the bytes of SQLite's write-ahead log and of its WAL-index.
//
// Sources: https://sqlite.org/fileformat2.html#walformat and
// https://sqlite.org/walformat.html. A WAL is a 32-byte header and frames of a
// 24-byte header and a page each. A frame belongs to the log if it has the
// header's salts and the checksum chain reaches it; it ends a transaction if its
// commit size is not zero. The WAL-index (-shm) says how far the log is
// committed: a commit is visible once its header says so.
package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Sizes of the parts of a WAL file, in bytes.
const (
	HeaderSize      = 32
	FrameHeaderSize = 24
)

// Errors of this package.
var (
	// ErrHeader: the bytes are no valid WAL header.
	ErrHeader = errors.New("wal: invalid WAL header")
	// ErrIndex: the WAL-index is missing, not initialised, or being recovered.
	ErrIndex = errors.New("wal: WAL-index not readable")
	// ErrTorn: its copies keep differing: a writer is between them, or died there.
	ErrTorn = errors.New("wal: WAL-index is being written")
)

// Checksum continues SQLite's WAL checksum over b, whose length is a multiple of
// 8. bigEndian is the byte order that the WAL's magic announces.
func Checksum(bigEndian bool, sum [2]uint32, b []byte) [2]uint32 {
	s0, s1 := sum[0], sum[1]
	if bigEndian {
		for ; len(b) >= 8; b = b[8:] {
			s0 += binary.BigEndian.Uint32(b) + s1
			s1 += binary.BigEndian.Uint32(b[4:]) + s0
		}
		return [2]uint32{s0, s1}
	}
	for ; len(b) >= 8; b = b[8:] {
		v := binary.LittleEndian.Uint64(b)
		s0 += uint32(v) + s1
		s1 += uint32(v>>32) + s0
	}
	return [2]uint32{s0, s1}
}

// Header is the header of a WAL file.
type Header struct {
	BigEndian bool // byte order of the checksums
	PageSize  uint32
	Salt      [2]uint32 // the WAL's generation
	Checksum  [2]uint32 // where the frames' chain starts
}

// ParseHeader reads the first HeaderSize bytes of a WAL file.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrHeader, len(b))
	}
	be := binary.BigEndian
	magic := be.Uint32(b)
	h := Header{
		BigEndian: magic&1 != 0,
		PageSize:  be.Uint32(b[8:]),
		Salt:      [2]uint32{be.Uint32(b[16:]), be.Uint32(b[20:])},
		Checksum:  [2]uint32{be.Uint32(b[24:]), be.Uint32(b[28:])},
	}
	switch {
	case magic&^1 != 0x377f0682:
		return Header{}, fmt.Errorf("%w: magic %08x", ErrHeader, magic)
	case h.PageSize < 512 || h.PageSize > 65536 || h.PageSize&(h.PageSize-1) != 0:
		return Header{}, fmt.Errorf("%w: page size %d", ErrHeader, h.PageSize)
	case Checksum(h.BigEndian, [2]uint32{}, b[:24]) != h.Checksum:
		return Header{}, fmt.Errorf("%w: checksum", ErrHeader)
	}
	return h, nil
}

// ReadHeader reads the header of a WAL file; io.EOF if the file is empty.
func ReadHeader(r io.ReaderAt) (Header, error) {
	var b [HeaderSize]byte
	n, err := r.ReadAt(b[:], 0)
	switch {
	case n == HeaderSize:
		return ParseHeader(b[:])
	case n == 0 && errors.Is(err, io.EOF):
		return Header{}, io.EOF
	case err != nil && !errors.Is(err, io.EOF):
		return Header{}, fmt.Errorf("wal: %w", err)
	}
	return Header{}, fmt.Errorf("%w: %d bytes", ErrHeader, n)
}

// FrameSize is the size of one frame with its header.
func FrameSize(pageSize uint32) int64 { return int64(pageSize) + FrameHeaderSize }

// FrameOffset is where frame no (from 1) starts in the WAL file.
func FrameOffset(no uint32, pageSize uint32) int64 {
	return HeaderSize + int64(no-1)*FrameSize(pageSize)
}

// Frame is the header of one frame.
type Frame struct {
	Page     uint32 // page number
	Commit   uint32 // database size in pages after the commit; 0: not a commit frame
	Salt     [2]uint32
	Checksum [2]uint32 // running checksum that the frame claims
}

// ParseFrame reads the first FrameHeaderSize bytes of a frame.
func ParseFrame(b []byte) Frame {
	be := binary.BigEndian
	_ = b[FrameHeaderSize-1]
	return Frame{
		Page:     be.Uint32(b),
		Commit:   be.Uint32(b[4:]),
		Salt:     [2]uint32{be.Uint32(b[8:]), be.Uint32(b[12:])},
		Checksum: [2]uint32{be.Uint32(b[16:]), be.Uint32(b[20:])},
	}
}

// Follows reports whether a whole frame follows on the 8 bytes of the checksum
// before it, in either byte order.
func Follows(before, frame []byte) bool {
	be := binary.BigEndian
	for _, bigEndian := range []bool{false, true} {
		sum := Checksum(bigEndian, [2]uint32{be.Uint32(before), be.Uint32(before[4:])}, frame[:8])
		if Checksum(bigEndian, sum, frame[FrameHeaderSize:]) == ParseFrame(frame).Checksum {
			return true
		}
	}
	return false
}

// Index is the header of the WAL-index: what is committed.
type Index struct {
	PageSize uint32
	MaxFrame uint32 // last committed frame; 0: the log is empty
	Pages    uint32 // database size in pages
	Checksum [2]uint32
	Salt     [2]uint32
	// Backfilled frames are in the database file. It is stored late and reset by
	// recovery: a lower bound only.
	Backfilled uint32
}

const indexHeaderSize = 48

// ReadIndex reads the WAL-index from a -shm file without any lock: two equal
// copies with a valid checksum are a header that was current at one instant
// (https://sqlite.org/walformat.html#the_wal_index_header).
func ReadIndex(r io.ReaderAt) (Index, error) {
	var b [2*indexHeaderSize + 40]byte
	for try := range 200 {
		if try >= 100 { // the writer was preempted
			time.Sleep(100 * time.Microsecond)
		}
		if n, err := r.ReadAt(b[:], 0); n < len(b) {
			return Index{}, fmt.Errorf("%w: %w", ErrIndex, err)
		}
		if string(b[:indexHeaderSize]) != string(b[indexHeaderSize:2*indexHeaderSize]) {
			continue // a writer is between the copies
		}
		return parseIndex(b[:])
	}
	return Index{}, ErrTorn
}

func parseIndex(b []byte) (Index, error) {
	// The WAL-index is shared memory, in the host's byte order.
	ne := binary.NativeEndian
	var s0, s1 uint32
	for p := b[:40]; len(p) > 0; p = p[8:] {
		s0 += ne.Uint32(p) + s1
		s1 += ne.Uint32(p[4:]) + s0
	}
	if b[12] == 0 || s0 != ne.Uint32(b[40:]) || s1 != ne.Uint32(b[44:]) {
		return Index{}, fmt.Errorf("%w: not initialised", ErrIndex)
	}
	size := uint32(ne.Uint16(b[14:]))
	be := binary.BigEndian // the salts are copied as they stand in the WAL
	return Index{
		PageSize:   size&0xfe00 + (size&1)<<16,
		MaxFrame:   ne.Uint32(b[16:]),
		Pages:      ne.Uint32(b[20:]),
		Checksum:   [2]uint32{ne.Uint32(b[24:]), ne.Uint32(b[28:])},
		Salt:       [2]uint32{be.Uint32(b[32:]), be.Uint32(b[36:])},
		Backfilled: ne.Uint32(b[96:]),
	}, nil
}

// DatabaseHeader is what capture needs of the first 100 bytes of a database
// (https://sqlite.org/fileformat2.html#the_database_header).
type DatabaseHeader struct {
	PageSize uint32
	WAL      bool // the file is in WAL mode (read and write version 2)
	Pages    uint32
	Reserved uint8 // bytes at the end of each page that SQLite leaves alone
}

// IsDatabase reports whether a file that begins with b may be a database.
func IsDatabase(b []byte) bool { return bytes.HasPrefix(b, []byte("SQLite format 3\x00")) }

// ParseDatabaseHeader reads the first 100 bytes of a database file; ok is false
// if they are not a database's (too short, encrypted, another format).
func ParseDatabaseHeader(b []byte) (h DatabaseHeader, ok bool) {
	if len(b) < 100 || !IsDatabase(b) {
		return h, false
	}
	h.PageSize = uint32(binary.BigEndian.Uint16(b[16:]))
	if h.PageSize == 1 {
		h.PageSize = 65536
	}
	h.WAL = b[18] == 2 && b[19] == 2
	h.Pages = binary.BigEndian.Uint32(b[28:])
	h.Reserved = b[20]
	return h, h.PageSize >= 512 && h.PageSize&(h.PageSize-1) == 0
}
