package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/outwash/outwash/internal/wal"
)

// walked is what a walk along the log found.
type walked struct {
	from    mark
	end     mark     // at the last commit frame
	pages   []uint32 // page number of frame from.frame+1+i; beyond end: uncommitted
	commits []commit
}

// commit is one commit frame.
type commit struct {
	frame    uint32
	pages    uint32 // size of the database
	checksum [2]uint32
}

// walk follows the checksum chain from m to at most frame last, and stops where
// it breaks. Nothing is emitted from a log that was not followed to its end.
// The result is valid until the next walk.
func (d *DB) walk(m mark, last uint32) (walked, error) {
	return walk(d.wal, d.table.pageSize, m, last, d.buffers())
}

func walk(f io.ReaderAt, pageSize uint32, m mark, last uint32, bufs *buffers) (walked, error) {
	w := walked{from: m, end: m, pages: bufs.pages[:0], commits: bufs.commits[:0]}
	size := wal.FrameSize(pageSize)
	chunk := bufs.chunk(max(1, (256<<10)/size) * size)
	sum, frame, tries := m.checksum, m.frame, 0
	// again reports whether to read once more where the chain breaks: what is to be
	// there is known, and it may be read while it is written.
	again := func() bool {
		tries++
		if isPlain(f) || last == math.MaxUint32 || tries > 50 {
			return false
		}
		time.Sleep(100 * time.Microsecond)
		return true
	}
loop:
	for frame < last {
		b := chunk[:min(int64(len(chunk)), int64(last-frame)*size)]
		n, err := f.ReadAt(b, wal.FrameOffset(frame+1, pageSize))
		if err != nil && !errors.Is(err, io.EOF) {
			return w, fmt.Errorf("capture: read WAL: %w", err)
		}
		b = b[:int64(n)/size*size]
		if len(b) == 0 {
			break
		}
		for ; len(b) > 0; b = b[size:] {
			h := wal.ParseFrame(b)
			next := wal.Checksum(m.bigEnd, sum, b[:8])
			if h.Salt == m.salt {
				next = wal.Checksum(m.bigEnd, next, b[wal.FrameHeaderSize:size])
			}
			if h.Salt != m.salt || next != h.Checksum || h.Page == 0 {
				if again() {
					continue loop
				}
				break loop
			}
			sum = next
			frame++
			w.pages = append(w.pages, h.Page)
			if h.Commit != 0 {
				w.commits = append(w.commits, commit{frame, h.Commit, sum})
				w.end.frame, w.end.checksum = frame, sum
			}
		}
	}
	bufs.pages, bufs.commits = w.pages, w.commits
	return w, nil
}

func (d *DB) readHeader() (wal.Header, error) {
	h, err := readWALHeader(d.wal)
	if err != nil {
		return h, fmt.Errorf("capture: %s-wal: %w", d.opts.Path, err)
	}
	return h, nil
}

// readFrame reads the page of a frame into b, which has a page's size.
func readFrame(f io.ReaderAt, frame uint32, b []byte) error {
	if !isPlain(f) {
		return readProven(f, frame, b)
	}
	if _, err := f.ReadAt(b, wal.FrameOffset(frame, uint32(len(b)))+wal.FrameHeaderSize); err != nil {
		return fmt.Errorf("capture: read WAL frame %d: %w", frame, err)
	}
	return nil
}

// readPage reads a page of the database file; what is beyond its end is zero.
func readPage(f io.ReaderAt, no uint64, b []byte) error {
	n, err := f.ReadAt(b, int64(no-1)*int64(len(b)))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("capture: read page %d: %w", no, err)
	}
	clear(b[n:])
	return nil
}

// reopen keeps a handle in line with the name on disk; false if there is no file.
func reopen(f *File, name string, open func(string) (File, error)) (bool, error) {
	now, err := os.Stat(name)
	if err == nil && *f != nil {
		if old, err := (*f).Stat(); err == nil && os.SameFile(now, old) {
			return true, nil
		}
	}
	if *f != nil {
		(*f).Close()
		*f = nil
	}
	if err == nil {
		*f, err = open(name)
	}
	if err != nil {
		*f = nil
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("capture: %w", err)
	}
	return true, nil
}

// buffers are reused by whoever holds DB.mu. They wait in a pool for the next
// database that has something to capture: of many, few have at a time.
type buffers struct {
	pages   []uint32
	commits []commit
	read    []byte
	order   []uint64
	gather  gather
	body    []byte
	new     []byte
	old     []byte
}

var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

// buffers returns what may be used until releaseBuffers.
func (d *DB) buffers() *buffers {
	if d.bufs == nil {
		d.bufs = bufferPool.Get().(*buffers)
	}
	return d.bufs
}

func (d *DB) releaseBuffers() {
	if d.bufs != nil {
		bufferPool.Put(d.bufs)
		d.bufs = nil
	}
}

func (b *buffers) chunk(n int64) []byte {
	if int64(cap(b.read)) < n {
		b.read = make([]byte, n)
	}
	return b.read[:n]
}

func (b *buffers) page(n uint32) []byte {
	b.new = slices.Grow(b.new[:0], int(n))[:n]
	return b.new
}

func (b *buffers) oldPage(n uint32) []byte {
	b.old = slices.Grow(b.old[:0], int(n))[:n]
	return b.old
}
