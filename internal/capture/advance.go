package capture

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/outwash/outwash/internal/local"
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
	defer d.releaseBuffers()
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
	if err != nil {
		return 0, err
	}
	if end.MaxFrame == 0 {
		d.checkFile()
		return 0, nil
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
		case !d.follows(h.Salt):
			d.loseTrack("another program restarted the WAL")
			return 0, nil
		}
		d.joinGuarded(h.Salt)
		if d.startGeneration(h) != nil {
			return 0, nil
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
	if ok, err := reopen(&d.wal, d.opts.Path+"-wal", d.openFile); !ok {
		return wal.Index{}, false, err
	}
	if frame := d.private.Load(); frame != 0 {
		idx, err := d.privateIndex(frame)
		return idx, err == nil, err
	}
	if ok, err := reopen(&d.shm, d.opts.Path+"-shm", openPlain); !ok {
		return wal.Index{}, false, err
	}
	idx, err = wal.ReadIndex(d.shm)
	if errors.Is(err, wal.ErrIndex) {
		return wal.Index{}, false, nil // being recovered, or about to be deleted
	}
	return idx, err == nil, err
}

// Confirm says that the log is committed up to a frame, by a connection that keeps
// the WAL-index to itself: with EXCLUSIVE locking there is no -shm
// (https://sqlite.org/wal.html#use_of_wal_without_shared_memory). 0: it lets go.
func (d *DB) Confirm(frame uint32) {
	if frame == 0 { // nothing else says now how far the log is committed
		d.lockGate()
		defer d.mu.Unlock()
		if _, err := d.captureLocked(true); err != nil {
			d.log.Warn("capture failed, trying on", "database", d.opts.Path, "error", err)
		}
	}
	d.private.Store(frame)
	d.Signal()
}

// privateIndex is what a WAL-index would say about the log up to a commit frame.
func (d *DB) privateIndex(frame uint32) (wal.Index, error) {
	h, err := readWALHeader(d.wal)
	if errors.Is(err, io.EOF) {
		return wal.Index{}, nil
	}
	if err != nil {
		return wal.Index{}, fmt.Errorf("capture: %s-wal: %w", d.opts.Path, err)
	}
	var b [wal.FrameHeaderSize]byte
	if _, err := d.wal.ReadAt(b[:], wal.FrameOffset(frame, h.PageSize)); err != nil && !errors.Is(err, io.EOF) {
		return wal.Index{}, fmt.Errorf("capture: read WAL: %w", err)
	}
	f := wal.ParseFrame(b[:])
	if f.Salt != h.Salt || f.Commit == 0 { // of the generation before
		return wal.Index{Salt: h.Salt, PageSize: h.PageSize}, nil
	}
	return wal.Index{PageSize: h.PageSize, MaxFrame: frame, Pages: f.Commit, Checksum: f.Checksum, Salt: h.Salt}, nil
}

// checkFile notices, while there is no log, that another program wrote to the
// database file, or took the log away.
func (d *DB) checkFile() {
	if fi, err := os.Stat(d.opts.Path + "-wal"); d.writing || err == nil && fi.Size() > 0 {
		return
	}
	switch now := fingerprint(d.opts.Path); {
	case now == d.emptied || now == "": // a file that was removed: see Replaced
	case d.opts.Guarded && touched(d.emptied, now):
		d.emptied = now
	case d.free && d.emptied == "" && d.held():
		d.emptied = now // nobody could write the file since the log was let go
	case d.table.size() == 0 && !d.hasContent():
	case d.emptied == "" && d.mark.salt != [2]uint32{}:
		d.loseTrack("another program took the WAL away")
	default:
		d.loseTrack("another program wrote to the database file")
	}
}

// hasContent reports whether a database has more than its first page, which
// SQLite writes before there is any content.
func (d *DB) hasContent() bool {
	f, err := d.openFile(d.opts.Path)
	if err != nil {
		return false
	}
	defer f.Close()
	h, err := readDatabaseHeader(f, d.opts.Path)
	return err == nil && h.Pages > 1
}

// identify remembers which file it is whose state the table has.
func (d *DB) identify() {
	if d.identity == "" {
		d.identity = local.Identity(d.opts.Path)
	}
}

func (d *DB) startGeneration(h wal.Header) error {
	if d.table.size() > 0 && d.table.pageSize != h.PageSize {
		d.loseTrack(fmt.Sprintf("the page size changed from %d to %d", d.table.pageSize, h.PageSize))
		return errLost
	}
	d.table.pageSize = h.PageSize
	d.mark = mark{salt: h.Salt, bigEnd: h.BigEndian, checksum: h.Checksum}
	d.next = [2]uint32{}
	d.emptied = ""
	d.last = map[uint32]uint32{} // a view may be using the old one
	return nil
}
