package sidecar

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/outwash/outwash/replicate"
)

// database is *DB.
type database interface {
	Status() replicate.Status
	Sync(context.Context) (uint64, error)
	Ready() <-chan struct{}
	Close(context.Context) error
}

// A member is a database that the manager has.
type member struct {
	path    string
	key     string
	opts    Options
	stop    context.CancelFunc
	started chan struct{} // closed when db is set, or will never be
	moved   chan struct{} // closed when its state is another one than opening
	gone    chan struct{} // closed when it is closed

	mu    sync.Mutex
	db    database
	err   error     // why the last attempt failed
	since time.Time // that is so, or when it was added

	once sync.Once // closes started
}

func (b *member) nowStarted() { b.once.Do(func() { close(b.started) }) }

// failed notes why a database isn't started, and reports whether that is news.
func (b *member) failed(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.since = time.Now()
	}
	news := b.err == nil || b.err.Error() != err.Error()
	b.err = err
	return news
}

// leaving reports whether the database is being closed.
func (b *member) leaving() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stop == nil
}

// get returns the database; nil while it isn't started.
func (b *member) get() (database, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.db, b.err
}

func (b *member) status() replicate.Status {
	if db, _ := b.get(); db != nil {
		return db.Status()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := replicate.Status{Database: b.path, State: replicate.StateOpening, StateSince: b.since}
	if b.err != nil {
		s.State, s.Error = replicate.StateFailed, b.err.Error()
	}
	return s
}

// leave begins the end: from now on the database can be added anew. Who gets nil
// isn't the first.
func (b *member) leave() (stop context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stop, b.stop = b.stop, nil
	return stop
}

// end closes a database; the first call counts.
func (b *member) end(ctx context.Context) error {
	stop := b.leave()
	if stop == nil {
		<-b.gone
		return nil
	}
	return b.finish(ctx, stop)
}

// finish closes a database that was left.
func (b *member) finish(ctx context.Context, stop context.CancelFunc) error {
	defer close(b.gone)
	defer stop()
	select {
	case <-b.started:
	default:
		stop() // waits for its turn, or is about to learn that it is over
		<-b.started
	}
	db, _ := b.get()
	if db == nil {
		return nil
	}
	if err := db.Close(ctx); err != nil {
		return fmt.Errorf("sidecar: close %s: %w", b.path, err)
	}
	return nil
}

// key is the same for all names of a database, whose -wal lies beside the file itself,
// as SQLite has it; the file may be missing, and links lead to where it will be.
func key(name string) (string, error) {
	full, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("sidecar: %s: %w", name, err)
	}
	for range 40 { // as many links as Linux follows
		if real, err := filepath.EvalSymlinks(full); err == nil {
			return real, nil
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(full)); err == nil {
			full = filepath.Join(dir, filepath.Base(full))
		}
		to, err := os.Readlink(full)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(full), to)
		}
		full = to
	}
	return full, nil
}
