package capture

import (
	"errors"
	"fmt"
	"slices"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// Rollback-journal modes: a transaction writes the database file itself, and is
// committed when its journal is gone (https://sqlite.org/atomiccommit.html).
// CommitPhaseTwo comes then, before the EXCLUSIVE lock is let go, so what was
// written can be read in peace. That is done at once: the next transaction
// overwrites it, and no log keeps it.

// Written is what a transaction has written of the database file. The zero value
// is nothing. A set too large does no harm: pages that are what they were are left
// out.
type Written struct{ sectors local.PageSet }

const sector = segment.MinPageSize

// Add adds n bytes at offset off.
func (w *Written) Add(off int64, n int) {
	for s := off / sector; s*sector < off+int64(n); s++ {
		w.sectors.Add(uint64(s))
	}
}

// pages returns the pages that the sectors belong to, ascending, up to size.
func (w *Written) pages(pageSize uint32, size uint64) []uint64 {
	var pages []uint64
	per := uint64(pageSize / sector)
	for sector := range w.sectors.All() {
		no := sector/per + 1
		if no > size {
			return pages
		}
		if n := len(pages); n == 0 || pages[n-1] != no {
			pages = append(pages, no)
		}
	}
	return pages
}

// Writing says that a transaction is about to write the database file, under an
// EXCLUSIVE lock.
func (d *DB) Writing() error {
	d.lockGate()
	defer d.mu.Unlock()
	// Until its pages are stored the database file alone has the transaction.
	if err := d.notePending(); err != nil {
		return err
	}
	if d.phase == live || d.phase == tracking {
		d.checkFile()
	}
	d.writing = true // from here on the file changes
	d.durable.started()
	return nil
}

// RolledBack says that the transaction was rolled back, before the lock is let go.
// The file is what it was, except for pages that were free: their content is not
// in the journal. They belong to whatever is committed next.
func (d *DB) RolledBack(w *Written) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing = false
	d.leftover.sectors.Merge(&w.sectors)
	if d.emptied != "" {
		d.emptied = fingerprint(d.opts.Path)
	}
}

// Committed captures a transaction that has written the database file. What can't
// be captured is found by a repair.
func (d *DB) Committed(w *Written) {
	d.lockGate()
	defer d.mu.Unlock()
	d.writing = false
	d.durable.ended()
	d.commitWritten(w)
}

// commitLeftover emits what transactions that were rolled back have left in free
// pages, as an entry of its own: nobody can read what was there before. A SHARED
// lock is held, so that nobody writes.
func (d *DB) commitLeftover() {
	if d.leftover.sectors.Len() > 0 && !d.writing && d.phase == live {
		d.commitWritten(&Written{})
	}
}

func (d *DB) commitWritten(w *Written) {
	w.sectors.Merge(&d.leftover.sectors)
	d.leftover = Written{}
	if err := d.commitFile(w); err != nil {
		d.log.Warn("a transaction can't be captured", "database", d.opts.Path, "error", err)
		d.loseTrack("reading a transaction failed")
	}
}

func (d *DB) commitFile(w *Written) error {
	if d.phase != live && d.phase != tracking {
		return nil
	}
	ok, err := reopen(&d.file, d.opts.Path, d.openFile)
	if err != nil || !ok {
		return err
	}
	h, err := readDatabaseHeader(d.file, d.opts.Path)
	if err != nil {
		return err
	}
	before, size := d.table.size(), uint64(h.Pages)
	pages := w.pages(h.PageSize, size)
	if d.phase == tracking {
		if d.dirty != nil {
			for _, no := range pages {
				d.dirty.Add(no)
			}
			d.smallest = min(d.smallest, size)
		}
		d.emptied = fingerprint(d.opts.Path)
		return nil
	}
	switch {
	case before == 0 && size <= 1 && h.WAL:
		// SQLite puts a database into WAL mode before there is anything in it. The
		// first transaction has that page, too.
		d.emptied = fingerprint(d.opts.Path)
		return nil
	case before > 0 && h.PageSize != d.table.pageSize:
		d.loseTrack("the page size changed")
		return nil
	}
	// Pages that were allocated and freed again within a transaction are never
	// written, but the file has grown by them.
	i, _ := slices.BinarySearch(pages, before+1)
	pages = pages[:i]
	for no := before + 1; no <= size; no++ {
		pages = append(pages, no)
	}
	d.table.pageSize = h.PageSize
	if err := d.emitFile(pages, size); err != nil {
		return err
	}
	d.emptied = fingerprint(d.opts.Path)
	d.identify()
	d.settled.Store(d.emitted.Load())
	d.bound()
	if d.phase != live {
		return nil
	}
	// So that the end of the process doesn't take it away; what the end of power
	// takes is found by a repair.
	err = d.spill(false)
	if errors.Is(err, errSpoolFull) {
		return d.giveUp(err)
	}
	if err != nil {
		return nil // memory has it, too
	}
	return d.compact()
}

// emitFile queues the entry for a transaction that left the database with size
// pages, of which these may have changed.
func (d *DB) emitFile(pages []uint64, size uint64) error {
	defer d.releaseBuffers()
	b := d.newBuilder(&segment.Entry{Kind: segment.Transaction, Count: 1, Commit: size, MinCommit: size})
	defer b.abort()
	lock := segment.LockPage(d.table.pageSize)
	for _, no := range pages {
		if no == lock {
			continue
		}
		page := d.buffers().page(d.table.pageSize)
		if err := readPage(d.file, no, page); err != nil {
			return err
		}
		hash := segment.PageHash(no, page)
		if no <= b.e.PreCommit && hash == d.table.get(no) {
			continue
		}
		if err := b.add(no, hash, page); err != nil {
			return err
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	if len(b.e.Blocks) == 0 && b.e.PreCommit == size {
		return nil
	}
	if err := b.finish(d.sumAfter, 0); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	d.table.apply(b.e)
	d.enqueue(b)
	return nil
}
