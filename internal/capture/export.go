package capture

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// passTime and passBytes bound one pinned pass of an export: what is read is
	// held in memory and written to the store after the pin is released.
	passTime  = time.Second
	passBytes = 4 << 20 // stored bytes
	// finalBytes: a remainder as small as this is read in one pass whatever time
	// it takes, so that the export ends.
	finalBytes = 16 << 20 // plain bytes
	// maxPasses over what changed meanwhile; then the last one is as long as it
	// needs to be.
	maxPasses = 1000
	// passGap lets a checkpoint through that waits for the reader.
	passGap = 5 * time.Millisecond
)

// Export takes over a database with content by pre-copy; see replicate.Source.
// Pages are copied in short pinned passes; those that change meanwhile are copied
// again, until a pass has nothing left to do: the copies are then the state at
// that pass.
func (d *DB) Export(ctx context.Context, tail local.Tail, write func(segment.Block, []byte) error) (*segment.Entry, error) {
	d.passes.Lock()
	defer d.passes.Unlock()
	d.base(tail)
	d.mu.Lock()
	d.forgetStored()
	d.mu.Unlock()
	p, err := d.openPin()
	if err != nil {
		return nil, err
	}
	defer p.close()
	for {
		x := &export{
			d: d, pin: p, pageSize: d.found.filePageSize, write: write, enc: segment.NewBlockEncoder(),
			stored: make([]byte, 0, passBytes+2*segment.MaxBlockPlain),
		}
		e, err := x.run(ctx, tail)
		if err == nil {
			return e, nil
		}
		d.mu.Lock()
		d.pass, d.dirty = false, nil
		d.setPhase(tracking) // nothing of this database is in the replica: gates stay open
		d.mu.Unlock()
		if !errors.Is(err, errLost) {
			return nil, err
		}
		d.log.Warn("the WAL changed unseen while the database was copied; copying it again", "database", d.opts.Path)
	}
}

// gap waits between two passes, so that a checkpoint goes through that waits for the
// reader.
func (d *DB) gap(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-time.After(passGap):
		if d.opts.Yield != nil {
			d.opts.Yield(ctx)
		}
	}
	return context.Cause(ctx)
}

type export struct {
	d     *DB
	pin   *pin
	write func(segment.Block, []byte) error
	enc   *segment.BlockEncoder
	table table
	todo  local.PageSet
	// pageSize is what Evidence found: what is uploaded says so already.
	pageSize uint32

	blocks []segment.Block
	stored []byte
	pages  []segment.Page
	plain  []byte
}

func (x *export) run(ctx context.Context, tail local.Tail) (*segment.Entry, error) {
	for pass := 0; ; pass++ {
		e, err := x.pass(ctx, pass, tail)
		if err == nil {
			err = x.flush()
		}
		if err != nil || e != nil {
			return e, err
		}
		if err := x.d.gap(ctx); err != nil {
			return nil, err
		}
	}
}

// pass copies under one pin. It returns the entry if nothing is left to copy.
func (x *export) pass(ctx context.Context, n int, tail local.Tail) (*segment.Entry, error) {
	if err := x.pin.begin(); err != nil {
		return nil, err
	}
	defer x.pin.end()
	v, err := x.begin(n == 0)
	if err != nil {
		return nil, err
	}
	defer v.close()
	if err := x.copy(ctx, v, n >= maxPasses); err != nil {
		return nil, err
	}
	return x.end(v, tail)
}

// begin takes the view of a pass and adds to what is to be copied all that
// changed since the last one.
func (x *export) begin(first bool) (*view, error) {
	d := x.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if !first {
		if _, err := d.captureLocked(false); err != nil {
			return nil, err
		}
	}
	v, err := d.look()
	if err != nil {
		return nil, err
	}
	if v.pageSize != x.pageSize {
		v.close()
		return nil, fmt.Errorf("capture: page size %d, it was %d: %w", v.pageSize, x.pageSize, local.ErrChanged)
	}
	if first {
		x.table = table{pageSize: v.pageSize}
		d.table.pageSize = v.pageSize
		d.smallest = 0
		d.dirty = &local.PageSet{}
	} else if err := x.catchUp(v); err != nil {
		v.close()
		return nil, err
	}
	for no := min(d.smallest, x.table.size()) + 1; no <= v.size; no++ {
		x.todo.Add(no)
	}
	for no := v.size + 1; no <= x.table.size(); no++ {
		x.todo.Remove(no)
	}
	d.dirty.Cut(v.size)
	x.todo.Merge(d.dirty)
	x.table.resize(v.size)
	d.mark, d.last = v.mark, v.frames
	d.dirty, d.smallest = &local.PageSet{}, math.MaxUint64
	d.emptied = v.emptied(d.opts.Path)
	d.sawEmpty(v)
	d.pass = true
	d.setPhase(tracking)
	return v, nil
}

// catchUp adds what was committed between the capture and the view.
func (x *export) catchUp(v *view) error {
	d := x.d
	if x.table.pageSize != v.pageSize {
		return errLost
	}
	if d.dirty == nil {
		return errLost
	}
	from := uint32(0)
	switch {
	case v.noLog():
		// It may have come and gone since the last pass.
		if d.emptied != fingerprint(d.opts.Path) {
			return errLost
		}
	case v.mark.salt == d.mark.salt:
		from = d.mark.frame
		if v.mark.frame < from || v.mark.frame > from && len(v.pages) == 0 {
			return errLost
		}
	case d.follows(v.mark.salt):
	default:
		return errLost
	}
	for _, c := range v.commits {
		if c.frame > from {
			d.smallest = min(d.smallest, uint64(c.pages))
		}
	}
	if len(v.pages) > 0 {
		for _, no := range v.pages[from:] {
			d.dirty.Add(uint64(no))
		}
	}
	return nil
}

// copy reads and compresses pages that are to be copied, as far as the pass's
// budget goes.
func (x *export) copy(ctx context.Context, v *view, unlimited bool) error {
	start := time.Now()
	lock := segment.LockPage(v.pageSize)
	x.todo.Remove(lock)
	unlimited = unlimited || int64(x.todo.Len())*int64(v.pageSize) <= finalBytes
	perBlock := blockPages(v.pageSize)
	for no := range x.todo.All() {
		x.todo.Remove(no)
		n := len(x.plain)
		x.plain = slices.Grow(x.plain, int(v.pageSize))[:n+int(v.pageSize)]
		if err := v.read(no, x.plain[n:]); err != nil {
			return err
		}
		hash := segment.PageHash(no, x.plain[n:])
		x.table.set(no, hash)
		x.pages = append(x.pages, segment.Page{No: no, Hash: hash})
		if len(x.pages) < perBlock {
			continue
		}
		x.block()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !unlimited && (len(x.stored) >= passBytes || time.Since(start) >= passTime) {
			return nil
		}
	}
	x.block()
	return nil
}

func (x *export) block() {
	if len(x.pages) == 0 {
		return
	}
	n := len(x.stored)
	var codec segment.Codec
	var base segment.Base
	x.stored, codec, base = x.enc.Encode(x.stored, x.plain, nil)
	x.blocks = append(x.blocks, segment.Block{
		Codec: codec, Base: base, Stored: uint32(len(x.stored) - n), Pages: slices.Clone(x.pages),
	})
	x.pages, x.plain = x.pages[:0], x.plain[:0]
}

// end closes a pass; if nothing is left to copy the database goes live at it.
func (x *export) end(v *view, tail local.Tail) (*segment.Entry, error) {
	d := x.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pass = false
	d.cond.Broadcast()
	if d.dirty == nil {
		return nil, errLost
	}
	if x.todo.Len() > 0 {
		return nil, nil
	}
	now := d.now()
	e := &segment.Entry{
		Kind: segment.Adopt, NeedsBase: true, Count: 1, PageSize: v.pageSize,
		Pre: tail.Checksum, PreCommit: tail.Commit, Post: x.table.sum, Commit: v.size, MinCommit: v.size,
		FirstRaw: now, LastRaw: now, FirstMono: now, LastMono: now, WAL: v.pos,
	}
	e.LiftTimes(d.lastMono)
	d.table, d.dirty = x.table, nil
	d.identity = local.Identity(d.opts.Path)
	d.lastPos, d.lastMono = v.pos, e.LastMono
	d.setPhase(live)
	d.Signal()
	return e, nil
}

// flush gives what was copied to the store, with no pin held.
func (x *export) flush() error {
	stored := x.stored
	for _, b := range x.blocks {
		if err := x.write(b, stored[:b.Stored]); err != nil {
			return err
		}
		stored = stored[b.Stored:]
	}
	x.blocks, x.stored = x.blocks[:0], x.stored[:0]
	return nil
}
