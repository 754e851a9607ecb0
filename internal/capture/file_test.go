package capture

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/wal"
)

// torn is a file that is not plain, of which the first reads are noise.
type torn struct {
	File
	reads, noise int
}

func (f *torn) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if f.reads++; f.reads <= f.noise {
		for i := range b[:n] {
			b[i] ^= byte(f.reads*31 + i)
		}
	}
	return n, err
}

// TestTornReads: what is read while a writer replaces its block is read again, and
// is never taken for content.
func TestTornReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	c, err := sqlite3.Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec("PRAGMA page_size=512; PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(5000)); INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	open := func(name string, noise int) *torn {
		f, err := openPlain(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return &torn{File: f, noise: noise}
	}
	plain, err := os.Open(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	h, err := wal.ReadHeader(plain)
	if err != nil {
		t.Fatal(err)
	}
	from := mark{salt: h.Salt, bigEnd: h.BigEndian, checksum: h.Checksum}
	want, err := walk(plain, 512, from, 1<<31, &buffers{})
	if err != nil || len(want.commits) < 3 {
		t.Fatal(want, err)
	}
	for _, noise := range []int{1, 2, 3} {
		if got, err := readWALHeader(open(path+"-wal", noise)); err != nil || got != h {
			t.Error(got, err)
		}
		w, err := walk(open(path+"-wal", noise), 512, from, want.end.frame, &buffers{})
		if err != nil || w.end != want.end {
			t.Errorf("walked to %+v, want %+v (%v)", w.end, want.end, err)
		}
		for frame := uint32(1); frame <= want.end.frame; frame++ {
			a, b := make([]byte, 512), make([]byte, 512)
			err := errors.Join(readFrame(plain, frame, a), readFrame(open(path+"-wal", noise), frame, b))
			if err != nil || !bytes.Equal(a, b) {
				t.Fatalf("frame %d: %v", frame, err)
			}
		}
	}
	if err := c.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	if h, err := readDatabaseHeader(open(path, 3), path); err != nil || h.PageSize != 512 {
		t.Error(h, err)
	}
	// All noise is no page, no frame and no header.
	never := &noise{open(path, 0)}
	b := make([]byte, 512)
	if err := readAlone(never, 2, b); err == nil {
		t.Error("a page that is never the same was read")
	}
	if err := readFrame(never, 2, b); err == nil {
		t.Error("a frame without its checksum was read")
	}
	if _, err := readDatabaseHeader(never, path); !errors.Is(err, ErrUnreadable) {
		t.Error(err)
	}
}

// noise is never the same.
type noise struct{ *torn }

func (f *noise) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.reads++
	for i := range b[:n] {
		b[i] ^= byte(f.reads + i)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	return len(b), err
}
