package sidecar

import (
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/replicate"
)

// For the tests of package sidecar_test.

// EachItsEntry has commits share no entry, however many of them a slow machine makes
// wait until they are captured.
func (o *Options) EachItsEntry() {
	o.Capture(func(c *capture.Options) { c.MergeAtGate = 1 << 30 })
}

// Unguarded switches the guard off.
func (o *Options) Unguarded() { o.hooks.unguarded = true }

// Clock is the engine's.
func (o *Options) Clock(c replicate.Clock) { o.hooks.clock = c }

// Capture changes what the database is captured with.
func (o *Options) Capture(f func(*capture.Options)) { o.hooks.capture = f }
