package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
)

// Errors that callers decide on.
var (
	// ErrManaged: the manager has this database already.
	ErrManaged = errors.New("sidecar: this database is already being replicated by this process")
	// ErrNotManaged: it doesn't have it.
	ErrNotManaged = errors.New("sidecar: this database is not being replicated by this process")
)

var errManagerClosed = errors.New("the manager is closed")

const (
	// starting is how many databases are started at a time: each takes a connection
	// and a few requests.
	starting = 16
	// startPatience is how long one may take until the next one's turn comes: it may
	// be waiting for its store, or for its file.
	startPatience = 5 * time.Second
	// exporting is how many engines write large exports, or restore, at a time, each
	// with dozens of megabytes.
	exporting = 4
	// ending is how many are synced or closed at a time.
	ending = 64
)

// ManagerOptions of NewManager. All may be zero.
type ManagerOptions struct {
	Logger *slog.Logger // nil: slog.Default()

	// For tests.
	open  func(context.Context, Options) (database, error) // nil: Open
	retry time.Duration                                    // first pause after it failed; 0: a second
}

// A Manager replicates many databases in one process: they are started a few at a
// time, and their stores have connections and credentials in common. Its methods are
// safe for concurrent use.
type Manager struct {
	opts    ManagerOptions
	log     *slog.Logger
	pool    objstore.Pool
	watcher *watcher        // of all databases
	ctx     context.Context // ends when Close is called, and with it what hasn't been started
	stop    context.CancelFunc
	life    context.Context // of what has; ends with Close
	done    context.CancelFunc
	turn    chan struct{} // who is being started
	big     chan struct{} // who exports or restores
	work    sync.WaitGroup

	mu     sync.Mutex
	byKey  map[string]*member
	dirs   []*dir // that are watched
	closed bool
	limit  fileLimit
}

// NewManager returns a manager without databases.
func NewManager(o ManagerOptions) (*Manager, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	m := &Manager{opts: o, log: o.Logger, turn: make(chan struct{}, starting), big: make(chan struct{}, exporting), byKey: map[string]*member{}}
	if m.opts.open == nil {
		m.opts.open = func(ctx context.Context, o Options) (database, error) { return Open(ctx, o) }
	}
	var err error
	if m.watcher, err = newWatcher(); err != nil {
		return nil, err
	}
	m.life, m.done = context.WithCancel(objstore.WithPool(context.Background(), &m.pool))
	m.ctx, m.stop = context.WithCancel(m.life)
	return m, nil
}

// Add has a database replicated from now on, as soon as its turn comes. What fails
// is tried again, and said by Statuses. It returns ErrManaged if the manager has the
// database.
func (m *Manager) Add(o Options) error {
	k, err := key(o.Path)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("sidecar: %s: %w", o.Path, errManagerClosed)
	}
	old := m.byKey[k]
	if old != nil && !old.leaving() {
		return fmt.Errorf("%w: %s", ErrManaged, o.Path)
	}
	b := &member{path: o.Path, key: k, since: time.Now(), started: make(chan struct{}), moved: make(chan struct{}), gone: make(chan struct{})}
	b.opts = m.options(o, b)
	ctx, stop := context.WithCancel(m.ctx)
	b.stop = stop
	m.byKey[k] = b
	m.limit.check(len(m.byKey), m.log)
	m.work.Go(func() {
		if old != nil {
			<-old.gone // its locks
		}
		m.start(ctx, b)
	})
	return nil
}

// options completes a database's.
func (m *Manager) options(o Options, b *member) Options {
	if o.Logger == nil {
		o.Logger = m.log
	}
	o.watcher, o.turns = m.watcher, m.big
	var once sync.Once
	told := o.OnState
	o.OnState = func(s replicate.Status) {
		if s.State != replicate.StateOpening {
			once.Do(func() { close(b.moved) })
		}
		if told != nil {
			told(s)
		}
	}
	if open := o.Open; open != nil {
		o.Open = func(ctx context.Context) (replicate.Store, error) { return open(objstore.WithPool(ctx, &m.pool)) }
	}
	return o
}

// start opens a database, for as long as it takes.
func (m *Manager) start(ctx context.Context, b *member) {
	defer b.nowStarted()
	for wait := cmp.Or(m.opts.retry, time.Second); ; wait = min(2*wait, time.Minute) {
		err := m.tryStart(ctx, b)
		if err == nil || ctx.Err() != nil {
			return
		}
		if b.failed(err) {
			m.log.Error("a database can't be replicated, trying on", "database", b.path, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// tryStart waits for its turn, and keeps it until the database gets on by itself.
func (m *Manager) tryStart(ctx context.Context, b *member) error {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	db, err := m.opts.open(m.life, b.opts)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.db, b.err = db, nil
	b.mu.Unlock()
	b.nowStarted()
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-db.Ready():
	case <-b.moved:
	case <-b.gone:
	case <-patience.C:
	}
	return nil
}

// Remove ends the replication of a database, and uploads what is left of it until
// ctx ends. It returns ErrNotManaged if the manager doesn't have it.
func (m *Manager) Remove(ctx context.Context, path string) error {
	b := m.member(path)
	if b == nil || b.leaving() {
		return fmt.Errorf("%w: %s", ErrNotManaged, path)
	}
	err := b.end(ctx)
	m.forget(b)
	return err
}

// member returns the database with this path; nil if there is none.
func (m *Manager) member(path string) *member {
	k, err := key(path)
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byKey[k]
}

// forget removes a database that is closed. Directories that left it to this entry
// may take it up.
func (m *Manager) forget(b *member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey[b.key] != b {
		return
	}
	delete(m.byKey, b.key)
	for _, d := range m.dirs {
		d.freed(b.key)
	}
}

// members returns the databases, by path.
func (m *Manager) members() []*member {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*member, 0, len(m.byKey))
	for _, b := range m.byKey {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b *member) int { return strings.Compare(a.path, b.path) })
	return list
}

// Statuses tells how all databases are doing, by path.
func (m *Manager) Statuses() []replicate.Status {
	list := m.members()
	all := make([]replicate.Status, len(list))
	for i, b := range list {
		all[i] = b.status()
	}
	return all
}

// Decided waits until it is known of each database that was added before how it
// relates to its replica, or that it failed. It returns ctx's error alone.
func (m *Manager) Decided(ctx context.Context) error {
	for _, b := range m.members() {
		select {
		case <-b.started:
		case <-ctx.Done():
			return fmt.Errorf("sidecar: %s is not started: %w", b.path, context.Cause(ctx))
		}
		db, _ := b.get()
		if db == nil {
			continue
		}
		select {
		case <-db.Ready():
		case <-b.gone:
		case <-ctx.Done():
			return fmt.Errorf("sidecar: %s is not decided: %w", b.path, context.Cause(ctx))
		}
	}
	return nil
}

// Sync waits until everything that is committed now is in the replicas, of all
// databases; the error says of which it isn't.
func (m *Manager) Sync(ctx context.Context) error {
	return all(m.members(), func(b *member) error {
		select {
		case <-b.started:
		case <-ctx.Done():
			return fmt.Errorf("sidecar: sync %s: %w", b.path, context.Cause(ctx))
		}
		db, err := b.get()
		if db != nil {
			_, err = db.Sync(ctx)
		}
		if err != nil {
			return fmt.Errorf("sidecar: sync %s: %w", b.path, err)
		}
		return nil
	})
}

// Close ends the replication of all databases, and uploads what is left of them
// until ctx ends. The error says of which something is left. Nothing can be added
// afterwards.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop() // for who hasn't been started, and directories
	err := all(m.members(), func(b *member) error { return b.end(ctx) })
	m.work.Wait()
	m.done()
	return errors.Join(err, m.watcher.Close())
}

// all calls f of each database, many at a time, and returns all errors.
func all(list []*member, f func(*member) error) error {
	errs := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(ending)
	for i, b := range list {
		g.Go(func() error {
			errs[i] = f(b)
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}
