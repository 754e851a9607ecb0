package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// open finds out how database and replica relate, for as long as it takes.
func (e *Engine) open(ctx context.Context) (action, error) {
	lineage, err := e.opts.Local.Lineage()
	if err != nil {
		return 0, fmt.Errorf("replicate: %w", err)
	}
	e.lineage = lineage
	e.noteKnown(false)
	var b, locked backoff
	for {
		s, err := e.look(ctx, b.timeout())
		if errors.Is(err, local.ErrLocked) { // the application may, for as long as it likes
			e.trying(StateOpening, err)
			if err := e.pause(ctx, &locked); err != nil {
				return 0, err
			}
			continue
		}
		if errors.Is(err, local.ErrChanged) {
			if err := e.changed(ctx, err); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, err
		}
		act, err := decide(s)
		if act == actSearch {
			act, err = e.search(ctx, &s)
		}
		if err != nil && e.nameWriter(ctx, &s.end) {
			act, err = decide(s)
		}
		if act == actAsk {
			act, err = e.ask(ctx, s, err)
		}
		if err != nil {
			return 0, err
		}
		if act != actWait && act != actBacklog {
			return act, e.bind(act, s)
		}
		if err := e.await(ctx, act, s.unreachable, &b); err != nil {
			return 0, err
		}
	}
}

// situation names database and replica.
func (e *Engine) situation() situation {
	s := situation{database: e.opts.Database, replica: e.opts.Store.String()}
	if l, ok := e.base.(objstore.Listed); ok {
		s.file = l.ListedIn()
	}
	return s
}

// look gathers what a decision rests on. Each request may take as long as timeout.
func (e *Engine) look(ctx context.Context, timeout time.Duration) (situation, error) {
	s := e.situation()
	s.lineage, s.boot, s.canRestore, s.inUse, s.small = e.lineage, e.proof.boot, e.opts.Restore != nil, e.isDecided(), e.opts.small
	var err error
	s.end, err = e.findEnd(ctx, timeout)
	if err == nil && s.ours() && s.lineage.Acknowledged().TXID > s.end.TXID {
		s.end, err = e.findEnd(ctx, timeout) // it may have been a stray claim: see line.end
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return s, context.Cause(ctx)
	case !e.transient(err):
		return s, err
	default:
		s.unreachable = fmt.Errorf("replicate: %s: %w: %w", e.opts.Store, ErrUnreachable, err)
		if s.inUse {
			return s, nil
		}
		s.end = lineEnd{} // whether there is a file, that can be asked all the same
	}
	if s.evidence, err = e.opts.Source.Evidence(ctx, s.end.Tail); err != nil {
		return s, fmt.Errorf("replicate: compare %s with its replica: %w", e.opts.Database, err)
	}
	// Who restores writes this at any time, before the file is there.
	e.lineage.Restored = e.opts.Local.Restored()
	s.lineage.Restored = e.lineage.Restored
	return s, nil
}

// search decides with the knowledge of where on the line the database's state is.
func (e *Engine) search(ctx context.Context, s *situation) (action, error) {
	most := earlierSegments
	if s.repairable() {
		most = staleSegments
	}
	err := e.persist(ctx, "look for the database's state in the log", StateOpening, func(ctx context.Context) (err error) {
		l := line{timedStore{e.opts.Store, uploadTimeout(segment.MaxInline)}, s.end.Database}
		s.earlier, err = l.earlier(ctx, &s.end, s.evidence.Checksum, s.evidence.Commit, most)
		return err
	})
	if err != nil {
		return 0, err
	}
	s.searched = true
	return decide(*s)
}

// ask asks whether the database is to be adopted that would be refused. The
// answer holds for as long as the line is at that state.
func (e *Engine) ask(ctx context.Context, s situation, refusal error) (action, error) {
	t := s.end.Tail
	if a := e.adopted; a == nil || a.Database != t.Database || a.Checksum != t.Checksum || a.Commit != t.Commit {
		if e.opts.Adopt == nil {
			return actRefuse, refusal
		}
		if err := e.opts.Adopt(ctx, refusal, t); err != nil {
			return actRefuse, err
		}
		e.adopted = &t
		e.log.Warn("the database takes the place of the replica's state", "txid", t.TXID, "checksum", fmt.Sprintf("%016x", t.Checksum), "despite", refusal)
	}
	return s.adoption(), nil
}

// await waits before the store is asked again.
func (e *Engine) await(ctx context.Context, act action, unreachable error, b *backoff) error {
	e.noteKnown(true)
	e.trying(StateUnreachable, unreachable)
	if act == actBacklog {
		e.decide()
	}
	if act == actWait && e.isClosing() { // nothing was promised to anybody
		return fmt.Errorf("replicate: %s: %w: %w", e.opts.Database, errClosing, unreachable)
	}
	return e.pause(ctx, b)
}

// pause waits for b; Close hastens one attempt, not all.
func (e *Engine) pause(ctx context.Context, b *backoff) error {
	hurry := e.closing
	if e.isClosing() {
		hurry = nil
	}
	return sleep(ctx, e.clock, b.next(), hurry)
}

// mostChanges is how often in a row a decision is taken anew because the database
// changed: about half a minute.
const mostChanges = 9

// lost waits before it is decided anew what becomes of entries that the source
// gave up, if it gave up everything since it began: it may do so again.
func (e *Engine) lost(ctx context.Context) error {
	e.log.Warn("too much waited for the replica; the database is compared with it anew")
	if e.proof.since > 0 {
		e.losses = backoff{}
		return nil
	}
	return e.pause(ctx, &e.losses)
}

// changed waits before it is decided anew; in the end it returns err.
func (e *Engine) changed(ctx context.Context, err error) error {
	if e.changes.attempt >= mostChanges {
		return err
	}
	e.log.Debug("comparing anew", "error", err)
	return e.pause(ctx, &e.changes)
}

// bind notes what was decided, and which replica the database belongs to from now on.
func (e *Engine) bind(act action, s situation) error {
	e.end = s.end
	e.claimed = e.claimed && e.end.Session == e.session
	e.noteEnd(0, 0)
	e.exportPageSize, e.exportSize = s.evidence.PageSize, s.evidence.Size
	e.proof.begin(s.evidence.Identity, act, s.empty())
	e.history.begin(e.end)
	short := s.evidence.Proof == "wal" || s.evidence.Proof == "spool"
	e.verify = act == actContinue && short && s.end.Commit > 0 && (s.boot == "" || s.lineage.Noted.Boot != s.boot)
	e.early = act == actRepair || act == actContinue && short && !e.verify && s.repairable()
	e.taken = !s.lineage.Known(s.end.Session) && (act == actRepair || // it was restored, and others may have restored it, too
		act == actContinue && s.end.Commit > 0 && s.ours() && s.lineage.Made(s.evidence.Identity))
	if act == actRestore {
		return nil
	}
	l := &e.lineage
	if l.Database != s.end.Database && !l.Database.IsZero() {
		e.log.Warn("the database was replicated elsewhere before and begins with this replica now",
			"before", l.Database.String(), "now", s.end.Database.String(), "replica", s.replica)
	}
	if l.Database != s.end.Database {
		*l = local.Lineage{Database: s.end.Database, Restored: l.Restored}
	}
	if l.Acknowledged().TXID > s.end.TXID { // it was agreed to go on without
		l.TXID, l.Checksum, l.Session, l.Noted = s.end.TXID, s.end.Checksum, s.end.Session, local.Position{}
	}
	return nil
}

// transient reports whether err can go away by waiting.
func (e *Engine) transient(err error) bool {
	if errors.Is(err, errListed) {
		return true
	}
	for _, permanent := range []error{ErrCorrupt, ErrVersion, ErrForeign, segment.ErrChain, segment.ErrInvalid, errCrash} {
		if errors.Is(err, permanent) {
			return false
		}
	}
	return !objstore.Permanent(err)
}

// findEnd reads (or creates) the root and finds the end of the line. Each
// request may take as long as timeout.
func (e *Engine) findEnd(ctx context.Context, timeout time.Duration) (lineEnd, error) {
	store := timedStore{e.opts.Store, timeout}
	info, err := readRoot(ctx, store)
	if err != nil {
		return lineEnd{}, err
	}
	if info == nil {
		if info, err = e.createRoot(ctx, store); err != nil {
			return lineEnd{}, err
		}
	}
	l := line{store, info.Database}
	var hint uint64
	if e.lineage.Database == info.Database {
		hint = e.lineage.Acknowledged().TXID
	}
	return l.end(ctx, hint)
}

// createRoot makes this path a replica. If somebody else was faster, or an
// earlier attempt of ours, that one's root counts.
func (e *Engine) createRoot(ctx context.Context, store Store) (*segment.ReplicaInfo, error) {
	b, err := segment.MarshalReplicaInfo(segment.ReplicaInfo{Database: segment.NewID(), Created: e.clock.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return nil, fmt.Errorf("replicate: %w", err)
	}
	if err := e.failpoint("root-before"); err != nil {
		return nil, err
	}
	err = store.Create(ctx, segment.InfoKey, b)
	if err != nil && !errors.Is(err, objstore.ErrExist) {
		return nil, fmt.Errorf("replicate: create %s: %w", segment.InfoKey, err)
	}
	if err := e.failpoint("root-after"); err != nil {
		return nil, err
	}
	info, err := readRoot(ctx, store)
	if err == nil && info == nil {
		err = fmt.Errorf("replicate: %s was created but can't be read: %w", segment.InfoKey, errListed)
	}
	return info, err
}

// begin does what was decided until the source emits entries; again says that
// the decision must be taken anew.
func (e *Engine) begin(ctx context.Context, act action) (again bool, err error) {
	switch act {
	case actExport:
		e.decide() // the database can be used meanwhile
		e.setState(StateExporting, nil)
		if err := e.firstContact(ctx); err != nil {
			return false, err
		}
		e.ready()
		return false, nil
	case actRestore:
		if e.restored++; e.restored > mostRestores {
			return false, fmt.Errorf("replicate: %s was restored %d times and still is not at the replica's end: %w", e.opts.Database, mostRestores, ErrDiverged)
		}
		end, err := e.turn(ctx)
		if err != nil {
			return false, err
		}
		err = e.opts.Restore(ctx, e.end.Tail)
		end()
		if err != nil {
			return false, fmt.Errorf("replicate: restore %s: %w", e.opts.Database, err)
		}
		e.opts.Counters.restores.Add(1)
		return true, e.saveRestored()
	case actDrain:
		if again, err := e.beginSource(ctx, StartContinue); again || err != nil {
			return again, err
		}
		return true, e.replicate(ctx, true)
	}
	// The application needn't wait for what takes a while, where nothing can come
	// of it that refuses the database: at worst another comparison, and a repair.
	// One that takes another's place may have to be put into WAL mode first.
	takes := e.restored > 0 || e.taken
	if act == actAdopt || e.early && !takes {
		e.decide()
	}
	if again, err := e.beginSource(ctx, starts[act]); again || err != nil {
		return again, err
	}
	if takes {
		// Whoever had the database before learns it at the next commit, and this
		// one, before it accepts any, whether it came too late.
		switch err := e.claim(ctx, e.end.PageSize); {
		case errors.Is(err, ErrStale):
			return true, nil
		case err != nil:
			return false, err
		}
	}
	if act == actContinue {
		e.noteFound()
	}
	e.ready()
	return false, nil
}

// mostRestores is how often a database is restored before it counts as failed;
// another machine may extend the replica meanwhile.
const mostRestores = 3

var starts = map[action]Start{actEmpty: StartEmpty, actContinue: StartContinue, actRepair: StartRepair, actAdopt: StartAdopt}

// beginSource has the source begin; again: the database isn't what it was.
func (e *Engine) beginSource(ctx context.Context, start Start) (again bool, err error) {
	tail := e.end.Tail
	if start != StartEmpty && (start != StartContinue || e.verify) {
		err := e.persist(ctx, "read the page hashes of the replica", StateOpening, func(ctx context.Context) (err error) {
			l := line{timedStore{e.opts.Store, uploadTimeout(segment.MaxInline)}, e.end.Database}
			tail.Pages, err = l.pageHashes(ctx, &e.end)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	err = e.opts.Source.Begin(ctx, start, tail)
	switch {
	case errors.Is(err, local.ErrChanged):
		return true, e.changed(ctx, fmt.Errorf("replicate: begin: %w", err))
	case errors.Is(err, local.ErrLocked):
		e.trying(StateOpening, fmt.Errorf("replicate: begin: %w", err))
		return true, e.pause(ctx, &backoff{})
	case errors.Is(err, local.ErrDamaged):
		s := e.situation()
		return false, fmt.Errorf("replicate: %s changed while nobody captured it: %w: nothing of it goes to %s. "+
			"To take the replica's state: %s; or mend the database and open it again",
			s.database, err, s.replica, s.restoreCommand("-force "))
	case err != nil:
		return false, fmt.Errorf("replicate: begin: %w", err)
	}
	e.changes = backoff{}
	e.retarget()
	return false, nil
}

// retarget makes who waits in Sync wait for what the source has after it began
// anew: what it had before may have become one entry, or none.
func (e *Engine) retarget() {
	e.ack.Lock()
	defer e.ack.Unlock()
	most := e.acked + e.opts.Source.Backlog().TXIDs
	for i := range e.waiters {
		e.waiters[i].target = min(e.waiters[i].target, most)
	}
}

func (e *Engine) ready() {
	select {
	case <-e.begun: // decided anew
	default:
		close(e.begun)
	}
	e.setState(StateReplicating, nil)
	e.decide()
}
