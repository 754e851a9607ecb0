package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/outwash/outwash/internal/wal"
)

// File is an open file of the database: an *os.File, or one that the VFS reads
// which wrote it, because on disk it is something else. Only one goroutine uses
// it at a time.
//
// Such a VFS reads more than it is asked for: whole blocks of its encryption. A
// writer may be replacing the block that has the end of what is committed, and a
// mixture of both decrypts to noise. So what such a file gives is only believed if
// something proves it: the checksums of the log, the hash of a page, or that it
// reads the same again.
type File interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

// openFile opens the database or its log.
func (d *DB) openFile(name string) (File, error) {
	if d.opts.OpenFile != nil {
		return d.opts.OpenFile(name)
	}
	return openPlain(name)
}

func openPlain(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err // not a File that has a nil in it
	}
	return f, nil
}

// isPlain reports whether a file gives the committed bytes whatever is written
// beside them.
func isPlain(f io.ReaderAt) bool {
	_, ok := f.(*os.File)
	return ok
}

// again runs try until it is content, for a file that is not plain: a writer may
// be replacing what was read.
func again(f io.ReaderAt, try func() bool) bool {
	for range 50 {
		if try() {
			return true
		}
		if isPlain(f) {
			return false
		}
		time.Sleep(100 * time.Microsecond)
	}
	return false
}

// readWALHeader is wal.ReadHeader for any file.
func readWALHeader(f io.ReaderAt) (h wal.Header, err error) {
	again(f, func() bool {
		h, err = wal.ReadHeader(f)
		return !errors.Is(err, wal.ErrHeader)
	})
	return h, err
}

// readProven reads the page of a frame into b as its checksum says it is.
func readProven(f io.ReaderAt, frame uint32, b []byte) error {
	size := uint32(len(b))
	before := int64(24) // the WAL header's checksum
	if frame > 1 {
		before = wal.FrameOffset(frame-1, size) + 16
	}
	buf := make([]byte, 8+wal.FrameHeaderSize+len(b))
	sum, whole := buf[:8], buf[8:]
	var err error
	ok := again(f, func() bool {
		if _, err = f.ReadAt(sum, before); err != nil {
			return true
		}
		if _, err = f.ReadAt(whole, wal.FrameOffset(frame, size)); err != nil {
			return true
		}
		return wal.Follows(sum, whole)
	})
	switch {
	case err != nil:
		return fmt.Errorf("capture: read WAL frame %d: %w", frame, err)
	case !ok:
		return fmt.Errorf("capture: WAL frame %d doesn't have its checksum", frame)
	}
	copy(b, whole[wal.FrameHeaderSize:])
	return nil
}

// encryptionBlock is more than what VFSes that are known encrypt at once: pages as
// large as that are alone in theirs.
const encryptionBlock = 4096

// readAlone reads a page of the database file that nobody writes now; but a
// checkpoint may be writing its neighbours.
func readAlone(f io.ReaderAt, no uint64, b []byte) error {
	if isPlain(f) || len(b) >= encryptionBlock {
		return readPage(f, no, b)
	}
	var err error
	second := make([]byte, len(b))
	ok := again(f, func() bool {
		err = errors.Join(readPage(f, no, b), readPage(f, no, second))
		return err != nil || string(b) == string(second)
	})
	if !ok {
		return fmt.Errorf("capture: page %d reads differently each time", no)
	}
	return err
}

// ErrUnreadable means that a file that has content is not an SQLite database, as it is read.
var ErrUnreadable = errors.New("is not an SQLite database, or it is encrypted")

// readDatabaseHeader reads the header of a database file.
func readDatabaseHeader(f File, path string) (h wal.DatabaseHeader, err error) {
	var b [100]byte
	ok := false
	again(f, func() bool {
		n, _ := f.ReadAt(b[:], 0)
		h, ok = wal.ParseDatabaseHeader(b[:n])
		return ok || n < len(b)
	})
	if !ok {
		return h, fmt.Errorf("capture: %s %w", path, ErrUnreadable)
	}
	if h.Reserved == checksumBytes {
		return h, fmt.Errorf("capture: %s: %w", path, ErrChecksums)
	}
	fi, err := f.Stat()
	if err != nil {
		return h, fmt.Errorf("capture: %w", err)
	}
	// The header's size is current once all is backfilled; it is not there at all
	// if SQLite before 3.7 wrote the file.
	if n := uint32(fi.Size() / int64(h.PageSize)); h.Pages == 0 || h.Pages > n {
		h.Pages = n
	}
	return h, nil
}

// CheckReadable reports whether a file that has content is a database. "" and
// missing files are nothing to complain about.
func CheckReadable(path string, open func(string) (File, error)) error {
	if hasJournal(path) {
		return nil // perhaps it is none yet: see playBack
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() == 0 {
		return nil // whoever opens it says what is wrong
	}
	if open == nil {
		open = openPlain
	}
	f, err := open(path)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer f.Close()
	_, err = readDatabaseHeader(f, path)
	return err
}
