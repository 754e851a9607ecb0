package replicate

import (
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/segment"
)

// Errors that callers decide on, for errors.Is. What is returned wraps them and
// says what was found where, and what to do next.
var (
	// ErrFenced: another session extended the replica; this one must not write
	// any more. The error is a [*FencedError].
	ErrFenced = errors.New("another writer extended the replica")
	// ErrDiverged: the local database is not the replica's, or not its newest state.
	ErrDiverged = errors.New("database and replica differ")
	// ErrRepair: the database belongs to the replica, but it changed while
	// nothing captured the changes.
	ErrRepair = errors.New("database changed without being captured")
	// ErrMissing: the replica has a database and the machine has none.
	ErrMissing = errors.New("database file is missing")
	// ErrStale: an earlier session of this database extended the line after it
	// was read; opening the database again decides anew.
	ErrStale = errors.New("an earlier session extended the replica meanwhile")
	// ErrForeign: an object that Outwash didn't write for this replica has a key
	// that this replica needs.
	ErrForeign = errors.New("foreign object")
	// ErrUnreachable: the store didn't answer; trying goes on.
	ErrUnreachable = errors.New("store is unreachable")
	// ErrClosed: the engine was closed, or its source while it was to begin.
	ErrClosed = errors.New("engine is closed")

	// ErrNoReplica: the store has no replica under this path.
	ErrNoReplica = errors.New("no replica here")
	// ErrNotRestorable: the position asked for can't be restored; the error names
	// those next to it that can.
	ErrNotRestorable = errors.New("not restorable")
	// ErrEmpty: there is a replica, but nothing was replicated to it yet. It is
	// ErrNotRestorable, too.
	ErrEmpty = errors.New("nothing was replicated yet")
	// ErrOutputExists: Restore doesn't replace files unless it is told to.
	ErrOutputExists = errors.New("output exists")

	// ErrCorrupt: an object is not what was written: bits flipped, truncated,
	// missing, or of another line.
	ErrCorrupt = segment.ErrCorrupt
	// ErrVersion: a newer Outwash wrote an object; upgrade this one.
	ErrVersion = segment.ErrVersion
)

// FencedError tells which session extended the replica. It is [ErrFenced].
type FencedError struct {
	Key     string // the object that this session wanted to create
	Session ID     // who created it
	Owner   *Owner // what it says of itself; nil if it says nothing
}

func (e *FencedError) Error() string {
	who := "an unknown program"
	if e.Owner != nil {
		who = e.Owner.String()
	}
	return fmt.Sprintf("replicate: %v: %s was created by %s, session %s; "+
		"this process stopped replicating, and refuses writes that are its own: make sure that only one process writes this database, "+
		"then open it, or start outwash replicate, again", ErrFenced, e.Key, who, e.Session)
}

// Is reports whether target is [ErrFenced].
func (e *FencedError) Is(target error) bool { return target == ErrFenced }
