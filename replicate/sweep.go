package replicate

import (
	"context"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// sweepAge is how old an upload must be to count as left behind. The claim is
	// what makes it certain: who began an upload before it and is alive is fenced
	// by it, and can't name the object in the log any more. Age is for stores where
	// the fence is weak: no upload of this session is that old when it begins, and
	// hardly one of another that goes on without noticing.
	sweepAge = 24 * time.Hour
	// sweepTime bounds the sweep, which nobody waits for.
	sweepTime = 2 * time.Minute
)

// sweep has the store remove what uploads of killed sessions left behind, where it
// can and may. It is called once in a session, after the claim, and doesn't wait;
// it ends with ctx, which is the engine's. That it fails is nothing that people
// have to know: a lifecycle rule of the bucket does the same, and the permissions
// for it are not among those that replicas need.
func (e *Engine) sweep(ctx context.Context) {
	s, ok := e.base.(objstore.Sweeper)
	if !ok {
		return
	}
	e.group.Go(func() error {
		ctx, cancel := context.WithTimeout(ctx, sweepTime)
		defer cancel()
		p := countedStore{counters: e.opts.Counters}.begin(opSweep)
		n, err := s.SweepUploads(ctx, segment.DataPrefix, sweepAge, func(key string) bool {
			_, _, ok := segment.ParseDataKey(key)
			return ok
		})
		p.end(err)
		if n > 0 {
			e.log.Info("aborted uploads that earlier sessions left unfinished", "uploads", n)
		}
		if err != nil && ctx.Err() == nil {
			e.log.Debug("unfinished uploads of earlier sessions can't be removed: a lifecycle rule (AbortIncompleteMultipartUpload) does it, too", "error", err)
		}
		return nil
	})
}
