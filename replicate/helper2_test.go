package replicate

import "context"

func withRestore(f func(Tail) error) func(*EngineOptions) {
	return func(o *EngineOptions) {
		o.Restore = func(_ context.Context, tail Tail) error { return f(tail) }
	}
}
