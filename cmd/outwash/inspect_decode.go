package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// inspector decodes one object into a report.
type inspector struct {
	ctx    context.Context
	obj    *object
	r      *report
	full   bool // verify blocks in data objects
	blocks bool // list blocks
	bar    *progress
	dec    *segment.BlockDecoder
	buf    []byte
}

func corruptf(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{segment.ErrCorrupt}, a...)...)
}

// inspect recognises the object by how it begins. If it is recognised, r.Kind is
// set, whatever is wrong with the rest.
func (x *inspector) inspect() error {
	head, err := x.obj.read(x.ctx, 0, 64)
	if err != nil {
		return err
	}
	switch {
	case len(head) == 0:
		x.r.Kind = "empty"
		return corruptf("the object is empty")
	case bytes.HasPrefix(head, []byte("SQLite format 3\x00")):
		return usagef("this is an SQLite database, not an object of a replica")
	case bytes.HasPrefix(head, []byte("OWSPOOL")):
		return x.spool()
	case bytes.HasPrefix(head, []byte("OUTWASH")) && len(head) > 8 && segment.Kind(head[8]) == segment.KindData:
		return x.data(head)
	case x.obj.key == segment.InfoKey || bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")):
		return x.root()
	}
	return x.segment()
}

// root decodes a replica's root.
func (x *inspector) root() error {
	b, err := x.obj.read(x.ctx, 0, segment.MaxInfo+1)
	if err != nil {
		return err
	}
	x.r.Kind = "root"
	info, err := segment.ParseReplicaInfo(b)
	if err != nil {
		return err
	}
	x.r.Database, x.r.Created, x.r.Requires = info.Database.String(), &info.Created, info.Requires
	return nil
}

// data decodes the header of a data object, which is all that it says of itself:
// where its index is, says the segment that names it.
func (x *inspector) data(b []byte) error {
	x.r.Kind = "data"
	switch {
	case b[7] != segment.Version:
		return fmt.Errorf("format version %d, this Outwash knows %d: %w", b[7], segment.Version, segment.ErrVersion)
	case len(b) < segment.DataHeaderSize:
		return corruptf("the header has %d bytes, the object %d", segment.DataHeaderSize, len(b))
	case xxhash.Sum64(b[:56]) != binary.BigEndian.Uint64(b[56:]):
		return corruptf("the header's check value is %016x, its bytes have %016x", binary.BigEndian.Uint64(b[56:]), xxhash.Sum64(b[:56]))
	}
	x.r.PageSize = binary.BigEndian.Uint32(b[20:])
	x.r.Database = segment.ID(b[24:40]).String()
	x.r.Session = segment.ID(b[40:56]).String()
	x.r.Verified = []string{"its header; the segment that names this object verifies the rest: \"outwash inspect -full\" of that one"}
	return nil
}

// segment decodes a log segment, page segment or snapshot.
func (x *inspector) segment() error {
	// The header can be shown even if the rest is broken.
	if h, err := x.header(); err != nil {
		if errors.Is(err, segment.ErrCorrupt) && x.r.Kind == "" {
			x.r.Kind = "unknown"
		}
		if errors.Is(err, segment.ErrVersion) {
			x.r.Kind = "unknown"
		}
		return err
	} else {
		x.r.setHeader(h)
	}
	if x.obj.size > segment.MaxInline {
		return corruptf("%d bytes, at most %d expected", x.obj.size, segment.MaxInline)
	}
	b, err := x.obj.read(x.ctx, 0, x.obj.size)
	if err != nil {
		return err
	}
	o, err := segment.Parse(b)
	if err != nil {
		return err
	}
	x.r.Chain, x.r.Frames = o.Chain.String(), len(o.Root.Frames)
	x.r.Verified = append(x.r.Verified, "header, index and chain value")
	if err := x.checkKey(o.Header); err != nil {
		return err
	}
	if o.Header.External {
		return x.external(o)
	}
	whole := 0
	for _, e := range o.Entries {
		er := x.r.addEntry(e)
		for i := range e.Blocks {
			blk := &e.Blocks[i]
			er.addBlock(blk, x.blocks)
			if blk.Base == segment.BasePatch {
				continue
			}
			whole += len(blk.Pages)
			if err := x.decode(blk, b[blk.Offset:blk.Offset+int64(blk.Stored)], o.Header.PageSize); err != nil {
				return fmt.Errorf("TXID %d: block at %d: %w", e.MaxTXID, blk.Offset, err)
			}
		}
	}
	x.r.Verified = append(x.r.Verified, "all stored bytes")
	if whole > 0 {
		x.r.Verified = append(x.r.Verified, plural(whole, "page that is stored whole", "pages that are stored whole"))
	}
	return nil
}

func (x *inspector) header() (*segment.Header, error) {
	for n := int64(256); ; {
		b, err := x.obj.read(x.ctx, 0, n)
		if err != nil {
			return nil, err
		}
		h, err := segment.ParseHeader(b)
		more, ok := err.(*segment.NeedMoreError)
		if !ok {
			return h, err
		}
		if int64(more.N) > x.obj.size {
			return nil, corruptf("the header needs %d bytes, the object has %d: it is truncated", more.N, x.obj.size)
		}
		n = int64(more.N)
	}
}

// checkKey compares what a segment says with where it is. A file that is called
// otherwise (a download, say) proves nothing.
func (x *inspector) checkKey(h *segment.Header) error {
	key := x.obj.key
	want := segment.LogKey(h.MinTXID)
	switch h.Kind {
	case segment.KindPages:
		want = segment.PagesKey(h.MinTXID, h.MaxTXID, h.Post)
	case segment.KindSnapshot:
		want = segment.SnapshotKey(h.MaxTXID, h.Post)
	}
	_, log := segment.ParseLogKey(key)
	_, _, _, pages := segment.ParsePagesKey(key)
	_, _, snapshot := segment.ParseSnapshotKey(key)
	if (log || pages || snapshot) && key != want {
		return corruptf("the object is sound, but it is not where it belongs: its key should be %s", want)
	}
	return nil
}

// external verifies the data object of o: its index always, its blocks if asked.
func (x *inspector) external(o *segment.Object) error {
	key := o.DataKey()
	x.r.Data, x.r.DataSize = key, o.Root.Size
	data := &object{store: x.obj.store, key: key, name: key}
	body, info, err := data.store.Get(x.ctx, key, objstore.Range{Length: 1})
	switch {
	case errors.Is(err, objstore.ErrNotExist) && x.obj.key != o.Header.Kind.String()+"/"+baseName(x.obj.key):
		x.r.Verified = append(x.r.Verified, "blocks not: there is no "+key+" beside this file")
		return nil
	case errors.Is(err, objstore.ErrNotExist):
		return fmt.Errorf("%w: its data object is missing: %w", segment.ErrCorrupt, err)
	case err != nil:
		return err
	}
	body.Close()
	data.size = info.Size
	if data.size != o.Root.Size {
		return corruptf("data object %s has %d bytes, expected %d", key, data.size, o.Root.Size)
	}
	b, err := data.read(x.ctx, 0, segment.DataHeaderSize)
	if err == nil {
		err = o.VerifyDataHeader(b)
	}
	if err != nil {
		return fmt.Errorf("data object %s: %w", key, err)
	}
	if err := x.index(o, data); err != nil {
		return fmt.Errorf("data object %s: %w", key, err)
	}
	x.r.Verified = append(x.r.Verified, "index of the data object")
	if x.full {
		x.r.Verified = append(x.r.Verified, "every block")
	}
	return nil
}

func (x *inspector) index(o *segment.Object, data *object) error {
	dec := o.Frames()
	er := &entryReport{} // its blocks come before the entry itself
	for i := range o.Root.Frames {
		f := &o.Root.Frames[i]
		stored, err := data.read(x.ctx, f.Offset, f.Size())
		if err != nil {
			return err
		}
		recs, err := dec.Next(stored)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.Block == nil {
				e := x.r.addEntry(rec.Entry)
				e.Pages, e.Patched, e.Blocks, e.Stored, e.List = er.Pages, er.Patched, er.Blocks, er.Stored, er.List
				er = &entryReport{}
				continue
			}
			er.addBlock(rec.Block, x.blocks)
			if x.full {
				if err := x.verify(o, data, rec.Block); err != nil {
					return err
				}
			}
		}
		x.bar.set(f.Offset+f.Size(), o.Root.Size, "")
	}
	return dec.Close()
}

func (x *inspector) verify(o *segment.Object, data *object, blk *segment.Block) error {
	stored, err := data.read(x.ctx, blk.Offset, int64(blk.Stored))
	if err == nil {
		err = blk.Verify(stored)
	}
	if err == nil && blk.Base != segment.BasePatch {
		err = x.decode(blk, stored, o.Header.PageSize)
	}
	if err != nil {
		return fmt.Errorf("block at %d: %w", blk.Offset, err)
	}
	return nil
}

func (x *inspector) decode(blk *segment.Block, stored []byte, pageSize uint32) (err error) {
	if x.dec == nil {
		x.dec = segment.NewBlockDecoder()
	}
	x.buf, err = x.dec.Decode(x.buf[:0], blk, stored, pageSize, nil)
	return err
}

func baseName(key string) string {
	for i := len(key) - 1; i >= 0; i-- {
		if key[i] == '/' {
			return key[i+1:]
		}
	}
	return key
}
