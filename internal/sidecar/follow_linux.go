package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/wal"
)

const (
	// forceBytes is how large the log may grow while its writers don't pause for long
	// enough; then they are held for a moment. Past it what can't be captured is
	// given up to a repair.
	forceBytes = 64 << 20
	forceEvery = 100 * time.Millisecond
	// ownPages is how many pages may be in the log alone before the sidecar
	// checkpoints: far more than SQLite's own 1000, so that who checkpoints itself is
	// never met. (A checkpoint beside another is answered busy at once.)
	ownPages = 4000
	// stuckFor is how long that must have been so; patience, if somebody else has
	// checkpointed within a minute, and will again.
	stuckFor = 250 * time.Millisecond
	patience = 30 * time.Second
	// tail is how long after the last change is looked on.
	tail = 100 * time.Millisecond
)

// follow captures and guards, until Close (nil) or something ends the session.
func (s *session) follow(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	decided, last := s.engine.Decided(), time.Now()
	var drained <-chan struct{}
	for {
		if drained == nil && s.db.isClosing() {
			drained = s.drain() // which may wait for the store: nobody is held up meanwhile
		}
		more, err := s.step()
		if err != nil {
			return err
		}
		// The further back the last change, the rarer it is looked.
		wait := time.Duration(-1)
		if since := time.Since(last); more || since < tail {
			wait = min(max(time.Millisecond, since/4), time.Second)
		}
		if s.urgent {
			wait = time.Millisecond
		}
		var again <-chan time.Time
		if wait >= 0 {
			timer.Reset(wait)
			again = timer.C
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.watch.wake:
			last = time.Now()
		case <-again:
		case <-drained:
			return nil
		case <-decided:
			decided = nil
			last = time.Now()
			s.db.decided()
		case <-s.engine.Done():
			if s.db.isClosing() {
				return nil
			}
			if err := s.engine.Err(); err != nil {
				return err
			}
			return errClosed
		}
	}
}

// step looks once. more: something is under way, look again soon.
func (s *session) step() (more bool, err error) {
	s.mu.Lock()
	g := s.guard
	s.mu.Unlock()
	if g == nil {
		select {
		case s.here <- struct{}{}: // who waits for the file may look
		default:
		}
		return false, nil
	}
	trouble, lasting := s.capture.Trouble()
	if lasting {
		return false, trouble
	}
	if trouble != nil { // nothing else may ever say that there is something to capture
		s.capture.Signal()
		defer func() { more = true }()
	}
	if s.watch.names.Swap(false) && !g.same() {
		return false, s.lost()
	}
	idx, err := g.index()
	if err != nil { // being recovered, or nobody is there to do it
		s.recover()
		return true, nil
	}
	s.torn = time.Time{}
	if idx != s.seen {
		if was := s.seen; was.MaxFrame > 0 && was.Backfilled < was.MaxFrame && (idx.Salt != was.Salt || idx.Backfilled > was.Backfilled) {
			s.theirs = time.Now() // or it would have stayed
		}
		s.seen = idx
		s.capture.Signal()
	}
	s.urgent = false
	if g.slot == 0 {
		if err := s.hold(idx); err != nil {
			return false, err
		}
		return g.slot != 0 || idx != s.base || g.writing() || g.checkpointing(), nil
	}
	if idx.MaxFrame > 0 {
		s.capture.Hold(idx.Salt)
	}
	s.urgent = g.waiting()
	if g.marked {
		if err := g.takeSlot(); err != nil {
			return false, err
		}
	}
	if idx.Backfilled == idx.MaxFrame {
		gone, err := s.swap(s.urgent || s.large(idx))
		if gone || err != nil || !s.large(idx) {
			return !gone || g.writing() || g.checkpointing(), err
		}
	} else if !s.large(idx) {
		if gone, err := s.chase(idx); gone || err != nil {
			return g.writing() || g.checkpointing(), err
		}
	}
	if err := s.relieve(idx); err != nil {
		return false, err
	}
	return g.marked || !s.stuck.IsZero() || g.writing() || g.checkpointing() || s.capture.Repairing(), nil
}

// recover has SQLite make the WAL-index anew, which it does when it is opened, if whoever
// was writing it is gone, killed, and nobody has come to use the database.
func (s *session) recover() {
	now := time.Now()
	switch {
	case s.guard.writing(), s.torn.IsZero():
		s.torn = now
	case now.Sub(s.torn) >= stuckFor && now.After(s.noCheckp):
		s.noCheckp = now.Add(10 * time.Second)
		if err := read(s.path); err != nil {
			s.warn(err)
		}
	}
}

// yieldFor is how long passes over the database stand back for a checkpoint.
const yieldFor = 500 * time.Millisecond

// yield lets a checkpoint through that waits for readers to go; capture's among them.
func (s *session) yield(ctx context.Context) {
	s.mu.Lock()
	g := s.guard
	s.mu.Unlock()
	if g != nil && g.waiting() {
		s.watch.notify()
		until(yieldFor, func() bool { return ctx.Err() != nil || !g.waiting() })
	}
}

// lost says what became of the files.
func (s *session) lost() error {
	if s.capture.Replaced() || !s.present() {
		return fmt.Errorf("sidecar: %s: %w", s.path, ErrRemoved)
	}
	return fmt.Errorf("sidecar: %s: %w", s.path, errGuard)
}

func (s *session) large(idx wal.Index) bool {
	limit := s.db.o.hooks.force
	if limit == 0 {
		limit = forceBytes
	}
	return int64(idx.MaxFrame)*wal.FrameSize(idx.PageSize) > limit
}

// swap goes to slot 0, if all that is committed is captured and in the file.
func (s *session) swap(urgent bool) (bool, error) {
	g := s.guard
	ok, err := g.takeZero()
	if !ok {
		return false, err
	}
	at, ok, err := s.capture.LetGo(urgent)
	if !ok {
		g.dropZero()
		s.warn(err)
		return false, nil
	}
	s.base = at
	g.dropSlot()
	return true, nil
}

// warn logs why the log can't be let go just now, once.
func (s *session) warn(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.warned && err != nil {
		s.log.Warn("the log is held on to, trying on", "error", err)
	}
	s.warned = text
}

// hold goes back from slot 0, if there are new frames.
func (s *session) hold(idx wal.Index) error {
	g := s.guard
	switch {
	case idx == s.base:
		if over, err := s.capture.Overwritten(); over {
			return errors.Join(fmt.Errorf("sidecar: %s: %w", s.path, errOverwritten), err)
		}
		return nil
	case idx.MaxFrame == 0: // restarted, and nothing is committed yet
		s.base = idx
		return nil
	}
	if err := g.takeSlot(); err != nil {
		if errors.Is(err, errLocks) {
			return nil // held by who sets marks: next time
		}
		return err
	}
	idx, err := g.index()
	if err != nil {
		g.dropSlot() // nothing can be lost on slot 0
		return nil
	}
	s.capture.Hold(idx.Salt)
	s.capture.Signal()
	g.dropZero()
	return nil
}

// relieve keeps the log from growing without end.
func (s *session) relieve(idx wal.Index) error {
	g, now := s.guard, time.Now()
	if s.large(idx) && now.After(s.noForce) {
		err := s.force(idx)
		s.noForce = time.Now().Add(forceEvery)
		return err
	}
	err, _ := s.capture.Trouble()
	broken := s.capture.Repairing() && errors.Is(err, capture.ErrBroken)
	if idx.MaxFrame-min(idx.MaxFrame, idx.Backfilled) < ownPages && !broken || g.checkpointing() {
		s.stuck = time.Time{}
	} else if s.stuck.IsZero() {
		s.stuck = now
	}
	limit := stuckFor
	if now.Sub(s.theirs) < time.Minute && !broken && !s.large(idx) {
		limit = patience
	}
	if !s.stuck.IsZero() && now.Sub(s.stuck) >= limit && now.After(s.noCheckp) {
		s.stuck = time.Time{}
		if err := checkpoint(s.path); err != nil {
			s.warn(err)
			s.noCheckp = now.Add(10 * time.Second)
			return nil
		}
		after, err := g.index()
		if err == nil {
			s.seen = after
		}
		if err == nil && after.Backfilled == idx.Backfilled { // a reader is in the way
			s.noCheckp = now.Add(10 * time.Second)
		}
		s.capture.Signal()
		return nil
	}
	return nil
}

// force makes writers that never pause do so, for a moment, so that the log can be
// restarted.
func (s *session) force(idx wal.Index) error {
	g := s.guard
	c, err := openConn(s.path)
	if err != nil {
		return nil // next time
	}
	defer c.Close()
	far := func(idx wal.Index) bool { return idx.MaxFrame-min(idx.MaxFrame, idx.Backfilled) > ownPages/2 }
	if far(idx) && !g.checkpointing() { // while writers go on
		if err := passive(c); err != nil {
			s.warn(err)
			return nil
		}
	}
	if now, err := g.index(); err != nil || far(now) {
		return nil // a reader is in the way, or somebody's checkpoint has far to go
	}
	if err := s.capture.Secure(); err != nil {
		s.warn(err)
		return nil
	}
	ok := until(time.Second, func() bool {
		ok, e := g.takeWrite()
		err = e
		return ok || e != nil
	})
	if err != nil || !ok {
		return err
	}
	defer g.dropWrite()
	// The application's own checkpoint may be under way.
	until(50*time.Millisecond, func() bool { return !g.checkpointing() })
	if !g.checkpointing() {
		if now, err := g.index(); err == nil && now.Backfilled < now.MaxFrame {
			if err := passive(c); err != nil {
				s.warn(err)
				return nil
			}
		}
	}
	_, err = s.swap(true)
	return err
}

// until tries for as long as limit.
func until(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
