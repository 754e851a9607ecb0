package replicate

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// checkReached says why the target isn't there, if it isn't.
func (r *restorer) checkReached(ctx context.Context) error {
	tail := r.a.tail
	what := fmt.Sprintf("TXID %d", r.target.txid)
	if r.target.time != 0 {
		what = stamp(r.target.time)
	}
	switch {
	case r.target.txid != 0 && tail.TXID != r.target.txid:
		return fmt.Errorf("replicate: %s: %s: %w: the newest is %d (%s)",
			r.store, what, ErrNotRestorable, tail.TXID, stamp(tail.LastTime))
	case tail.Commit == 0 && r.plan.gone:
		return fmt.Errorf("replicate: %s: %s: %w%s", r.store, what, ErrNotRestorable, r.earliest(ctx))
	case tail.Commit == 0 && !r.target.latest():
		return fmt.Errorf("replicate: %s: %s: %w: the database was empty%s", r.store, what, ErrNotRestorable, r.earliest(ctx))
	case tail.Commit == 0:
		return fmt.Errorf("replicate: %s: %w: %w", r.store, ErrNotRestorable, ErrEmpty)
	}
	if err := r.checkClock(ctx); err != nil {
		return err
	}
	if r.target.txid != 0 && r.target.txid == r.plan.at() {
		return r.checkNewest(ctx)
	}
	return r.checkExact(ctx)
}

// checkExact finds out whether a time can be told to be between the state's commit and
// the one behind it: it may lie within a merge, or where the log is no longer there.
func (r *restorer) checkExact(ctx context.Context) error {
	if e := r.a.after; e != nil && r.target.time != 0 && e.FirstMono <= r.target.time {
		r.inexact = true
		r.notes = append(r.notes, fmt.Sprintf("TXID %d to %d, committed from %s to %s, were merged: those of them that were made before %s can't be restored without the others (-txid %[2]d)",
			e.MinTXID, e.MaxTXID, stamp(e.FirstMono), stamp(e.LastMono), stamp(r.target.time)))
	}
	if !r.plan.gone {
		return nil
	}
	beyond := r.plan.exports[r.plan.beyond:]
	k := beyond[0]
	h, err := r.line.planned(ctx, k.key(), k.kind)
	if err != nil {
		return err
	}
	// The page segment that begins behind the state, if there is one, knows when the
	// next commit was made. (Two commits can have the same time.)
	for _, next := range beyond {
		if next.kind != segment.KindPages || next.min != r.a.tail.TXID+1 {
			continue
		}
		first := h
		if next != k {
			if first, err = r.line.planned(ctx, next.key(), next.kind); err != nil {
				return err
			}
		}
		if first.FirstMono > r.target.time {
			return nil
		}
		break
	}
	if r.aside.timeless != nil { // it may be the one that was asked for
		return r.aside.timeless
	}
	r.inexact = true
	r.notes = append(r.notes, fmt.Sprintf("the commits between TXID %d (%s) and TXID %d (%s) are no longer restorable one by one: some may have been made before %s",
		r.a.tail.TXID, stamp(r.a.tail.LastTime), k.max, stamp(h.LastMono), stamp(r.target.time)))
	return nil
}

// checkNewest finds out whether the end of an export, for which the log isn't read,
// is the line's. What is wrong with the log is none of its business.
func (r *restorer) checkNewest(ctx context.Context) error {
	if r.plan.beyond < len(r.plan.exports) {
		return nil
	}
	at := r.target.txid
	logs, err := r.line.listFrom(ctx, at)
	if n := len(logs); err == nil && n > 0 && logs[n-1].txid <= at {
		h, err := r.line.header(ctx, segment.LogKey(logs[n-1].txid), segment.KindLog)
		if err == nil && h.MaxTXID == at {
			_, err = r.line.header(ctx, segment.LogKey(at+1), segment.KindLog)
			r.latest = errors.Is(err, objstore.ErrNotExist)
		}
	}
	return ctx.Err()
}

// clockTolerance is how far ahead a clock may have been without a word of it.
const clockTolerance = int64(time.Minute / time.Microsecond)

// checkClock refuses a time of which the line can't tell what the database was.
// When a writer's clock was years ahead for a moment, everything after that has
// the monotone time of that moment, and the state before it would be taken for
// the newest of all the years. That shows where what follows the state claims to
// be later than the clock was when the newest entry was written.
func (r *restorer) checkClock(ctx context.Context) error {
	if r.target.time == 0 || r.latest {
		return nil
	}
	var after int64
	switch {
	case r.a.after != nil:
		after = r.a.after.FirstMono
	case r.plan.gone:
		k := r.plan.exports[r.plan.beyond]
		h, err := r.line.planned(ctx, k.key(), k.kind)
		if err != nil {
			return err
		}
		after = h.LastMono
	case r.plan.next != 0:
		h, err := r.line.planned(ctx, segment.LogKey(r.plan.next), segment.KindLog)
		if err != nil {
			return err
		}
		after = h.FirstMono
	default:
		return nil
	}
	// What is newer is not needed for the restore: damage there is no reason to fail.
	newest, err := r.newer(ctx)
	if err != nil || newest == nil || after-newest.LastRaw <= clockTolerance {
		return nil
	}
	return fmt.Errorf("replicate: %s: %s: %w: a writer's clock was ahead: what follows TXID %d (%s) claims to be of %s, but a later commit, TXID %d, was made when the clock said %s. "+
		"Commits after TXID %[4]d may lie before that time; choose one by its TXID", r.store, stamp(r.target.time), ErrNotRestorable,
		r.a.tail.TXID, stamp(r.a.tail.LastTime), stamp(after), newest.MaxTXID, stamp(newest.LastRaw))
}

// newer returns an entry that is as new as can be found with a few requests: of the
// first log segment behind the newest export, or of the last one that the plan knows.
func (r *restorer) newer(ctx context.Context) (*segment.Entry, error) {
	txid := r.plan.last
	if n := len(r.plan.exports); r.plan.beyond < n {
		keys, err := r.line.listUntil(ctx, r.plan.exports[n-1].max+1, 0)
		if err != nil {
			return nil, err
		}
		if len(keys) > 0 {
			txid = keys[0].txid
		}
	}
	if txid == 0 {
		return nil, nil
	}
	o, err := r.line.log(ctx, txid)
	if err != nil || len(o.Entries) == 0 {
		return nil, err
	}
	r.expected.object(o.Size, 0)
	return o.Entries[len(o.Entries)-1], nil
}

// earliest names the first state that can be restored; "" if it can't be found
// in the beginning of the log.
func (r *restorer) earliest(ctx context.Context) string {
	const format = "; the earliest is %s"
	if e := r.a.after; e != nil {
		return fmt.Sprintf(format, at(e.MaxTXID, e.LastMono))
	}
	// While the log goes back to its beginning, its first commit is older.
	next := r.a.tail.TXID + 1
	for range 20 {
		o, err := r.line.next(ctx, next)
		if err != nil || o == nil || len(o.Entries) > 0 && o.Entries[0].NeedsBase {
			break
		}
		for _, e := range o.Entries {
			if e.Commit > 0 {
				return fmt.Sprintf(format, at(e.MaxTXID, e.LastMono))
			}
		}
		next = o.Header.MaxTXID + 1
	}
	for _, k := range boundaries(r.plan.exports) {
		if h, err := r.line.header(ctx, k.key(), k.kind); err == nil && h.Commit > 0 {
			return fmt.Sprintf(format, at(h.MaxTXID, h.LastMono))
		}
	}
	return ""
}

// explain turns what was found into what it means: a TXID between two boundaries
// where the log is gone, and a first snapshot that isn't there yet.
func (r *restorer) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errGap) && r.target.txid != 0:
		return r.between(ctx, err)
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

// between explains a gap before a TXID: where a later state can be restored without
// that part of the log, retention has been there.
func (r *restorer) between(ctx context.Context, gap error) error {
	all := boundaries(r.plan.exports)
	i := sort.Search(len(all), func(i int) bool { return all[i].max > r.target.txid })
	if i == len(all) {
		return gap
	}
	say := func(k exportKey) string {
		h, err := r.line.planned(ctx, k.key(), k.kind)
		if err != nil {
			return fmt.Sprintf("TXID %d", k.max)
		}
		return at(k.max, h.LastMono)
	}
	if i == 0 {
		return fmt.Errorf("replicate: %s: TXID %d: %w; the earliest is %s: the log before it is no longer there", r.store, r.target.txid, ErrNotRestorable, say(all[0]))
	}
	return fmt.Errorf("replicate: %s: TXID %d: %w: the log of that time is no longer there: restore %s or %s instead",
		r.store, r.target.txid, ErrNotRestorable, say(all[i-1]), say(all[i]))
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
