package capture

import (
	"fmt"
	"sync"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// queue has the entries between capture and store, oldest first: the first taken
// of them are with the engine, the rest wait; the first spooled of them are in the
// spool.
type queue struct {
	ready chan struct{}

	mu      sync.Mutex
	items   []*queued
	taken   int
	spooled int
	sum     local.Backlog // Entries, Bytes, TXIDs
	mem     int64         // stored bytes in memory
}

type queued struct {
	entry  *segment.Entry
	before segment.WALPosition // of the entry before
	size   int64
	inFile bool         // its body is read from the spool
	stored segment.Body // its body there, while inFile is not set
}

// push adds an entry; inFile if it is in the spool already.
func (q *queue) push(it *queued) {
	q.mu.Lock()
	q.items = append(q.items, it)
	q.sum.Entries++
	q.sum.Bytes += it.size
	q.sum.TXIDs += it.entry.Count
	if it.inFile {
		q.spooled = len(q.items) // what came before was spilled
	} else {
		q.mem += it.size
	}
	q.mu.Unlock()
	q.wake()
}

func (q *queue) take(limit int64) []*segment.Entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []*segment.Entry
	for q.taken < len(q.items) {
		it := q.items[q.taken]
		if len(out) > 0 && it.size > limit {
			break
		}
		limit -= it.size
		e := *it.entry // the engine lifts its times, while a gate may be spooling it
		out = append(out, &e)
		q.taken++
	}
	return out
}

func (q *queue) acknowledge(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items[:n] {
		q.sum.Entries--
		q.sum.Bytes -= it.size
		q.sum.TXIDs -= it.entry.Count
		if !it.inFile {
			q.mem -= it.size
		}
	}
	clear(q.items[:n])
	q.items = q.items[n:]
	q.taken -= n
	q.spooled = max(0, q.spooled-n)
}

func (q *queue) backlog() local.Backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.sum
	b.Spooled = q.spooled
	if b.Entries > 0 {
		b.Oldest = q.items[0].entry.FirstRaw
	}
	return b
}

func (q *queue) memory() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mem
}

// unspooled returns the entries that are only in memory, as records of their own.
func (q *queue) unspooled() (items []*queued, recs []local.Record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items = append(items, q.items[q.spooled:]...)
	return items, records(items)
}

// inSpool returns the entries whose records in the spool still count.
func (q *queue) inSpool() (recs []local.Record, size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items[:q.spooled] {
		size += it.size
	}
	return records(q.items[:q.spooled]), size
}

func records(items []*queued) []local.Record {
	recs := make([]local.Record, len(items))
	for i, it := range items {
		e := *it.entry
		recs[i] = local.Record{Entry: &e, Before: it.before}
	}
	return recs
}

// nowSpooled notes that items are in the spool, as these records. Those that were
// acknowledged meanwhile are gone.
func (q *queue) nowSpooled(items []*queued, recs []local.Record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := items[len(items)-1]
	for i, it := range q.items {
		if it == last {
			q.spooled = i + 1
			break
		}
	}
	for i, it := range items {
		it.stored = recs[i].Entry.Body
	}
}

// giveBack makes entries that wait read their bodies from the spool, if they are
// there. Those that the engine has are left alone.
func (q *queue) giveBack() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := q.taken; i < q.spooled; i++ {
		if it := q.items[i]; !it.inFile {
			it.entry.Body, it.stored, it.inFile = it.stored, nil, true
			q.mem -= it.size
		}
	}
}

// drop forgets the entries that nobody has taken.
func (q *queue) drop() (oldest int64) {
	q.mu.Lock()
	if q.taken < len(q.items) {
		oldest = q.items[q.taken].entry.FirstRaw
	}
	for _, it := range q.items[q.taken:] {
		q.sum.Entries--
		q.sum.Bytes -= it.size
		q.sum.TXIDs -= it.entry.Count
		if !it.inFile {
			q.mem -= it.size
		}
	}
	clear(q.items[q.taken:])
	q.items = q.items[:q.taken]
	q.spooled = min(q.spooled, q.taken)
	q.mu.Unlock()
	q.wake()
	return oldest
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// reset forgets everything.
func (q *queue) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.taken, q.spooled, q.mem, q.sum = nil, 0, 0, 0, local.Backlog{}
}

// spill writes every entry that is only in memory to the spool, in order; it is
// not synced. With move their memory is given back.
func (d *DB) spill(move bool) error {
	items, recs := d.queue.unspooled()
	if len(items) > 0 {
		if d.spool.Size() > d.opts.SpoolLimit {
			if err := d.compact(); err != nil {
				return err
			}
		}
		if d.spool.Size() > d.opts.SpoolLimit {
			return fmt.Errorf("%w: it has %d bytes", errSpoolFull, d.spool.Size())
		}
		if err := d.failpoint("spool-append"); err != nil {
			return err
		}
		if err := d.spool.Append(recs); err != nil {
			return err
		}
		d.queue.nowSpooled(items, recs)
	}
	if move {
		d.queue.giveBack()
	}
	return nil
}

// compactAt is the size from which on a spool that is mostly acknowledged is
// rewritten.
const compactAt = 16 << 20

// compact bounds the spool by what is not acknowledged: that alone counts against
// its limit.
func (d *DB) compact() error {
	all, limit := d.spool.Size(), d.opts.SpoolLimit
	if all < min(compactAt, limit) {
		return nil
	}
	recs, size := d.queue.inSpool()
	if all < 4*size && (all <= limit || size > limit/2) {
		return nil
	}
	return d.spool.Rewrite(recs)
}
