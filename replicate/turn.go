package replicate

import (
	"context"
	"time"
)

// turnPatience is how long an engine waits for its turn: who has one may be kept from
// ending by a store that doesn't answer.
const turnPatience = 10 * time.Minute

// turn waits until this engine may begin to export or restore, which takes dozens of
// megabytes, among those that share EngineOptions.Turns.
func (e *Engine) turn(ctx context.Context) (end func(), err error) {
	turns := e.opts.Turns
	if turns == nil {
		return func() {}, nil
	}
	end = func() { <-turns }
	select {
	case turns <- struct{}{}:
		return end, nil
	default:
	}
	select {
	case turns <- struct{}{}:
		return end, nil
	case <-e.clock.After(turnPatience):
		return func() {}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
