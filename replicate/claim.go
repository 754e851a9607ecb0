package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	if err := e.saveSession(ctx); err != nil {
		return err
	}
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
			return e.claimDone(o)
		}
		if !errors.Is(err, objstore.ErrExist) {
			return err
		}
		o, err := e.existing(ctx, key)
		switch {
		case err != nil:
			return err
		case o == nil:
		case o.Chain == chain, o.Header.Session == e.session && o.Header.Claim:
			if err := e.end.follows(o); err != nil {
				return err
			}
			return e.claimDone(o)
		case e.lineage.Known(o.Header.Session):
			// A request of an earlier session arrived after we had read the line.
			if err := e.landed(o); err != nil {
				return err
			}
		default:
			return e.fencedBy(key, o)
		}
	}
}

func (e *Engine) claimDone(o *segment.Object) error {
	e.end.advance(o)
	e.claimed = true
	e.noteEnd(1, o.Size)
	return e.noteLineage()
}

// saveSession makes it durable that the session is this database's: what it
// writes from now on can be recognised after a crash.
func (e *Engine) saveSession(ctx context.Context) error {
	if e.lineage.Known(e.session) {
		return nil
	}
	l := e.lineage
	l.Sessions = append(slices.Clone(l.Sessions), e.session)
	err := e.persist(ctx, "record the session", StateReplicating, func(context.Context) error {
		return e.opts.Local.SaveLineage(l, true)
	})
	if err == nil {
		e.lineage = l
		err = e.failpoint("session")
	}
	return err
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

// fencedBy is the end: somebody else has the key that would be ours.
func (e *Engine) fencedBy(key string, o *segment.Object) error {
	return &FencedError{Key: key, Session: o.Header.Session, Owner: ownerOf(o.Header.Owner)}
}
