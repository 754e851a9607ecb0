package replicate

import (
	"context"
	"math/rand/v2"
	"time"
)

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// backoff spaces attempts: twice as long each time, with jitter, so that many
// processes don't come back to a recovering store in step.
type backoff struct {
	attempt int
}

const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 30 * time.Second
)

// next returns how long to wait before the next attempt.
func (b *backoff) next() time.Duration {
	d := min(backoffFirst<<min(b.attempt, 20), backoffMost)
	b.attempt++
	return d/2 + rand.N(d/2+1)
}

// timeout bounds the next attempt of reading: a store that swallows requests
// must not hide that it is unreachable, and a slow one must get its time.
func (b *backoff) timeout() time.Duration {
	return min(4*time.Second<<min(b.attempt, 5), 2*time.Minute)
}

// uploadTimeout bounds one attempt to upload size bytes: 64 KiB/s at least.
func uploadTimeout(size int) time.Duration {
	return 30*time.Second + time.Duration(size)*time.Second/(64<<10)
}

// sleep waits for d, for ctx, or until hurry is closed.
func sleep(ctx context.Context, clock Clock, d time.Duration, hurry <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-clock.After(d):
	case <-hurry:
	}
	return nil
}
