package local

import (
	"errors"

	"github.com/outwash/outwash/internal/segment"
)

// Start is how a source begins.
type Start int

// The ways to begin; see replicate.Source.
const (
	StartEmpty Start = iota
	StartContinue
	StartRepair
	StartAdopt
)

// ErrChanged means that the database is not what Evidence said it was: it has to
// be decided anew how it relates to the replica.
var ErrChanged = errors.New("database changed while it was compared with its replica")

// ErrLocked means that the database can't be read just now, because a connection
// keeps it to itself: in a long transaction, or with EXCLUSIVE locking.
var ErrLocked = errors.New("a connection keeps the database to itself")

// ErrDamaged means that a database that has to be compared with its replica is not
// sound: its state is not what anybody committed.
var ErrDamaged = errors.New("the database is damaged")

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
	// Pages has the hash of each page of this state, page i+1 at i: for
	// StartRepair and StartAdopt, which emit the pages that differ, and for a
	// StartContinue after a loss of power, which may have taken pages away.
	Pages []uint64
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
	// Scanned: the database had to be read, Checksum and Commit are its state.
	Scanned          bool
	Checksum, Commit uint64
	// Identity tells this file from others (see Identity); "" if there is none.
	Identity string
	// Found describes the database's own position for messages.
	Found string
}

// Waiting is what is known to wait for the store before it has answered.
type Waiting struct {
	Backlog
	// Whole: nothing else waits. Else this is the least.
	Whole bool
}

// Backlog is what is captured and not acknowledged.
type Backlog struct {
	Entries int
	Bytes   int64 // stored bytes of their blocks
	Spooled int   // of the entries: how many are in the spool
	TXIDs   uint64
	// Oldest is the raw time of the oldest one, µs, or since when commits may have
	// gone by that aren't captured; 0 if there is none.
	Oldest int64
}
