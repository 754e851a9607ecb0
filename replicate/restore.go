package replicate

import (
	"context"
	"log/slog"
	"time"
)

// RestoreOptions says what to restore and where to. Store (or URL) and Output
// are necessary.
type RestoreOptions struct {
	Store Store
	URL   string // opened if Store is nil
	// Output is the database file to make. It is complete or absent: everything
	// is written to a temporary file beside it.
	Output string
	// TXID to restore; 0: the newest, or Timestamp's.
	TXID uint64
	// Timestamp selects the last commit at or before it; zero: the newest.
	Timestamp time.Time
	// Force replaces an existing database, with its -wal, -shm, -journal and
	// -replicated. No process may have it open.
	Force bool
	// DryRun finds out what would be restored and writes nothing.
	DryRun bool
	// Check, if set, is called with the finished file's temporary name before it
	// becomes Output: an error discards it. It may leave files whose names begin
	// with that name.
	Check func(path string) error
	// Progress, if set, is called from time to time, by one goroutine at a time.
	Progress func(Progress)
	// Parallelism is how many requests run at once, 1 to 64; 0: 8.
	Parallelism int
	Logger      *slog.Logger // nil: none
}

// Progress of a restore.
type Progress struct {
	TXID       uint64 `json:"txid"`        // position reached; 0 while the snapshot is read
	TargetTXID uint64 `json:"target_txid"` // 0 while unknown
	Fetched    int64  `json:"fetched"`     // bytes read from the store
	Total      int64  `json:"total"`       // bytes to read, as far as known
	Pages      uint64 `json:"pages"`       // pages written
}

// RestoreResult says what was restored.
type RestoreResult struct {
	Database string    `json:"database"` // database ID
	Replica  string    `json:"replica"`
	Output   string    `json:"output"`
	TXID     uint64    `json:"txid"`
	Checksum string    `json:"checksum"` // hex
	Time     time.Time `json:"time"`     // of the last commit
	Snapshot uint64    `json:"snapshot"` // TXID of the snapshot begun with; 0: none
	Latest   bool      `json:"latest"`   // TXID is the replica's newest
	Pages    uint64    `json:"pages"`
	PageSize uint32    `json:"page_size"`
	Bytes    int64     `json:"bytes"`    // size of the database
	Fetched  int64     `json:"fetched"`  // bytes read from the store
	Objects  int       `json:"objects"`  // objects read
	Requests int       `json:"requests"` // GET and LIST requests; a page of a listing counts as 1000 keys
	Duration float64   `json:"duration"` // seconds

	hashes []uint64
	tail   Tail
}

// Tail is the line up to the restored position. Its Chain is the chain value of
// the log segment that holds it, which may go on beyond it.
func (r *RestoreResult) Tail() Tail { return r.tail }

// PageHashes returns the hash of each page, page 1's first; the lock page's is 0.
func (r *RestoreResult) PageHashes() []uint64 { return r.hashes }

// Restore rebuilds a database. Everything read is verified: each object's bytes,
// the chain from object to object, each page, the checksum after each entry. If
// ctx ends or anything fails, there is no output and the temporary file is gone.
//
// Errors: [ErrNoReplica], [ErrNotRestorable], [ErrOutputExists], [ErrCorrupt],
// [ErrVersion], [ErrForeign], and those of stores.
func Restore(ctx context.Context, opts RestoreOptions) (RestoreResult, error) { panic("soon") }
