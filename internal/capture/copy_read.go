package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/wal"
)

// openFiles opens what is read. With the pin held the names stay what they are.
func (c *copying) openFiles() error {
	if ok, err := reopen(&c.file, c.d.opts.Path, c.d.openFile); !ok {
		return errors.Join(local.ErrCopyLost, err)
	}
	_, err := reopen(&c.wal, c.d.opts.Path+"-wal", c.d.openFile)
	return err
}

// read reads the wanted pages, and returns how many of them it has.
func (c *copying) read(ctx context.Context) (int, error) {
	start := time.Now()
	page := make([]byte, c.pageSize)
	size := int64(len(c.want)) * int64(c.pageSize)
	if c.force {
		c.d.log.Info("the database changes faster than it is copied; the rest is read at once", "database", c.d.opts.Path, "bytes", size)
		if size > c.d.opts.SpoolLimit {
			return 0, fmt.Errorf("capture: %s changes faster than it is copied: %d bytes are left", c.d.opts.Path, size)
		}
	}
	if err := c.images.reset(c.force); err != nil {
		return 0, err
	}
	for i, w := range c.want {
		if i%64 == 63 {
			if ctx.Err() != nil {
				return i, context.Cause(ctx)
			}
			if !c.force && time.Since(start) > passTime {
				return i, nil
			}
		}
		if err := c.readWanted(w, page); err != nil {
			return i, err
		}
		if err := c.images.add(page); err != nil {
			return i, err
		}
	}
	return len(c.want), nil
}

// readWanted reads a page as the table says it is. A log of which the file has
// everything may have been restarted meanwhile; then its frames are others.
func (c *copying) readWanted(w wanted, page []byte) (err error) {
	ok := again(c.file, func() bool {
		if w.frame != 0 && c.wal != nil {
			n, err := c.wal.ReadAt(page, wal.FrameOffset(w.frame, c.pageSize)+wal.FrameHeaderSize)
			if n == len(page) && (err == nil || errors.Is(err, io.EOF)) && segment.PageHash(uint64(w.no), page) == w.hash {
				return true
			}
		}
		err = readPage(c.file, uint64(w.no), page)
		return err != nil || segment.PageHash(uint64(w.no), page) == w.hash
	})
	if err == nil && !ok {
		err = fmt.Errorf("capture: page %d of %s %w", w.no, c.d.opts.Path, errMismatch)
	}
	return err
}

// putBack leaves what a pass didn't read to the next one.
func (c *copying) putBack(from int) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for _, w := range c.want[from:] {
		c.todo.Add(uint64(w.no))
	}
	c.want, c.done = c.want[:from], false
}

// mismatch decides what it means that a page is not what was committed. In
// rollback-journal modes another program may have written it; in WAL mode its
// commit would be in the log, and so nobody may have.
func (c *copying) mismatch(inWAL bool, err error) error {
	d := c.d
	replaced := d.Replaced()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.phase != live:
		return local.ErrCopyLost
	case inWAL && !replaced:
		return fmt.Errorf("%w: %w, and no transaction has changed it: "+
			"the replica has it as it was; restore it before more is lost", local.ErrDamaged, err)
	}
	d.loseTrack(err.Error())
	d.Signal()
	return local.ErrCopyLost
}
