package sidecar

import (
	"time"

	"github.com/outwash/outwash/internal/wal"
)

const (
	// autocheckpoint is SQLite's default: from so many pages on each commit checkpoints
	// the log, until it is restarted, which costs the writer more than the commit.
	autocheckpoint = 1000
	// chaseFor bounds how long the end of such a checkpoint is waited for; chasePause
	// how rarely, if that comes to nothing again and again.
	chaseFor   = 5 * time.Millisecond
	chasePause = 100 * time.Millisecond
)

// chase goes to slot 0 at the very end of the application's own checkpoint: a writer
// that never pauses leaves no other moment, some microseconds. So all that takes time
// is done while the checkpoint is at work, and its end is waited for without sleeping.
func (s *session) chase(idx wal.Index) (gone bool, err error) {
	g, began := s.guard, time.Now()
	if idx.MaxFrame < autocheckpoint || s.urgent || g.marked || began.Before(s.noChase) || !g.checkpointing() {
		return false, nil
	}
	defer func() {
		if gone {
			s.chased = 0
			return
		}
		s.noChase = time.Now().Add(min(time.Millisecond<<s.chased, chasePause))
		s.chased = min(s.chased+1, 10)
	}()
	for at := uint32(0); time.Since(began) < chaseFor; {
		now, err := g.index()
		switch {
		case err != nil:
		case now.MaxFrame != at:
			at = now.MaxFrame
			if err := s.capture.Secure(); err != nil {
				s.warn(err)
				return false, nil
			}
		case now.Backfilled == now.MaxFrame:
			ok, err := g.takeZero()
			if err != nil {
				return false, err
			}
			if !ok {
				break // not yet given up by the checkpoint
			}
			if now, err = g.index(); err == nil && s.capture.LetGoAt(now, g.dropSlot) {
				s.base = now
				return true, nil
			}
			g.dropZero()
		}
	}
	return false, nil
}
