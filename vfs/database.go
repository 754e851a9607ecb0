package vfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
)

// hooks are for tests.
type hooks struct {
	failpoint func(name string) error
	off       map[string]bool // gates, see capture.Options
	// source wraps what the engine takes entries from.
	source func(path string, s replicate.Source) replicate.Source
	files  local.FS               // what the local state is kept on
	limits func(*capture.Options) // of what waits
	clock  replicate.Clock        // the engine's
}

// database is one replicated file of this process: its capture, its engine, and
// how many connections it has. It outlives connections, because pools open and
// close them per query.
type database struct {
	path string
	opts Options
	p    params
	log  *slog.Logger
	set  *databases

	ready    chan struct{} // closed when start has ended
	startErr error
	started  bool          // under set.mu: capture and engine are there
	gone     chan struct{} // closed when shutdown has ended

	url     string // of the replica; "": Options gave a store
	dir     *local.Dir
	stack   *stack // nil: the files on disk are plain
	capture *capture.DB
	engine  *replicate.Engine
	counts  replicate.Counters
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	refs     int
	closed   bool
	patience bool // the store took what the last close waited for, or none has waited
	idle     *time.Timer

	shut atomic.Bool // writes fail
	told atomic.Bool // a refused write has been logged

	garbled atomic.Bool // a VFS above encrypts: nothing can be replicated
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.Default()
	}
	return o.Logger
}

// open returns the database with this path, started and referenced.
func (v *replicated) open(path string, p params) (*database, error) {
	for {
		set := v.databases
		set.mu.Lock()
		db := set.byPath[path]
		if db == nil {
			db = &database{
				path: path, opts: v.opts, p: p, set: set, patience: true,
				log: v.opts.logger().With("database", path), ready: make(chan struct{}), gone: make(chan struct{}),
			}
			set.byPath[path] = db
			set.mu.Unlock()
			db.startErr = db.start(v)
			set.mu.Lock()
			db.started = db.startErr == nil
			if !db.started {
				delete(set.byPath, path)
			}
			set.mu.Unlock()
			close(db.ready)
		} else {
			set.mu.Unlock()
			<-db.ready
		}
		if db.startErr != nil {
			return nil, db.startErr
		}
		if db.outdated() {
			db.closeIdle() // begin again, with what is there now
			if db.outdated() && !db.isClosed() {
				return nil, fmt.Errorf("vfs: %s: %w", path, capture.ErrReplaced)
			}
		}
		if p.replica != "" && p.replica != db.url {
			return nil, fmt.Errorf("vfs: %s is already replicated to %s in this process", path, db.engine.Status().Replica)
		}
		if err := db.stack.sameParams(p.base); err != nil {
			return nil, err
		}
		if !db.acquire() {
			<-db.gone // it is being closed: begin again
			continue
		}
		if err := db.decided(p.openTimeout); err != nil {
			db.release(false)
			return nil, err
		}
		return db, nil
	}
}

// start connects store, local state, capture and engine.
func (db *database) start(v *replicated) (err error) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return fmt.Errorf("vfs: replication is not supported on %s yet", runtime.GOOS)
	}
	store, err := v.store(db) // which may know more of db.p
	if err != nil {
		return err
	}
	if err := db.readable(); err != nil {
		return err
	}
	if db.dir, err = openDir(db.path, db.stack.files(db.opts.hooks.files), db.p.openTimeout); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			db.dir.Close()
		}
	}()
	co := capture.Options{
		Path: db.path, Dir: db.dir, VFS: db.opts.Base, Logger: db.opts.logger(),
		OpenFile: db.stack.opener(), Params: db.p.base,
		Failpoint: db.opts.hooks.failpoint, Off: db.opts.hooks.off,
	}
	if limit := db.opts.hooks.limits; limit != nil {
		limit(&co)
	}
	db.capture, err = capture.Open(co)
	if err != nil {
		return err
	}
	o := replicate.EngineOptions{
		Store: store, Source: db.capture, Local: db.dir, Database: db.path,
		MaxLag: db.p.maxLag, Keep: db.p.keep, Logger: db.opts.logger(), OnState: db.opts.OnState,
		Failpoint: db.opts.hooks.failpoint, Clock: db.opts.hooks.clock, Counters: &db.counts, Waiting: db.capture.Waiting,
	}
	if db.p.restore == RestoreAuto {
		o.Restore = func(ctx context.Context, _ replicate.Tail) error { return db.restore(ctx, db.counts.Store(store)) }
	}
	if w := db.opts.hooks.source; w != nil {
		o.Source = w(db.path, o.Source)
	}
	ctx, cancel := context.WithCancel(context.Background())
	db.cancel = cancel
	db.engine = replicate.Open(ctx, o)
	db.running.Go(func() { db.capture.Run(ctx) })
	db.announce()
	return nil
}

// openDir waits for another process to let the database go, as in a rolling
// restart.
func openDir(path string, on local.FS, limit time.Duration) (*local.Dir, error) {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		dir, err := local.OpenFS(path, on)
		if !errors.Is(err, local.ErrBusy) || time.Now().After(end) {
			return dir, err
		}
	}
}

// store opens the database's store.
func (v *replicated) store(db *database) (replicate.Store, error) {
	if db.p.replica == "" && v.opts.Store != nil {
		s, err := v.opts.Store(db.path)
		if c, ok := s.(objstore.Configured); ok && err == nil {
			db.p, err = db.p.over(c.Params(), v.opts)
		}
		if err != nil || s != nil {
			return s, err
		}
	}
	var err error
	if db.url, err = v.replicaURL(db.path, db.p); err != nil {
		return nil, err
	}
	return replicate.OpenStore(context.Background(), db.url)
}

// decided waits until it is known whether the database may be used.
func (db *database) decided(limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-db.engine.Decided():
		if s := db.engine.Status().State; s == replicate.StateUnreachable || s == replicate.StateDenied {
			db.capture.Unreachable()
		}
		return cmp.Or(db.engine.WriteError(), db.engine.Err())
	case <-t.C:
		s := db.engine.Status()
		return fmt.Errorf("vfs: %s: it is not known yet how the database relates to its replica %s (%s: %s); "+
			"it is being found out, try again, or raise replica_open_timeout (%s)", db.path, s.Replica, s.State, s.Error, limit)
	}
}

// sync captures what is committed and waits until the store has it.
func (db *database) sync(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // capture doesn't begin if the engine ends
		select {
		case <-ctx.Done():
		case <-db.engine.Done():
			cancel(cmp.Or(db.engine.Err(), error(replicate.ErrClosed)))
		}
	}()
	if err := db.capture.Capture(ctx); err != nil {
		return 0, err
	}
	return db.engine.Sync(ctx)
}

// awaitLive waits until commits are captured one by one.
func (db *database) awaitLive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.p.openTimeout)
	defer cancel()
	return db.capture.Capture(ctx)
}

// status is the engine's, with what capture has to say.
func (db *database) status() replicate.Status {
	s := db.engine.Status()
	err, lasting := db.capture.Trouble()
	if db.garbled.Load() {
		err, lasting = errCiphertext, true
	}
	if err == nil || s.State == replicate.StateClosed {
		return s
	}
	if s.Error == "" {
		s.Error = err.Error()
	}
	if lasting {
		s.State = replicate.StateFailed
	}
	return s
}

// outdated reports whether the file was replaced, or capture has failed for good.
func (db *database) outdated() bool {
	_, lasting := db.capture.Trouble()
	return lasting || db.capture.Replaced()
}

var errShut = errors.New("vfs: replication of this database was shut down: close its connections and open them again")

// writeError is why writes to the database must fail; nil while they may.
func (db *database) writeError() error {
	switch {
	case db.shut.Load():
		return errShut
	case db.garbled.Load():
		return errCiphertext
	}
	if err, lasting := db.capture.Trouble(); lasting {
		return err
	}
	return db.engine.WriteError()
}

// refuse makes SQLite fail a write as on a read-only database.
func (db *database) refuse(err error) error {
	if !db.told.Swap(true) {
		db.log.Error("write refused", "error", err)
	}
	return vfs.SystemError(err, sqlite3.READONLY)
}
