package capture

import (
	"io"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/wal"
)

// A database that other programs write has no gates. Somebody keeps locks instead
// (internal/sidecar's guard), in one of two ways:
//
//   - held: the log can be backfilled, but neither restarted nor truncated. It may
//     be captured late.
//   - free: the log can be restarted, but nothing can be backfilled. Whatever new
//     generation begins then, whatever its salts, follows on all that was committed
//     before it, as long as that was in the file when the hold was given up; and
//     none of its own frames is lost before the log is held again. (Salts can't tell:
//     a connection that has not restarted the log itself begins a truncated one with
//     random ones, and a TRUNCATE of an empty log changes them, too.)

// LetGo goes from held to free. It must be called while both are the case: the log
// can neither be restarted nor backfilled. It captures what is committed, makes
// durable what isn't acknowledged, and reports whether the log, as it is at, may be
// restarted from here on. Not if it has content that is not in the file, or while a pass reads the
// database. While nothing is captured, because it is not known yet how database and
// replica relate, or a repair is due, it goes only if it is urgent, with the note
// that a repair is pending.
func (d *DB) LetGo(urgent bool) (at wal.Index, ok bool, err error) {
	d.lockGate()
	defer d.mu.Unlock()
	if d.failed != nil {
		return at, false, d.failed
	}
	if d.pass || d.phase == rebasing {
		return at, false, nil
	}
	if _, err := d.captureLocked(true); err != nil {
		return at, false, err
	}
	idx, known, err := d.readIndex()
	if err != nil || !known || idx.Backfilled < idx.MaxFrame {
		return at, false, err
	}
	switch d.phase {
	case live, tracking:
		if idx.MaxFrame > 0 && (idx.Salt != d.mark.salt || idx.MaxFrame != d.mark.frame) {
			return at, false, nil
		}
	case idle:
		if !d.noted && (!urgent || d.decideWait() > 0) {
			return at, false, nil
		}
	default:
		if !d.noted && !urgent {
			return at, false, nil
		}
	}
	if err := d.keepForRestart(); err != nil {
		return at, false, err
	}
	if err := d.failpoint("letgo"); err != nil {
		return at, false, err
	}
	d.free, d.emptied = true, fingerprint(d.opts.Path)
	return idx, true, nil
}

// LetGoAt is LetGo for whoever has no time: between two transactions of a program that
// never pauses. Secure must have been called before; idx is the log as it is while
// neither restart nor backfill is possible. If nothing was committed since Secure it
// calls drop, which ends the hold, and reports true.
func (d *DB) LetGoAt(idx wal.Index, drop func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := mark{salt: idx.Salt, frame: idx.MaxFrame, checksum: idx.Checksum, bigEnd: d.mark.bigEnd}
	if d.failed != nil || d.pass || d.phase != live || idx.Backfilled < idx.MaxFrame || d.mark != at || d.secured != at {
		return false
	}
	drop()
	d.settled.Store(d.emitted.Load())
	d.free, d.emptied = true, fingerprint(d.opts.Path) // nobody can write it: nothing is backfilled
	return true
}

// keepForRestart makes durable what the log and its captured entries may be the
// only ones to have.
func (d *DB) keepForRestart() error {
	switch d.phase {
	case live:
		d.settled.Store(d.emitted.Load())
		err := d.keep()
		if err == nil {
			d.takeBackPending()
		}
		return err
	case tracking:
		return nil // what changes is copied once more
	}
	if err := d.notePending(); err != nil || d.phase != repairing {
		return err
	}
	return d.keep()
}

// Secure captures what is committed and makes durable what isn't acknowledged,
// before the locks are given up.
func (d *DB) Secure() error {
	d.lockGate()
	defer d.mu.Unlock()
	if _, err := d.captureLocked(true); err != nil {
		return err
	}
	d.secured = mark{}
	if d.phase != live && d.phase != repairing {
		return nil
	}
	err := d.keep()
	if err == nil && d.phase == live { // else keep has given up
		d.secured = d.mark
	}
	return err
}

// Hold says that the log is held again, and of which generation it is: nothing of
// it has been lost since LetGo.
func (d *DB) Hold(salt [2]uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.free && salt != d.mark.salt {
		d.next = salt
	}
	if d.emptied != "" && d.mark.salt != [2]uint32{} {
		d.emptied = "" // the log has content, and the file changes at checkpoints
	}
	d.free = false
}

// Repairing reports whether something was lost sight of and the database is to be
// compared, or is being compared.
func (d *DB) Repairing() bool { return d.needsRepair() }

// Overwritten reports whether the database file was written although nobody may: the
// log is free and what is committed has not changed. That is no SQLite; cp, say. It
// is noted that a repair is pending.
func (d *DB) Overwritten() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.free || d.emptied == "" || d.phase != live || d.pass {
		return false, nil
	}
	switch now := fingerprint(d.opts.Path); {
	case now == "" || now == d.emptied:
		return false, nil
	case touched(d.emptied, now):
		d.emptied = now
		return false, nil
	}
	return true, d.notePending()
}

// touched reports whether two fingerprints tell of a change of the file's mode, owner
// or names alone: of its ctime. Who writes changes the mtime, too.
func touched(was, now string) bool {
	a, b := strings.Split(was, ":"), strings.Split(now, ":")
	if len(a) != 6 || len(b) != 6 { // there is no ctime
		return false
	}
	a[1] = b[1]
	return slices.Equal(a, b)
}

// follows reports whether a generation of the log with these salts is one that
// was let through.
func (d *DB) follows(salt [2]uint32) bool { return (d.free || salt == d.next) && d.held() }

// held reports whether nothing of the log could go by unseen.
func (d *DB) held() bool { return d.opts.Held == nil || d.opts.Held() }

// joinGuarded notes where a new generation of the log begins, so that the next
// start needn't read the database. (Where there are gates they do it.)
func (d *DB) joinGuarded(salt [2]uint32) {
	if !d.opts.Guarded || d.phase != live {
		return
	}
	if err := d.spool.Join(local.Join{End: d.lastPos, Checksum: d.table.sum, Next: salt}); err != nil {
		d.log.Debug("can't note where the log begins", "database", d.opts.Path, "error", err)
	}
}

// sawEmpty notes that the log was empty when a view was taken: any generation may
// begin now, and nothing of it is lost while the log is held.
func (d *DB) sawEmpty(v *view) {
	if d.opts.Guarded && v.empty {
		d.free = true
	}
}

// atClean puts the mark where a clean-close record says that the log was: it may
// be there still, and go on, or another have followed it. The file is what it was,
// so that nothing of either was backfilled.
func (d *DB) atClean(c *clean) error {
	d.mark = mark{salt: c.pos.Salt, frame: uint32(c.pos.Frame), checksum: c.pos.Checksum}
	if !d.opts.Guarded {
		return nil
	}
	idx, known, err := d.readIndex()
	if err != nil {
		return err
	}
	d.free = d.free || known && idx.MaxFrame == 0
	ok, err := reopen(&d.wal, d.opts.Path+"-wal", d.openFile)
	if !ok {
		return err
	}
	h, err := readWALHeader(d.wal)
	switch {
	case err == io.EOF:
		return nil
	case err != nil:
		return nil // torn: nothing is committed in it
	case h.Salt == d.mark.salt:
		d.mark.bigEnd = h.BigEndian
	default:
		d.next = h.Salt
	}
	return nil
}
