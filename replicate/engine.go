package replicate

import (
	"context"
	"log/slog"
	"time"

	"github.com/outwash/outwash/internal/local"
)

const (
	// DefaultMaxLag is how long a commit waits for company at most.
	DefaultMaxLag = time.Second
	// AsFast is a MaxLag: upload as soon as the store has answered the last one.
	AsFast time.Duration = -1
)

// Clock tells and waits for the time.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// EngineOptions says what an [Engine] connects. Store, Source and Local are
// necessary.
type EngineOptions struct {
	Store  Store
	Source Source
	Local  *local.Dir
	// Database is the file's path, for messages.
	Database string
	// MaxLag is the least time between two uploads: the first commit after a
	// pause goes at once, later ones share uploads. 0 is DefaultMaxLag; AsFast
	// (or anything below 0) uploads whenever the last upload is done.
	MaxLag time.Duration
	Logger *slog.Logger // nil: none
	Clock  Clock        // nil: the system's
	// Failpoint is called with the name of each step of writing; an error ends
	// the engine there as a crash would. For tests.
	Failpoint func(name string) error
	// OnState is called by the engine's goroutine whenever State changes. It
	// must not call Sync or Close.
	OnState func(Status)
	// Restore is called when the machine has no database and the replica has
	// one: it makes the file, at tail or later. nil: that is ErrMissing.
	Restore func(ctx context.Context, tail Tail) error
}

// An Engine replicates one database to one store, in one goroutine. Its methods
// are safe for concurrent use.
type Engine struct {
	opts EngineOptions
}

// Open starts an engine. It doesn't wait: see Decided. Cancelling ctx stops the
// engine at once, as a crash would; Close stops it in order.
func Open(ctx context.Context, opts EngineOptions) *Engine { panic("soon") }

// Decided is closed when it is known whether the database may be used: Err and
// WriteError then say so. It is closed, too, when the store is unreachable and
// the lineage shows that the database belongs to a replica: commits are kept
// then, and the engine goes on trying.
func (e *Engine) Decided() <-chan struct{} { panic("soon") }

// Done is closed when the engine has stopped, for whatever reason.
func (e *Engine) Done() <-chan struct{} { panic("soon") }

// Err returns why the engine stopped or refused to start: nil while it runs and
// after an orderly Close.
func (e *Engine) Err() error { panic("soon") }

// WriteError is non-nil when writes to the database must fail, because they
// could never be replicated: fenced, refused or failed. It is cheap.
func (e *Engine) WriteError() error { panic("soon") }

// Sync uploads without regard to MaxLag and waits until everything that the
// source had captured when it was called is acknowledged. It returns the
// acknowledged TXID. It fails when ctx ends or the engine stops.
func (e *Engine) Sync(ctx context.Context) (txid uint64, err error) { panic("soon") }

// Status tells how the engine is doing.
func (e *Engine) Status() Status { panic("soon") }

// Close uploads what is left until ctx ends, then stops the engine and waits for
// it. The error says how much was not uploaded (it stays in WAL and spool), and
// wraps Err if the engine had stopped for that.
func (e *Engine) Close(ctx context.Context) error { panic("soon") }
