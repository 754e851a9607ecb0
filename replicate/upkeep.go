package replicate

import (
	"context"
	"errors"
	"time"

	"github.com/outwash/outwash/internal/local"
)

// dueness describes what there is now.
func (h *exporter) dueness() dueness {
	d := dueness{
		now: h.e.clock.Now(), keep: h.keep, most: h.most, last: h.last, snapshot: h.snapshot, without: h.without,
		commit: h.end.Commit, small: int64(h.end.Commit)*int64(h.end.PageSize) <= h.e.opts.small,
	}
	d.young = d.now.Sub(h.began) < youngSession
	for _, c := range h.track.pieces {
		d.commits = d.commits || c.commits
		d.without = d.without || c.whole
		d.cost += c.cost
		d.pages += c.pages.Len()
	}
	return d
}

// wanted reports whether a look at what there is, or an export, is to begin now.
func (h *exporter) wanted(now time.Time) bool {
	if h.off || now.Before(h.retry) || h.end.needsBase {
		return false
	}
	d := h.dueness()
	if h.e.isClosing() && !d.young { // there will be another session
		return false
	}
	if !h.looked {
		return d.commits && mayLook(now, h.began, h.first, h.end.TXID, h.cost, h.most)
	}
	return d.due() != 0
}

// upkeep begins what is due once a log segment has been created: the one place from
// which the replica is condensed, and what it needs no more deleted. It doesn't wait.
func (e *Engine) upkeep(ctx context.Context) {
	h := e.history
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.end.header
	if h.again = h.running; h.running || end.Claim || end.Session != e.session { // an earlier session's upload came to light
		return
	}
	now := e.clock.Now()
	retain := h.retain || now.Sub(h.retained) >= retainEvery
	export := h.wanted(now)
	if !retain && !export {
		return
	}
	if retain {
		h.retain, h.retained = false, now
	}
	run, cancel := context.WithCancelCause(ctx)
	h.running, h.cancel, h.ended = true, cancel, make(chan struct{})
	gen, newest := h.gen, end.MinTXID
	e.group.Go(func() error {
		defer cancel(nil)
		if retain {
			h.voided(e.retain(run, newest))
		}
		var err error
		if export {
			err = h.run(run, gen)
		}
		if err == nil && h.lastChance() {
			e.retain(run, newest)
		}
		if again := h.finish(run, err, export); again && ctx.Err() == nil {
			e.upkeep(ctx)
		}
		return nil
	})
}

// lastChance reports whether something was published and nothing will be uploaded
// any more, so that retention has to follow at once.
func (h *exporter) lastChance() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.retain && h.e.isClosing()
}

// finish notes how an export ended, and reports whether something was acknowledged
// meanwhile, so that it has to be looked again what is due.
func (h *exporter) finish(ctx context.Context, err error, exported bool) (again bool) {
	if errors.Is(err, errCrash) {
		h.e.stop(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running, h.publishing, h.marks = false, false, nil
	h.track.join()
	close(h.ended)
	switch {
	case !exported:
	case err == nil:
		h.failures, h.retry, h.warned = 0, time.Time{}, false
		h.note(nil)
	case ctx.Err() != nil: // closed, or begun anew
		h.e.log.Debug("export ended", "reason", context.Cause(ctx))
	default:
		h.retry = h.e.clock.Now().Add(min(exportRetry<<min(h.failures, 10), exportRetryMost))
		h.failures++
		h.note(err)
		passes := errors.Is(err, local.ErrCopyLost) || errors.Is(err, local.ErrLocked)
		if !h.warned && (!passes || h.failures > 3) {
			h.warned = true
			h.e.log.Warn("no page segment or snapshot can be written, trying on; the log goes to the replica meanwhile", "error", err)
		}
	}
	return h.again
}

// After an export has failed, the next attempt is made with the first upload that
// is so much later; each further one takes twice as long.
const (
	exportRetry     = time.Minute
	exportRetryMost = time.Hour
)

// lets gives up an export under way, as the engine ends, unless it only has to be
// published, or the session is so short that none would ever come to its end: of
// those it returns what is closed when they have ended.
func (h *exporter) lets() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running {
		return nil
	}
	if h.publishing || h.e.clock.Now().Sub(h.began) < youngSession {
		return h.ended
	}
	h.cancel(errClosing)
	return nil
}
