package replicate

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/outwash/outwash/internal/segment"
)

// prefetchBytes bounds what is read ahead of the log.
const prefetchBytes = 32 << 20

// prefetch reads log segments in parallel and gives them to f in order.
func (r *restorer) prefetch(ctx context.Context, keys []logKey, f func(*segment.Object) error) error {
	type fetched struct {
		o   *segment.Object
		err error
	}
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	budget := semaphore.NewWeighted(prefetchBytes)
	weight := func(k logKey) int64 { return min(max(k.size, 4096), prefetchBytes) }
	queue := make(chan chan fetched, r.opts.Parallelism)
	g.Go(func() error {
		defer close(queue)
		for _, k := range keys {
			if err := budget.Acquire(ctx, weight(k)); err != nil {
				return err
			}
			one := make(chan fetched, 1)
			select {
			case queue <- one:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			g.Go(func() error {
				o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.log(ctx, k.txid) })
				one <- fetched{o, err}
				return nil // whoever takes it decides
			})
		}
		return nil
	})
	g.Go(func() error {
		i := 0
		for one := range queue {
			got := <-one
			err := dataError(segment.LogKey(keys[i].txid), got.err)
			if err == nil {
				err = f(got.o)
			}
			if err != nil {
				return err
			}
			budget.Release(weight(keys[i]))
			i++
			if r.a.reached {
				return errReached
			}
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
