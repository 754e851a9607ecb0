package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// fetchRange reads length bytes from offset, fewer at the object's end.
func fetchRange(ctx context.Context, store Store, key string, offset, length int64) ([]byte, error) {
	if length == 0 {
		return nil, nil
	}
	body, _, err := store.Get(ctx, key, Range{Offset: offset, Length: length})
	if err != nil {
		return nil, fmt.Errorf("replicate: read %s: %w", key, err)
	}
	defer body.Close()
	var b bytes.Buffer
	b.Grow(int(length) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(body, length)); err != nil {
		return nil, fmt.Errorf("replicate: read %s: %w", key, err)
	}
	return b.Bytes(), nil
}

// readingStore is a store for reading: it counts, and bodies that break off go on
// where they broke. What fails otherwise is repeated by retry.
type readingStore struct {
	Store
	requests, objects atomic.Int64
	fetched           atomic.Int64
	progress          func()
}

func (s *readingStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	s.requests.Add(1)
	body, info, err := s.Store.Get(ctx, key, r)
	if err != nil {
		return nil, info, err
	}
	if r.Offset == 0 && r.Length != headerSize { // headers are looked at besides
		s.objects.Add(1)
	}
	offset, length := r.Bounds(info.Size)
	again := func(n int64) (io.ReadCloser, error) {
		if info.ETag == "" || n >= length || ctx.Err() != nil {
			return nil, nil
		}
		s.requests.Add(1)
		body, _, err := s.Store.Get(ctx, key, Range{Offset: offset + n, Length: length - n, IfMatch: info.ETag})
		return body, err
	}
	return &resumingBody{ReadCloser: body, s: s, again: again}, info, nil
}

func (s *readingStore) List(ctx context.Context, prefix, after string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		s.requests.Add(1)
		n := 0
		for info, err := range s.Store.List(ctx, prefix, after) {
			if n++; n%1000 == 1 && n > 1 {
				s.requests.Add(1)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// resumingBody is a body that survives connections that are dropped, as long as some
// of it comes through between two of them.
type resumingBody struct {
	io.ReadCloser
	s *readingStore
	// again reads on behind n bytes; nil, nil if that can't be.
	again func(n int64) (io.ReadCloser, error)
	n     int64
	tried bool // nothing came since the last time
}

func (b *resumingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	b.s.fetched.Add(int64(n))
	if n > 0 {
		b.tried = false
	}
	if err != nil && err != io.EOF && !b.tried && !objstore.Permanent(err) {
		b.tried = true
		if body, e := b.again(b.n); e != nil {
			err = errors.Join(err, e)
		} else if body != nil {
			b.ReadCloser.Close()
			b.ReadCloser, err = body, nil
		}
	}
	if b.s.progress != nil {
		b.s.progress()
	}
	return n, err
}

// readAttempts is how often a read is tried: a restore, unlike an engine, has
// somebody waiting for it.
const readAttempts = 5

// retry repeats f while it fails with an error that can pass.
func retry(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || attempt == readAttempts || ctx.Err() != nil || objstore.Permanent(err) || isVerdict(err) {
			return err
		}
		d := 100 * time.Millisecond << attempt
		select {
		case <-ctx.Done():
			return err
		case <-time.After(d/2 + rand.N(d/2)):
		}
	}
}

// isVerdict reports whether err is about what was read, not about reading.
func isVerdict(err error) bool {
	for _, e := range []error{ErrCorrupt, ErrVersion, ErrForeign, ErrNotRestorable, errWrite} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errWrite marks errors of the output: the disk's, not the store's.
var errWrite = errors.New("write")

// lostError says that an object which the plan needs is no longer there, or no
// longer the same.
type lostError struct {
	key string
	err error
}

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// dataError is about an object that something else names, or a listing: without it
// there is nothing to be done but to plan anew.
func dataError(key string, err error) error {
	lost := (*lostError)(nil)
	switch {
	case errors.As(err, &lost):
	case errors.Is(err, objstore.ErrNotExist):
		return &lostError{key, fmt.Errorf("replicate: %s, which a restore needs, is missing: %w (%w)", key, ErrCorrupt, err)}
	case errors.Is(err, objstore.ErrChanged):
		return &lostError{key, err}
	}
	return err
}
