package replicate

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/outwash/outwash/internal/segment"
)

// prefetchBytes bounds what is read ahead.
const prefetchBytes = 32 << 20

// ahead says what inOrder reads: n things, a few at once.
type ahead[T any] struct {
	n, parallel int
	size        func(i int) int64
	fetch       func(ctx context.Context, i int) (T, error)
}

// inOrder reads in parallel, as far ahead as prefetchBytes allows, and gives what
// was read to use in order. An error of reading counts when its turn comes;
// errReached from use ends it well.
func inOrder[T any](ctx context.Context, a ahead[T], use func(i int, v T) error) error {
	type fetched struct {
		v   T
		err error
	}
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	budget := semaphore.NewWeighted(prefetchBytes)
	weight := func(i int) int64 { return min(max(a.size(i), 4096), prefetchBytes) }
	queue := make(chan chan fetched, a.parallel-1) // one more is waited for
	g.Go(func() error {
		defer close(queue)
		for i := range a.n {
			if err := budget.Acquire(ctx, weight(i)); err != nil {
				return err
			}
			one := make(chan fetched, 1)
			select {
			case queue <- one:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			g.Go(func() error {
				v, err := a.fetch(ctx, i)
				one <- fetched{v, err}
				return nil // whoever takes it decides
			})
		}
		return nil
	})
	g.Go(func() error {
		i := 0
		for one := range queue {
			got := <-one
			if got.err != nil {
				return got.err
			}
			if err := use(i, got.v); err != nil {
				return err
			}
			budget.Release(weight(i))
			i++
		}
		return nil
	})
	if err := g.Wait(); err != nil && err != errReached {
		return err
	}
	return context.Cause(outer)
}

// errReached ends reading ahead: the target is reached.
var errReached = errors.New("target reached")

// smallParallelism is how many requests for small log segments run at once by
// default: what they take is the store's latency. With 20 ms, an hour of them at one
// a second takes 9 s eight at a time, and 2 to 3 s like this (bench).
const (
	smallParallelism = 64
	smallSegment     = 64 << 10 // bytes, on average
)

// parallel is how many of these segments are to be read at once.
func (r *restorer) parallel(keys []logKey) int {
	total := int64(0)
	for _, k := range keys {
		total += k.size
	}
	if r.opts.Parallelism > 0 || total > smallSegment*int64(len(keys)) {
		return r.parallelism()
	}
	return smallParallelism
}

// parallelism is how many requests run at once.
func (r *restorer) parallelism() int {
	if n := r.opts.Parallelism; n > 0 {
		return min(n, 64)
	}
	return restoreParallelism
}

// prefetch reads log segments in parallel and gives them to f in order, until the
// target is reached.
func (r *restorer) prefetch(ctx context.Context, keys []logKey, f func(*segment.Object) error) error {
	return inOrder(ctx, ahead[*segment.Object]{
		n: len(keys), parallel: r.parallel(keys),
		size: func(i int) int64 { return keys[i].size },
		fetch: func(ctx context.Context, i int) (*segment.Object, error) {
			o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.log(ctx, keys[i].txid) })
			return o, dataError(segment.LogKey(keys[i].txid), err)
		},
	}, func(_ int, o *segment.Object) error {
		err := f(o)
		if err == nil && r.a.reached {
			err = errReached
		}
		return err
	})
}
