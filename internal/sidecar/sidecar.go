package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/replicate"
)

// Options of Open. Path and Open are necessary.
type Options struct {
	Path string // of the database
	// Open opens its store. It is asked again until it succeeds.
	Open func(ctx context.Context) (replicate.Store, error)
	// MaxLag is the least time between two uploads; see replicate.EngineOptions.
	MaxLag time.Duration
	Keep   replicate.Keep
	// Restore makes a database that is missing at the start from its replica. (One
	// that goes missing later is not made again: its application may be about to.)
	Restore bool
	Logger  *slog.Logger // nil: none
	// OnState is called when the State changes. It must not use the DB.
	OnState func(replicate.Status)

	// What a Manager's databases have in common.
	watcher *watcher      // nil: one for this database alone
	turns   chan struct{} // see replicate.EngineOptions
	mayGo   bool          // its directory is watched: that the file is removed is nothing odd

	hooks hooks
}

// hooks are for tests.
type hooks struct {
	unguarded bool // no read slot is held
	source    func(replicate.Source) replicate.Source
	capture   func(*capture.Options)
	clock     replicate.Clock
	failpoint func(string) error
	force     int64         // in the place of forceBytes
	backoff   time.Duration // first pause before a refused database is tried again
}

// Errors.
var (
	// ErrUnsupported: not on this system.
	ErrUnsupported = errors.New("sidecar: databases of other programs can be replicated on Linux alone; " +
		"programs in Go can replicate theirs with the VFS")
	// ErrRemoved: the database file went missing while it was replicated, or another
	// one took its name.
	ErrRemoved = errors.New("the database file was removed, or replaced by another one, while it was being replicated")
	// errGuard: the locks are on files that have lost their names.
	errGuard       = errors.New("the database's -wal or -shm was removed while it was in use")
	errOverwritten = errors.New("another program than SQLite wrote the database file")
	errClosed      = errors.New("sidecar: closed")
	errUndecided   = errors.New("nothing was uploaded, since it wasn't known yet how database and replica relate")
)

// DB replicates one database. Its methods are safe for concurrent use.
type DB struct {
	o    Options
	path string
	log  *slog.Logger

	ready    chan struct{}
	once     sync.Once
	closing  chan struct{}
	closeCtx context.Context // set before closing is closed
	done     chan struct{}
	stop     context.CancelFunc
	watch    *watch
	ownWatch *watcher
	counts   replicate.Counters
	guarded  atomic.Bool // the file was there once

	mu      sync.Mutex
	changed chan struct{} // closed when what follows changes
	session *session      // nil between two
	last    replicate.Status
	err     error     // why the last session ended, and none has begun well since
	failing time.Time // since when there is an err
	ended   error     // what Close returns
}

// Open begins to replicate a database. It doesn't wait: neither for the store nor
// for the file to appear. Errors are of the options and of the system; what becomes
// of the database is in Status. That ctx ends, ends nothing: see Close.
func Open(ctx context.Context, o Options) (*DB, error) {
	if !supported {
		return nil, ErrUnsupported
	}
	if o.Path == "" || o.Open == nil {
		return nil, errors.New("sidecar: Options without Path or Open")
	}
	path, err := key(o.Path)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	db := &DB{
		o: o, path: path, log: o.Logger.With("database", path),
		ready: make(chan struct{}), closing: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		last: replicate.Status{Database: path, State: replicate.StateOpening, StateSince: time.Now(), AtLeast: true},
	}
	if o.watcher == nil {
		if o.watcher, err = newWatcher(); err != nil {
			return nil, err
		}
		db.ownWatch = o.watcher
	}
	ctx, db.stop = context.WithCancel(context.WithoutCancel(ctx))
	go db.run(ctx, o.watcher)
	return db, nil
}

// Path is the database's, absolute and without symbolic links.
func (db *DB) Path() string { return db.path }

// Ready is closed when it is known how database and replica relate: commits go to
// the store, or will when it answers; or Status says what is in the way.
func (db *DB) Ready() <-chan struct{} { return db.ready }

func (db *DB) decided() { db.once.Do(func() { close(db.ready) }) }

// Status tells how replication stands.
func (db *DB) Status() replicate.Status {
	db.mu.Lock()
	s, st, err, failing := db.session, db.last, db.err, db.failing
	db.mu.Unlock()
	if s != nil {
		if now, ok := s.status(); ok {
			st = now
		}
	}
	if st.State == replicate.StateClosed && !db.isClosing() { // one session has ended, and another follows
		st.State = replicate.StateOpening
	}
	if err != nil && st.State != replicate.StateReplicating && st.State != replicate.StateExporting && st.State != replicate.StateFenced {
		st.State, st.StateSince = replicate.StateFailed, failing
		if st.Error == "" {
			st.Error = err.Error()
		}
		if st.Remedy == "" {
			st.Remedy = remedy(err)
		}
	}
	return st
}

// Again is at the end of remedies for what is tried until it works: whoever gives up
// leaves it out.
const Again = "; it is tried again"

// remedy says what to do about errors of this package.
func remedy(err error) string {
	switch {
	case errors.Is(err, ErrRemoved), errors.Is(err, capture.ErrReplaced):
		return "put the file back, or let the one that is there take its place: outwash adopt"
	case errors.Is(err, errBusy):
		return "end the other process, which outwash status names" + Again
	case errors.Is(err, syscall.EMFILE):
		return "let this process open more files (ulimit -n, LimitNOFILE= in a systemd unit, --ulimit nofile= of a container)"
	case errors.Is(err, fs.ErrNotExist):
		return "make what is missing" + Again
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "let this process write the database and in its directory, as its owner may" + Again
	case errors.Is(err, syscall.ENOSPC):
		return "make room on the disk" + Again
	}
	return "remove the cause" + Again
}

// Sync waits until every transaction that was committed before the call is in the
// replica, and returns the replica's TXID. It fails when ctx ends, or with what
// keeps the database from being replicated.
func (db *DB) Sync(ctx context.Context) (txid uint64, err error) {
	for {
		db.mu.Lock()
		s, changed, err := db.session, db.changed, db.err
		db.mu.Unlock()
		if s != nil {
			txid, ended, err := s.sync(ctx)
			if !ended {
				return txid, err
			}
		} else if err != nil {
			return 0, err
		}
		select {
		case <-changed:
		case <-db.done:
			return 0, errClosed
		case <-ctx.Done():
			return 0, fmt.Errorf("sidecar: sync %s: %w", db.path, context.Cause(ctx))
		}
	}
}

// Close uploads what is committed until ctx ends, and lets the database go. The
// error says what was not uploaded: it stays in the log and the spool, and goes with
// the next start.
func (db *DB) Close(ctx context.Context) error {
	db.mu.Lock()
	if db.closeCtx == nil {
		db.closeCtx = ctx
		close(db.closing)
	}
	db.mu.Unlock()
	<-db.done
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.ended
}

// closeLimit is when Close's time is up.
func (db *DB) closeLimit() context.Context {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.closeCtx
}

// note says that something changed that Sync or Status may wait for. mu is held.
func (db *DB) note() {
	close(db.changed)
	db.changed = make(chan struct{})
}

// run replicates until Close, in as many sessions as it takes.
func (db *DB) run(ctx context.Context, w *watcher) {
	defer close(db.done)
	defer db.stop()
	defer func() {
		if db.watch != nil {
			db.watch.close()
		}
		if db.ownWatch != nil {
			_ = db.ownWatch.Close()
		}
	}()
	var err error
	for try := 0; try == 0 || !db.isClosing(); try++ { // closed at once, it is uploaded all the same
		began := time.Now()
		err = db.runSession(ctx, w, try)
		if db.isClosing() || ctx.Err() != nil {
			break
		}
		if errors.Is(err, errGuard) || errors.Is(err, errOverwritten) {
			db.log.Warn("beginning anew", "error", err)
			try = 0
			db.pause(0)
			continue
		}
		db.failed(err, try)
		if errors.Is(err, replicate.ErrFenced) {
			<-db.closing // final: somebody else extends the replica
			break
		}
		if time.Since(began) > time.Minute {
			try = 0
		}
		db.pause(try)
	}
	db.mu.Lock()
	db.ended = err
	db.last.State, db.last.StateSince = replicate.StateClosed, time.Now()
	db.note()
	db.mu.Unlock()
	db.decided()
}

// failed notes why a session ended, and logs what the engine hasn't: in sessions after
// the first of a row it is silent.
func (db *DB) failed(err error, try int) {
	db.mu.Lock()
	told := try == 0 && complaint(db.last.Error) == complaint(err.Error()) && (db.last.State == replicate.StateFailed || db.last.State == replicate.StateFenced)
	again := db.err != nil && sameComplaint(db.err, err)
	if db.err == nil {
		db.failing = time.Now()
	}
	db.err = err
	db.note()
	db.mu.Unlock()
	db.decided()
	if again {
		return
	}
	switch {
	case told:
	case db.wentAway(err):
		db.log.Info("the database file was removed")
	default:
		db.log.Error("replication stopped; it is tried again", "error", err)
	}
	if db.o.OnState != nil {
		db.o.OnState(db.Status())
	}
}

// wentAway reports whether err is of a file that was removed where files come and go,
// and nothing of it is lost with it.
func (db *DB) wentAway(err error) bool {
	_, stat := os.Stat(db.path)
	return db.o.mayGo && errors.Is(stat, fs.ErrNotExist) && db.Status().Backlog == 0 &&
		(errors.Is(err, ErrRemoved) || errors.Is(err, replicate.ErrMissing))
}

// sameComplaint reports whether two errors say the same.
func sameComplaint(a, b error) bool { return complaint(a.Error()) == complaint(b.Error()) }

// complaint is an error's text without the numbers that servers give to requests,
// which are others each time.
func complaint(text string) string { return requestID.ReplaceAllLiteralString(text, "") }

var requestID = regexp.MustCompile(` \(request [^()]*\)`)

func (db *DB) isClosing() bool {
	select {
	case <-db.closing:
		return true
	default:
		return false
	}
}

// pause waits before a database is tried again: up to five minutes, less if files
// come or go.
func (db *DB) pause(try int) {
	first := db.o.hooks.backoff
	if first == 0 {
		first = time.Second
	}
	t := time.NewTimer(min(first<<min(try, 20), 5*time.Minute))
	defer t.Stop()
	least := time.NewTimer(first)
	defer least.Stop()
	var wake chan struct{}
	for {
		select {
		case <-db.closing:
			return
		case <-t.C:
			return
		case <-least.C:
			if db.watch != nil {
				wake = db.watch.wake
			}
		case <-wake:
			if db.watch.names.Load() {
				return
			}
		}
	}
}
