package capture

import (
	"cmp"
	"fmt"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// What is lost sight of, or given up, is not lost: it is in the database file, and
// a repair finds it by comparing. Until that is stored a durable note says that
// nothing else proves what the database is.

// loseTrack notes that something went by unseen.
func (d *DB) loseTrack(why string) {
	switch d.phase {
	case live:
		d.log.Warn("the database changed in a way that was not captured; comparing it with its replica", "database", d.opts.Path, "why", why)
		d.stats.repairs.Add(1)
		d.unseen.CompareAndSwap(0, d.now())
		d.setPhase(repairing)
	case tracking:
		d.dirty = nil // the export notices and starts over
	}
}

// notePending makes the note.
func (d *DB) notePending() error {
	if d.noted {
		return nil
	}
	if err := d.opts.Dir.SetPending(true); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	d.noted = true
	return nil
}

// forgetPending takes the note back once the store has everything, unless
// transactions go into the database file alone.
func (d *DB) forgetPending() {
	if (d.emptied == "" || d.opts.Guarded) && d.queue.backlog().Entries == 0 {
		d.takeBackPending()
	}
}

func (d *DB) takeBackPending() {
	if !d.noted || d.phase != live || d.writing {
		return
	}
	if err := d.opts.Dir.SetPending(false); err == nil {
		d.noted = false
	}
}

// giveUp drops the entries that wait, because there is no room for them. The
// engine decides anew once those that it has taken are stored.
func (d *DB) giveUp(why error) error {
	if err := d.notePending(); err != nil {
		return err // they stay where they are
	}
	d.log.Warn("too much waits for the store: transactions from here on will be one", "database", d.opts.Path, "why", why)
	d.unseen.CompareAndSwap(0, cmp.Or(d.queue.drop(), d.now()))
	d.setPhase(behind)
	d.forgetStored()
	return nil
}

// forgetStored takes out of the spool what doesn't wait any more: it was dropped,
// or is stored. Before a database becomes what it may have been once, or entries
// that followed then would be taken to follow again.
func (d *DB) forgetStored() {
	recs, _ := d.queue.inSpool()
	if err := d.spool.Rewrite(recs); err != nil {
		d.log.Warn("can't empty the spool", "database", d.opts.Path, "error", err)
	}
}

// Lost reports that entries were given up; see replicate.Source.
func (d *DB) Lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == behind
}

// Acknowledge says that the n oldest entries taken are in the store.
func (d *DB) Acknowledge(n int) {
	d.queue.acknowledge(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetPending()
}

// Settled says how many TXIDs of what was emitted since Begin or Export are in the
// database file itself.
func (d *DB) Settled() uint64 { return d.settled.Load() }

// Replaced reports whether the database's name has become another file's, or
// nobody's.
func (d *DB) Replaced() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.identity != "" && local.Identity(d.opts.Path) != d.identity
}

// pagesAfter is the table of the state after the replica's tail and entries that
// follow it.
func pagesAfter(tail local.Tail, entries []local.Record) (table, error) {
	t := tableOf(tail.PageSize, tail.Pages)
	if t.sum != tail.Checksum || t.size() != tail.Commit {
		return t, fmt.Errorf("capture: page hashes make checksum %016x over %d pages, the replica's is %016x over %d: %w",
			t.sum, t.size(), tail.Checksum, tail.Commit, segment.ErrCorrupt)
	}
	for _, r := range entries {
		t.apply(r.Entry)
		if t.sum != r.Entry.Post {
			return t, fmt.Errorf("capture: spooled entry leads to checksum %016x, it says %016x: %w", t.sum, r.Entry.Post, segment.ErrCorrupt)
		}
	}
	return t, nil
}
