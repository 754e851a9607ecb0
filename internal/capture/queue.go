package capture

import (
	"sync"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// queue has the entries between capture and store, oldest first: the first taken
// of them are with the engine, the rest wait.
type queue struct {
	ready chan struct{}

	mu    sync.Mutex
	items []*queued
	taken int
	mem   int64 // stored bytes in memory
}

type queued struct {
	entry   *segment.Entry
	before  segment.WALPosition // of the entry before
	size    int64
	spooled bool // it is in the spool
	inFile  bool // its body is read from there
}

func (q *queue) push(it *queued) {
	q.mu.Lock()
	q.items = append(q.items, it)
	if !it.inFile {
		q.mem += it.size
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
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
		out = append(out, it.entry)
		q.taken++
	}
	return out
}

func (q *queue) acknowledge(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items[:n] {
		if !it.inFile {
			q.mem -= it.size
		}
	}
	clear(q.items[:n])
	q.items = q.items[n:]
	q.taken -= n
}

func (q *queue) backlog() local.Backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	var b local.Backlog
	for _, it := range q.items {
		b.Entries++
		b.Bytes += it.size
		b.TXIDs += it.entry.Count
		if it.spooled {
			b.Spooled++
		}
	}
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

// unspooled returns the entries that are only in memory, and whether any entry
// in the spool still counts.
func (q *queue) unspooled() (only []*queued, spoolUsed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.spooled {
			spoolUsed = true
		} else {
			only = append(only, it)
		}
	}
	return only, spoolUsed
}

// reset forgets everything.
func (q *queue) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.taken, q.mem = nil, 0, 0
}

// spill writes every entry that is only in memory to the spool, in order; it is
// not synced. Bodies of entries that the engine has not taken move there.
func (d *DB) spill() error {
	only, used := d.queue.unspooled()
	if !used && !d.spool.Empty() && d.phase == live {
		if err := d.spool.Reset(); err != nil {
			return err
		}
	}
	for _, it := range only {
		if d.spool.Size() > d.opts.SpoolLimit {
			return ErrSpoolFull
		}
		if err := d.failpoint("spool-append"); err != nil {
			return err
		}
		if err := d.spillOne(it); err != nil {
			return err
		}
	}
	return nil
}

func (d *DB) spillOne(it *queued) error {
	e := it.entry
	if e.Body == nil {
		e = withBody(e)
	}
	// The engine may be reading the body of an entry that it has taken: copy the
	// entry, and swap only under the queue's lock while it waits.
	c := *e
	if err := d.spool.Append(&c, it.before, true); err != nil {
		return err
	}
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	it.spooled = true
	for _, w := range d.queue.items[d.queue.taken:] {
		if w == it {
			it.entry.Body = c.Body
			it.inFile = true
			d.queue.mem -= it.size
		}
	}
	return nil
}

func withBody(e *segment.Entry) *segment.Entry {
	c := *e
	c.Body = segment.BytesBody(nil)
	return &c
}
