package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// run finds out what there is and writes what is due.
func (h *exporter) run(ctx context.Context, gen uint64) error {
	if err := h.look(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	d, from, chain, database := h.dueness(), h.track.from(), h.track.chain, h.end.Database
	h.note(nil)
	h.mu.Unlock()
	kind := d.due()
	if kind == segment.KindPages && from != d.last.max {
		l := &line{timedStore{h.e.opts.Store, uploadTimeout(segment.MaxInline)}, database}
		if err := h.catchUp(ctx, l, d, from, chain); err != nil {
			return err
		}
		h.mu.Lock()
		d = h.dueness() // there are more changes than were known
		h.mu.Unlock()
		kind = d.due()
	}
	switch kind {
	case segment.KindSnapshot:
		return h.write(ctx, gen, kind, lastExport{})
	case segment.KindPages:
		return h.write(ctx, gen, kind, d.last)
	}
	return nil
}

// look finds out, once, what exports there are: two listings, and a header each of
// the newest snapshot and page segment, or of the first log segment. Times are of the
// newest commit in it, which is the writer's clock, or of the store's if that is
// earlier: a writer whose clock was ahead once does not put off all that follows.
func (h *exporter) look(ctx context.Context) error {
	h.mu.Lock()
	looked, end, from := h.looked, h.end, h.track.from()
	h.mu.Unlock()
	if looked {
		return nil
	}
	l := &line{timedStore{h.e.opts.Store, uploadTimeout(headerSize)}, end.Database}
	list, err := listExports(ctx, l.store)
	if err != nil {
		return err
	}
	var last, snap exportKey
	for _, k := range list {
		if k.max > end.TXID { // of another line, whatever it is
			continue
		}
		// One that somebody else wrote inside of what this session tracks is no base:
		// the track can't be cut there. The page segment may begin before it.
		if k.max > last.max && k.max <= from {
			last = k
		}
		if k.kind == segment.KindSnapshot && k.max > snap.max {
			snap = k
		}
	}
	var newest, snapshot lastExport
	without := false
	read := func(k exportKey) (lastExport, error) {
		hd, err := l.header(ctx, k.key(), k.kind)
		if err == nil && hd.Key() != k.key() {
			err = fmt.Errorf("replicate: %s says that it is %s: %w", k.key(), hd.Key(), ErrCorrupt)
		}
		if err != nil {
			return lastExport{}, err
		}
		at := timeOf(hd.LastMono)
		if k.modified.Before(at) && !k.modified.IsZero() {
			at = k.modified
		}
		return lastExport{kind: k.kind, max: k.max, sum: k.sum, commit: hd.Commit, pageSize: hd.PageSize, chain: hd.PrevChain, at: at}, nil
	}
	for _, x := range []struct {
		k exportKey
		p *lastExport
	}{{last, &newest}, {snap, &snapshot}} {
		if x.k.kind == 0 {
			continue
		}
		if *x.p, err = read(x.k); isVerdict(err) {
			without, err = true, nil
			h.e.log.Warn("what the replica has of older history can't be continued", "error", err)
		}
		if err != nil {
			return err
		}
	}
	if last.kind == 0 || snap.kind == 0 {
		hd, err := l.header(ctx, segment.LogKey(1), segment.KindLog)
		if err != nil {
			return err
		}
		if last.kind == 0 {
			newest.at = timeOf(hd.LastMono)
		}
		if snap.kind == 0 {
			snapshot.at = timeOf(hd.LastMono)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looked, h.last, h.snapshot, h.without = true, newest, snapshot, without
	if newest.max == h.track.from() && newest.chain != h.track.chain {
		h.without = true
	}
	return nil
}

// catchUp reads from the log what happened between the last export and what this
// session has seen. Where that can't be known, it takes a snapshot.
func (h *exporter) catchUp(ctx context.Context, l *line, d dueness, from uint64, chain segment.Hash) error {
	limit := max(rebuildBytes, int64(d.commit)*int64(max(d.last.pageSize, segment.MinPageSize)))
	if d.keep.SnapshotEvery == Forever {
		limit = 0
	}
	var c *changes
	err := error(errGap)
	if d.last.max < from {
		c, err = l.rebuild(ctx, d.last, from, chain, limit)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.track.from() != from || h.last.max != d.last.max:
		return local.ErrCopyLost // begun anew meanwhile
	case err == nil:
		h.track.prepend(c, d.last.chain)
	case isVerdict(err) || errors.Is(err, errTooMuch) || errors.Is(err, ErrNotExist):
		h.e.log.Info("what changed since the last page segment is not known; the next one is a snapshot", "reason", err)
		h.without = true
	default:
		return err
	}
	return nil
}
