package segment

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Parse decodes and verifies a segment, of which b is the whole. An inline
// segment is verified to the last byte; of an external one, whatever can be
// without the data object. Entries' bodies refer to b.
func Parse(b []byte) (*Object, error) {
	h, err := ParseHeader(b)
	if err != nil {
		if more := (*NeedMoreError)(nil); errors.As(err, &more) {
			return nil, corruptf("object of %d bytes is cut off: the header needs %d", len(b), more.N)
		}
		return nil, err
	}
	o := &Object{Header: h, Size: int64(len(b))}
	if err := o.parse(b); err != nil {
		if !isKnown(err) {
			err = corruptf("%w", err)
		}
		return nil, fmt.Errorf("%v segment from TXID %d: %w", h.Kind, h.MinTXID, err)
	}
	return o, nil
}

func (o *Object) parse(b []byte) error {
	h := o.Header
	if len(b) < h.Length+footerSize {
		return fmt.Errorf("object of %d bytes is cut off", len(b))
	}
	f, chain, err := parseFooter(b, h.Length)
	if err != nil {
		return err
	}
	if err := o.checkSize(f); err != nil {
		return err
	}
	if got := chainValue(b[:len(b)-len(chain)], h.Length, int(f.first)); got != chain {
		return fmt.Errorf("chain value is %v, its bytes have %v", chain, got)
	}
	o.Chain = chain
	var sum Hash
	o.Root, sum, err = parseRoot(b[f.root:f.size-footerSize], h.External, f.first, f.root)
	if err != nil || h.External {
		return err
	}
	if got := Hash(sha256.Sum256(b[h.Length:f.first])); got != sum {
		return fmt.Errorf("SHA-256 of the blocks is %v, their bytes have %v", sum, got)
	}
	return o.parseIndex(b, f.first)
}

// checkSize checks the rules about an object's length.
func (o *Object) checkSize(f footer) error {
	h := o.Header
	if h.Kind == KindLog && h.Claim != (f.size == ClaimSize) {
		return fmt.Errorf("log segment of %d bytes, claim is %v; claims, and only they, have %d", f.size, h.Claim, ClaimSize)
	}
	if !h.External {
		if f.size > MaxInline {
			return fmt.Errorf("%w: %d bytes, at most %d expected", ErrTooLarge, f.size, MaxInline)
		}
		return nil
	}
	if f.first != int64(h.Length) || f.root != f.first {
		return fmt.Errorf("footer: index at %d, root at %d, expected both at %d", f.first, f.root, h.Length)
	}
	return nil
}

// parseIndex decodes the records of an inline segment; blocks end at first.
func (o *Object) parseIndex(b []byte, first int64) error {
	h := o.Header
	r := newRules(h)
	r.maxTXID, r.last = h.MaxTXID, h.FirstMono
	pos := int64(h.Length)
	start := pos // of the open entry's body
	total := 0
	var blocks []Block
	for i := range o.Root.Frames {
		f := &o.Root.Frames[i]
		err := f.records(b[f.Offset:f.Offset+f.Size()], false, &r, func(blk *Block, e *Entry) error {
			if blk != nil {
				if total++; total > MaxBlocks {
					return fmt.Errorf("more than %d blocks", MaxBlocks)
				}
				if int64(blk.Stored) > first-pos {
					return fmt.Errorf("block of %d bytes, %d are left", blk.Stored, first-pos)
				}
				blk.Offset = pos
				pos += int64(blk.Stored)
				blocks = append(blocks, *blk)
				return nil
			}
			if len(o.Entries) >= int(h.Entries) {
				return fmt.Errorf("more entries than the header's %d", h.Entries)
			}
			e.Blocks, blocks = blocks, nil
			e.Body = BytesBody(b[start:pos:pos])
			e.WAL = WALPosition{} // only the last one's is known
			start = pos
			o.Entries = append(o.Entries, e)
			return nil
		})
		if err != nil {
			return fmt.Errorf("index frame %d: %w", i, err)
		}
	}
	if pos != first {
		return fmt.Errorf("blocks end at %d, expected %d", pos, first)
	}
	if err := r.finish(h); err != nil {
		return err
	}
	o.Entries[len(o.Entries)-1].WAL = h.WAL
	return nil
}

// records decodes the frame that stored holds, applies the rules and gives each
// record to yield. Nothing yielded refers to stored.
func (f *Frame) records(stored []byte, sums bool, r *rules, yield func(*Block, *Entry) error) error {
	structure, err := decompressStructure(stored[:f.Stored], int(f.Plain))
	if err != nil {
		return fmt.Errorf("structure: %w", err)
	}
	rr := newRecordReader(structure, stored[f.Stored:], sums)
	lo, hi := uint64(0), uint64(0)
	for n := 0; rr.more(); n++ {
		b, e, err := rr.next(r.last)
		if err == nil {
			if b != nil {
				if err = r.block(b); err == nil {
					if lo == 0 || b.First() < lo {
						lo = b.First()
					}
					hi = max(hi, b.Last())
				}
			} else {
				e.PageSize, e.Pre, e.PreCommit, e.MinTXID = r.pageSize, r.post, r.commit, r.txid+1
				err = r.entry(e)
				e.MaxTXID = r.txid
			}
		}
		if err == nil {
			err = yield(b, e)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
	}
	if err := rr.end(); err != nil {
		return err
	}
	if sums && (lo != f.MinPage || hi != f.MaxPage) {
		return fmt.Errorf("pages %d to %d, the root says %d to %d", lo, hi, f.MinPage, f.MaxPage)
	}
	return nil
}
