package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// open finds out how database and replica relate, for as long as it takes.
func (e *Engine) open(ctx context.Context) (action, error) {
	lineage, err := e.opts.Local.Lineage()
	if err != nil {
		return 0, fmt.Errorf("replicate: %w", err)
	}
	e.lineage = lineage
	var b backoff
	for {
		s := situation{
			database: e.opts.Database, replica: e.opts.Store.String(),
			lineage: e.lineage, canRestore: e.opts.Restore != nil, small: e.opts.small,
		}
		s.end, err = e.findEnd(ctx, b.timeout())
		switch {
		case err == nil:
			s.evidence, err = e.opts.Source.Evidence(ctx, s.end.Tail)
			if err != nil {
				return 0, fmt.Errorf("replicate: compare %s with its replica: %w", e.opts.Database, err)
			}
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case !e.transient(err):
			return 0, err
		default:
			s.unreachable = fmt.Errorf("replicate: %s: %w: %w", e.opts.Store, ErrUnreachable, err)
		}
		act, err := decide(s)
		if err != nil && e.nameWriter(ctx, &s.end) {
			act, err = decide(s)
		}
		if err != nil {
			return 0, err
		}
		if act != actWait && act != actBacklog {
			e.end = s.end
			e.claimed = e.claimed && e.end.Session == e.session
			e.noteEnd(0, 0)
			return act, e.bind(act, s)
		}
		e.trying(StateUnreachable, s.unreachable)
		if act == actBacklog {
			e.decide()
		}
		if act == actWait && e.isClosing() { // nothing was promised to anybody
			return 0, fmt.Errorf("replicate: %s: %w: %w", e.opts.Database, errClosing, s.unreachable)
		}
		hurry := e.closing
		if e.isClosing() {
			hurry = nil
		}
		if err := sleep(ctx, e.clock, b.next(), hurry); err != nil {
			return 0, err
		}
	}
}

// bind notes which replica the database belongs to from now on.
func (e *Engine) bind(act action, s situation) error {
	e.exportPageSize, e.exportSize = s.evidence.PageSize, s.evidence.Size
	if e.lineage.Database == e.end.Database || act == actRestore {
		return nil
	}
	if !e.lineage.Database.IsZero() {
		e.log.Warn("the database was replicated elsewhere before and begins with this replica now",
			"before", e.lineage.Database.String(), "now", e.end.Database.String(), "replica", s.replica)
	}
	e.lineage = local.Lineage{Database: e.end.Database}
	return nil
}

// transient reports whether err can go away by waiting.
func (e *Engine) transient(err error) bool {
	if errors.Is(err, errListed) {
		return true
	}
	for _, permanent := range []error{ErrCorrupt, ErrVersion, ErrForeign, segment.ErrChain, errCrash} {
		if errors.Is(err, permanent) {
			return false
		}
	}
	return !objstore.Permanent(err)
}

// findEnd reads (or creates) the root and finds the end of the line. Each
// request may take as long as timeout.
func (e *Engine) findEnd(ctx context.Context, timeout time.Duration) (lineEnd, error) {
	store := timedStore{e.opts.Store, timeout}
	info, err := readRoot(ctx, store)
	if err != nil {
		return lineEnd{}, err
	}
	if info == nil {
		if info, err = e.createRoot(ctx, store); err != nil {
			return lineEnd{}, err
		}
	}
	l := line{store, info.Database}
	var hint uint64
	if e.lineage.Database == info.Database {
		hint = e.lineage.TXID
	}
	return l.end(ctx, hint)
}

// createRoot makes this path a replica. If somebody else was faster, or an
// earlier attempt of ours, that one's root counts.
func (e *Engine) createRoot(ctx context.Context, store Store) (*segment.ReplicaInfo, error) {
	b, err := segment.MarshalReplicaInfo(segment.ReplicaInfo{Database: segment.NewID(), Created: e.clock.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return nil, fmt.Errorf("replicate: %w", err)
	}
	if err := e.failpoint("root-before"); err != nil {
		return nil, err
	}
	err = store.Create(ctx, segment.InfoKey, b)
	if err != nil && !errors.Is(err, objstore.ErrExist) {
		return nil, fmt.Errorf("replicate: create %s: %w", segment.InfoKey, err)
	}
	if err := e.failpoint("root-after"); err != nil {
		return nil, err
	}
	info, err := readRoot(ctx, store)
	if err == nil && info == nil {
		err = fmt.Errorf("replicate: %s was created but can't be read: %w", segment.InfoKey, errListed)
	}
	return info, err
}

// begin does what was decided until the source emits entries; again says that
// the decision must be taken anew.
func (e *Engine) begin(ctx context.Context, act action) (again bool, err error) {
	start := StartContinue
	switch act {
	case actEmpty:
		start = StartEmpty
	case actAdopt:
		start = StartAdopt
		e.decide() // the application may have to put the database into WAL mode first
	case actExport:
		e.decide() // the database can be used meanwhile
		e.setState(StateExporting, nil)
		if err := e.firstContact(ctx); err != nil {
			return false, err
		}
		e.ready()
		return false, nil
	case actRestore:
		if err := e.opts.Restore(ctx, e.end.Tail); err != nil {
			return false, fmt.Errorf("replicate: restore %s: %w", e.opts.Database, err)
		}
		e.restored = true
		return true, nil
	case actDrain:
		if err := e.opts.Source.Begin(ctx, StartContinue, e.end.Tail); err != nil {
			return false, fmt.Errorf("replicate: begin: %w", err)
		}
		return true, e.replicate(ctx, true)
	}
	if err := e.opts.Source.Begin(ctx, start, e.end.Tail); err != nil {
		return false, fmt.Errorf("replicate: begin: %w", err)
	}
	if e.restored {
		// Whoever had the database before learns it at the next commit, and this
		// one, before it accepts any, whether it came too late.
		switch err := e.claim(ctx, e.end.PageSize); {
		case errors.Is(err, ErrStale):
			return true, nil
		case err != nil:
			return false, err
		}
	}
	e.ready()
	return false, nil
}

func (e *Engine) ready() {
	select {
	case <-e.begun: // decided anew
	default:
		close(e.begun)
	}
	e.setState(StateReplicating, nil)
	e.decide()
}
