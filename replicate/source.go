package replicate

import (
	"context"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// A Source is one captured database as the engine sees it: what the machine has
// of it, and its commits as entries. internal/capture implements it. Methods are
// safe for concurrent use.
type Source interface {
	// Evidence compares the local database with the replica's tail. It may scan
	// the database; it changes nothing. While the store is unreachable it is asked
	// with the zero Tail: of what it says only File, Size, PageSize and Identity
	// count then. An error that is [local.ErrChanged] has it asked again.
	Evidence(ctx context.Context, tail Tail) (Evidence, error)

	// Begin starts emitting entries that follow tail, and returns when the first
	// ones (those that were spooled or committed meanwhile) are queued.
	//
	//   - StartEmpty: the line and the database are empty.
	//   - StartContinue: Evidence said that the database continues tail. The
	//     application may use the database meanwhile, if a repair is allowed should
	//     that turn out to be otherwise; during the next two it always may.
	//   - StartRepair: the database had reached tail and changed since; the first
	//     entry is of kind repair and carries the pages that differ from
	//     tail.Pages (all, if the page size is another one).
	//   - StartAdopt: the same with kind adopt, for a database that has nothing to
	//     do with tail. For a line without content, and small databases.
	//
	// Both emit nothing if nothing differs. An error that is [local.ErrChanged]
	// says that Evidence must be asked anew.
	//
	// It is called again, after another Evidence, when the entries spooled for a
	// missing database were acknowledged and the database restored, and when an
	// upload of an earlier session came to light ([ErrStale]): entries that were
	// taken and not acknowledged are then emitted anew, as far as they follow tail.
	Begin(ctx context.Context, start Start, tail Tail) error

	// Export takes over a database with content without stopping its writers: it
	// gives every page to write, some more than once (the last one counts), and
	// returns the pageless adopt entry for the state that the pages make up.
	// Entries that follow that state are emitted from then on. The adopt entry
	// itself is neither taken nor acknowledged; the engine sets its Pre, PreCommit,
	// TXIDs and NeedsBase. If write fails Export returns its error. It can be
	// called again, also after it succeeded: when an upload failed, everything is
	// given anew and emission starts over from the new state.
	Export(ctx context.Context, tail Tail, write func(b segment.Block, stored []byte) error) (*segment.Entry, error)

	// Copy copies pages of the database while it is in use, some more than once (the
	// last image counts), so that they are what they were after one entry, which it
	// returns: all pages that were asked for and all that changed since it began to
	// note that, as far as they lie within the database's size then. It proves each by
	// its hash. It may run while every other method does, one Copy at a time. Errors
	// that pass are [local.ErrLocked], and [local.ErrCopyLost], after which it must
	// have begun anew; an error of a function of the request ends it and is returned.
	Copy(ctx context.Context, req CopyRequest) (Copied, error)

	// Ready is signalled (never closed) when entries wait to be taken.
	Ready() <-chan struct{}

	// Take removes the oldest waiting entries, at most max stored bytes of them
	// but at least one if any waits. They stay the source's (in WAL or spool)
	// until they are acknowledged.
	Take(max int64) []*segment.Entry

	// Acknowledge says that the n oldest entries taken are in the store.
	Acknowledge(n int)

	// Backlog counts what is captured but not acknowledged.
	Backlog() Backlog

	// Durable makes what is committed up to a position of the log (the zero position:
	// to the file, without one) last through a loss of power, in the database's own
	// files, if it isn't known to. It is called before that is uploaded. Its error
	// says that it may not last.
	Durable(at segment.WALPosition) error

	// Settled says how many TXIDs, of those that entries emitted since Begin or
	// Export take up, are in the database file itself, so that SyncFile makes
	// them last through a loss of power. It grows at checkpoints.
	Settled() uint64
	// SyncFile makes durable what is written to the database file.
	SyncFile() error

	// Lost reports that the source gave up entries that waited (too many of them,
	// or no room), with the durable note that a repair is pending. Those already
	// taken still count; once they are acknowledged it must be decided anew: it
	// stays so until Begin. Ready is signalled when it happens.
	Lost() bool
}

// What source and engine tell each other; the types live in internal/local,
// because internal/capture must not import the engine.
type (
	Start    = local.Start
	Tail     = local.Tail
	Evidence = local.Evidence
	Backlog  = local.Backlog

	CopyRequest = local.CopyRequest
	Copied      = local.Copied
	PageSet     = local.PageSet
)

// The ways to begin; see Source.Begin.
const (
	StartEmpty    = local.StartEmpty
	StartContinue = local.StartContinue
	StartRepair   = local.StartRepair
	StartAdopt    = local.StartAdopt
)

// The states of the database file.
const (
	FileMissing = local.FileMissing
	FilePresent = local.FilePresent
)
