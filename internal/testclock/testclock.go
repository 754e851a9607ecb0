// Package testclock is the clock of tests in which time passes only when they say so.
package testclock

import (
	"sync"
	"time"
)

// Clock stands still until it is moved. It is a replicate.Clock.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time // when each is due
}

// New makes a clock that says now.
func New(now time.Time) *Clock {
	return &Clock{now: now, timers: map[chan time.Time]time.Time{}}
}

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// After sends the time once the clock has been moved by d.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.timers[ch] = c.now.Add(d)
	return ch
}

// Move lets time pass. What After promised until then has been sent when it returns.
func (c *Clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for ch, at := range c.timers {
		if !at.After(c.now) {
			ch <- c.now
			delete(c.timers, ch)
		}
	}
}

// Waiting is how many of After's channels have not been sent to.
func (c *Clock) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}
