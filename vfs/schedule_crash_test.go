package vfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// crashed goes on after the process died.
func (l *life) crashed() error {
	p := l.m.p
	p.mu.Lock()
	at := p.died
	p.mu.Unlock()
	if at == "" {
		at = "no failpoint"
	}
	l.counts.add("crashes", at)
	l.say("  the process dies at %s", at)
	l.m.disk.Kill()
	l.hot = l.dirty() || l.doubt && l.conf.journal != "wal"
	l.doubt = l.doubt || l.hot
	l.end()
	image, err := l.recovered()
	if err != nil {
		return err
	}
	n := l.history.find(image)
	switch {
	case n == l.cur:
	case l.opening && (n >= 0 || l.lost || len(image) == pageSizeOf(image)): // what was restored, or never was opened since the power was lost
	case !l.doubt:
		return fmt.Errorf("the process died, and the database was %s and is %s", l.history.text(l.cur), l.history.text(n))
	case n < 0:
		n = l.history.add(l.cur, image, "in doubt")
	}
	l.doubt = false
	switch {
	case n < 0 && l.cur == empty: // a header, on the way to what the first connection sets up
		l.history.alias(empty, image)
		n = empty
	case n < 0:
		n = l.history.add(l.cur, image, "after a loss of power")
	}
	l.cur = n
	if l.r.IntN(5) < 2 {
		return l.restarted()
	}
	l.lost = true
	return l.powerLoss()
}

// powerLoss takes what was not synced from the dead process's disk.
func (l *life) powerLoss() error {
	s := l.conf.synchronous
	l.counts.add("power losses", s)
	l.arrive() // a machine takes longer to start than a request is under way
	was := l.m.disk.Stats()
	if err := l.m.disk.PowerLoss(rand.New(rand.NewPCG(l.seed, l.r.Uint64()))); err != nil {
		return err
	}
	os.Remove(l.m.path + "-shm")
	now := l.m.disk.Stats()
	image, err := l.recovered()
	if err != nil {
		return err
	}
	n := l.history.find(image)
	l.say("  power loss (%s): %d unsynced writes lost, %d kept, %d names; the database is %s", s, now.Lost-was.Lost, now.Kept-was.Kept, now.Names-was.Names, l.history.text(n))
	switch {
	case l.conf.loose:
		l.unsound = l.unsound || n < 0
	case n < 0 && l.hot: // rolled back: pages that were free are not what they were
		n = l.history.add(l.sure, image, "rolled back")
	case n < 0:
		return fmt.Errorf("synchronous=%s, and after a loss of power the database is a state that never was", s)
	case !l.history.within(n, l.cur):
		return fmt.Errorf("synchronous=%s, and after a loss of power the database is %s, was %s", s, l.history.text(n), l.history.text(l.cur))
	case s != "NORMAL" && !l.history.within(l.sure, n):
		return fmt.Errorf("synchronous=%s, and a loss of power took the database from %s to %s", s, l.history.text(l.sure), l.history.text(n))
	}
	l.cur, l.sure = n, max(n, empty)
	return l.restarted()
}

// restarted checks the replica that the dead process left, and starts the next.
func (l *life) restarted() error {
	if o := l.other; o != nil { // let it not be faster now
		m := l.m
		l.m, l.other = o, nil
		l.end()
		l.m = m
	}
	before := l.tail
	if err := l.checkReplica(); err != nil {
		if l.unsound { // accepted before it died
			return errTorn
		}
		return err
	}
	ok := l.cur >= 0 && l.history.within(l.tail, l.cur)
	if l.lost && l.cur >= 0 && !ok && l.conf.synchronous != "OFF" {
		return fmt.Errorf("synchronous=%s, journal_mode=%s: a loss of power left the database at %s, behind its replica, which is at %s",
			l.conf.synchronous, l.conf.journal, l.history.text(l.cur), l.history.text(l.tail))
	}
	if l.lost && l.conf.loose && !ok {
		l.unsound = true
	}
	if l.cur < 0 {
		l.cur = l.tail // what opening it makes of it follows, if it is accepted
	}
	again := l.afterCrash && l.tail == before
	l.afterCrash = true
	return l.start(func(err error) error {
		switch {
		case ok && l.lost && again:
			// The second crash in a row, and nothing uploaded between: the engine had
			// no occasion to make durable what the first left.
			l.counts.add("refusals", "though not behind, after a second crash")
		case ok && l.unproven():
			l.counts.add("refusals", "though not behind, before the first upload")
		case ok && l.conf.loose && (l.conf.synchronous == "OFF" || l.cur == empty): // the latter: torn before it had anything
			l.counts.add("refusals", "though not behind, after a power loss")
		case ok:
			return fmt.Errorf("the database is %s, the replica %s, and opening is refused: %w", l.history.text(l.cur), l.history.text(l.tail), err)
		}
		for _, kind := range []error{replicate.ErrDiverged, replicate.ErrRepair, replicate.ErrMissing, replicate.ErrOutputExists, sqlite3.CORRUPT, sqlite3.NOTADB} {
			if errors.Is(err, kind) {
				l.counts.add("refusals", kind.Error())
				return l.replace()
			}
		}
		if l.lost && l.conf.loose {
			l.counts.add("refusals", "of what is left without syncs")
			return l.replace()
		}
		return fmt.Errorf("refused without a name: %w", err)
	})
}

// unproven reports whether the database was made from the replica, changed since in
// a way that no commit explains, and nothing uploaded. Of such a file nothing is
// recorded durably before the first upload: a person has to say that it is the
// right one.
func (l *life) unproven() bool {
	return (l.hot || l.lost) && l.placed != empty && l.history.within(l.tail, l.placed)
}

// replace puts the replica's state in the place of a refused database.
func (l *life) replace() error {
	l.say("  restored over the database")
	l.arrive() // who does this looks that nothing runs any more
	l.m.disk.Start()
	l.unsound = false
	n, _, err := l.restore(0)
	if (n < 0 || err != nil) && l.conf.loose {
		return errTorn // accepted before it was refused
	}
	if err != nil {
		return err
	}
	l.tail = n
	if n == empty {
		for _, f := range []string{"", "-journal", "-wal", "-shm", local.Suffix} {
			os.RemoveAll(l.m.path + f)
		}
	} else if _, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: l.bucket, Output: l.m.path, Force: true}); err != nil {
		return err
	}
	l.cur, l.sure, l.placed = l.tail, l.tail, l.tail
	return l.start(func(err error) error {
		if l.conf.loose { // what was accepted before it was refused is in the replica
			l.say("  %v", err)
			return errTorn
		}
		return err
	})
}
