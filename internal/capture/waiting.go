package capture

import (
	"errors"
	"io/fs"
	"os"

	"github.com/outwash/outwash/internal/local"
)

// mostPeeked is the size up to which a log is read to count what waits in it.
const mostPeeked = 64 << 20

// remembered is what of the spool follows what the store had acknowledged before this
// process began.
type remembered struct {
	found   found
	waiting local.Waiting
}

// Waiting counts what waits behind the position that the store is remembered to have
// had, before Begin has been told how database and replica relate: it changes nothing,
// and holds nobody up. Only the engine calls it.
func (d *DB) Waiting(tail local.Tail) (w local.Waiting) {
	r, err := d.remember(tail)
	if err != nil {
		return w
	}
	w = r.waiting
	if _, err := os.Stat(d.opts.Path); errors.Is(err, fs.ErrNotExist) {
		w.Whole = true // there is nothing else
		return w
	}
	if fi, err := os.Stat(d.opts.Path + "-wal"); err == nil && fi.Size() > mostPeeked {
		return w
	}
	d.mu.Lock()
	noted := d.noted
	d.mu.Unlock()
	p, err := r.found.peek(d.opts.Path, local.View{Pending: noted})
	if err != nil {
		return w
	}
	w.Whole = p.Whole
	w.Entries += p.Commits
	w.TXIDs += uint64(p.Commits)
	if w.Oldest == 0 && p.Commits > 0 {
		w.Oldest = p.Logged.UnixMicro() // the newest commit's: the oldest is no later
	}
	return w
}

// remember reads the spool, once: until Begin nothing is put into it.
func (d *DB) remember(tail local.Tail) (*remembered, error) {
	if d.remembered != nil {
		return d.remembered, nil
	}
	d.mu.Lock()
	records, err := d.spool.Records()
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	r := &remembered{}
	r.found.follow(tail, records)
	w := &r.waiting
	for _, rec := range r.found.entries {
		e := rec.Entry
		w.Entries++
		w.Spooled++
		w.TXIDs += max(e.Count, 1)
		for i := range e.Blocks {
			w.Bytes += int64(e.Blocks[i].Stored)
		}
		if w.Oldest == 0 {
			w.Oldest = e.FirstRaw
		}
	}
	r.found.entries = nil
	d.remembered = r
	return r, nil
}
