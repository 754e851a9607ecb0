package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/outwash/outwash/internal/local"
)

// held keeps the page images that a pass has read, in order, until they are taken:
// in memory, or those of a long pass in a file.
type held struct {
	mem  bytes.Buffer
	dir  *local.Dir
	file local.File // nil: mem has all of them
	off  int64      // in the file: where it is written or read
}

const heldChunk = 1 << 20

// reset forgets what there was. large: what comes goes to a file.
func (h *held) reset(large bool) (err error) {
	if err = h.close(); err == nil && large {
		h.file, err = h.dir.OpenScratch()
	}
	return err
}

func (h *held) close() error {
	h.mem.Reset()
	h.off = 0
	if h.file == nil {
		return nil
	}
	err := errors.Join(h.file.Close(), h.dir.RemoveScratch())
	h.file = nil
	return err
}

func (h *held) add(page []byte) error {
	h.mem.Write(page)
	if h.file == nil || h.mem.Len() < heldChunk {
		return nil
	}
	return h.flush()
}

func (h *held) flush() error {
	_, err := h.file.WriteAt(h.mem.Bytes(), h.off)
	if err != nil {
		return fmt.Errorf("capture: keep what is copied: %w", err)
	}
	h.off += int64(h.mem.Len())
	h.mem.Reset()
	return nil
}

// rewind comes between the last add and the first next.
func (h *held) rewind() error {
	if h.file == nil {
		return nil
	}
	err := h.flush()
	h.off = 0
	return err
}

// next returns the next n bytes, valid until it is called again.
func (h *held) next(n int) ([]byte, error) {
	if h.file == nil {
		return h.mem.Next(n), nil
	}
	h.mem.Reset()
	h.mem.Grow(n)
	b := h.mem.AvailableBuffer()[:n]
	if got, err := h.file.ReadAt(b, h.off); got < n {
		return nil, fmt.Errorf("capture: read what was copied: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	h.off += int64(n)
	return b, nil
}
