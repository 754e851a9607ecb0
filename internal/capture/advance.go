package capture

import (
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/wal"
)

// capture reads the log to its committed end. It returns the number of commits.
func (d *DB) capture() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.captureLocked(false)
}

func (d *DB) captureLocked(atGate bool) (int, error) {
	if d.phase != live && d.phase != tracking || d.pass {
		return 0, nil
	}
	d.stats.captures.Add(1)
	since := d.pending.Swap(0)
	n, err := d.advance(since, atGate)
	if err != nil {
		d.pending.CompareAndSwap(0, since)
	}
	return n, err
}

// advance moves the mark to the committed end of the log.
func (d *DB) advance(since int64, atGate bool) (int, error) {
	end, err := d.index()
	if err != nil || end.MaxFrame == 0 {
		return 0, err
	}
	if end.Salt == d.mark.salt && end.MaxFrame == d.mark.frame {
		if end.Checksum != d.mark.checksum {
			d.loseTrack("the log was rewritten at equal length")
		}
		return 0, nil
	}
	if end.Salt != d.mark.salt {
		h, err := d.readHeader()
		if err != nil {
			return 0, err
		}
		switch {
		case h.Salt != end.Salt:
			return 0, fmt.Errorf("capture: WAL header has salts %08x, WAL-index %08x", h.Salt, end.Salt)
		case h.Salt != d.next:
			d.loseTrack("another program restarted the WAL")
			return 0, nil
		}
		if err := d.startGeneration(h); err != nil {
			return 0, err
		}
	}
	if end.MaxFrame < d.mark.frame {
		d.loseTrack("the log became shorter")
		return 0, nil
	}
	w, err := d.walk(d.mark, end.MaxFrame)
	if err != nil {
		return 0, err
	}
	if w.end.frame != end.MaxFrame || w.end.checksum != end.Checksum {
		d.loseTrack("the log's checksums don't lead to its committed end")
		return 0, nil
	}
	return len(w.commits), d.emit(w, since, atGate)
}

// index reads the WAL-index; the zero Index if there is nothing to know.
func (d *DB) index() (wal.Index, error) {
	idx, _, err := d.readIndex()
	return idx, err
}

// readIndex reads the WAL-index, if it is there and initialised. One that was made
// for an empty log, of which nothing is committed yet, is all zero.
func (d *DB) readIndex() (idx wal.Index, known bool, err error) {
	if ok, err := reopen(&d.wal, d.opts.Path+"-wal"); !ok {
		return wal.Index{}, false, err
	}
	if ok, err := reopen(&d.shm, d.opts.Path+"-shm"); !ok {
		return wal.Index{}, false, err
	}
	idx, err = wal.ReadIndex(d.shm)
	if errors.Is(err, wal.ErrIndex) {
		return wal.Index{}, false, nil // being recovered, or about to be deleted
	}
	return idx, err == nil, err
}

func (d *DB) startGeneration(h wal.Header) error {
	if d.table.pageSize != 0 && d.table.pageSize != h.PageSize {
		d.phase = repairing
		return d.fail(fmt.Errorf("%w: from %d to %d bytes", ErrPageSize, d.table.pageSize, h.PageSize))
	}
	d.table.pageSize = h.PageSize
	d.mark = mark{salt: h.Salt, bigEnd: h.BigEndian, checksum: h.Checksum}
	d.next = [2]uint32{}
	d.emptied = ""
	d.last = map[uint32]uint32{} // a view may be using the old one
	return nil
}

// loseTrack notes that something went by unseen.
func (d *DB) loseTrack(why string) {
	switch d.phase {
	case live:
		d.log.Warn("the WAL changed in a way that was not captured; comparing database and replica", "database", d.opts.Path, "why", why)
		d.stats.repairs.Add(1)
		d.phase = repairing
		d.cond.Broadcast()
	case tracking:
		d.dirty = nil // the export notices and starts over
	}
}
