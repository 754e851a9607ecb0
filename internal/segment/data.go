package segment

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
)

// append appends a data object's header.
func (h *DataHeader) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, byte(KindData), 0, hashXXH64, hashSHA256, encryptNone, 0, 0, 0)
	dst = appendU32(appendU32(dst, DataHeaderSize), h.PageSize)
	dst = append(append(dst, h.Database[:]...), h.Session[:]...)
	return appendU64(dst, xxh64(dst[start:]))
}

// DataWriter writes a data object as a stream: the blocks of an entry, then the
// entry. Its memory is bounded whatever is written, but for 80 bytes for each
// index frame and the entries' metadata.
type DataWriter struct {
	w      io.Writer
	h      DataHeader
	pos    int64
	rules  rules
	frames frameBuilder
	root   Root
	err    error
	closed bool
}

// NewDataWriter returns a DataWriter that writes to w.
func NewDataWriter(w io.Writer, h DataHeader) *DataWriter {
	d := &DataWriter{w: w, h: h}
	d.rules = rules{kind: h.Kind, pageSize: h.PageSize, maxTXID: MaxTXID, minCommit: math.MaxUint64}
	d.frames.sums = true
	switch {
	case h.Kind < KindLog || h.Kind > KindSnapshot:
		d.err = invalidf("data object of a %v", h.Kind)
	case h.Name.IsZero() || h.Database.IsZero() || h.Session.IsZero():
		d.err = invalidf("data object without name, database or session")
	default:
		if err := checkPageSize(h.PageSize); err != nil {
			d.err = invalidf("%w", err)
		}
	}
	if d.err == nil {
		d.write(h.append(nil))
	}
	return d
}

func (d *DataWriter) write(b []byte) {
	if d.err != nil || len(b) == 0 {
		return
	}
	n, err := d.w.Write(b)
	d.pos += int64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	d.err = err
}

// WriteBlock writes a block of the entry that the next EndEntry closes. Sum is
// filled in.
func (d *DataWriter) WriteBlock(b Block, stored []byte) error {
	if d.err != nil {
		return d.err
	}
	if int64(b.Stored) != int64(len(stored)) {
		return d.fail(invalidf("block of %d stored bytes comes with %d", b.Stored, len(stored)))
	}
	if err := d.rules.block(&b); err != nil {
		return d.fail(invalidf("%w", err))
	}
	b.Sum = sha256.Sum256(stored)
	d.write(stored)
	d.frames.block(&b)
	d.flush(false)
	return d.err
}

// EndEntry closes the entry that the blocks since the last EndEntry belong to.
// Its Blocks and Body are ignored; Unordered is filled in.
func (d *DataWriter) EndEntry(e *Entry) error {
	if d.err != nil {
		return d.err
	}
	r := &d.rules
	if r.entries == 0 {
		r.post, r.commit, r.last = e.Pre, e.PreCommit, e.FirstMono
	}
	if r.entries >= MaxEntries {
		return d.fail(fmt.Errorf("%w: more than %d entries", ErrTooLarge, MaxEntries))
	}
	if e.Pre != r.post || e.PreCommit != r.commit {
		return d.fail(invalidf("entry %d: checksum before is %016x, %d pages; the entry before left %016x, %d", r.entries, e.Pre, e.PreCommit, r.post, r.commit))
	}
	e.Unordered = r.open.unordered
	last := r.last
	err := r.entry(e)
	if err == nil {
		err = d.frames.appendEntry(e, last)
	}
	if err != nil {
		return d.fail(invalidf("entry %d: %w", r.entries, err))
	}
	m := *e
	m.Blocks, m.Body = nil, nil
	d.root.entries = append(d.root.entries, m)
	d.flush(false)
	return d.err
}

func (d *DataWriter) fail(err error) error {
	d.err = err
	return err
}

func (d *DataWriter) flush(last bool) {
	if !d.frames.full() && (!last || d.frames.empty()) {
		return
	}
	f, b := d.frames.take()
	f.Offset, f.Sum = d.pos, sha256.Sum256(b)
	d.write(b)
	d.root.Frames = append(d.root.Frames, f)
}

// Close writes what is buffered. It doesn't close the underlying writer.
func (d *DataWriter) Close() (*Root, error) {
	if d.closed {
		return nil, errors.New("segment: data writer is closed already")
	}
	d.closed = true
	if d.err == nil && (d.rules.open.blocks > 0 || d.rules.entries == 0) {
		d.err = invalidf("%d blocks after the last of %d entries", d.rules.open.blocks, d.rules.entries)
	}
	d.flush(true)
	if d.err != nil {
		return nil, d.err
	}
	d.err = errors.New("segment: data writer is closed")
	d.root.Data, d.root.Size = d.h.Name, d.pos
	d.root.kind, d.root.pageSize = d.h.Kind, d.h.PageSize
	d.root.database, d.root.session = d.h.Database, d.h.Session
	return &d.root, nil
}

// matches checks that a descriptor is about what was written.
func (r *Root) matches(h *Header, entries []*Entry) error {
	if h.Kind != r.kind || h.PageSize != r.pageSize || h.Database != r.database || h.Session != r.session {
		return errors.New("kind, page size, database or session differ")
	}
	if len(entries) != len(r.entries) {
		return fmt.Errorf("%d entries, %d were written", len(entries), len(r.entries))
	}
	for i, e := range entries {
		w := &r.entries[i]
		if e.Kind != w.Kind || e.NeedsBase != w.NeedsBase || e.Whole != w.Whole || e.Count != w.Count ||
			e.Pre != w.Pre || e.Post != w.Post || e.PreCommit != w.PreCommit || e.Commit != w.Commit || e.MinCommit != w.MinCommit ||
			e.FirstMono != w.FirstMono || e.LastMono != w.LastMono || e.FirstRaw != w.FirstRaw || e.LastRaw != w.LastRaw {
			return fmt.Errorf("entry %d is not the one that was written", i)
		}
	}
	return nil
}
