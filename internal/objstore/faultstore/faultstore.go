// Package faultstore wraps a store for tests: it counts operations, delays them,
// and makes them fail before they happen or after they have (a lost reply).
package faultstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// Op names a method of the store.
type Op string

// The operations.
const (
	Create Op = "create"
	Put    Op = "put"
	Upload Op = "upload"
	Get    Op = "get"
	List   Op = "list"
	Delete Op = "delete"
)

// ErrInjected is what tests that have no error of their own return from hooks.
// Like a broken connection it is not permanent.
var ErrInjected = errors.New("injected fault")

// A Call is one operation.
type Call struct {
	Op   Op
	Key  string   // List: the prefix; Delete: the first key
	Keys []string // Delete: all of them
	N    int      // how many operations of this kind there were, this one included
}

// Hooks say what happens to calls. Each may be nil, and may block. They are
// called from many goroutines at once.
type Hooks struct {
	// Before runs first; its error is returned and the operation does not happen.
	Before func(context.Context, Call) error
	// After runs when the operation is over and returned err; its result is what
	// the caller sees. An error for a success is a lost reply; the body of a Get
	// is closed then. For List it runs when the listing ended by itself.
	After func(ctx context.Context, c Call, err error) error
	// Body may replace what Get returned: cut it, corrupt it, stall it.
	Body func(Call, io.ReadCloser) io.ReadCloser
	// Latency is how long a call takes before Before runs; ctx ends it.
	Latency func(Call) time.Duration
}

// Store is an objstore.Store with faults.
type Store struct {
	inner objstore.Store
	mu    sync.Mutex
	hooks Hooks
	count map[Op]int
}

// New wraps inner.
func New(inner objstore.Store) *Store { return &Store{inner: inner, count: map[Op]int{}} }

// SetHooks replaces all hooks; calls under way keep those they started with.
func (s *Store) SetHooks(h Hooks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = h
}

// Inner is the store without faults, to look at what is really there.
func (s *Store) Inner() objstore.Store { return s.inner }

// Count is the number of calls of op so far, failed ones included.
func (s *Store) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[op]
}

// Total is the number of all calls so far.
func (s *Store) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.count {
		n += c
	}
	return n
}

func (s *Store) begin(ctx context.Context, op Op, key string, keys []string) (Call, Hooks, error) {
	s.mu.Lock()
	s.count[op]++
	c := Call{Op: op, Key: key, Keys: keys, N: s.count[op]}
	h := s.hooks
	s.mu.Unlock()
	if h.Latency != nil {
		if d := h.Latency(c); d > 0 {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return c, h, ctx.Err()
			}
		}
	}
	if h.Before != nil {
		if err := h.Before(ctx, c); err != nil {
			return c, h, err
		}
	}
	return c, h, nil
}

func (h Hooks) end(ctx context.Context, c Call, err error) error {
	if h.After != nil {
		return h.After(ctx, c, err)
	}
	return err
}

// Create implements objstore.Store.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	c, h, err := s.begin(ctx, Create, key, nil)
	if err != nil {
		return err
	}
	return h.end(ctx, c, s.inner.Create(ctx, key, data))
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	c, h, err := s.begin(ctx, Put, key, nil)
	if err != nil {
		return err
	}
	return h.end(ctx, c, s.inner.Put(ctx, key, data))
}

// Upload implements objstore.Store.
func (s *Store) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	c, h, err := s.begin(ctx, Upload, key, nil)
	if err != nil {
		return 0, err
	}
	n, err := s.inner.Upload(ctx, key, r)
	if err = h.end(ctx, c, err); err != nil {
		return 0, err
	}
	return n, nil
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, r objstore.Range) (io.ReadCloser, objstore.Info, error) {
	c, h, err := s.begin(ctx, Get, key, nil)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	body, info, err := s.inner.Get(ctx, key, r)
	if eerr := h.end(ctx, c, err); eerr != nil {
		if err == nil {
			body.Close()
		}
		return nil, objstore.Info{}, eerr
	}
	if err != nil {
		// After can't turn a failure into a success: there is no body.
		return nil, objstore.Info{}, err
	}
	if h.Body != nil {
		body = h.Body(c, body)
	}
	return body, info, nil
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		c, h, err := s.begin(ctx, List, prefix, nil)
		if err != nil {
			yield(objstore.Info{}, err)
			return
		}
		for info, ierr := range s.inner.List(ctx, prefix, after) {
			if ierr != nil {
				err = ierr
				break
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := h.end(ctx, c, err); err != nil {
			yield(objstore.Info{}, err)
		}
	}
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	first := ""
	if len(keys) > 0 {
		first = keys[0]
	}
	c, h, err := s.begin(ctx, Delete, first, keys)
	if err != nil {
		return err
	}
	return h.end(ctx, c, s.inner.Delete(ctx, keys...))
}

// String implements objstore.Store.
func (s *Store) String() string { return s.inner.String() }
