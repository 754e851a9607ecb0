package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/segment"
)

// blockFS has files of which blocks are written.
type blockFS struct{ OS }

type blockFile struct{ File }

func (blockFile) BlockSize() int64 { return 512 }

func (b blockFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := b.OS.OpenFile(name, flag, perm)
	return blockFile{f}, err
}

// TestSpoolBlocks: what was synced is never in a block that is written again, so
// that a power failure which takes the last block takes nothing of it.
func TestSpoolBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	d, err := OpenFS(path, blockFS{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := d.OpenSpool()
	if err != nil {
		t.Fatal(err)
	}
	add := func(n uint64) {
		t.Helper()
		e := &segment.Entry{Kind: segment.Transaction, Count: 1, Commit: n, MinCommit: n, PageSize: 512}
		if err := s.Append([]Record{{Entry: e}}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...uint64) {
		t.Helper()
		recs, err := s.Records()
		if err != nil || len(recs) != len(want) {
			t.Fatalf("%d records, want %v: %v", len(recs), want, err)
		}
		for i, r := range recs {
			if r.Entry.Commit != want[i] {
				t.Errorf("record %d is that of %d, want %v", i, r.Entry.Commit, want)
			}
		}
	}
	add(1)
	add(2)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	durable := s.Size()
	if durable%512 != 0 {
		t.Errorf("what is durable ends at %d, within a block", durable)
	}
	add(3)
	check(1, 2, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The power fails: the block that was being written is noise.
	f, err := os.OpenFile(filepath.Join(d.Path(), "spool"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for off := durable; off < fi.Size(); off++ {
		f.WriteAt([]byte{0xa5}, off)
	}
	f.Close()
	if s, err = d.OpenSpool(); err != nil {
		t.Fatal(err)
	}
	check(1, 2)
	add(4)
	check(1, 2, 4)
	if err := s.Rewrite(nil); err != nil {
		t.Fatal(err)
	}
	check()
	add(5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = d.OpenSpool(); err != nil {
		t.Fatal(err)
	}
	check(5)
	s.Close()
}
