package replicate

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// exporter writes page segments and snapshots while the engine uploads the log. The
// engine tells it what is acknowledged; whether something is due is looked at only
// then, so that an idle database costs nothing. An export runs in a goroutine of its
// own, one at a time; whatever becomes of it, the engine goes on.
type exporter struct {
	e    *Engine
	keep Keep
	most int64 // replayCost

	mu    sync.Mutex
	moved chan struct{} // closed and replaced when gen or since changes

	// What the engine tells.
	gen   uint64 // counts how often the source began
	since uint64 // TXIDs of the source's entries acknowledged since it began
	end   lineEnd
	track track
	// marks are where log segments must end, in TXIDs of the source's entries since
	// it began: an export may turn out to be of there. nil: not acknowledged yet.
	marks map[uint64]*lineEnd

	// The session.
	began   time.Time
	first   uint64 // TXID before it
	started bool
	cost    int64

	// What is known of the exports there are.
	looked         bool
	last, snapshot lastExport
	without        bool // they can't be continued by a page segment

	// The export under way.
	running    bool
	again      bool // something was acknowledged since it began
	cancel     context.CancelCauseFunc
	ended      chan struct{}
	waiting    int  // waits for acknowledgements
	publishing bool // nothing is left to do but a small request
	off        bool // neither is wanted

	// Retention is looked after in the same goroutine.
	retained time.Time
	retain   bool // something was published

	failures int
	retry    time.Time // not before
	warned   bool
}

func newExporter(e *Engine) *exporter {
	h := &exporter{e: e, keep: e.opts.Keep.withDefaults(), most: e.opts.replay, moved: make(chan struct{})}
	if h.most == 0 {
		h.most = replayCost
	}
	h.off = h.keep.PagesEvery == Forever && h.keep.SnapshotEvery == Forever
	return h
}

// begin notes that the source begins anew behind end: what it counted is void, and an
// export under way lost.
func (h *exporter) begin(end lineEnd) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started {
		h.started, h.began, h.first = true, h.e.clock.Now(), end.TXID
		h.retained = h.began
		h.track = newTrack(end.Tail)
		if end.header == nil { // the line begins
			h.looked, h.last.at, h.snapshot.at = true, h.began, h.began
		}
	}
	if l := h.track.last(); l.to != end.TXID || h.end.Chain != end.Chain {
		h.track = newTrack(end.Tail) // others wrote in between
	}
	h.gen++
	h.since, h.end, h.marks = 0, end, nil
	if h.running && !h.publishing {
		h.cancel(local.ErrCopyLost)
	}
	h.note(nil)
	h.move()
}

func (h *exporter) move() {
	close(h.moved)
	h.moved = make(chan struct{})
}

// acknowledged notes that entries are in the line, which ends at end now; since
// counts as lineage's proof does. No entries: a claim.
func (h *exporter) acknowledged(entries []*segment.Entry, end lineEnd, since uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.track.last()
	if len(entries) == 0 {
		c.claim(end.TXID, end.Commit, end.LastTime)
	}
	cost := c.cost
	for _, en := range entries {
		c.entry(en, end.TXID, entryPages(en), end.PageSize)
	}
	c.whole = c.whole || h.end.Commit > 0 && h.end.PageSize != end.PageSize
	h.cost += c.cost - cost
	h.since, h.end = since, end
	if at, ok := h.marks[since]; ok && at == nil {
		h.reached()
	}
	h.move()
}

// reached notes that the line's end is a position that an export may be of.
func (h *exporter) reached() {
	end := h.end
	h.marks[h.since] = &end
	h.track.cut()
}

// published notes an export that there is now.
func (h *exporter) published(p lastExport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end.needsBase = h.end.needsBase && h.end.TXID != p.max
	if p.kind == segment.KindSnapshot {
		h.snapshot = p
	}
	h.looked, h.last, h.without = true, p, false // nothing is newer
	h.retain = true
	h.track.drop(p.max, p.chain)
	h.note(nil)
}

// voided notes that the data of the export at TXID max is missing. If that is the
// newest snapshot, or a page segment on it, nothing can rest on them: the next export
// is a snapshot.
func (h *exporter) voided(max uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if max == 0 || max < h.snapshot.max {
		return
	}
	h.e.log.Warn("data of a snapshot or page segment is missing: what it is of can't be restored. The next export is a snapshot", "txid", max)
	h.snapshot.kind = 0
}

// endsAt reports whether a log segment must end where the source's entries have
// taken up so many TXIDs since it began.
func (h *exporter) endsAt(emitted uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.marks[emitted]
	return ok
}

// hurry reports whether an export waits for acknowledgements: the next upload then
// does not wait for company.
func (h *exporter) hurry() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting > 0
}

// await waits until the source's first emitted TXIDs are acknowledged.
func (h *exporter) await(ctx context.Context, gen, emitted uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting++
	defer func() { h.waiting-- }()
	h.e.nudge()
	for h.gen == gen && h.since < emitted {
		moved := h.moved
		h.mu.Unlock()
		var err error
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-moved:
		}
		h.mu.Lock()
		if err != nil {
			return err
		}
	}
	if h.gen != gen {
		return fmt.Errorf("replicate: %w", local.ErrCopyLost)
	}
	return nil
}

// mark makes a log segment end where the source's entries have taken up emitted
// TXIDs.
func (h *exporter) mark(gen, emitted uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gen != gen {
		return
	}
	if h.marks == nil {
		h.marks = map[uint64]*lineEnd{}
	}
	if h.marks[emitted] != nil {
		return
	}
	h.marks[emitted] = nil
	if h.since == emitted {
		h.reached()
	}
}

// changed returns the pages that changed since base, up to now.
func (h *exporter) changed() *local.PageSet {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &h.track.upTo(math.MaxUint64).pages
}
