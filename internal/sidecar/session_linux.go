package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/wal"
	"github.com/outwash/outwash/replicate"
)

const supported = true

var errBusy = local.ErrBusy

// session is a database under replication, until something ends it.
type session struct {
	db    *DB
	path  string
	log   *slog.Logger
	watch *watch
	again bool // the last one failed

	dir     *local.Dir
	capture *capture.DB
	engine  *replicate.Engine
	running sync.WaitGroup

	preparing sync.Mutex

	mu      sync.Mutex
	guard   *guard // nil: there is no file yet. Only follow uses it.
	absent  bool   // waiting for the file to appear
	unknown error  // of Close: nothing was uploaded
	here    chan struct{}

	// Of follow's goroutine.
	last     replicate.Status // at its end
	warned   string
	seen     wal.Index // when it was last looked
	base     wal.Index // on slot 0: as it was let go
	urgent   bool      // somebody waits for the log to be let go
	theirs   time.Time // when somebody else checkpointed
	stuck    time.Time // since when too much isn't backfilled
	torn     time.Time // since when the WAL-index can't be read, and nobody writes it
	noForce  time.Time // until then the log is not forced to restart
	noChase  time.Time // nor are the ends of checkpoints chased
	chased   int       // how often in a row that came to nothing
	noCheckp time.Time // nor checkpointed, nor recovered
}

// runSession runs one session.
func (db *DB) runSession(ctx context.Context, w *watcher, try int) (err error) {
	s := &session{db: db, path: db.path, watch: db.watch, log: db.log, here: make(chan struct{}, 1)}
	if db.o.Restore && !db.guarded.Load() {
		made, err := local.MakeParents(db.path)
		if err != nil {
			return fmt.Errorf("sidecar: %s: %w", db.path, err)
		}
		if len(made) > 0 {
			s.log.Info("made the directory, for the database to be restored there", "directory", made[0])
		}
	}
	if s.watch == nil {
		if s.watch, err = w.watch(db.path); err != nil {
			return err
		}
		db.watch = s.watch
	}
	defer func() {
		if err != nil && !db.isClosing() { // the directory may be another one by then
			db.watch.close()
			db.watch = nil
			if again, err := w.watch(db.path); err == nil {
				db.watch = again
			}
		}
	}()
	s.watch.names.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-db.closing:
			s.watch.notify()
		}
	}()
	store, err := db.store(ctx)
	if err != nil {
		return err
	}
	if err := writable(db.path); err != nil {
		return err
	}
	if s.dir, err = local.Open(db.path); err != nil {
		return fmt.Errorf("sidecar: %s: %w", db.path, err)
	}
	defer s.dir.Close()
	logger := db.o.Logger
	if s.again = try > 0; s.again { // what is tried again is told once
		logger = slog.New(slog.DiscardHandler)
	}
	co := capture.Options{Path: db.path, Dir: s.dir, Logger: db.o.Logger, Guarded: true, Held: s.held, Yield: s.yield, Failpoint: db.o.hooks.failpoint}
	if h := db.o.hooks.capture; h != nil {
		h(&co)
	}
	if s.capture, err = capture.Open(co); err != nil {
		return err
	}
	var src replicate.Source = &source{DB: s.capture, s: s}
	if h := db.o.hooks.source; h != nil {
		src = h(src)
	}
	o := replicate.EngineOptions{
		Store: store, Source: src, Local: s.dir, Database: db.path,
		MaxLag: db.o.MaxLag, Keep: db.o.Keep, Turns: db.o.turns, Logger: logger, OnState: s.onState,
		Clock: db.o.hooks.clock, Failpoint: db.o.hooks.failpoint, Counters: &db.counts, Waiting: s.capture.Waiting,
	}
	if db.o.Restore && !db.guarded.Load() {
		o.Restore = func(ctx context.Context, _ replicate.Tail) error { return s.restore(ctx, store) }
	}
	s.engine = replicate.Open(ctx, o)
	s.running.Go(func() { s.capture.Run(ctx) })
	db.mu.Lock()
	db.session = s
	db.note()
	db.mu.Unlock()

	err = s.follow(ctx)
	err = s.end(ctx, cancel, err)
	st := s.last
	db.mu.Lock()
	db.session = nil
	db.last = st
	db.note()
	db.mu.Unlock()
	return err
}

// store opens the store.
func (db *DB) store(ctx context.Context) (replicate.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-db.closing:
		}
		select {
		case <-ctx.Done():
		case <-db.closeLimit().Done():
			cancel()
		}
	}()
	s, err := db.o.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %s: %w", db.path, err)
	}
	return s, nil
}

// onState is the engine's.
func (s *session) onState(st replicate.Status) {
	if st.State == replicate.StateReplicating || st.State == replicate.StateExporting {
		s.db.mu.Lock()
		was := s.db.err
		s.db.err = nil
		s.db.note()
		s.db.mu.Unlock()
		if was != nil {
			s.log.Info("replicating again", "session", st.Session)
		}
	}
	if s.db.o.OnState != nil && (st.State != replicate.StateFailed || !s.again) {
		s.db.o.OnState(st)
	}
}

// status is the engine's, with what capture and guard have to say; false if there
// is none yet.
func (s *session) status() (replicate.Status, bool) {
	if s.engine == nil {
		return replicate.Status{}, false
	}
	st := s.engine.Status()
	s.mu.Lock()
	absent := s.absent
	s.mu.Unlock()
	err, lasting := s.capture.Trouble()
	switch {
	case st.State == replicate.StateClosed, st.State == replicate.StateFenced:
	case absent && st.Error == "":
		st.Error = "there is no database file yet"
	case err != nil:
		st.Error = cmp.Or(st.Error, err.Error())
		if lasting {
			st.State = replicate.StateFailed
		}
	}
	return st, true
}

// sync captures what is committed and waits until the store has it. ended: the
// session is over, and another may follow.
func (s *session) sync(ctx context.Context) (txid uint64, ended bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // capture doesn't begin if the engine ends
		select {
		case <-ctx.Done():
		case <-s.engine.Done():
			cancel(cmp.Or(s.engine.Err(), error(replicate.ErrClosed)))
		}
	}()
	if err = s.capture.Capture(ctx); err == nil {
		txid, err = s.engine.Sync(ctx)
	}
	if err != nil {
		select {
		case <-s.engine.Done():
			return 0, !s.db.isClosing(), err
		default:
		}
	}
	return txid, false, err
}

// end ends capture and engine, and gives the locks back. why: what ended the session;
// nil is Close.
func (s *session) end(ctx context.Context, cancel context.CancelFunc, why error) error {
	var limit context.Context
	if why == nil {
		limit = s.db.closeLimit()
	} else {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		limit = short
	}
	err := s.engine.Close(limit)
	s.mu.Lock()
	err = cmp.Or(err, s.unknown)
	s.mu.Unlock()
	s.last, _ = s.status()
	killed := ctx.Err() != nil // in tests: as by SIGKILL
	cancel()
	s.running.Wait()
	if killed {
		if s.guard != nil {
			s.guard.release()
		}
		return why
	}
	if g := s.guard; g != nil {
		if why == nil && g.slot != 0 {
			if limit.Err() == nil {
				s.settle()
			}
			if _, err := s.swap(false); err != nil {
				s.log.Warn("the log can't be let go", "error", err)
			}
		}
		if !errors.Is(why, ErrRemoved) {
			err = errors.Join(err, s.capture.Secure())
		}
	}
	err = errors.Join(err, s.capture.Close())
	if g := s.guard; g != nil {
		g.release()
	}
	if why != nil {
		return why
	}
	if err != nil {
		return fmt.Errorf("sidecar: %s: %w", s.path, err)
	}
	return nil
}

// drain uploads what is committed, until Close's time is up. What it returns is closed
// then.
func (s *session) drain() <-chan struct{} {
	done := make(chan struct{})
	s.running.Go(func() {
		defer close(done)
		if !s.awaitDecision(s.db.closeLimit()) { // it is not even known where to
			if s.present() {
				err := s.undecided()
				s.mu.Lock()
				s.unknown = err
				s.mu.Unlock()
			}
			return
		}
		if _, _, err := s.sync(s.db.closeLimit()); err != nil {
			s.log.Debug("not all is in the replica", "error", err)
		}
	})
	return done
}

// settle brings all that is committed into the database file if nobody else has it open,
// as SQLite does at the last close: who copies the file then, without its log, has all.
func (s *session) settle() {
	idx, err := s.guard.index()
	if err != nil || idx.Backfilled == idx.MaxFrame || !s.guard.alone() {
		return
	}
	if err := checkpoint(s.path); err != nil {
		s.log.Warn("what is committed stays in the log", "error", err)
	}
}

// held reports whether the locks are on the files that the database has now.
func (s *session) held() bool {
	s.mu.Lock()
	g := s.guard
	s.mu.Unlock()
	return g == nil || g.same()
}

// undecided says of a database that is there, that nothing of it was uploaded.
func (s *session) undecided() error {
	if st, _ := s.status(); st.Error != "" {
		return fmt.Errorf("%w: %s", errUndecided, st.Error)
	}
	return errUndecided
}

// awaitDecision waits until it is known how database and replica relate, as long as
// nothing is in the way of finding out.
func (s *session) awaitDecision(ctx context.Context) bool {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !s.decided() {
		if st, _ := s.status(); st.Error != "" {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-s.engine.Done():
			return s.decided()
		case <-look.C:
		}
	}
	return true
}

func (s *session) decided() bool {
	select {
	case <-s.engine.Decided():
		return true
	default:
		return false
	}
}

// present reports whether there is a database file with content.
func (s *session) present() bool {
	fi, err := os.Stat(s.path)
	return err == nil && fi.Size() > 0
}

// restore makes the missing database from its replica, before anybody uses it.
func (s *session) restore(ctx context.Context, store replicate.Store) error {
	if s.present() {
		return fmt.Errorf("sidecar: %s is at an earlier state than its replica: %w; "+
			"take the replica's with outwash restore -force, while nobody uses the database", s.path, replicate.ErrDiverged)
	}
	for _, name := range []string{s.path, s.path + "-wal", s.path + "-shm"} {
		fi, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && name == s.path+"-wal" && fi.Size() > 0 {
			continue // a log with content is for people to look at: Restore says so
		}
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("sidecar: %w", err)
		}
	}
	r, err := replicate.Restore(ctx, replicate.RestoreOptions{Store: s.db.counts.Store(store), Output: s.path, Database: s.path, Logger: s.log})
	if err == nil {
		s.log.Info("restored", "txid", r.TXID, "bytes", r.Bytes)
	}
	return err
}
