package replicate

import (
	"context"
	"errors"
	"fmt"
)

type waiter struct {
	target uint64 // of acked
	done   chan struct{}
}

// Sync uploads without regard to MaxLag and waits until everything that the
// source had captured when it was called is acknowledged. It returns the
// acknowledged TXID. It fails when ctx ends or the engine stops.
func (e *Engine) Sync(ctx context.Context) (txid uint64, err error) {
	select {
	case <-e.begun:
	case <-e.done:
		return 0, e.stopped()
	case <-ctx.Done():
		return 0, fmt.Errorf("replicate: sync %s: %w", e.opts.Database, context.Cause(ctx))
	}
	e.ack.Lock()
	b, lost := e.opts.Source.Backlog(), e.opts.Source.Lost()
	if b.Entries == 0 && !lost {
		e.ack.Unlock()
		return e.acknowledged(), nil
	}
	if lost { // until a repair says how much there is: see retarget
		b.TXIDs = max(b.TXIDs, 1)
	}
	w := waiter{e.acked + b.TXIDs, make(chan struct{})}
	e.waiters = append(e.waiters, w)
	e.ack.Unlock()
	e.nudge()
	select {
	case <-w.done:
		return e.acknowledged(), nil
	case <-e.done:
		select {
		case <-w.done: // both happened
			return e.acknowledged(), nil
		default:
		}
		return 0, e.stopped()
	case <-ctx.Done():
		return 0, fmt.Errorf("replicate: sync %s: %w%s", e.opts.Database, context.Cause(ctx), e.trouble())
	}
}

// stopped is what callers get from an engine that doesn't run any more.
func (e *Engine) stopped() error {
	if err := e.Err(); err != nil {
		return err
	}
	return fmt.Errorf("replicate: %s: %w", e.opts.Database, ErrClosed)
}

// trouble says what went wrong last, for messages.
func (e *Engine) trouble() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.status.Error == "" {
		return ""
	}
	return " (" + e.status.Error + ")"
}

func (e *Engine) acknowledged() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status.TXID
}

func (e *Engine) nudge() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

var errClosing = errors.New("closed before everything was uploaded")

// Close uploads what is left until ctx ends, then stops the engine and waits for
// it. The error says how much was not uploaded (it stays in WAL and spool), and
// wraps Err if the engine had stopped for that. Further calls do the same.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	select {
	case <-e.closing:
	default:
		close(e.closing)
	}
	e.mu.Unlock()
	e.nudge()
	select {
	case <-e.done:
	case <-ctx.Done():
		e.stop(fmt.Errorf("replicate: %w", errClosing))
	}
	<-e.done
	_ = e.group.Wait() // the error is Err's
	b := e.opts.Source.Backlog()
	if b.Entries == 0 && !e.opts.Source.Lost() {
		return nil
	}
	reason := e.Err()
	if reason == nil {
		reason = fmt.Errorf("%w%s", errClosing, e.trouble())
	}
	what := fmt.Sprintf("%d entries (%d bytes) are not uploaded, they stay on this machine and go with the next open", b.Entries, b.Bytes)
	if b.Entries == 0 {
		what = "the newest commits are not uploaded; the next open compares the database with the replica and uploads what differs"
	}
	return fmt.Errorf("replicate: %s: %s: %w", e.opts.Database, what, reason)
}

func (e *Engine) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}
