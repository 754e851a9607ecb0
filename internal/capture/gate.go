package capture

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/wal"
)

// Gates: hooks before log content is destroyed. Each returns an error if that
// must not happen now.

// lockGate locks mu for the application, and makes who has it hurry.
func (d *DB) lockGate() {
	d.gates.Add(1)
	d.mu.Lock()
	d.gates.Add(-1)
}

// BeforeCheckpoint captures what is committed before a checkpoint overwrites old
// versions of pages. The log keeps its content, so that nothing needs to be
// durable yet.
func (d *DB) BeforeCheckpoint() error {
	d.lockGate()
	defer d.mu.Unlock()
	if d.opts.Off["checkpoint"] {
		return nil
	}
	if d.phase == idle && !d.noted && d.decideWait() > 0 {
		return ErrUndecided // the log would be the best proof
	}
	if _, err := d.captureLocked(true); err != nil {
		return err
	}
	if d.phase == live {
		// The restart gate, which usually comes next, wants this durable: the disk
		// can do it beside the checkpoint.
		if err := d.spill(false); errors.Is(err, errFailpoint) {
			return err
		}
		if d.queue.backlog().Spooled > 0 {
			d.spool.SyncAhead()
		}
		// From here on the file is no longer what the log began with: only the
		// join says what that was. Once for each generation of the log.
		if err := d.spool.SyncJoin(); err != nil {
			d.log.Warn("can't sync the spool", "database", d.opts.Path, "error", err)
		}
	}
	return d.failpoint("checkpoint")
}

// Restart lets a new WAL header through: write puts it over the old generation.
// SQLite has reset the WAL-index already.
func (d *DB) Restart(h wal.Header, write func() error) error {
	d.lockGate()
	defer d.mu.Unlock()
	if !d.opts.Off["restart"] {
		if err := d.beforeLoss(h.Salt); err != nil {
			return err
		}
	}
	if err := d.failpoint("restart"); err != nil {
		return err
	}
	d.next = h.Salt
	if err := write(); err != nil || d.opts.OpenFile == nil {
		return err
	}
	// Whether the log can be read is known for certain only now.
	if ok, err := reopen(&d.wal, d.opts.Path+"-wal", d.openFile); !ok {
		return fmt.Errorf("capture: open the WAL again: %w", err)
	}
	if now, err := readWALHeader(d.wal); err != nil || now != h {
		return fmt.Errorf("capture: the WAL of %s is written by its VFS as a database would not be: it %w", d.opts.Path, ErrUnreadable)
	}
	return nil
}

// BeforeTruncate and BeforeDelete come before the log is cut to nothing or
// removed.
func (d *DB) BeforeTruncate() error { return d.beforeEnd("truncate") }

// BeforeDelete is the gate of the last close and of leaving WAL mode.
func (d *DB) BeforeDelete() error { return d.beforeEnd("delete") }

func (d *DB) beforeEnd(gate string) error {
	d.lockGate()
	defer d.mu.Unlock()
	if d.opts.Off[gate] {
		return nil
	}
	if d.phase == live {
		if _, err := d.captureLocked(true); err != nil {
			return err
		}
	}
	if err := d.beforeLoss([2]uint32{}); err != nil {
		return err
	}
	if err := d.failpoint(gate); err != nil {
		return err
	}
	d.emptied = fingerprint(d.opts.Path)
	return nil
}

// beforeLoss makes everything in the log captured and durable elsewhere; next
// are the salts of the generation that replaces it, zero if none.
func (d *DB) beforeLoss(next [2]uint32) error {
	old, err := d.oldGeneration()
	if err != nil {
		return err
	}
	if d.phase == idle && old != nil && !d.noted {
		d.await(func() bool { return d.phase != idle || d.unreachable }, d.decideWait())
	}
	// A rebase reads at local speed and needs no lock that the caller holds.
	for d.phase == rebasing || d.phase == repairing && d.pass {
		d.cond.Wait()
	}
	switch d.phase {
	case tracking:
		return d.finishTracking(old, next)
	case live:
		if err := d.finish(old, next); err != nil {
			return err
		}
	}
	switch d.phase {
	case live:
		return d.secure(next)
	case idle:
		// The store doesn't answer. The application isn't held up for that.
		if old == nil {
			return nil
		}
	}
	// What is lost now is in the database file, and a repair compares that; what
	// was captured before isn't acknowledged by it.
	if err := d.notePending(); err != nil || d.phase != repairing {
		return err
	}
	return d.keep()
}

// maxDecideWait is how long after the opening a gate waits until it is known how
// database and replica relate.
const maxDecideWait = 5 * time.Second

func (d *DB) decideWait() time.Duration {
	if d.unreachable {
		return 0
	}
	return maxDecideWait - d.opts.Now().Sub(d.opened)
}

// Unreachable says that the application uses the database, though how it relates
// to the replica isn't known until the store answers: gates don't wait for that.
func (d *DB) Unreachable() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unreachable = true
	d.cond.Broadcast()
}

// AwaitDecision waits for as long as a checkpoint would be refused because it isn't
// known how database and replica relate, and while the database is read to begin.
func (d *DB) AwaitDecision() {
	d.mu.Lock()
	defer d.mu.Unlock()
	begun := func() bool { return d.phase != idle && d.phase != rebasing || d.noted || d.unreachable }
	if !begun() {
		d.await(begun, d.decideWait())
	}
}

// await waits, with mu held, until ok or the time is up.
func (d *DB) await(ok func() bool, limit time.Duration) bool {
	late := false
	t := time.AfterFunc(limit, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		late = true
		d.cond.Broadcast()
	})
	defer t.Stop()
	for !ok() && !late && d.failed == nil {
		d.cond.Wait()
	}
	return ok()
}

// oldGeneration reads the header of the log as it stands; nil if it is empty.
func (d *DB) oldGeneration() (*wal.Header, error) {
	ok, err := reopen(&d.wal, d.opts.Path+"-wal", d.openFile)
	if !ok {
		return nil, err
	}
	h, err := readWALHeader(d.wal)
	if err == io.EOF {
		return nil, nil
	}
	if err != nil {
		return nil, nil // torn by a crash before its first sync: no content
	}
	return &h, nil
}

// finish captures what the old generation has beyond the mark. Commits of this
// process were captured at the checkpoint; what is left is another program's, or
// frames of a commit that failed and was rolled back. All that is committed is
// in the database file by now, which tells them apart.
func (d *DB) finish(old *wal.Header, next [2]uint32) error {
	if old == nil {
		d.checkFile()
		return nil
	}
	w, err := d.beyondMark(*old, next)
	if err != nil || len(w.commits) == 0 {
		return err
	}
	d.stats.excess.Add(int64(len(w.commits)))
	same, err := d.inFile(w)
	if err != nil {
		return err
	}
	if !same {
		d.loseTrack("the WAL ended in commits that the database does not have")
		return nil
	}
	return d.emit(w, d.pending.Swap(0), true)
}

// beyondMark walks what the old generation has beyond the mark: no commits, if
// there are none or if it is not the one that was to come.
func (d *DB) beyondMark(old wal.Header, next [2]uint32) (walked, error) {
	if old.Salt == next {
		return walked{}, nil // a header that is written again after it failed
	}
	if old.Salt != d.mark.salt {
		if old.Salt != d.next {
			d.loseTrack("another program restarted the WAL")
			return walked{}, nil
		}
		if d.startGeneration(old) != nil {
			return walked{}, nil // phase and failed say it
		}
	}
	return d.walk(d.mark, math.MaxUint32)
}

// inFile reports whether the last images of all pages a walk found are in the
// database file.
func (d *DB) inFile(w walked) (bool, error) {
	if ok, err := reopen(&d.file, d.opts.Path, d.openFile); !ok {
		return false, err
	}
	end := w.commits[len(w.commits)-1]
	buf := make([]byte, 2*d.table.pageSize)
	a, b := buf[:d.table.pageSize], buf[d.table.pageSize:]
	for _, f := range d.lastFrames(w.pages[:end.frame-w.from.frame], end.pages) {
		if err := readFrame(d.wal, uint32(f), a); err != nil {
			return false, err
		}
		if err := readPage(d.file, f>>32, b); err != nil {
			return false, err
		}
		if string(a) != string(b) {
			return false, nil
		}
	}
	return true, nil
}

func (d *DB) finishTracking(old *wal.Header, next [2]uint32) error {
	if old == nil {
		if d.emptied != fingerprint(d.opts.Path) {
			d.loseTrack("")
		}
		return nil
	}
	w, err := d.beyondMark(*old, next)
	if err != nil || len(w.commits) == 0 {
		return err
	}
	if d.pass {
		// A pinned pass reads at the mark: whoever got past the pin is unknown.
		d.loseTrack("")
		return nil
	}
	d.track(w)
	return nil
}

// secure makes everything unacknowledged durable, and notes how the log goes on.
func (d *DB) secure(next [2]uint32) error {
	// The join shortens the next start. It is made durable when the first
	// checkpoint of the next generation begins; until then a scan finds the same.
	if err := d.spool.Join(local.Join{End: d.lastPos, Checksum: d.table.sum, Next: next}); err != nil {
		return d.giveUp(err)
	}
	d.settled.Store(d.emitted.Load())
	err := d.keep()
	if err == nil && next != [2]uint32{} {
		d.takeBackPending() // what comes is in the log, and what was in store, spool or file
		d.spool.SyncAhead() // the first checkpoint would wait for it
	}
	return err
}

// keep makes everything that is captured and not acknowledged durable, or gives it
// up.
func (d *DB) keep() error {
	err := d.tryKeep()
	if err != nil && !errors.Is(err, errFailpoint) {
		return d.giveUp(err)
	}
	return err
}

func (d *DB) tryKeep() error {
	if err := d.compact(); err != nil {
		return err
	}
	if err := d.spill(false); err != nil {
		return err
	}
	if d.queue.backlog().Spooled == 0 {
		return nil
	}
	if err := d.failpoint("spool-sync"); err != nil {
		return err
	}
	if err := d.spool.Sync(); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}
