package replicate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// durableEvery is how often a position is made durable at most, unless an upload
// asks for it: each costs two syncs.
const durableEvery = 10 * time.Second

// proof is what an engine remembers in order to prove after a crash which
// positions the database file had reached.
type proof struct {
	file string // identity of the file; "": it did not exist yet
	// gone: there is no file; one that comes now isn't what was captured.
	gone bool
	boot string // the machine's present run
	// reached: the file contains the line's end. Not so while a database takes the
	// place of a line that it has nothing to do with.
	reached bool
	// since counts the TXIDs acknowledged of the source's entries since it began;
	// Source.Settled counts the same.
	since uint64
	// next becomes durable once the source has settled more than before it; nextAt
	// is what since was then.
	next   local.Position
	nextAt uint64
	saved  time.Time
}

// begin notes what was found, and that the source counts anew.
func (p *proof) begin(file string, act action, empty bool) {
	*p = proof{
		boot: p.boot, saved: p.saved, file: file, gone: act == actDrain,
		// A line whose state is replaced isn't what the file contains. Nothing, which
		// an empty line has, is in every file.
		reached: empty || act != actAdopt && act != actExport,
	}
}

// position is a position that session numbered so; the file contains it, unless
// it says nothing of a file.
func (e *Engine) position(txid, checksum uint64, session ID) local.Position {
	p := local.Position{TXID: txid, Checksum: checksum, Session: session, Boot: e.proof.boot}
	if e.proof.reached {
		p.File = e.file()
	}
	return p
}

// notedPosition is the line's end, with what tells what of the database it has.
func (e *Engine) notedPosition() local.Position {
	p := e.position(e.end.TXID, e.end.Checksum, e.end.Session)
	p.Commit, p.PageSize, p.WAL = e.end.Commit, e.end.PageSize, e.end.WAL
	return p
}

// file is the identity of the database's file. It is not asked for again: if
// another file takes the name, what was captured is not that one's.
func (e *Engine) file() string {
	if e.proof.file == "" && !e.proof.gone { // it is made by the first commit
		e.proof.file = e.opts.identity(e.opts.Database)
	}
	return e.proof.file
}

// saveSession makes it durable that the session is this database's: what it
// writes from now on can be recognised after a crash.
func (e *Engine) saveSession(ctx context.Context) error {
	l := e.lineage
	if l.Known(e.session) && !e.newFile() {
		return nil
	}
	if !l.Known(e.session) {
		l.Sessions = append(slices.Clone(l.Sessions), e.session)
	}
	l.Replica = e.opts.Store.String()
	if e.newFile() {
		l.File = e.file()
	}
	if e.proof.reached && l.DurablyReached(e.end.Tail, e.file()) {
		l.Durable = e.position(e.end.TXID+1, e.end.Checksum, e.session) // the claim repeats the state
	}
	err := e.persist(ctx, "record the session", StateReplicating, func(context.Context) error {
		return e.opts.Local.SaveLineage(l)
	})
	if err == nil {
		e.lineage = l
		err = e.failpoint("session")
	}
	return err
}

// saveRestored makes it durable that the file, made just now from the replica, is
// this machine's: also if it turns out, after a crash perhaps, that the replica
// has gone on meanwhile.
func (e *Engine) saveRestored() error {
	l := e.lineage
	if l.Database != e.end.Database {
		l = local.Lineage{Database: e.end.Database, Restored: l.Restored}
	}
	l.File, l.Replica = e.opts.identity(e.opts.Database), e.opts.Store.String()
	if err := e.opts.Local.SaveLineage(l); err != nil {
		return fmt.Errorf("replicate: %w", err)
	}
	return nil
}

// newFile reports whether the file contains the line's end, and the lineage names
// another one, or none.
func (e *Engine) newFile() bool {
	return e.proof.reached && e.file() != "" && e.file() != e.lineage.File
}

// noteLineage records the acknowledged position. It needn't be durable: an
// older one proves less, never something wrong.
func (e *Engine) noteLineage() error {
	if err := e.failpoint("lineage-before"); err != nil {
		return err
	}
	p := e.notedPosition()
	err := e.opts.Local.NotePosition(p)
	if err == nil {
		e.lineage.Noted = p
		if e.newFile() { // it has taken a place, or was made by what was uploaded just now
			l := e.lineage
			l.File = e.file()
			if err = e.opts.Local.SaveLineage(l); err == nil {
				e.lineage = l
			}
		}
	}
	if err = cmp.Or(err, e.unsafe); err != nil {
		e.localTrouble(err)
	} else if state := e.state(); state == StateExporting { // until the first contact is over
		e.setState(state, nil)
	} else {
		e.setState(StateReplicating, nil)
	}
	if err := e.settle(false); err != nil {
		return err
	}
	return e.failpoint("lineage-after")
}

// noteFound notes that the file was found to contain the line's end, if nothing
// says so any more, after a loss of power. What changes it from here on without a
// commit (a rollback, in pages that are free; another program) is repaired.
func (e *Engine) noteFound() {
	if !e.lineage.Known(e.end.Session) || e.newFile() || e.lineage.Reached(e.end.Tail, e.file(), e.proof.boot) {
		return
	}
	p := e.notedPosition()
	if err := e.opts.Local.NotePosition(p); err != nil {
		e.localTrouble(err)
		return
	}
	e.lineage.Noted = p
}

// localTrouble notes that less can be proven than could be.
func (e *Engine) localTrouble(err error) {
	state := e.state()
	if state != StateExporting { // until the first contact is over
		state = StateReplicating
	}
	e.setState(state, fmt.Errorf("replicate: %w (replication goes on)", err))
}

// secure makes durable in the database's own files what is to be uploaded, which ends
// at this position: so the replica isn't ahead of them after a loss of power.
//
// If that fails it is uploaded all the same, and the status says so. On a disk that
// can't keep what is written the replica may soon be the only copy, and all that
// withholding it would save is a question, whether to go on from the replica or from
// what the disk has left.
func (e *Engine) secure(at segment.WALPosition) {
	e.unsafe = nil
	if err := e.opts.Source.Durable(at); err != nil {
		e.unsafe = fmt.Errorf("what is uploaded may not survive a loss of power here, so that the replica would be ahead of the database: %w", err)
		e.localTrouble(e.unsafe)
	}
}

// settle makes a position durable that is in the database file by now: the
// line's end, or else one from a while ago. last: however short ago that was done.
func (e *Engine) settle(last bool) error {
	p := &e.proof
	if !p.reached {
		return nil
	}
	settled := e.opts.Source.Settled()
	// The state that the source began with is in the file for certain only when
	// something behind it is: hence at least 1.
	if p.next.TXID == 0 || settled >= max(p.since, 1) {
		p.next, p.nextAt = e.position(e.end.TXID, e.end.Checksum, e.end.Session), p.since
	}
	d, next := &e.lineage.Durable, p.next
	switch {
	case settled < max(p.nextAt, 1):
		return nil
	case !last && e.clock.Now().Sub(p.saved) < durableEvery:
		return nil
	case next.TXID == d.TXID && next.Session == d.Session && next.File == d.File:
		return nil
	}
	p.next = local.Position{}
	return e.saveDurable(next)
}

// noteAhead notes the position that an upload will have made, if the file contains
// it. If that fails, less can be proven.
func (e *Engine) noteAhead(txid, checksum uint64) {
	p := e.position(txid, checksum, e.session)
	if p.File == "" {
		return
	}
	if err := e.opts.Local.NoteAhead(p); err != nil {
		e.localTrouble(err)
	}
}

// settleFrozen makes the position durable that f will have, if f's commits are in
// the database file already. That is so wherever there is no WAL. The upload would
// else be ahead of what can be proven when the power fails just after it.
func (e *Engine) settleFrozen(f *frozen) error {
	if !e.proof.reached || f.n == 0 {
		return nil
	}
	txids := entriesTXIDs(e.pending[:f.n])
	if e.opts.Source.Settled() < e.proof.since+txids {
		return nil
	}
	return e.saveDurable(e.position(e.end.TXID+txids, e.pending[f.n-1].Post, e.session))
}

// entriesTXIDs counts the TXIDs that entries take up.
func entriesTXIDs(entries []*segment.Entry) (n uint64) {
	for _, en := range entries {
		n += max(en.Count, 1)
	}
	return n
}

// saveDurable makes p durable: first the file, then that it had reached p. If
// that fails, less can be proven.
func (e *Engine) saveDurable(p local.Position) error {
	if p.File == "" {
		return nil
	}
	e.proof.saved = e.clock.Now()
	if err := e.failpoint("durable-before"); err != nil {
		return err
	}
	l := e.lineage
	a := l.Acknowledged()
	l.TXID, l.Checksum, l.Session = a.TXID, a.Checksum, a.Session
	p.Boot = "" // it counts under any
	l.Durable, l.File = p, p.File
	err := e.opts.Source.SyncFile()
	if err == nil {
		err = e.opts.Local.SaveLineage(l)
	}
	if err != nil {
		e.localTrouble(err)
		return nil
	}
	e.lineage = l
	return e.failpoint("durable-after")
}
