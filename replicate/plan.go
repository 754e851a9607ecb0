package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// target is the position asked for: a TXID, a time (µs), or the newest.
type target struct {
	txid uint64
	time int64
}

func (t target) latest() bool { return t == target{} }

// beyond reports whether a state with these TXIDs and this time lies after t.
func (t target) beyond(maxTXID uint64, lastTime int64) bool {
	return t.txid != 0 && maxTXID > t.txid || t.time != 0 && lastTime > t.time
}

// plan says what a restore reads: a snapshot (or nothing: an empty database), page
// segments, then log segments, in order.
type plan struct {
	base []exportKey
	logs []logKey
	// open: the line may go on behind logs, which a GET of the next key tells.
	open bool
	// next is the first listed key behind logs; 0: there is none.
	next uint64
	// last is the last listed key; 0: there is none.
	last uint64
	// gone: the log behind base is no longer there, so that base's end is the last
	// state up to the target that can be restored. For times alone.
	gone bool
	// exports are all there are, by their last TXID; those from beyond on lie after
	// the target.
	exports []exportKey
	beyond  int
}

// at is where base ends; 0: there is no base.
func (p *plan) at() uint64 { return endOf(p.base) }

func endOf(base []exportKey) uint64 {
	if n := len(base); n > 0 {
		return base[n-1].max
	}
	return 0
}

// choosePlan is the pure part of planning. logs is a listing that begins with
// the segment that holds the TXID after the base, or before it; limit is the
// number of listed segments that can matter (all, but for a time).
func choosePlan(base []exportKey, logs []logKey, t target, limit int) (plan, error) {
	next := endOf(base) + 1
	// The segment that holds next is the last one that begins at or before it.
	first := sort.Search(len(logs), func(i int) bool { return logs[i].txid > next }) - 1
	if first < 0 {
		if len(logs) > 0 {
			return plan{}, missingLog(next, logs[0].txid)
		}
		return plan{base: base, open: true}, nil
	}
	p := plan{base: base, logs: logs[first:min(limit, len(logs))]}
	if limit <= first {
		p.logs = nil
	}
	if t.txid != 0 {
		n := sort.Search(len(p.logs), func(i int) bool { return p.logs[i].txid > t.txid })
		p.logs = p.logs[:n]
	}
	if n := first + len(p.logs); n < len(logs) {
		p.next = logs[n].txid
	}
	p.open = p.next == 0
	return p, nil
}

func missingLog(txid, found uint64) error {
	return fmt.Errorf("replicate: %s is missing; the next one there is: %s: %w",
		segment.LogKey(txid), segment.LogKey(found), errGap)
}

// errGap is an ErrCorrupt that planning may explain better.
var errGap = fmt.Errorf("gap in the log: %w", ErrCorrupt)

// boundaries returns the exports whose ends can be restored without the log, of
// exports in the order of their last TXIDs.
func boundaries(exports []exportKey) (list []exportKey) {
	at := uint64(0)
	for _, k := range exports {
		if k.max > at && (k.kind == segment.KindSnapshot || k.min <= at+1) {
			list, at = append(list, k), k.max
		}
	}
	return list
}

// byEnd sorts exports by their last TXIDs.
func byEnd(exports []exportKey) {
	slices.SortStableFunc(exports, func(a, b exportKey) int { return cmp.Compare(a.max, b.max) })
}

// export reads and verifies the object of a snapshot or page segment.
func (l *line) export(ctx context.Context, k exportKey) (*segment.Object, error) {
	key := k.key()
	b, err := fetch(ctx, l.store, key, segment.MaxInline)
	if err != nil {
		return nil, err
	}
	o, err := segment.Parse(b)
	if err != nil {
		return nil, badObject(key, b, err)
	}
	if err := l.check(key, o.Header, k.kind); err != nil {
		return nil, err
	}
	if h := o.Header; h.Key() != key {
		return nil, fmt.Errorf("replicate: %s says that it is %s: %w", key, h.Key(), ErrCorrupt)
	}
	return o, nil
}

// snapshot reads and verifies a snapshot's object.
func (l *line) snapshot(ctx context.Context, k snapshotKey) (*segment.Object, error) {
	return l.export(ctx, exportKey{kind: segment.KindSnapshot, min: 1, max: k.txid, sum: k.sum})
}

// headerSize is a first guess at how much of an object has its header.
const headerSize = 4096

// header reads only the header of an object.
func (l *line) header(ctx context.Context, key string, kind segment.Kind) (*segment.Header, error) {
	for size := int64(headerSize); ; {
		b, err := fetchRange(ctx, l.store, key, 0, size)
		if err != nil {
			return nil, err
		}
		h, err := segment.ParseHeader(b)
		if more := (*segment.NeedMoreError)(nil); errors.As(err, &more) && int64(len(b)) == size {
			size = int64(more.N)
			continue
		}
		if err != nil {
			return nil, badObject(key, b, err)
		}
		return h, l.check(key, h, kind)
	}
}

// planned reads the header of an object that a listing has, trying again what
// can pass.
func (l *line) planned(ctx context.Context, key string, kind segment.Kind) (*segment.Header, error) {
	h, err := retryValue(ctx, func() (*segment.Header, error) { return l.header(ctx, key, kind) })
	return h, dataError(key, err)
}

// makePlan lists the replica and finds out what a restore to t reads. Exports in
// aside don't count, nor does the log, if its prefix is there, as long as there is
// something behind t. What it has listed is in the plan also where there is an error.
func (l *line) makePlan(ctx context.Context, t target, aside map[string]bool) (plan, error) {
	exports, err := retryValue(ctx, func() ([]exportKey, error) { return listExports(ctx, l.store) })
	if err != nil {
		return plan{}, err
	}
	exports = slices.DeleteFunc(exports, func(k exportKey) bool { return aside[k.key()] })
	byEnd(exports)
	beyond := len(exports)
	switch {
	case t.txid != 0:
		beyond = sort.Search(beyond, func(i int) bool { return exports[i].max > t.txid })
	case t.time != 0:
		beyond, err = search(beyond, func(i int) (bool, error) {
			h, err := l.planned(ctx, exports[i].key(), exports[i].kind)
			if err != nil && isVerdict(err) {
				err = &timelessError{exports[i].key(), err}
			}
			return err == nil && h.LastMono > t.time, err
		})
	}
	base := chooseBase(exports[:beyond], segment.MaxTXID)
	p := plan{base: base}
	switch {
	case err != nil:
	case aside[segment.LogPrefix] && beyond < len(exports):
		p.gone = true
	case t.txid == 0 || t.txid != p.at(): // the end of an export needs no log
		until := uint64(segment.MaxTXID)
		switch {
		case t.txid != 0:
			until = t.txid
		case beyond < len(exports):
			until = exports[beyond].max
		}
		p, err = l.planLog(ctx, base, t, until, beyond < len(exports))
	}
	p.exports, p.beyond = exports, beyond
	return p, err
}

// planLog plans which part of the log, up to until, is read; later says that there
// is an export beyond the target.
func (l *line) planLog(ctx context.Context, base []exportKey, t target, until uint64, later bool) (plan, error) {
	at := endOf(base)
	// A segment begins behind each export. Which one ends there is asked only where
	// that may be the last one of all.
	enough := func(keys []logKey) bool { return len(keys) > 0 || later }
	logs, err := retryValue(ctx, func() ([]logKey, error) { return l.listBetween(ctx, at+1, until, enough) })
	if err != nil {
		return plan{base: base}, err
	}
	limit := len(logs)
	if t.time != 0 {
		first, err := l.joint(ctx, at, until, logs)
		if errors.Is(err, errGap) && later {
			return plan{base: base, gone: true}, nil
		}
		if err == nil {
			limit, err = search(limit-first, func(i int) (bool, error) {
				h, err := l.planned(ctx, segment.LogKey(logs[first+i].txid), segment.KindLog)
				return err == nil && h.FirstMono > t.time, err
			})
			limit += first
			if err == nil && stray(logs, limit, later) {
				return plan{base: base, gone: true}, nil
			}
		}
		if err != nil {
			return plan{base: base}, err
		}
	}
	p, err := choosePlan(base, logs, t, limit)
	p.base = base
	if n := len(logs); n > 0 {
		p.last = logs[n-1].txid
	}
	return p, err
}

// joint finds where in a listing, which ends beyond until, the log goes on behind
// TXID at. What stands before that can be anything: segments that retention hasn't
// reached yet, claims in the holes that it left, whose times mean nothing.
func (l *line) joint(ctx context.Context, at, until uint64, logs []logKey) (first int, err error) {
	first = sort.Search(len(logs), func(i int) bool { return logs[i].txid > at })
	if first > 0 && logs[first-1].size != segment.ClaimSize {
		h, err := l.planned(ctx, segment.LogKey(logs[first-1].txid), segment.KindLog)
		if err != nil || h.MaxTXID > at {
			return first - 1, err
		}
	}
	next := at + 1
	for i := first; i < len(logs) && logs[i].txid == next; i++ {
		if logs[i].size != segment.ClaimSize {
			return first, nil // retention takes the log from its beginning on: the rest is there
		}
		next++
	}
	i := sort.Search(len(logs), func(i int) bool { return logs[i].txid >= next })
	switch {
	case i < len(logs):
		return 0, missingLog(next, logs[i].txid)
	case until < segment.MaxTXID && next <= until:
		return 0, fmt.Errorf("replicate: %s is missing: %w", segment.LogKey(next), errGap)
	}
	return first, nil
}

// stray reports whether what follows the target in a listing may be a claim in a hole
// of the log, whose time is that of a writer which slept: it doesn't show that nothing
// was committed before. later: the line goes on behind the listing.
func stray(logs []logKey, i int, later bool) bool {
	return i < len(logs) && logs[i].size == segment.ClaimSize &&
		(i+1 == len(logs) && later || i+1 < len(logs) && logs[i+1].txid != logs[i].txid+1)
}

// timelessError says that the time of an export isn't known, because it is damaged.
type timelessError struct {
	key string
	err error
}

func (e *timelessError) Error() string { return e.err.Error() }
func (e *timelessError) Unwrap() error { return e.err }

// search is sort.Search with errors.
func search(n int, f func(int) (bool, error)) (int, error) {
	var failed error
	i := sort.Search(n, func(i int) bool {
		if failed != nil {
			return true
		}
		ok, err := f(i)
		failed = err
		return ok
	})
	return i, failed
}

// next reads the log segment at txid, of which no listing told; nil if there is none.
func (l *line) next(ctx context.Context, txid uint64) (*segment.Object, error) {
	o, err := l.log(ctx, txid)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, nil
	}
	return o, err
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
