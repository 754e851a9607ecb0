package replicate

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// turnClock stands still where somebody waits for a turn, and tells of all waits.
type turnClock struct {
	*autoClock
	waits func(d time.Duration)
	over  chan time.Time // what waits for turns last until
	asked chan struct{}
}

func newTurnClock() *turnClock {
	return &turnClock{autoClock: newAutoClock(), waits: func(time.Duration) {}, over: make(chan time.Time), asked: make(chan struct{}, 100)}
}

func (c *turnClock) After(d time.Duration) <-chan time.Time {
	c.waits(d)
	if d != turnPatience {
		return c.autoClock.After(d)
	}
	c.asked <- struct{}{}
	return c.over
}

// await waits until the process waits for its turn.
func (c *turnClock) await(t *testing.T, p *process) {
	t.Helper()
	select {
	case <-c.asked:
	case <-p.done:
		t.Fatalf("it ended: %v", p.Err())
	case <-within(t).Done():
		t.Fatalf("it doesn't ask for a turn: %+v", p.Status())
	}
}

// largeMachine has a database that is taken over by an export.
func largeMachine(t *testing.T, store Store, clock Clock) (*machine, func(*EngineOptions)) {
	t.Helper()
	mc := newMachine(t, store, 1)
	mc.clock = clock
	grown(mc.m, 40)
	mc.m.notOurs = true
	return mc, func(o *EngineOptions) { o.small = 1 }
}

// TestTurns: an export waits until others have ended, but not for ever; and nobody
// has a turn while it waits to try again.
func TestTurns(t *testing.T) {
	turns := func(c chan struct{}) func(*EngineOptions) { return func(o *EngineOptions) { o.Turns = c } }

	t.Run("waits", func(t *testing.T) {
		store, clock, others := NewMemStore(), newTurnClock(), make(chan struct{}, 1)
		mc, large := largeMachine(t, store, clock)
		others <- struct{}{}
		p := mc.open(large, turns(others))
		clock.await(t, p)
		if s := p.Status(); s.State != StateExporting {
			t.Errorf("state %s", s.State)
		}
		if k := keys(t, store, segment.DataPrefix); len(k) > 0 {
			t.Errorf("uploaded before its turn: %v", k)
		}
		<-others // the other one has ended
		p.sync(t)
		if len(others) > 0 {
			t.Error("the turn is not given back")
		}
		mc.checkNewest()
		p.close(t)
	})

	t.Run("not for ever", func(t *testing.T) {
		clock, others := newTurnClock(), make(chan struct{}, 1)
		mc, large := largeMachine(t, NewMemStore(), clock)
		others <- struct{}{}
		p := mc.open(large, turns(others))
		clock.await(t, p)
		close(clock.over)
		p.sync(t)
		if len(others) != 1 {
			t.Error("it has given back what it never had")
		}
		mc.checkNewest()
		p.close(t)
	})

	t.Run("has none while it waits to try again", func(t *testing.T) {
		store, clock, mine := faultstore.New(NewMemStore()), newTurnClock(), make(chan struct{}, 1)
		failures := 3
		store.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
			if c.Op == faultstore.Upload && strings.HasPrefix(c.Key, segment.DataPrefix) && failures > 0 {
				failures--
				if len(mine) != 1 {
					t.Error("it uploads without a turn")
				}
				return faultstore.ErrInjected
			}
			return nil
		}})
		clock.waits = func(time.Duration) {
			if len(mine) > 0 {
				t.Error("it has a turn while it waits")
			}
		}
		mc, large := largeMachine(t, store, clock)
		p := mc.open(large, turns(mine))
		p.sync(t)
		if failures > 0 {
			t.Error("nothing failed")
		}
		mc.checkNewest()
		p.close(t)
	})

	t.Run("ends while it waits", func(t *testing.T) {
		clock, others := newTurnClock(), make(chan struct{}, 1)
		mc, large := largeMachine(t, NewMemStore(), clock)
		others <- struct{}{}
		p := mc.open(large, turns(others))
		clock.await(t, p)
		p.kill()
	})
}
