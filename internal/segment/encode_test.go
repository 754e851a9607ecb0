package segment

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// plainEntry is a transaction of n raw pages from page first on.
func plainEntry(first uint64, n int, pre *Entry) *Entry {
	e := &Entry{Kind: Transaction, Count: 1, FirstMono: testTime, LastMono: testTime, FirstRaw: testTime, LastRaw: testTime}
	if pre != nil {
		e.Pre, e.PreCommit = pre.Post, pre.Commit
	}
	var body []byte
	for len(body) < n*512 {
		var b Block
		for range min(64, n-len(body)/512) {
			p := random(512)
			b.Pages = append(b.Pages, Page{first, PageHash(first, p)})
			body = append(body, p...)
			first++
		}
		b.Stored = uint32(len(b.Pages) * 512)
		e.Blocks = append(e.Blocks, b)
	}
	e.Post, e.Commit, e.MinCommit = 0x1234, max(first-1, e.PreCommit, 1), max(first-1, e.PreCommit, 1)
	e.Body = BytesBody(body)
	return e
}

func plainHeader() Header {
	return Header{Kind: KindLog, PageSize: 512, Database: testDB, Session: testSession, MinTXID: 2, PrevChain: Hash{1}}
}

// Nothing that the decoder would refuse is encoded.
func TestEncodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    func(h *Header, a, b *Entry)
		want string
	}{
		{"gap in the checksum", func(_ *Header, _, b *Entry) { b.Pre++ }, "checksum before"},
		{"gap in the size", func(_ *Header, _, b *Entry) { b.PreCommit++ }, "checksum before"},
		{"earlier entry", func(_ *Header, _, b *Entry) { b.FirstMono-- }, "in order"},
		{"negative raw time", func(_ *Header, _, b *Entry) { b.LastRaw = -1 }, "0 or more"},
		{"no TXIDs", func(_ *Header, a, _ *Entry) { a.Count = 0 }, "TXIDs"},
		{"two TXIDs", func(_ *Header, a, _ *Entry) { a.Count = 2 }, "expected 1"},
		{"past the last TXID", func(h *Header, _, _ *Entry) { h.MinTXID = MaxTXID }, "TXIDs"},
		{"TXID 0", func(h *Header, _, _ *Entry) { h.MinTXID = 0 }, "TXIDs"},
		{"TXID 1 is no claim", func(h *Header, _, _ *Entry) { h.MinTXID, h.PrevChain = 1, Hash{} }, "not a claim"},
		{"no chain", func(h *Header, _, _ *Entry) { h.PrevChain = Hash{} }, "chain value"},
		{"no database", func(h *Header, _, _ *Entry) { h.Database = ID{} }, "database"},
		{"no session", func(h *Header, _, _ *Entry) { h.Session = ID{} }, "session"},
		{"page size", func(h *Header, _, _ *Entry) { h.PageSize = 1000 }, "page size"},
		{"other page size", func(_ *Header, a, _ *Entry) { a.PageSize = 1024 }, "page size"},
		{"kind", func(h *Header, _, _ *Entry) { h.Kind = KindData }, "data"},
		{"kind of entry", func(_ *Header, a, _ *Entry) { a.Kind = Snapshot }, "snapshot"},
		{"claim among others", func(_ *Header, a, _ *Entry) { a.Kind = Claim }, "claim"},
		{"page 0", func(_ *Header, a, _ *Entry) { a.Blocks[0].Pages[0].No = 0 }, "page 0"},
		{"pages descend", func(_ *Header, a, _ *Entry) { a.Blocks[0].Pages[1].No = 1 }, "ascend"},
		{"blocks descend", func(_ *Header, a, _ *Entry) {
			a.Blocks = append(a.Blocks, Block{Codec: CodecZero, Pages: []Page{{1, 0}}})
		}, "unordered"},
		{"page beyond", func(_ *Header, a, _ *Entry) { a.Commit, a.MinCommit = 2, 2 }, "beyond"},
		{"smallest size", func(_ *Header, a, _ *Entry) { a.MinCommit++ }, "smallest"},
		{"smallest size of a transaction", func(_ *Header, a, _ *Entry) { a.MinCommit-- }, "smallest"},
		{"lock page", func(_ *Header, a, _ *Entry) { a.Blocks[0].Pages[2].No = LockPage(512) }, "lock page"},
		{"raw length", func(_ *Header, a, _ *Entry) { a.Blocks[0].Stored-- }, "raw"},
		{"codec", func(_ *Header, a, _ *Entry) { a.Blocks[0].Codec = 3 }, "codec"},
		{"base", func(_ *Header, a, _ *Entry) { a.Blocks[0].Base = 2 }, "base"},
		{"raw patch", func(_ *Header, a, _ *Entry) { a.Blocks[0].Base = BasePatch }, "patch"},
		{"patch of nothing", func(_ *Header, a, _ *Entry) {
			a.Blocks[0].Codec, a.Blocks[0].Base, a.Blocks[0].Stored = CodecZstd, BasePatch, 20
		}, "the state before has 0 pages"},
		{"patch in a whole entry", func(_ *Header, _, b *Entry) {
			b.Whole, b.Blocks[0].Codec, b.Blocks[0].Base, b.Blocks[0].Stored = true, CodecZstd, BasePatch, 20
		}, "whole"},
		{"body", func(_ *Header, a, _ *Entry) { a.Body = nil }, "body"},
		{"short body", func(_ *Header, a, _ *Entry) { a.Body = BytesBody(make([]byte, 512)) }, "body"},
		{"body that ends", func(_ *Header, a, _ *Entry) { a.Body = liar{bytes.NewReader(make([]byte, 512))} }, "unexpected EOF"},
		{"needs base with pages", func(_ *Header, a, _ *Entry) { a.Kind, a.NeedsBase = Adopt, true }, "needs base"},
		{"transaction needs base", func(_ *Header, a, _ *Entry) { a.NeedsBase, a.Blocks, a.Body = true, nil, nil }, "needs base"},
		{"checksum without pages", func(_ *Header, a, _ *Entry) { a.Commit, a.MinCommit, a.Blocks, a.Body = 0, 0, nil, nil }, "no pages"},
		{"critical extension", func(h *Header, _, _ *Entry) { h.Extensions = []Extension{{0x8009, nil}} }, "critical"},
		{"extensions out of order", func(h *Header, _, _ *Entry) { h.Extensions = []Extension{{9, nil}, {9, nil}} }, "ascend"},
		{"large extension", func(h *Header, _, _ *Entry) { h.Extensions = []Extension{{9, make([]byte, 1<<16)}} }, "header of"},
		{"critical extension of an entry", func(_ *Header, a, _ *Entry) { a.Extensions = []Extension{{0x8009, nil}} }, "critical"},
		{"large extension of an entry", func(_ *Header, a, _ *Entry) { a.Extensions = []Extension{{9, make([]byte, 1<<16)}} }, "extensions of"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := plainHeader()
			a := plainEntry(1, 3, nil)
			b := plainEntry(1, 3, a)
			tc.f(&h, a, b)
			if !strings.HasPrefix(tc.name, "gap") { // tc.f may have changed what b follows
				b.PreCommit = a.Commit
			}
			_, _, err := Encode(h, []*Entry{a, b})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, expected %q", err, tc.want)
			}
		})
	}
	if _, _, err := Encode(plainHeader(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no entries: %v", err)
	}
}

type liar struct{ io.ReaderAt }

func (liar) Size() int64 { return 1536 }

func TestTooLarge(t *testing.T) {
	// Bodies that nobody reads: the sizes alone must do.
	e := plainEntry(1, 1, nil)
	e.Blocks = nil
	for no := uint64(1); len(e.Blocks) < MaxInline/(64*512)+1; {
		b := Block{Stored: 64 * 512}
		for range 64 {
			b.Pages = append(b.Pages, Page{no, 0})
			no++
		}
		e.Blocks = append(e.Blocks, b)
		e.Commit, e.MinCommit = no, no
	}
	e.Body = nil
	if _, _, err := Encode(plainHeader(), []*Entry{e}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, expected ErrTooLarge", err)
	}
	e.Blocks = nil
	for no := uint64(1); no <= MaxBlocks+1; no++ {
		e.Blocks = append(e.Blocks, Block{Codec: CodecZero, Pages: []Page{{no, 0}}})
		e.Commit, e.MinCommit = no, no
	}
	if _, _, err := Encode(plainHeader(), []*Entry{e}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, expected ErrTooLarge", err)
	}
	e.Blocks = e.Blocks[:MaxBlocks]
	b, _, err := Encode(plainHeader(), []*Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Root.Frames) < 2 || len(o.Entries[0].Blocks) != MaxBlocks {
		t.Errorf("%d frames, %d blocks", len(o.Root.Frames), len(o.Entries[0].Blocks))
	}
	canonical(t, o, b)
}

// Claims are 1024 bytes long, and no other log segment is.
func TestClaimSize(t *testing.T) {
	seen := map[int]bool{}
	for n := range 512 {
		e := plainEntry(1, 1, nil)
		h := plainHeader()
		h.Extensions = []Extension{{0x0005, bytes.Repeat([]byte{7}, n)}}
		b, _, err := Encode(h, []*Entry{e})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); err != nil {
			t.Fatal(err)
		}
		seen[len(b)] = true
		if len(b) == ClaimSize {
			t.Fatal("a log segment as long as a claim")
		}
	}
	if !seen[ClaimSize-1] || !seen[ClaimSize+1] || !seen[ClaimSize+6] {
		t.Error("the length was not tried")
	}
	h := plainHeader()
	h.Pre, h.PreCommit, h.LastMono = 5, 6, testTime
	h.Owner = &Owner{Host: strings.Repeat("host\n\x1b[31m", 100), PID: math.MinInt, Program: strings.Repeat("\"\\<ü", 100)}
	b, chain, err := EncodeClaim(h)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != ClaimSize || !o.Header.Claim || o.Chain != chain || o.Entries[0].Kind != Claim {
		t.Errorf("claim of %d bytes: %+v", len(b), o.Header)
	}
	if strings.ContainsAny(o.Header.Owner.Host, "\n\x1b") {
		t.Errorf("host %q", o.Header.Owner.Host)
	}
	h.Extensions = []Extension{{9, make([]byte, 600)}}
	if _, _, err := EncodeClaim(h); !errors.Is(err, ErrInvalid) {
		t.Errorf("a claim with too much in it: %v", err)
	}
}
