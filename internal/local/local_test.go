package local

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/segment"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t testing.TB) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "t.db"))
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// record is the n-th of a chain of entries.
func record(n int) Record {
	page := bytes.Repeat([]byte{byte(n + 1)}, 512)
	pos := func(n int) segment.WALPosition {
		return segment.WALPosition{Salt: [2]uint32{7, 8}, Frame: uint64(n), Checksum: [2]uint32{uint32(n), 9}}
	}
	return Record{Before: pos(n), Entry: &segment.Entry{
		Kind: segment.Transaction, Count: 1, PageSize: 512, Commit: 3, MinCommit: 3, PreCommit: 3,
		Pre: uint64(n), Post: uint64(n + 1), WAL: pos(n + 1), FirstMono: 5, LastMono: 5, FirstRaw: 5, LastRaw: 5,
		Blocks: []segment.Block{{Codec: segment.CodecRaw, Stored: 512, Pages: []segment.Page{{No: 2, Hash: segment.PageHash(2, page)}}}},
		Body:   segment.BytesBody(page),
	}}
}

// check compares records with record(from), record(from+1), …; joins are skipped.
func check(t testing.TB, recs []Record, from, n int) {
	t.Helper()
	i := from
	for _, r := range recs {
		if r.Join != nil {
			continue
		}
		want := record(i)
		a, b := make([]byte, want.Entry.Body.Size()), make([]byte, r.Entry.Body.Size())
		want.Entry.Body.ReadAt(a, 0)
		r.Entry.Body.ReadAt(b, 0)
		if r.Before != want.Before || r.Entry.Post != want.Entry.Post || r.Entry.WAL != want.Entry.WAL || !bytes.Equal(a, b) {
			t.Fatalf("record %d: %+v, body %q", i, r.Entry, b)
		}
		i++
	}
	if i != from+n {
		t.Fatalf("%d entries, want %d", i-from, n)
	}
}

func TestSpool(t *testing.T) {
	d := openDir(t)
	s, err := d.OpenSpool()
	must(t, err)
	must(t, s.Append([]Record{record(0), record(1)}))
	must(t, s.Join(Join{End: record(1).Entry.WAL, Checksum: 2, Next: [2]uint32{5, 6}}))
	w := s.NewEntry()
	body := make([]byte, record(2).Entry.Body.Size())
	record(2).Entry.Body.ReadAt(body, 0)
	_, err = w.Write(body)
	must(t, err)
	e := record(2)
	_, err = w.Commit(e.Entry, e.Before)
	must(t, err)
	s.SyncAhead()
	must(t, s.Sync())
	recs, err := s.Records()
	must(t, err)
	check(t, recs, 0, 3)

	// An entry that was begun and not committed doesn't count.
	_, err = s.NewEntry().Write(make([]byte, 1000))
	must(t, err)
	must(t, s.Close())
	s, err = d.OpenSpool()
	must(t, err)
	recs, err = s.Records()
	must(t, err)
	check(t, recs, 0, 3)

	// Rewritten, it has what it is given and the last join; old bodies can be read.
	old := recs
	must(t, s.Rewrite([]Record{record(1), record(2)}))
	check(t, old, 0, 3)
	must(t, s.Append([]Record{record(3)}))
	must(t, s.Close())
	s, err = d.OpenSpool()
	must(t, err)
	defer s.Close()
	recs, err = s.Records()
	must(t, err)
	check(t, recs, 1, 3)
	if j := recs[0].Join; j == nil || j.Next != [2]uint32{5, 6} || j.Checksum != 2 {
		t.Errorf("the join is %+v", j)
	}
}

// TestSpoolTorn cuts the spool at every length and flips every byte: what is read
// is the records before, whole, and the spool goes on from there.
func TestSpoolTorn(t *testing.T) {
	d := openDir(t)
	s, err := d.OpenSpool()
	must(t, err)
	ends := []int64{s.Size()}
	for n := range 3 {
		must(t, s.Append([]Record{record(n)}))
		ends = append(ends, s.Size())
	}
	must(t, s.Close())
	whole, err := os.ReadFile(d.file("spool"))
	must(t, err)
	for at := range whole {
		for _, cut := range []bool{true, false} {
			b := bytes.Clone(whole)
			if cut {
				b = b[:at]
			} else {
				b[at] ^= 0x40
			}
			must(t, os.WriteFile(d.file("spool"), b, 0o600))
			s, err := d.OpenSpool()
			if at < len(spoolMagic) && !cut {
				if err == nil {
					t.Fatal("a spool of another version was read")
				}
				continue
			}
			must(t, err)
			want := 0
			for want < 3 && ends[want+1] <= int64(at) {
				want++
			}
			recs, err := s.Records()
			must(t, err)
			check(t, recs, 0, want)
			must(t, s.Append([]Record{record(want)}))
			recs, err = s.Records()
			must(t, err)
			check(t, recs, 0, want+1)
			must(t, s.Close())
		}
	}
}

func TestOneShipper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	a, err := Open(path)
	must(t, err)
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("a second shipper: %v", err)
	}
	fi, err := os.Stat(path + Suffix)
	must(t, err)
	if fi.Mode().Perm() != 0o700 {
		t.Error(fi.Mode())
	}
	must(t, a.Close())
	b, err := Open(path)
	must(t, err)
	must(t, b.Close())
}

func FuzzSpool(f *testing.F) {
	d := openDir(f)
	s, err := d.OpenSpool()
	must(f, err)
	must(f, s.Append([]Record{record(0)}))
	must(f, s.Join(Join{Checksum: 1}))
	must(f, s.Close())
	b, err := os.ReadFile(d.file("spool"))
	must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		must(t, os.WriteFile(d.file("spool"), b, 0o600))
		s, err := d.OpenSpool()
		if err != nil {
			return
		}
		defer s.Close()
		if _, err := s.Records(); err != nil {
			t.Error("valid when it was opened:", err)
		}
	})
}

// TestSpoolNeverSynced: a loss of power leaves zeros of what wasn't synced.
func TestSpoolNeverSynced(t *testing.T) {
	d := openDir(t)
	must(t, os.WriteFile(d.file("spool"), make([]byte, 100), 0o600))
	s, err := d.OpenSpool()
	must(t, err)
	if recs, err := s.Records(); err != nil || len(recs) > 0 {
		t.Error(recs, err)
	}
	must(t, s.Join(Join{}))
	must(t, s.Close())
}
