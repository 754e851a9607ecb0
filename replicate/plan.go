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

// plan says what a restore reads: a snapshot (or nothing: an empty database),
// then log segments in order.
type plan struct {
	base *snapshotKey
	logs []logKey
	// open: the line may go on behind logs, which a GET of the next key tells.
	open bool
	// next is the first listed key behind logs; 0: there is none.
	next uint64
	// last is the last listed key of all; 0: there is none.
	last uint64
}

// choosePlan is the pure part of planning. logs is a listing that begins with
// the segment that holds the TXID after the base, or before it; limit is the
// number of listed segments that can matter (all, if the target is the newest).
func choosePlan(base *snapshotKey, logs []logKey, t target, limit int) (plan, error) {
	next := uint64(1)
	if base != nil {
		next = base.txid + 1
	}
	// The segment that holds next is the last one that begins at or before it.
	first := sort.Search(len(logs), func(i int) bool { return logs[i].txid > next }) - 1
	if first < 0 {
		if len(logs) > 0 && (base == nil || t.txid != base.txid) {
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

// snapshot reads and verifies a snapshot's descriptor.
func (l *line) snapshot(ctx context.Context, k snapshotKey) (*segment.Object, error) {
	key := segment.SnapshotKey(k.txid, k.sum)
	b, err := fetch(ctx, l.store, key, segment.MaxInline)
	if err != nil {
		return nil, err
	}
	o, err := segment.Parse(b)
	if err != nil {
		return nil, badObject(key, b, err)
	}
	if err := l.check(key, o.Header, segment.KindSnapshot); err != nil {
		return nil, err
	}
	if h := o.Header; h.MaxTXID != k.txid || h.Post != k.sum {
		return nil, fmt.Errorf("replicate: %s says that it is of TXID %d with checksum %016x: %w", key, h.MaxTXID, h.Post, ErrCorrupt)
	}
	return o, nil
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

// makePlan lists the replica and finds out what a restore to t reads.
func (l *line) makePlan(ctx context.Context, t target) (p plan, snaps []snapshotKey, err error) {
	if snaps, err = listSnapshots(ctx, l.store); err != nil {
		return p, nil, err
	}
	n := len(snaps)
	switch {
	case t.txid != 0:
		n = sort.Search(n, func(i int) bool { return snaps[i].txid > t.txid })
	case t.time != 0:
		n, err = search(n, func(i int) (bool, error) {
			h, err := l.header(ctx, segment.SnapshotKey(snaps[i].txid, snaps[i].sum), segment.KindSnapshot)
			return err == nil && h.LastMono > t.time, err
		})
		if err != nil {
			return p, snaps, err
		}
	}
	var base *snapshotKey
	next := uint64(1)
	if n > 0 {
		base = &snaps[n-1]
		next = base.txid + 1
	}
	logs, err := l.listFrom(ctx, next)
	if err != nil {
		return p, snaps, err
	}
	limit := len(logs)
	if t.time != 0 {
		limit, err = search(limit, func(i int) (bool, error) {
			h, err := l.header(ctx, segment.LogKey(logs[i].txid), segment.KindLog)
			return err == nil && h.FirstMono > t.time, err
		})
		if err != nil {
			return p, snaps, err
		}
	}
	p, err = choosePlan(base, logs, t, limit)
	if n := len(logs); n > 0 {
		p.last = logs[n-1].txid
	}
	return p, snaps, err
}

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
