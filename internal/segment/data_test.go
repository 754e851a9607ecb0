package segment

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func dataHeader(kind Kind) DataHeader {
	return DataHeader{Name: testData, Kind: kind, PageSize: 512, Database: testDB, Session: testSession}
}

func zeroBlock(first uint64, n int) Block {
	b := Block{Codec: CodecZero}
	for i := range uint64(n) {
		b.Pages = append(b.Pages, Page{first + i, 7})
	}
	return b
}

// counter counts what is written and the longest write.
type counter struct {
	n, longest int
	buf        *bytes.Buffer
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	c.longest = max(c.longest, len(b))
	if c.buf != nil {
		c.buf.Write(b)
	}
	return len(b), nil
}

// A snapshot of many pages comes in many frames, each of which tells alone where
// its blocks are; nothing but the root grows.
func TestDataObject(t *testing.T) {
	const blocks = 3000
	out := &counter{buf: &bytes.Buffer{}}
	w := NewDataWriter(out, dataHeader(KindSnapshot))
	stored := bytes.Repeat([]byte{1}, 100)
	for i := range blocks {
		b := zeroBlock(uint64(i)*64+1, 64)
		b.Codec, b.Stored = CodecZstd, uint32(len(stored))
		if err := w.WriteBlock(b, stored); err != nil {
			t.Fatal(err)
		}
	}
	e := &Entry{Kind: Snapshot, Count: 9, Commit: blocks * 64, MinCommit: blocks * 64, Post: 5, FirstMono: 1, LastMono: 2}
	if err := w.EndEntry(e); err != nil {
		t.Fatal(err)
	}
	root, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err == nil {
		t.Error("closed twice")
	}
	if len(root.Frames) < 5 || root.Size != int64(out.n) || out.longest > cutHashes+cutStructure+2*544 {
		t.Errorf("%d frames, size %d of %d, longest write %d", len(root.Frames), root.Size, out.n, out.longest)
	}
	h := Header{Kind: KindSnapshot, PageSize: 512, Database: testDB, Session: testSession, MinTXID: 1, PrevChain: Hash{1}}
	b, chain, err := EncodeExternal(h, []*Entry{e}, root)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if o.Chain != chain || o.Entries != nil || o.Root.Data != testData {
		t.Errorf("%+v", o)
	}
	canonical(t, o, b)
	recs, err := readData(o, out.buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(recs) != blocks+1 || recs[blocks].Entry.Post != 5 || recs[blocks].Entry.MaxTXID != 9 {
		t.Errorf("%d records", len(recs))
	}
	lo := uint64(1)
	for i, f := range o.Root.Frames {
		if f.MinPage != lo && f.MinPage != 0 {
			t.Errorf("frame %d begins with page %d, expected %d", i, f.MinPage, lo)
		}
		lo = f.MaxPage + 1
	}
	// Frames are taken in order, all of them, and each whole.
	d := o.Frames()
	f := o.Root.Frames[1]
	if _, err := d.Next(out.buf.Bytes()[f.Offset:][:f.Size()]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("second frame first: %v", err)
	}
	if err := d.Close(); err == nil {
		t.Error("closed after an error")
	}
	if err := o.Frames().Close(); err == nil {
		t.Error("closed before the end")
	}
	if _, err := o.ParseFrame(len(o.Root.Frames), nil); err == nil {
		t.Error("a frame too many")
	}
}

func TestDataWriterRefuses(t *testing.T) {
	entry := func() *Entry {
		return &Entry{Kind: Snapshot, Count: 9, Commit: 100, MinCommit: 100, Post: 5, FirstMono: 1, LastMono: 2}
	}
	for _, tc := range []struct {
		name string
		f    func(w *DataWriter) error
		want string
	}{
		{"nothing", func(*DataWriter) error { return nil }, "0 entries"},
		{"no entry", func(w *DataWriter) error { return w.WriteBlock(zeroBlock(1, 1), nil) }, "1 blocks after"},
		{"length", func(w *DataWriter) error { return w.WriteBlock(zeroBlock(1, 1), []byte{1}) }, "comes with 1"},
		{"beyond", func(w *DataWriter) error {
			return errors.Join(w.WriteBlock(zeroBlock(101, 1), nil), w.EndEntry(entry()))
		}, "beyond"},
		{"kind", func(w *DataWriter) error {
			e := entry()
			e.Kind = Pages
			return w.EndEntry(e)
		}, "pages in a snapshot"},
		{"lock page", func(w *DataWriter) error { return w.WriteBlock(zeroBlock(LockPage(512), 1), nil) }, "lock page"},
		{"gap", func(w *DataWriter) error {
			e := entry()
			e.Pre = 1
			return errors.Join(w.EndEntry(entry()), w.EndEntry(e))
		}, "checksum before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := NewDataWriter(io.Discard, dataHeader(KindSnapshot))
			err := tc.f(w)
			if _, err2 := w.Close(); err2 == nil || err != nil && !strings.Contains(err.Error(), tc.want) || !strings.Contains(err2.Error(), tc.want) {
				t.Errorf("errors %v, %v, expected %q", err, err2, tc.want)
			}
		})
	}
	broken := NewDataWriter(failing{}, dataHeader(KindLog))
	if err := broken.WriteBlock(zeroBlock(1, 1), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a failing writer: %v", err)
	}
	for _, f := range []func(*DataHeader){
		func(h *DataHeader) { h.Kind = KindData }, func(h *DataHeader) { h.Name = ID{} },
		func(h *DataHeader) { h.Session = ID{} }, func(h *DataHeader) { h.PageSize = 3 },
	} {
		h := dataHeader(KindLog)
		f(&h)
		if _, err := NewDataWriter(io.Discard, h).Close(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A descriptor is about the data object that was written.
func TestExternalMismatch(t *testing.T) {
	e := &Entry{Kind: Snapshot, Count: 9, Commit: 100, MinCommit: 100, Post: 5, FirstMono: 1, LastMono: 2}
	w := NewDataWriter(io.Discard, dataHeader(KindSnapshot))
	if err := w.EndEntry(e); err != nil {
		t.Fatal(err)
	}
	root, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	h := Header{Kind: KindSnapshot, PageSize: 512, Database: testDB, Session: testSession, MinTXID: 1, PrevChain: Hash{1}}
	if _, _, err := EncodeExternal(h, []*Entry{e}, root); err != nil {
		t.Fatal(err)
	}
	other := *e
	other.Post++
	if _, _, err := EncodeExternal(h, []*Entry{&other}, root); !errors.Is(err, ErrInvalid) {
		t.Errorf("other entry: %v", err)
	}
	h.Session[0]++
	if _, _, err := EncodeExternal(h, []*Entry{e}, root); !errors.Is(err, ErrInvalid) {
		t.Errorf("other session: %v", err)
	}
}
