package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// inlineSize is how many stored bytes of blocks a log segment carries itself
	// at most; more go into a data object.
	inlineSize = 8 << 20
	// segmentEntries keeps indexes small, and restores by TXID cheap.
	segmentEntries = 4096
)

// replicate uploads what the source emits, until the engine is closed; with
// drain, until nothing is left.
func (e *Engine) replicate(ctx context.Context, drain bool) error {
	var last time.Time // when the last upload began
	hot := true        // entries may be waiting
	var ended <-chan struct{}
	for {
		if !hot {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-e.opts.Source.Ready():
			case <-e.kick:
			case <-ended:
			}
			hot = true
		}
		if err := e.pace(ctx, last, drain); err != nil {
			return err
		}
		// Asked before looking, so that what is captured before Close is called is seen.
		closing := e.isClosing()
		if len(e.pending) == 0 {
			if e.opts.Source.Lost() {
				return errLost
			}
			e.pending = e.opts.Source.Take(e.opts.inline)
		}
		if len(e.pending) == 0 {
			hot = false
			if e.releaseIdle() && (drain || closing) {
				if ended = e.history.lets(); drain || ended == nil {
					return nil
				}
			}
			continue
		}
		last = e.clock.Now()
		if err := e.uploadNext(ctx); err != nil {
			return err
		}
		if !drain { // there is no database then
			e.upkeep(ctx)
		}
	}
}

// pace lets MaxLag pass since the last upload, unless somebody waits for the next.
func (e *Engine) pace(ctx context.Context, last time.Time, drain bool) error {
	for {
		rest := e.opts.MaxLag - e.clock.Now().Sub(last)
		if rest <= 0 || drain || last.IsZero() || e.isClosing() || e.syncWanted() || e.history.hurry() || len(e.pending) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.kick:
		case <-e.clock.After(rest):
			return nil
		}
	}
}

func (e *Engine) syncWanted() bool {
	e.ack.Lock()
	defer e.ack.Unlock()
	return len(e.waiters) > 0
}

// releaseIdle lets go who waits for entries that don't exist any more (merged
// ones, say), and reports whether everything is acknowledged.
func (e *Engine) releaseIdle() bool {
	e.ack.Lock()
	defer e.ack.Unlock()
	if e.opts.Source.Backlog().Entries > 0 || e.opts.Source.Lost() {
		return false
	}
	for _, w := range e.waiters {
		close(w.done)
	}
	e.waiters = nil
	return true
}

// frozen is a log segment whose TXIDs and bytes don't change any more.
type frozen struct {
	key    string
	object []byte
	chain  segment.Hash
	n      int   // entries of pending in it
	data   int64 // bytes in its data object
}

// uploadNext uploads the oldest pending entries as one segment.
func (e *Engine) uploadNext(ctx context.Context) error {
	if err := e.claim(ctx, e.pending[0].PageSize); err != nil {
		return err
	}
	if len(e.pending) == 0 { // an earlier session had uploaded them
		return nil
	}
	f, err := e.freeze(ctx)
	if err != nil {
		return err
	}
	e.secure(e.pending[f.n-1].WAL)
	e.noteAhead(e.end.TXID+entriesTXIDs(e.pending[:f.n]), e.pending[f.n-1].Post)
	if err := e.settleFrozen(f); err != nil {
		return err
	}
	if err := e.failpoint("log-before"); err != nil {
		return err
	}
	theirs, err := e.createLog(ctx, f)
	switch {
	case err != nil:
		return err
	case theirs != nil && theirs.Header.Session == e.session:
		return e.landed(theirs)
	case theirs != nil:
		return e.fencedBy(ctx, f.key, theirs)
	}
	if err := e.failpoint("log-after"); err != nil {
		return err
	}
	o, err := segment.Parse(f.object)
	if err != nil {
		return fmt.Errorf("replicate: %s, just written: %w", f.key, err)
	}
	return e.acknowledge(o, f.n, f.data)
}

// freeze makes a segment of the oldest pending entries: as many as share a page
// size and fit. Blocks of large ones go to a data object first.
func (e *Engine) freeze(ctx context.Context) (*frozen, error) {
	first := e.pending[0]
	if first.Pre != e.end.Checksum || first.PreCommit != e.end.Commit {
		return nil, fmt.Errorf("replicate: %s: captured entry follows checksum %016x, %d pages; the replica's line ends at TXID %d with %016x, %d pages: %w",
			e.opts.Database, first.Pre, first.PreCommit, e.end.TXID, e.end.Checksum, e.end.Commit, ErrDiverged)
	}
	h := segment.Header{
		Kind: segment.KindLog, PageSize: first.PageSize, Database: e.end.Database, Session: e.session,
		MinTXID: e.end.TXID + 1, PrevChain: e.end.Chain,
	}
	if h.PageSize == 0 {
		h.PageSize = e.end.PageSize
	}
	var size int64
	n, floor, at := 0, e.end.LastTime, e.proof.since
	for n < len(e.pending) && n < segmentEntries {
		en := e.pending[n]
		if n > 0 && (en.Whole || en.PageSize != first.PageSize || size+en.BodySize() > e.opts.inline || e.history.endsAt(at)) {
			break
		}
		size += en.BodySize()
		at += max(en.Count, 1)
		en.LiftTimes(floor)
		floor = en.LastMono
		n++
	}
	f := &frozen{key: segment.LogKey(h.MinTXID), n: n}
	entries := e.pending[:n]
	var err error
	if size <= e.opts.inline {
		f.object, f.chain, err = segment.Encode(h, entries)
	}
	if size > e.opts.inline || errors.Is(err, segment.ErrTooLarge) {
		var root *segment.Root
		if root, f.data, err = e.spill(ctx, h, entries); err != nil {
			return nil, err
		}
		f.object, f.chain, err = segment.EncodeExternal(h, entries, root)
	}
	if err != nil {
		return nil, fmt.Errorf("replicate: %s: encode %s: %w", e.opts.Database, f.key, err)
	}
	return f, nil
}

// createLog creates f. If another object has its key, that one is returned.
func (e *Engine) createLog(ctx context.Context, f *frozen) (theirs *segment.Object, err error) {
	var b backoff
	for {
		err := e.create(ctx, f.key, f.object)
		if !errors.Is(err, objstore.ErrExist) {
			return nil, err
		}
		o, err := e.existing(ctx, f.key)
		if err != nil {
			return nil, err
		}
		if o != nil && o.Chain == f.chain {
			return nil, nil // an earlier attempt, whose reply was lost
		}
		if o != nil {
			return o, nil
		}
		if err := e.absent(ctx, f.key, &b); err != nil {
			return nil, err
		}
	}
}

// create creates a small object, trying until the store has answered: nil,
// ErrExist, or an error that no repetition can help.
func (e *Engine) create(ctx context.Context, key string, object []byte) error {
	return e.persist(ctx, "create "+key, StateReplicating, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, uploadTimeout(len(object)))
		defer cancel()
		return e.opts.Store.Create(ctx, key, object)
	})
}

// existing reads the log segment at key; nil if there is none.
func (e *Engine) existing(ctx context.Context, key string) (o *segment.Object, err error) {
	txid, _ := segment.ParseLogKey(key)
	err = e.persist(ctx, "read "+key, StateReplicating, func(ctx context.Context) error {
		l := line{timedStore{e.opts.Store, uploadTimeout(segment.MaxInline)}, e.end.Database}
		o, err = l.log(ctx, txid)
		return err
	})
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, nil
	}
	return o, err
}

// persist repeats f while its error is one that passes. Credentials and
// permissions are repaired while programs run, so these errors pass, too.
func (e *Engine) persist(ctx context.Context, what string, state State, f func(context.Context) error) error {
	var b backoff
	for {
		err := f(ctx)
		if err == nil {
			if b.attempt > 0 {
				e.setState(state, nil)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err = fmt.Errorf("replicate: %s: %w", what, err)
		if !e.transient(err) && !errors.Is(err, objstore.ErrDenied) && !errors.Is(err, objstore.ErrNoBucket) {
			if b.attempt > 0 {
				e.setState(state, nil)
			}
			return err
		}
		e.trying(waiting(err), err)
		hurry := e.closing // hastens one attempt, not all
		if e.isClosing() {
			hurry = nil
		}
		if err := sleep(ctx, e.clock, b.next(), hurry); err != nil {
			return err
		}
	}
}

// acknowledge makes o, which holds the n oldest pending entries, the line's end.
func (e *Engine) acknowledge(o *segment.Object, n int, data int64) error {
	e.end.advance(o)
	txids := entriesTXIDs(e.pending[:n])
	e.proof.since += txids
	e.proof.reached = true // what the source emits is in the database
	e.opts.Counters.acknowledged(e.pending[:n]...)
	e.history.acknowledged(e.pending[:n], e.end, e.proof.since)
	clear(e.pending[:n]) // their bodies can go
	e.pending = e.pending[n:]
	if len(e.pending) == 0 {
		e.pending = nil
	}
	e.noteEnd(1, o.Size+data)

	e.ack.Lock()
	e.opts.Source.Acknowledge(n)
	e.acked += txids
	idle := e.opts.Source.Backlog().Entries == 0 && !e.opts.Source.Lost()
	rest := e.waiters[:0]
	for _, w := range e.waiters {
		if w.target <= e.acked || idle {
			close(w.done)
		} else {
			rest = append(rest, w)
		}
	}
	e.waiters = rest
	e.ack.Unlock()

	return e.noteLineage()
}
