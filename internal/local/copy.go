package local

import (
	"context"
	"errors"

	"github.com/outwash/outwash/internal/segment"
)

// CopyRequest says what of a database is to be copied for a page segment or a
// snapshot, while it is in use; see replicate.Source. All functions are necessary.
type CopyRequest struct {
	// Pages is called once, when the source has begun to note which pages change:
	// entries that it had emitted by then take up emitted TXIDs. It returns the pages
	// that are to be copied besides those; nil: all.
	Pages func(ctx context.Context, emitted uint64) (*PageSet, error)
	// Final is called before any entry is emitted that follows a state which may
	// turn out to be the copy's: entries up to it take up emitted TXIDs. The last
	// call counts. A log segment must end there. It must not block.
	Final func(emitted uint64)
	// Write takes a block and its stored bytes. It is called while nothing of the
	// database is held, and may block.
	Write func(b segment.Block, stored []byte) error
}

// Copied is the state that a copy shows: that of the last call of
// CopyRequest.Final.
type Copied struct {
	Emitted  uint64 // TXIDs of the entries up to it
	Checksum uint64
	Commit   uint64 // pages
	PageSize uint32
	WAL      segment.WALPosition
	// LastMono and LastRaw are the times of the last entry, µs; 0 if none was emitted
	// yet.
	LastMono, LastRaw int64
}

// ErrCopyLost means that a copy can't be completed, because what was emitted is
// not all that happened: entries were given up, or the database is compared with
// its replica. It can be tried again after the next Begin.
var ErrCopyLost = errors.New("the copy can't be completed: entries were lost meanwhile")
