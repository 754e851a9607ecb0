package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// copyBytes bounds what a pass of a copy reads under its pin, and holds in memory
	// until it is written. What is left and no more than that is the last pass.
	copyBytes = 8 << 20
	// copyBytesHeld is the same in rollback-journal modes, where commits wait for
	// the pin: a millisecond or two, if the file is in the system's cache.
	copyBytesHeld = 2 << 20
	// maxSweeps over the database, each of which copies what changed during the one
	// before; then all that is left is read in one pass.
	maxSweeps = 8
	// maxStrikes is how often in a row a pass may find what a writer may have caused.
	maxStrikes = 4
)

// Copy copies pages while the database is in use; see replicate.Source.
//
// It goes by sweeps over the pages that are asked for, in short pinned passes. A
// pass begins by capturing all that is committed: the table has then the hash of
// each page as it is to be read, be it from the log or from the file, and nothing
// else has to be known about checkpoints. What entries change is copied once more.
// A pass that has no page left to put off shows the state of its beginning.
func (d *DB) Copy(ctx context.Context, req local.CopyRequest) (local.Copied, error) {
	ctx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	c := &copying{d: d, req: req, lose: lose, enc: segment.NewBlockEncoder(), next: 1, images: held{dir: d.opts.Dir}}
	defer c.close()
	err := c.start(ctx)
	for err == nil {
		if err = c.pass(ctx); err == nil {
			err = c.write(ctx)
		}
		if err == nil && c.done {
			err = context.Cause(ctx) // the entries up to it may have been given up
			if err == nil {
				return c.copied, nil
			}
		}
		if err == nil || c.forgive(err) {
			err = c.d.gap(ctx)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return local.Copied{}, err
}

// copying is a copy under way.
type copying struct {
	d    *DB
	req  local.CopyRequest
	lose context.CancelCauseFunc
	enc  *segment.BlockEncoder

	todo local.PageSet // with DB.mu: pages that are to be copied, or once more

	next    uint64 // where the sweep goes on
	sweeps  int
	before  int  // pages to copy when the last sweep began
	force   bool // the next pass is the last one
	strikes int
	begun   bool // a pass has read something

	file, wal File
	pageSize  uint32
	want      []wanted
	images    held         // of the pages of want
	copied    local.Copied // the state of the pass
	done      bool         // nothing is left to copy: copied counts
}

// wanted is a page that a pass reads.
type wanted struct {
	no, frame uint32 // frame 0: only the file has it
	hash      uint64
}

// errMismatch: a page is not what the table says.
var errMismatch = errors.New("is not what was committed")

func (c *copying) start(ctx context.Context) error {
	d := c.d
	d.mu.Lock()
	switch {
	case d.failed != nil:
		defer d.mu.Unlock()
		return d.failed
	case d.phase != live:
		defer d.mu.Unlock()
		return local.ErrCopyLost
	case d.copying != nil:
		defer d.mu.Unlock()
		return errors.New("capture: the database is being copied already")
	}
	d.copying = c
	emitted, size := d.emitted.Load(), d.table.size()
	d.mu.Unlock()

	pages, err := c.req.Pages(ctx, emitted)
	if err != nil {
		return err
	}
	all := local.PageSet{}
	if pages != nil {
		all = *pages.Clone()
	} else {
		for no := uint64(1); no <= size; no++ {
			all.Add(no)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	all.Merge(&c.todo)
	c.todo = all
	c.before = all.Len()
	return nil
}

func (c *copying) close() {
	c.d.mu.Lock()
	if c.d.copying == c {
		c.d.copying = nil
	}
	c.d.mu.Unlock()
	if err := c.images.close(); err != nil {
		c.d.log.Warn("can't remove what a copy kept", "database", c.d.opts.Path, "error", err)
	}
	for _, f := range []File{c.file, c.wal} {
		if f != nil {
			f.Close()
		}
	}
}

// note has an entry's pages copied once more. DB.mu is held.
func (c *copying) note(e *segment.Entry) {
	if e.Whole {
		c.lose(local.ErrCopyLost)
		return
	}
	// What a growth made zero need not be in its blocks.
	for no := min(e.PreCommit, e.MinCommit) + 1; no <= e.Commit; no++ {
		c.todo.Add(no)
	}
	for i := range e.Blocks {
		for _, p := range e.Blocks[i].Pages {
			c.todo.Add(p.No)
		}
	}
}

// loseCopy ends a copy that is under way: the table is not what the database will
// be. DB.mu is held.
func (d *DB) loseCopy(why error) {
	if d.copying != nil {
		d.copying.lose(why)
	}
}

// forgive reports whether a pass that failed is tried again: what a writer is
// doing may look so.
func (c *copying) forgive(err error) bool {
	c.strikes++
	return c.strikes < maxStrikes && (errors.Is(err, errMismatch) || errors.Is(err, errUnsettled) ||
		errors.Is(err, local.ErrLocked) && c.begun)
}

// errUnsettled: it can't be captured just now.
var errUnsettled = errors.New("capture: the log can't be read just now")

// pass reads pages under a pin. Its connection is closed at the end of each, so
// that the application's last one finds itself alone, and cleans up.
func (c *copying) pass(ctx context.Context) error {
	p, err := c.d.openPin()
	if err != nil {
		return err
	}
	defer p.close()
	p.conn.SetInterrupt(ctx)
	if err := p.begin(); err != nil {
		return err
	}
	defer p.end()
	if err := c.openFiles(); err != nil {
		return err
	}
	h, err := readDatabaseHeader(c.file, c.d.opts.Path)
	if err != nil && c.d.tableSize() > 0 {
		return err
	}
	if err := c.choose(ctx, h.WAL); err != nil {
		return err
	}
	n, err := c.read(ctx)
	if n == len(c.want) {
		c.strikes, c.begun = 0, true
		return nil
	}
	c.putBack(n)
	if errors.Is(err, errMismatch) && c.strikes == maxStrikes-1 {
		return c.mismatch(h.WAL, err)
	}
	return err
}

func (d *DB) tableSize() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.table.size()
}

// choose captures what is committed, and takes what the pass reads.
func (c *copying) choose(ctx context.Context, inWAL bool) error {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	c.want, c.done = c.want[:0], false
	if _, err := d.captureLocked(false); err != nil {
		return fmt.Errorf("%w: %w", errUnsettled, err)
	}
	if !inWAL {
		d.commitLeftover()
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	limit := copyBytes
	if !inWAL {
		limit = copyBytesHeld
	}
	if d.opts.CopyBytes > 0 {
		limit = d.opts.CopyBytes
	}
	c.pageSize = d.table.pageSize
	limit /= max(segment.MinPageSize, int(c.pageSize))
	c.todo.Cut(d.table.size())
	c.todo.Remove(0)
	c.todo.Remove(segment.LockPage(c.pageSize))
	if c.done = c.force || c.todo.Len() <= limit; c.done {
		c.next, limit = 1, c.todo.Len()
		c.final()
	}
	for no := range c.todo.From(c.next) {
		if len(c.want) == limit {
			c.next = no
			return nil
		}
		c.todo.Remove(no)
		c.want = append(c.want, wanted{uint32(no), d.last[uint32(no)], d.table.get(no)})
	}
	c.sweep()
	return nil
}

// sweep begins to go over the pages that changed during the sweep before. If these
// don't become fewer the next pass reads all of them.
func (c *copying) sweep() {
	c.next = 1
	c.sweeps++
	left := c.todo.Len()
	if c.sweeps >= maxSweeps || c.sweeps > 1 && left > c.before/2 {
		c.force = true
	}
	c.before = left
}

// final says that the pass may be the last one: no entry that follows it has been
// emitted.
func (c *copying) final() {
	d := c.d
	c.copied = local.Copied{
		Emitted:  d.emitted.Load(),
		Checksum: d.table.sum, Commit: d.table.size(), PageSize: d.table.pageSize,
		WAL: d.lastPos,
	}
	if c.copied.Emitted > 0 {
		c.copied.LastMono, c.copied.LastRaw = d.lastMono, d.lastRaw
	}
	c.req.Final(c.copied.Emitted)
}

// write gives what was read to the request, while nothing is held.
func (c *copying) write(ctx context.Context) error {
	if err := c.images.rewind(); err != nil {
		return err
	}
	perBlock := blockPages(max(segment.MinPageSize, c.pageSize))
	var stored []byte
	for want := c.want; len(want) > 0; {
		n := min(perBlock, len(want))
		b := segment.Block{Pages: make([]segment.Page, n)}
		for i, w := range want[:n] {
			b.Pages[i] = segment.Page{No: uint64(w.no), Hash: w.hash}
		}
		plain, err := c.images.next(n * int(c.pageSize))
		if err != nil {
			return err
		}
		stored, b.Codec, b.Base = c.enc.Encode(stored[:0], plain, nil)
		b.Stored = uint32(len(stored))
		if err := c.req.Write(b, stored); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		want = want[n:]
	}
	return nil
}
