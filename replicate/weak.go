package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// conditions says whether a store creates an object only if its key is free.
type conditions int

const (
	conditionsUnknown conditions = iota
	conditionsKept
	conditionsIgnored // a create replaces what is there
	conditionsRefused // a create fails with ErrUnsupported
)

// guard is the store as the engine writes to it. The fence rests on Create, and
// not every server that speaks S3 has what Create rests on. So the engine probes
// before its first claim; where conditions are missing, Create looks whether the
// key is free and then writes without condition.
//
// That is a weaker fence. Who comes later still finds the other's claim and is
// fenced. But two that look at the same moment both find the key free, one
// that is paused between look and write replaces what was written meanwhile, and
// so does a request that arrives late: then the segments of the one don't follow
// those of the other, and a restore fails and names the object. A claim is read
// once more before anything follows it, so that two that begin at the same moment,
// as containers do that are started together, are told apart nearly always.
type guard struct {
	Store
	missing func(conditions) // told once that conditions are missing

	mu   sync.Mutex
	mode conditions
}

func (g *guard) known() conditions {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mode
}

func (g *guard) found(c conditions) {
	g.mu.Lock()
	news := g.mode == conditionsUnknown
	if news {
		g.mode = c
	}
	g.mu.Unlock()
	if news && c != conditionsKept {
		g.missing(c)
	}
}

// Create implements Store. Before the probe only the root is created: if the
// server refuses the condition, writing without it shows that it is the condition
// which is refused.
func (g *guard) Create(ctx context.Context, key string, data []byte) error {
	mode := g.known()
	if mode == conditionsIgnored || mode == conditionsRefused {
		return g.lookAndPut(ctx, key, data)
	}
	err := g.Store.Create(ctx, key, data)
	if mode == conditionsKept || !errors.Is(err, objstore.ErrUnsupported) {
		return err
	}
	second := g.lookAndPut(ctx, key, data)
	if errors.Is(second, objstore.ErrUnsupported) {
		return err
	}
	if second == nil {
		g.found(conditionsRefused)
	}
	return second
}

func (g *guard) lookAndPut(ctx context.Context, key string, data []byte) error {
	body, _, err := g.Store.Get(ctx, key, Range{Length: 1})
	if err == nil {
		body.Close()
		return fmt.Errorf("replicate: create %s (looked first): %w", key, objstore.ErrExist)
	}
	if !errors.Is(err, objstore.ErrNotExist) {
		return err
	}
	return g.Store.Put(ctx, key, data)
}

// probe finds out whether the store keeps conditions, by creating the root once
// more with the bytes that it has: whatever the store does, nothing is lost.
// stale is why it must be decided anew, which no repetition of the probe changes.
func (g *guard) probe(ctx context.Context, database ID) (stale, err error) {
	root, err := fetch(ctx, g.Store, segment.InfoKey, segment.MaxInfo)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, fmt.Errorf("replicate: %s, the root of %s, was there when the database was opened and is gone: put it back, or replicate to another path: %w",
			segment.InfoKey, g.Store, ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	info, err := segment.ParseReplicaInfo(root)
	if err != nil {
		return nil, fmt.Errorf("replicate: %s, the root of %s: %w", segment.InfoKey, g.Store, err)
	}
	if info.Database != database {
		// Two made this path a replica at once, and the store took both roots.
		return fmt.Errorf("replicate: %s, the root of %s, was replaced: it names database %s and named %s: %w",
			segment.InfoKey, g.Store, info.Database, database, ErrStale), nil
	}
	// A success may also be a lost reply: a store that finds its own bytes after
	// one takes them for its own doing. Hence twice.
	for range 2 {
		err := g.Store.Create(ctx, segment.InfoKey, root)
		switch {
		case errors.Is(err, objstore.ErrExist):
			g.found(conditionsKept)
			return nil, nil
		case errors.Is(err, objstore.ErrUnsupported):
			g.found(conditionsRefused)
			return nil, nil
		case err != nil:
			return nil, err
		}
	}
	g.found(conditionsIgnored)
	return nil, nil
}

// probe makes sure that it is known what a create is worth, before a session's
// first claim: opens that write nothing don't pay for it (two requests; three
// if the store ignores conditions).
func (e *Engine) probe(ctx context.Context) error {
	if e.guard.known() != conditionsUnknown {
		return nil
	}
	var stale error
	err := e.persist(ctx, "probe for conditional writes", StateReplicating, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, uploadTimeout(0))
		defer cancel()
		stale, err = e.guard.probe(ctx, e.end.Database)
		return err
	})
	if err == nil {
		err = stale
	}
	return err
}

// stands makes sure that the claim which was just written wasn't replaced by
// another session's, which only a store without conditions lets happen.
func (e *Engine) stands(ctx context.Context, claim *segment.Object) error {
	if e.guard.known() == conditionsKept {
		return nil
	}
	key := segment.LogKey(claim.Header.MinTXID)
	o, err := e.existing(ctx, key)
	switch {
	case err != nil:
		return err
	case o == nil:
		return fmt.Errorf("replicate: %s, just written, is gone: %w", key, ErrCorrupt)
	case o.Chain != claim.Chain:
		return e.fencedBy(ctx, key, o)
	}
	return nil
}

// weak tells people that the fence is weaker than it should be.
func (e *Engine) weak(c conditions) {
	what := "ignores"
	if c == conditionsRefused {
		what = "refuses"
	}
	text := "the store " + what + " conditional writes (If-None-Match): before each object is created it is looked whether its key is free; " +
		"a second writer that comes later is fenced, but two at the same moment may not be kept apart: make sure that only one process writes this database"
	e.mu.Lock()
	e.status.Warning = text
	e.mu.Unlock()
	e.log.Warn("the fence is weak: "+text, "replica", e.opts.Store.String())
}
