package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"golang.org/x/sync/errgroup"
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
	// Keep says how history is condensed and how long it is kept.
	Keep Keep
	// Turns bounds how many engines export or restore at a time: those that have it in
	// common, and as many as it has room for. nil: no bound.
	Turns  chan struct{}
	Logger *slog.Logger // nil: none
	Clock  Clock        // nil: the system's
	// Counters count on where an earlier engine of this database ended; nil: from zero.
	Counters *Counters
	// Failpoint is called with the name of each step of writing; an error ends
	// the engine there as a crash would. For tests.
	Failpoint func(name string) error
	// OnState is called by the engine's goroutine whenever State changes. It
	// must not call Sync or Close.
	OnState func(Status)
	// Restore is called when the machine has no database and the replica has
	// one, and when the database is an earlier state of the replica's and this
	// machine's own: it makes the file, or replaces it, at tail or later. Nobody
	// uses the database then: Decided isn't closed yet. nil: that is an error.
	Restore func(ctx context.Context, tail Tail) error
	// Adopt is asked when the database may not continue the replica, but can take
	// its place at the line's end, tail: nil lets it, as one entry that changes the
	// replica's state into the database's (what was before stays restorable). Else
	// its error ends the engine: refusal, which says what was found, or another
	// one. It is not asked twice about the same state. nil: refused.
	Adopt func(ctx context.Context, refusal error, tail Tail) error
	// Waiting counts what is behind tail, which is where this machine knows the replica
	// to have been, while the store doesn't answer and Source hasn't begun: for Status.
	// It is called by the engine's goroutine. nil: that isn't known.
	Waiting func(tail Tail) local.Waiting

	// Sizes that tests make smaller; 0: inlineSize, smallDatabase, replayCost.
	inline, small, replay int64
	// For tests; nil, "": those of package local.
	identity func(path string) string
	boot     string
}

// An Engine replicates one database to one store: the log in one goroutine, history
// (page segments, snapshots) in another. Its methods are safe for concurrent use.
type Engine struct {
	opts    EngineOptions
	log     *slog.Logger
	clock   Clock
	session ID
	owner   Owner
	base    Store  // as it was given
	guard   *guard // opts.Store: base, counted and guarded
	history *exporter
	// retainer is of the goroutine that calls retain alone.
	retainer retainer

	group   errgroup.Group
	stop    context.CancelCauseFunc
	decided chan struct{}
	begun   chan struct{} // closed once the source emits and Sync can count
	closing chan struct{} // closed by Close
	done    chan struct{}
	kick    chan struct{} // Sync or Close wants attention

	writeErr atomic.Pointer[error]

	// Of the engine's goroutine alone.
	end      lineEnd
	lineage  local.Lineage
	proof    proof
	claimed  bool             // this session's claim is in the line
	restored int              // how often this engine made the database from the replica
	taken    bool             // somebody did before, and nobody has claimed the line for it since
	adopted  *Tail            // the state that Adopt let the database replace
	verify   bool             // the log is no proof of what the file has: power was lost, perhaps
	bound    bool             // the line's end was found once
	early    bool             // the application may be let in before the source begins
	changes  backoff          // of decisions that had to be taken anew
	losses   backoff          // of sources that gave up what waited
	pending  []*segment.Entry // taken from the source, not acknowledged
	unsafe   error            // a loss of power may take from the database what was uploaded last
	// exportPageSize is the database's, as the evidence said.
	exportPageSize uint32
	exportSize     int64

	// ack makes acknowledging and counting one step.
	ack     sync.Mutex
	acked   uint64 // TXIDs of the source's entries acknowledged so far
	waiters []waiter

	mu     sync.Mutex // guards what follows
	status Status
	known  local.Waiting // before the source has begun, as AtLeast says
	err    error
}

// Open starts an engine. It doesn't wait: see Decided. Cancelling ctx stops the
// engine at once, as a crash would; Close stops it in order.
func Open(ctx context.Context, opts EngineOptions) *Engine {
	e := &Engine{
		opts: opts, log: opts.Logger, clock: opts.Clock, session: segment.NewID(),
		decided: make(chan struct{}), begun: make(chan struct{}), closing: make(chan struct{}),
		done: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.clock == nil {
		e.clock = systemClock{}
	}
	if e.opts.MaxLag == 0 {
		e.opts.MaxLag = DefaultMaxLag
	}
	if e.opts.inline == 0 {
		e.opts.inline = inlineSize
	}
	if e.opts.small == 0 {
		e.opts.small = smallDatabase
	}
	if e.opts.Counters == nil {
		e.opts.Counters = new(Counters)
	}
	e.base = opts.Store
	e.guard = &guard{Store: e.opts.Counters.Store(opts.Store), missing: e.weak}
	e.opts.Store = e.guard
	if e.opts.identity == nil {
		e.opts.identity = local.Identity
	}
	if e.proof.boot = e.opts.boot; e.proof.boot == "" {
		e.proof.boot = opts.Local.BootID()
	}
	e.owner = thisProcess(e.clock.Now())
	e.log = e.log.With("database", opts.Database)
	e.status = Status{Database: opts.Database, Replica: opts.Store.String(), Session: e.session.String(), Owner: e.owner, State: StateOpening, StateSince: e.clock.Now(), AtLeast: true}
	e.history = newExporter(e)
	ctx, e.stop = context.WithCancelCause(ctx)
	e.group.Go(func() error { return e.run(ctx) })
	return e
}

// run is the engine's goroutine.
func (e *Engine) run(ctx context.Context) (err error) {
	defer close(e.done)
	defer e.stop(nil)
	defer func() { e.finish(ctx, err) }()
	for {
		act, err := e.open(ctx)
		if err != nil {
			return err
		}
		again, err := e.begin(ctx, act)
		if err == nil && again {
			continue
		}
		if err == nil {
			if err = e.replicate(ctx, false); err == nil {
				err = e.settle(true)
			}
		}
		switch {
		case errors.Is(err, errLost):
			if err := e.lost(ctx); err != nil {
				return err
			}
		case errors.Is(err, ErrStale):
			// An upload of an earlier session came to light after the line was read,
			// and what waits doesn't follow it.
			e.log.Info("an earlier session's upload arrived late; comparing anew")
		default:
			return err
		}
		e.pending = nil
	}
}

// errLost says that the source gave up what waited, and that everything that was
// taken of it before is acknowledged.
var errLost = errors.New("the source gave up what waited")

// finish notes why the engine stopped.
func (e *Engine) finish(ctx context.Context, err error) {
	state := StateFailed
	switch {
	case err == nil || errors.Is(err, ErrClosed) || ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		state = StateClosed
		if errors.Is(err, errClosing) || errors.Is(err, ErrClosed) {
			err = nil // Close says it itself
		}
	case errors.Is(err, ErrFenced):
		state = StateFenced
		e.opts.Counters.fences.Add(1)
	}
	var fenced *FencedError
	e.mu.Lock()
	e.err = err
	if errors.As(err, &fenced) {
		e.status.FencedBy = fenced.fencer()
	}
	e.mu.Unlock()
	failure := err
	if failure == nil {
		failure = fmt.Errorf("replicate: %s: %w", e.opts.Database, ErrClosed)
	}
	if state != StateClosed {
		e.writeErr.Store(&failure)
	}
	e.setState(state, err)
	e.decide()
	e.ack.Lock()
	e.waiters = nil // they see done
	e.ack.Unlock()
}

func (e *Engine) decide() {
	if !e.isDecided() {
		close(e.decided)
	}
}

// isDecided reports whether the database may be in use.
func (e *Engine) isDecided() bool {
	select {
	case <-e.decided:
		return true
	default:
		return false
	}
}

// Decided is closed when it is known whether the database may be used: Err and
// WriteError then say so. It is closed, too, when the store is unreachable and
// the lineage shows that the database belongs to a replica: commits are kept
// then, and the engine goes on trying. A database that is still compared with the
// replica may be used where at worst a repair comes of it.
func (e *Engine) Decided() <-chan struct{} { return e.decided }

// Done is closed when the engine has stopped, for whatever reason.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err returns why the engine stopped or refused to start: nil while it runs and
// after Close.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// WriteError is non-nil when writes to the database must fail, because they
// could never be replicated: fenced, refused or failed. It is cheap.
func (e *Engine) WriteError() error {
	if p := e.writeErr.Load(); p != nil {
		return *p
	}
	return nil
}

// failpoint is where tests make the engine crash.
func (e *Engine) failpoint(name string) error {
	if e.opts.Failpoint == nil {
		return nil
	}
	if err := e.opts.Failpoint(name); err != nil {
		return fmt.Errorf("replicate: failpoint %s: %w: %w", name, errCrash, err)
	}
	return nil
}

// errCrash marks what must not be retried, as after a crash there is nobody to.
var errCrash = errors.New("crash")
