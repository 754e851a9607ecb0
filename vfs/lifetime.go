package vfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outwash/outwash/replicate"
)

// acquire adds a connection; false if the database has been closed.
func (db *database) acquire() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return false
	}
	db.refs++
	if db.idle != nil {
		db.idle.Stop()
		db.idle = nil
	}
	return true
}

// release takes a connection away. After the last one it waits for the store, if
// the connection was there to be used.
func (db *database) release(used bool) {
	db.mu.Lock()
	db.refs--
	last, patience := db.refs == 0, db.patience
	db.mu.Unlock()
	if !last {
		return
	}
	ended := db.engine.Err() != nil || db.engine.WriteError() != nil
	// A store that did not answer the last close is not waited for again until
	// it has caught up, so that pools that close often aren't held up by it.
	if limit := db.p.closeTimeout; used && limit > 0 && !ended && (patience || db.capture.Backlog().Entries == 0) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		_, err := db.sync(ctx)
		cancel()
		if err != nil {
			db.log.Warn("closed before everything was in the replica; the next open or Shutdown goes on", "error", err)
		}
		db.mu.Lock()
		db.patience = err == nil
		db.mu.Unlock()
	}
	if ended {
		db.closeIdle() // the next open decides anew
		return
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	wait := db.opts.IdleTimeout
	if wait <= 0 {
		wait = time.Minute
	}
	db.closeIdleAfter(wait)
}

// closeIdleAfter is called with mu held.
func (db *database) closeIdleAfter(wait time.Duration) {
	if db.refs > 0 || db.closed {
		return
	}
	if db.idle != nil {
		db.idle.Stop()
	}
	db.idle = time.AfterFunc(wait, db.closeIdle)
}

func (db *database) closeIdle() {
	db.mu.Lock()
	if db.capture.Backlog().Entries > 0 && db.engine.Err() == nil {
		db.closeIdleAfter(time.Second) // the store has still to take something
		db.mu.Unlock()
		return
	}
	idle := db.refs == 0 && !db.closed
	if idle {
		db.closed = true // who opens it from now on waits and begins anew
	}
	db.mu.Unlock()
	if idle {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := db.end(ctx); err != nil {
			db.log.Warn("idle database closed", "error", err)
		}
	}
}

func (db *database) isClosed() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.closed
}

// shutdown ends the database: its engine drains until ctx ends.
func (db *database) shutdown(ctx context.Context) error {
	<-db.ready
	if db.startErr != nil {
		return nil
	}
	db.mu.Lock()
	closed := db.closed
	db.closed = true
	if db.idle != nil {
		db.idle.Stop()
	}
	db.mu.Unlock()
	if !closed {
		return db.end(ctx)
	}
	select {
	case <-db.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("vfs: %s is being closed: %w", db.path, context.Cause(ctx))
	}
}

// end is called by whoever has set closed.
func (db *database) end(ctx context.Context) error {
	defer close(db.gone)
	_, err := db.sync(ctx)
	if errors.Is(err, replicate.ErrClosed) || db.capture.Backlog().Entries > 0 {
		err = nil // Close says it
	}
	db.shut.Store(true)
	err = errors.Join(err, db.engine.Close(ctx))
	db.cancel()
	db.running.Wait()
	err = errors.Join(err, db.capture.Close(), db.dir.Close())
	db.set.mu.Lock()
	if db.set.byPath[db.path] == db {
		delete(db.set.byPath, db.path)
	}
	db.set.mu.Unlock()
	if err != nil {
		return fmt.Errorf("vfs: %s: %w", db.path, err)
	}
	return nil
}
