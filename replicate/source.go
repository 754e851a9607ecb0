package replicate

import (
	"context"

	"github.com/outwash/outwash/internal/segment"
)

// A Source is one captured database as the engine sees it: what the machine has
// of it, and its commits as entries. internal/capture implements it. Methods are
// safe for concurrent use.
type Source interface {
	// Evidence compares the local database with the replica's tail. It may scan
	// the database; it changes nothing.
	Evidence(ctx context.Context, tail Tail) (Evidence, error)

	// Begin starts emitting entries that follow tail, and returns when the first
	// ones (those that were spooled or committed meanwhile) are queued.
	//
	//   - StartEmpty: the line and the database are empty.
	//   - StartContinue: Evidence said that the database continues tail.
	//   - StartAdopt: the database has content and the line has none; the first
	//     entry is of kind adopt and carries all pages. For small databases.
	Begin(ctx context.Context, start Start, tail Tail) error

	// Export takes over a database with content without stopping its writers: it
	// gives every page to write, some more than once (the last one counts), and
	// returns the pageless adopt entry for the state that the pages make up.
	// Entries that follow that state are emitted from then on.
	Export(ctx context.Context, tail Tail, write func(b segment.Block, stored []byte) error) (*segment.Entry, error)

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
}

// Start is how a source begins.
type Start int

// The ways to begin; see Source.Begin.
const (
	StartEmpty Start = iota
	StartContinue
	StartAdopt
)

// Tail is the end of the replica's line. The zero value is a line of nothing.
type Tail struct {
	TXID     uint64
	Checksum uint64
	Commit   uint64 // database size in pages
	PageSize uint32
	LastTime int64 // monotone time of the last entry, µs
	WAL      segment.WALPosition
	Database segment.ID
	Session  segment.ID // who wrote the tail
	Chain    segment.Hash
	Kind     segment.EntryKind // of the last entry
}

// FileState says whether there is a database.
type FileState int

// The states of the database file.
const (
	FileMissing FileState = iota // no file, or one of 0 bytes
	FilePresent
)

// Evidence is what the machine says about the replica's tail.
type Evidence struct {
	File FileState
	// Size is the database's size in bytes, PageSize its page size.
	Size     int64
	PageSize uint32
	// Continues: the database is the tail's state, or provably grew out of it;
	// Proof says how that is known: "wal", "spool", "clean close", "scan".
	Continues bool
	Proof     string
	// Spooled entries follow the tail although the database file is missing.
	Spooled int
	// Found describes the database's own position for messages.
	Found string
}

// Backlog is what is captured and not acknowledged.
type Backlog struct {
	Entries int
	Bytes   int64 // stored bytes of their blocks
	Spooled int   // of the entries: how many are in the spool
	TXIDs   uint64
	// Oldest is the raw time of the oldest one, µs; 0 if there is none.
	Oldest int64
}
