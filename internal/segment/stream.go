package segment

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Record is a block or an entry of a data object: exactly one field is set. An
// entry comes after its blocks.
type Record struct {
	Block *Block
	Entry *Entry
}

// FrameDecoder decodes the index frames of a data object in order. Its memory
// is bounded by that of one frame.
type FrameDecoder struct {
	o     *Object
	rules rules
	i     int
	pos   int64 // behind the last frame
	err   error
}

// Frames returns a decoder for the index frames of o's data object.
func (o *Object) Frames() *FrameDecoder {
	d := &FrameDecoder{o: o, rules: newRules(o.Header), pos: DataHeaderSize}
	d.rules.maxTXID, d.rules.last = o.Header.MaxTXID, o.Header.FirstMono
	return d
}

// Next verifies and decodes the next frame, of which stored is the whole: see
// Root.Frames. Nothing returned refers to stored.
func (d *FrameDecoder) Next(stored []byte) ([]Record, error) {
	if d.err != nil {
		return nil, d.err
	}
	if !d.o.Header.External || d.i >= len(d.o.Root.Frames) {
		return nil, errors.New("segment: there is no further frame")
	}
	recs, err := d.next(stored)
	if err != nil {
		d.err = d.o.frameError(d.i, err)
		return nil, d.err
	}
	d.i++
	return recs, nil
}

func (d *FrameDecoder) next(stored []byte) ([]Record, error) {
	f := &d.o.Root.Frames[d.i]
	if err := f.verify(stored); err != nil {
		return nil, err
	}
	var recs []Record
	err := f.records(stored, true, &d.rules, func(b *Block, e *Entry) error {
		if b != nil {
			b.Offset = d.pos
			d.pos += int64(b.Stored)
		} else if d.rules.entries > d.o.Header.Entries {
			return fmt.Errorf("more entries than the header's %d", d.o.Header.Entries)
		} else if d.rules.entries == d.o.Header.Entries {
			e.WAL = d.o.Header.WAL
		}
		recs = append(recs, Record{b, e})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if d.pos != f.Offset {
		return nil, fmt.Errorf("its blocks end at %d, but it begins at %d", d.pos, f.Offset)
	}
	d.pos += f.Size()
	return recs, nil
}

// Close checks that the index was complete and says what the header says.
func (d *FrameDecoder) Close() error {
	if d.err != nil {
		return d.err
	}
	if n := len(d.o.Root.Frames); d.i < n {
		return fmt.Errorf("segment: %d of %d index frames were decoded", d.i, n)
	}
	if err := d.rules.finish(d.o.Header); err != nil {
		d.err = d.o.frameError(d.i-1, err)
	}
	return d.err
}

// ParseFrame verifies and decodes frame i alone, to find a page without reading
// the whole index. It returns the blocks in it, in order. What needs the frames
// before is left unchecked.
func (o *Object) ParseFrame(i int, stored []byte) ([]Block, error) {
	if !o.Header.External || i < 0 || i >= len(o.Root.Frames) {
		return nil, fmt.Errorf("segment: there is no frame %d", i)
	}
	blocks, err := o.parseFrame(i, stored)
	if err != nil {
		return nil, o.frameError(i, err)
	}
	return blocks, nil
}

func (o *Object) parseFrame(i int, stored []byte) ([]Block, error) {
	f := &o.Root.Frames[i]
	if err := f.verify(stored); err != nil {
		return nil, err
	}
	pos := int64(DataHeaderSize)
	if i > 0 {
		pos = o.Root.Frames[i-1].Offset + o.Root.Frames[i-1].Size()
	}
	structure, err := decompressStructure(stored[:f.Stored], int(f.Plain))
	if err != nil {
		return nil, fmt.Errorf("structure: %w", err)
	}
	var blocks []Block
	rr := newRecordReader(structure, stored[f.Stored:], true)
	for n := 0; rr.more(); n++ {
		b, _, err := rr.next(0)
		if err == nil && b != nil {
			err = checkBlock(b, o.Header.Kind, o.Header.PageSize)
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		if b != nil {
			b.Offset = pos
			pos += int64(b.Stored)
			blocks = append(blocks, *b)
		}
	}
	if err := rr.end(); err != nil {
		return nil, err
	}
	if pos != f.Offset {
		return nil, fmt.Errorf("its blocks end at %d, but it begins at %d", pos, f.Offset)
	}
	return blocks, nil
}

func (o *Object) frameError(i int, err error) error {
	if !isKnown(err) {
		err = corruptf("%w", err)
	}
	return fmt.Errorf("data object %v, index frame %d: %w", o.Root.Data, i, err)
}

func (f *Frame) verify(stored []byte) error {
	if int64(len(stored)) != f.Size() {
		return fmt.Errorf("%d bytes, expected %d", len(stored), f.Size())
	}
	if got := Hash(sha256.Sum256(stored)); got != f.Sum {
		return fmt.Errorf("its SHA-256 is %v, expected %v", got, f.Sum)
	}
	return nil
}

// VerifyDataHeader checks the first DataHeaderSize bytes of o's data object:
// they repeat what o's header says.
func (o *Object) VerifyDataHeader(b []byte) error {
	h := DataHeader{PageSize: o.Header.PageSize, Database: o.Header.Database, Session: o.Header.Session}
	if want := h.append(nil); !bytes.Equal(b, want) {
		return corruptf("data object %v: its header is %x, expected %x", o.Root.Data, b[:min(len(b), DataHeaderSize)], want)
	}
	return nil
}

// Verify checks the stored bytes of a block of a data object against its Sum.
func (b *Block) Verify(stored []byte) error {
	if int64(len(stored)) != int64(b.Stored) {
		return corruptf("block of page %d: %d bytes, expected %d", b.First(), len(stored), b.Stored)
	}
	if got := Hash(sha256.Sum256(stored)); got != b.Sum {
		return corruptf("block of page %d: SHA-256 is %v, expected %v", b.First(), got, b.Sum)
	}
	return nil
}
