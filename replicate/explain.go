package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// checkReached says why the target isn't there, if it isn't.
func (r *restorer) checkReached(ctx context.Context) error {
	tail := r.a.tail
	switch {
	case r.target.txid != 0 && tail.TXID != r.target.txid:
		return fmt.Errorf("replicate: %s: TXID %d: %w: the newest is %d (%s)",
			r.store, r.target.txid, ErrNotRestorable, tail.TXID, stamp(tail.LastTime))
	case tail.Commit == 0 && !r.target.latest():
		what := fmt.Sprintf("TXID %d", r.target.txid)
		if r.target.time != 0 {
			what = stamp(r.target.time)
		}
		return fmt.Errorf("replicate: %s: %s: %w: the database was empty%s", r.store, what, ErrNotRestorable, r.earliest(ctx))
	case tail.Commit == 0:
		return fmt.Errorf("replicate: %s: %w: nothing was replicated yet", r.store, ErrNotRestorable)
	}
	return r.checkClock(ctx)
}

// clockTolerance is how far ahead a clock may have been without a word of it.
const clockTolerance = int64(time.Minute / time.Microsecond)

// checkClock refuses a time of which the line can't tell what the database was.
// When a writer's clock was years ahead for a moment, everything after that has
// the monotone time of that moment, and the state before it would be taken for
// the newest of all the years. That shows where what follows the state claims to
// be later than the clock was when the newest entry was written.
func (r *restorer) checkClock(ctx context.Context) error {
	if r.target.time == 0 || r.latest || r.plan.last == 0 {
		return nil
	}
	var after int64
	switch {
	case r.a.after != nil:
		after = r.a.after.FirstMono
	case r.plan.next != 0:
		h, err := retryValue(ctx, func() (*segment.Header, error) {
			return r.line.header(ctx, segment.LogKey(r.plan.next), segment.KindLog)
		})
		if err != nil {
			return err
		}
		after = h.FirstMono
	default:
		return nil
	}
	// The newest segment is not needed for the restore: damage there is no reason to fail.
	o, err := r.line.log(ctx, r.plan.last)
	if err != nil || len(o.Entries) == 0 {
		return nil
	}
	newest := o.Entries[len(o.Entries)-1]
	if after-newest.LastRaw <= clockTolerance {
		return nil
	}
	return fmt.Errorf("replicate: %s: %s: %w: a writer's clock was ahead: what follows TXID %d (%s) claims to be of %s, but the newest commit, TXID %d, was made when the clock said %s. "+
		"Commits after TXID %[4]d may lie before that time; choose one by its TXID", r.store, stamp(r.target.time), ErrNotRestorable,
		r.a.tail.TXID, stamp(r.a.tail.LastTime), stamp(after), newest.MaxTXID, stamp(newest.LastRaw))
}

// earliest names the first state that can be restored; "" if it can't be found
// in the beginning of the log.
func (r *restorer) earliest(ctx context.Context) string {
	const format = "; the earliest is TXID %d (%s)"
	if e := r.a.after; e != nil {
		return fmt.Sprintf(format, e.MaxTXID, stamp(e.LastMono))
	}
	if len(r.snaps) > 0 {
		k := segment.SnapshotKey(r.snaps[0].txid, r.snaps[0].sum)
		if h, err := r.line.header(ctx, k, segment.KindSnapshot); err == nil {
			return fmt.Sprintf(format, h.MaxTXID, stamp(h.LastMono))
		}
	}
	next := r.a.tail.TXID + 1
	for range 20 {
		o, err := r.line.next(ctx, next)
		if err != nil || o == nil {
			break
		}
		for _, e := range o.Entries {
			if e.Commit > 0 {
				return fmt.Sprintf(format, e.MaxTXID, stamp(e.LastMono))
			}
		}
		next = o.Header.MaxTXID + 1
	}
	return ""
}

// explain turns what was found into what it means: a gap in front of the oldest
// snapshot, and a first snapshot that isn't there yet.
func (r *restorer) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errGap) && r.plan.base == nil && len(r.snaps) > 0 && !r.target.latest():
		if r.a == nil {
			r.a = &applier{}
		}
		r.a.after = nil
		return fmt.Errorf("replicate: %s: %w%s (%w)", r.store, ErrNotRestorable, r.earliest(ctx), err)
	case errors.Is(err, errNoBase) && r.unfinished(ctx):
		before := ""
		if t := r.a.tail; t.Commit > 0 {
			before = fmt.Sprintf("; TXID %d (%s), before it, can be", t.TXID, stamp(t.LastTime))
		}
		// It isn't ErrCorrupt: nothing is damaged.
		return fmt.Errorf("replicate: %s: %w: with TXID %d session %s began to take over a database, and its snapshot isn't finished%s",
			r.store, ErrNotRestorable, r.a.prev.MaxTXID, r.a.prev.Session, before)
	}
	return err
}

// unfinished reports whether nothing follows the adopt entry whose base is
// missing, other attempts and claims aside. A line isn't extended before it has
// its base.
func (r *restorer) unfinished(ctx context.Context) bool {
	for next := r.a.prev.MaxTXID + 1; ; {
		o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.next(ctx, next) })
		if err != nil || o == nil {
			return err == nil
		}
		if !o.Header.Claim && (len(o.Entries) != 1 || !o.Entries[0].NeedsBase) {
			return false
		}
		next = o.Header.MaxTXID + 1
	}
}
