package segment

import (
	"bytes"
	"errors"
	"testing"
)

func known(t *testing.T, err error) {
	t.Helper()
	more := (*NeedMoreError)(nil)
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.As(err, &more) {
		t.Fatalf("error %v is neither ErrCorrupt nor ErrVersion", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, g := range makeGoldens(f) {
		f.Add(g.object[:min(len(g.object), 400)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerMin && len(b) <= headerMax {
			// A check value that fits: else nothing behind it is tested.
			b = bytes.Clone(b)
			b[16], b[17], b[18], b[19] = 0, 0, byte(len(b)>>8), byte(len(b))
			if len(b) == headerMax {
				b[17], b[18] = 1, 0
			}
			copy(b[len(b)-8:], appendU64(nil, xxh64(b[:len(b)-8])))
		}
		h, err := ParseHeader(b)
		known(t, err)
		if err == nil && h.Length > len(b) {
			t.Fatalf("header of %d bytes in %d", h.Length, len(b))
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, g := range makeGoldens(f) {
		f.Add(g.object, true)
		f.Add(g.object, false)
	}
	m := newModel(f, 1, 512)
	var es []*Entry
	for range 3 { // short: the fuzzer takes long to minimise long ones
		es = append(es, m.entry(Transaction))
	}
	b, _, err := Encode(m.header(2), es)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, true)
	f.Fuzz(func(t *testing.T, b []byte, fit bool) {
		if fit {
			b = reseal(b)
		}
		var o *Object
		var err error
		// Index structures compress a thousandfold; with what is made of them
		// that is the bound.
		if n := allocated(func() { o, err = Parse(b) }); n > 64<<20+uint64(len(b))*64 {
			t.Fatalf("%d bytes allocated for %d", n, len(b))
		}
		if errors.Is(err, ErrTooLarge) {
			return
		}
		known(t, err)
		if err != nil {
			return
		}
		canonical(t, o, b)
		dec := NewBlockDecoder()
		for _, e := range o.Entries {
			body := bodyBytes(t, e)
			for i := range e.Blocks {
				blk := &e.Blocks[i]
				_, err := dec.Decode(nil, blk, body[:blk.Stored], o.Header.PageSize, nil)
				known(t, err)
				body = body[blk.Stored:]
			}
		}
		if !o.Header.External && len(o.Entries) != int(o.Header.Entries) {
			t.Fatal("number of entries")
		}
	})
}

// FuzzFrame decodes the index of a data object, the check values of which fit.
func FuzzFrame(f *testing.F) {
	var seeds []*Object
	for _, g := range makeGoldens(f) {
		if g.data == nil {
			continue
		}
		o, err := Parse(g.object)
		if err != nil {
			f.Fatal(err)
		}
		fr := o.Root.Frames[0]
		stored := g.data[fr.Offset:][:fr.Size()]
		s, err := decompressStructure(stored[:fr.Stored], int(fr.Plain))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(len(seeds), s, stored[fr.Stored:], uint32(0))
		f.Add(len(seeds), stored[:fr.Stored], stored[fr.Stored:], fr.Plain)
		seeds = append(seeds, o)
	}
	f.Fuzz(func(t *testing.T, seed int, structure, hashes []byte, plain uint32) {
		if seed < 0 || seed >= len(seeds) || plain > maxStructure || len(structure) == 0 {
			return
		}
		if plain == 0 {
			plain = uint32(len(structure))
		}
		if int(plain) < len(structure) {
			return // the root does not say that
		}
		stored := append(bytes.Clone(structure), hashes...)
		o := *seeds[seed]
		fr := o.Root.Frames[0]
		fr.Stored, fr.Plain, fr.Hashes = uint32(len(structure)), plain, uint32(len(hashes))
		fr.Sum = sumOf(stored)
		o.Root = &Root{Data: testData, Size: fr.Offset + fr.Size(), Frames: []Frame{fr}}
		_, err1 := o.ParseFrame(0, stored)
		known(t, err1)
		d := o.Frames()
		recs, err := d.Next(stored)
		known(t, err)
		if err != nil {
			return
		}
		if err1 != nil {
			t.Fatalf("Next passes, ParseFrame does not: %v", err1)
		}
		known(t, d.Close())
		again := records{sums: true}
		last := o.Header.FirstMono
		for _, r := range recs {
			if r.Block != nil {
				again.appendBlock(r.Block)
				continue
			}
			if err := again.appendEntry(r.Entry, last); err != nil {
				t.Fatal(err)
			}
			last = r.Entry.LastMono
		}
		if int(plain) == len(structure) && !bytes.Equal(again.structure, structure) || !bytes.Equal(again.hashes, hashes) {
			t.Fatal("not canonical")
		}
	})
}

func FuzzBlockDecoder(f *testing.F) {
	plain := text(2048)
	enc := NewBlockEncoder()
	stored, _, _ := enc.Encode(nil, plain, nil)
	patch, _, _ := enc.Encode(nil, change(plain, 300), plain)
	f.Add(stored, byte(CodecZstd), byte(4), []byte(nil))
	f.Add(patch, byte(CodecZstd), byte(4), plain)
	f.Add(plain, byte(CodecRaw), byte(4), []byte(nil))
	f.Add([]byte{}, byte(CodecZero), byte(64), []byte(nil))
	dec := NewBlockDecoder()
	f.Fuzz(func(t *testing.T, stored []byte, codec, pages byte, dict []byte) {
		b := &Block{Codec: Codec(codec), Stored: uint32(len(stored))}
		if len(dict) > 0 {
			b.Base = BasePatch
		}
		for i := range uint64(pages) {
			b.Pages = append(b.Pages, Page{No: i + 1})
		}
		var err error
		if n := allocated(func() { _, err = dec.Decode(nil, b, stored, 512, dict) }); n > 8<<20 {
			t.Fatalf("%d bytes allocated", n)
		}
		known(t, err)
		if err == nil && len(b.Pages) > 0 {
			t.Fatal("page hashes of zero pass")
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	m := newModel(f, 2, 1024)
	for _, kind := range []EntryKind{Transaction, Merge, Repair, Squash} {
		f.Add(AppendEntry(nil, m.entry(kind)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		known(t, err)
		if err == nil && !bytes.Equal(AppendEntry(nil, e), b) {
			t.Fatal("not canonical")
		}
	})
}

func FuzzParseReplicaInfo(f *testing.F) {
	b, err := MarshalReplicaInfo(ReplicaInfo{Database: testDB})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"requires":["x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := ParseReplicaInfo(b)
		known(t, err)
		if err != nil {
			return
		}
		again, err := MarshalReplicaInfo(*info)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseReplicaInfo(again)
		if err != nil || got.Database != info.Database {
			t.Fatal(err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	for _, key := range []string{LogKey(1), PagesKey(1, 2, 3), SnapshotKey(1, 2), DataKey(testData)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if again, ok := rekey(key); ok && again != key {
			t.Fatalf("%q comes back as %q", key, again)
		}
		if id, err := ParseID(key); err == nil && id.String() != key {
			t.Fatalf("%q comes back as %q", key, id)
		}
	})
}
