package objstore

import (
	"context"
	"sync"
)

// A Pool has what the stores of many databases need only once: connections,
// credentials, the configuration they come from. Its zero value is empty. A store
// that is opened with it in the context takes from it what it can, and leaves
// there what others can use.
type Pool struct {
	mu     sync.Mutex
	values map[any]any
}

type poolKey struct{}

// WithPool puts p into ctx, for Open.
func WithPool(ctx context.Context, p *Pool) context.Context {
	return context.WithValue(ctx, poolKey{}, p)
}

// Share returns what the pool in ctx has for key, which is made at first use. The
// type of key says whose it is. Without a pool, it is made each time.
func Share[T any](ctx context.Context, key any, make func() (T, error)) (T, error) {
	p, _ := ctx.Value(poolKey{}).(*Pool)
	if p == nil {
		return make()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.values[key].(T); ok {
		return v, nil
	}
	v, err := make()
	if err != nil {
		return v, err
	}
	if p.values == nil {
		p.values = map[any]any{}
	}
	p.values[key] = v
	return v, nil
}
