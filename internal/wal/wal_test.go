package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
)

// sample returns the database, WAL and WAL-index that SQLite makes of two commits.
func sample(t testing.TB) (db, log, index []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.db")
	c, err := sqlite3.Open("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec("PRAGMA page_size=1024; PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(3000))"); err != nil {
		t.Fatal(err)
	}
	var b [3][]byte
	for i, s := range []string{"", "-wal", "-shm"} {
		if b[i], err = os.ReadFile(path + s); err != nil {
			t.Fatal(err)
		}
	}
	return b[0], b[1], b[2]
}

// TestSQLite reads what SQLite wrote: the chain of checksums leads from the header
// over every frame to what the WAL-index says.
func TestSQLite(t *testing.T) {
	db, log, index := sample(t)
	d, ok := ParseDatabaseHeader(db)
	if !ok || d.PageSize != 1024 || !d.WAL || d.Reserved != 0 {
		t.Errorf("database header %+v %v", d, ok)
	}
	h, err := ReadHeader(bytes.NewReader(log))
	if err != nil || h.PageSize != 1024 {
		t.Fatal(h, err)
	}
	idx, err := ReadIndex(bytes.NewReader(index))
	if err != nil {
		t.Fatal(err)
	}
	if idx.Salt != h.Salt || idx.PageSize != 1024 || idx.MaxFrame == 0 {
		t.Fatalf("%+v %+v", idx, h)
	}
	sum, commits := h.Checksum, 0
	var last Frame
	for no := uint32(1); no <= idx.MaxFrame; no++ {
		b := log[FrameOffset(no, 1024):][:FrameSize(1024)]
		last = ParseFrame(b)
		sum = Checksum(h.BigEndian, sum, b[:8])
		sum = Checksum(h.BigEndian, sum, b[FrameHeaderSize:])
		if last.Salt != h.Salt || last.Checksum != sum {
			t.Fatalf("frame %d: %+v, computed %08x", no, last, sum)
		}
		if last.Commit != 0 {
			commits++
		}
	}
	if sum != idx.Checksum || last.Commit != idx.Pages || commits != 2 {
		t.Errorf("%d commits end at %08x with %d pages, the index says %+v", commits, sum, last.Commit, idx)
	}
}

func TestChecksumByteOrder(t *testing.T) {
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(i * 7)
	}
	swapped := make([]byte, len(b))
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(swapped[i:], binary.LittleEndian.Uint32(b[i:]))
	}
	if a, c := Checksum(false, [2]uint32{1, 2}, b), Checksum(true, [2]uint32{1, 2}, swapped); a != c {
		t.Errorf("%08x %08x", a, c)
	}
}

// TestFlippedBits: a header is all or nothing.
func TestFlippedBits(t *testing.T) {
	_, log, index := sample(t)
	for i := range HeaderSize * 8 {
		b := bytes.Clone(log[:HeaderSize])
		b[i/8] ^= 1 << (i % 8)
		if _, err := ParseHeader(b); !errors.Is(err, ErrHeader) {
			t.Errorf("WAL header with bit %d flipped: %v", i, err)
		}
	}
	for i := range indexHeaderSize * 8 {
		b := bytes.Clone(index)
		b[i/8] ^= 1 << (i % 8)
		if i%97 == 0 { // it takes a while: a writer may be between the copies
			if _, err := ReadIndex(bytes.NewReader(b)); !errors.Is(err, ErrTorn) {
				t.Errorf("WAL-index with bit %d flipped in one copy: %v", i, err)
			}
		}
		b[indexHeaderSize+i/8] ^= 1 << (i % 8)
		if _, err := ReadIndex(bytes.NewReader(b)); err == nil {
			t.Errorf("WAL-index with bit %d flipped in both copies was read", i)
		}
	}
}

func TestShortFiles(t *testing.T) {
	db, log, index := sample(t)
	if _, err := ReadHeader(bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Error("an empty WAL:", err)
	}
	for n := 1; n < HeaderSize; n++ {
		if _, err := ReadHeader(bytes.NewReader(log[:n])); !errors.Is(err, ErrHeader) {
			t.Errorf("%d bytes of a WAL: %v", n, err)
		}
	}
	for n := range 100 {
		if _, err := ReadIndex(bytes.NewReader(index[:n])); !errors.Is(err, ErrIndex) {
			t.Errorf("%d bytes of a WAL-index: %v", n, err)
		}
		if _, ok := ParseDatabaseHeader(db[:n]); ok {
			t.Errorf("%d bytes are a database", n)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	_, log, _ := sample(f)
	f.Add(log[:HeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err == nil && (h.PageSize < 512 || h.PageSize > 65536 || h.PageSize&(h.PageSize-1) != 0) {
			t.Errorf("page size %d", h.PageSize)
		}
	})
}

func FuzzReadIndex(f *testing.F) {
	_, _, index := sample(f)
	f.Add(index[:136])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ReadIndex(bytes.NewReader(b)); err == nil && !bytes.Equal(b[:indexHeaderSize], b[indexHeaderSize:2*indexHeaderSize]) {
			t.Error("copies differ")
		}
	})
}

func FuzzParseDatabaseHeader(f *testing.F) {
	db, _, _ := sample(f)
	f.Add(db[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, ok := ParseDatabaseHeader(b); ok && (h.PageSize < 512 || h.PageSize > 65536) {
			t.Errorf("page size %d", h.PageSize)
		}
	})
}
