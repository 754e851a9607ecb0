package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// defaultPageSize is what a line's first claim says where no database exists yet.
const defaultPageSize = 4096

// claim opens the session, if that is not done yet: it creates a claim at the
// next key, where whoever believed to be this line's writer will meet it.
func (e *Engine) claim(ctx context.Context, pageSize uint32) error {
	if e.claimed {
		return nil
	}
	if err := e.probe(ctx); err != nil {
		return err
	}
	if err := e.saveSession(ctx); err != nil {
		return err
	}
	var b backoff
	for {
		h := segment.Header{
			Kind: segment.KindLog, PageSize: e.end.PageSize, Database: e.end.Database, Session: e.session,
			MinTXID: e.end.TXID + 1, PrevChain: e.end.Chain,
			Pre: e.end.Checksum, PreCommit: e.end.Commit, WAL: e.end.WAL,
			LastMono: max(e.clock.Now().UnixMicro(), e.end.LastTime),
			Owner:    &segment.Owner{Host: e.owner.Host, PID: e.owner.PID, Program: e.owner.Program, Since: e.owner.Since},
		}
		if e.end.TXID == 0 {
			h.PageSize = pageSize
		}
		if h.PageSize == 0 {
			h.PageSize = defaultPageSize
		}
		object, chain, err := segment.EncodeClaim(h)
		if err != nil {
			return fmt.Errorf("replicate: %s: encode a claim: %w", e.opts.Database, err)
		}
		e.noteAhead(h.MinTXID, h.Pre)
		if err := e.failpoint("claim-before"); err != nil {
			return err
		}
		key := segment.LogKey(h.MinTXID)
		err = e.create(ctx, key, object)
		if err == nil {
			if err := e.failpoint("claim-after"); err != nil {
				return err
			}
			o, err := segment.Parse(object)
			if err != nil {
				return fmt.Errorf("replicate: %s, just written: %w", key, err)
			}
			return e.claimDone(ctx, o)
		}
		if !errors.Is(err, objstore.ErrExist) {
			return err
		}
		o, err := e.existing(ctx, key)
		switch {
		case err != nil:
			return err
		case o == nil:
			if err := e.absent(ctx, key, &b); err != nil {
				return err
			}
		case o.Chain == chain, o.Header.Session == e.session && o.Header.Claim:
			if err := e.end.follows(o); err != nil {
				return err
			}
			return e.claimDone(ctx, o)
		case e.lineage.Known(o.Header.Session):
			// A request of an earlier session arrived after we had read the line.
			if err := e.landed(o); err != nil {
				return err
			}
		default:
			return e.fencedBy(ctx, key, o)
		}
	}
}

func (e *Engine) claimDone(ctx context.Context, o *segment.Object) error {
	if err := e.confirm(ctx, o.Header.MinTXID); err != nil {
		return err
	}
	if err := e.stands(ctx, o); err != nil {
		return err
	}
	e.end.advance(o)
	e.history.acknowledged(nil, e.end, e.proof.since)
	e.claimed = true
	e.opts.Counters.claims.Add(1)
	e.noteEnd(1, o.Size)
	e.sweep(ctx)
	return e.noteLineage()
}

// confirm looks behind the claim at txid. Its key was free, but that need not
// mean that the line ended there: if another session had gone on long ago, and
// what it wrote under that key was deleted because a newer base made it
// superfluous, then the claim stands in the gap. The newest segment of a line is
// never deleted, so it shows. From here on no such question arises: whoever goes
// on leaves a claim, which is never deleted, at the very key that we want next.
func (e *Engine) confirm(ctx context.Context, txid uint64) error {
	behind := ""
	err := e.persist(ctx, "list "+segment.LogPrefix, StateReplicating, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, uploadTimeout(0))
		defer cancel()
		for info, err := range e.opts.Store.List(ctx, segment.LogPrefix, segment.LogKey(txid)) {
			if err != nil {
				return err
			}
			if _, ok := segment.ParseLogKey(info.Key); ok {
				behind = info.Key
				break
			}
		}
		return nil
	})
	if err != nil || behind == "" {
		return err
	}
	o, err := e.existing(ctx, behind)
	if err != nil {
		return err
	}
	if o == nil { // deleted meanwhile, too: somebody is at work there
		return &FencedError{Key: behind}
	}
	return e.fencedBy(ctx, behind, o)
}

// absent waits before a key is tried again that was said to be taken, and then
// that it isn't there.
func (e *Engine) absent(ctx context.Context, key string, b *backoff) error {
	e.trying(StateUnreachable, fmt.Errorf("replicate: the store says that %s exists already, and that it does not exist: %w", key, errListed))
	return sleep(ctx, e.clock, b.next(), nil)
}

// landed deals with a segment of this database's own sessions that took the key
// we wanted: the entries in it are among those that wait. What follows them
// remains to be uploaded.
func (e *Engine) landed(o *segment.Object) error {
	if err := e.end.follows(o); err != nil {
		return err
	}
	if o.Header.Claim {
		e.end.advance(o)
		e.history.acknowledged(nil, e.end, e.proof.since)
		e.noteEnd(0, 0)
		return nil
	}
	n, ok := e.match(o.Header)
	if !ok {
		return fmt.Errorf("replicate: %s: %s (TXID %d to %d, session %s) holds other entries than those that wait here: %w",
			e.opts.Database, segment.LogKey(o.Header.MinTXID), o.Header.MinTXID, o.Header.MaxTXID, o.Header.Session, ErrStale)
	}
	return e.acknowledge(o, n, 0)
}

// match finds the waiting entry that ends in h's state.
func (e *Engine) match(h *segment.Header) (n int, ok bool) {
	want := h.MaxTXID - h.MinTXID + 1
	var txids uint64
	for i := 0; ; i++ {
		if i == len(e.pending) {
			more := e.opts.Source.Take(e.opts.inline)
			if len(more) == 0 {
				return 0, false
			}
			e.pending = append(e.pending, more...)
		}
		en := e.pending[i]
		if i == 0 && (en.Pre != h.Pre || en.PreCommit != h.PreCommit) {
			return 0, false
		}
		txids += max(en.Count, 1)
		if en.Post == h.Post && en.Commit == h.Commit && txids >= want {
			return i + 1, true
		}
		if txids >= want {
			return 0, false
		}
	}
}
