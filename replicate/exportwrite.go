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

// pointOf is what an export of the position end will be known as.
func pointOf(kind segment.Kind, end *lineEnd, at time.Time) lastExport {
	return lastExport{kind: kind, max: end.TXID, sum: end.Checksum, commit: end.Commit, pageSize: end.PageSize, chain: end.Chain, at: at}
}

// write writes a snapshot, or a page segment behind base. What it has uploaded when
// it fails has no meaning, until retention sweeps it.
func (h *exporter) write(ctx context.Context, gen uint64, kind segment.Kind, base lastExport) error {
	e := h.e
	over, err := e.turn(ctx)
	if err != nil {
		return err
	}
	defer over()
	if err := e.failpoint("copy-before"); err != nil {
		return err
	}
	h.mu.Lock()
	header := segment.Header{Kind: kind, PageSize: h.end.PageSize, Database: h.end.Database, Session: e.session, MinTXID: base.max + 1}
	most := int64(1<<20) + 2*int64(h.end.Commit)*int64(h.end.PageSize)
	h.mu.Unlock()
	s := &sink{ctx: ctx, e: e, h: header, most: most, room: e.opts.inline}
	defer s.abort()
	copied, err := e.opts.Source.Copy(ctx, CopyRequest{
		Pages: func(ctx context.Context, emitted uint64) (*PageSet, error) {
			if kind == segment.KindSnapshot {
				return nil, nil
			}
			// What is in the line is in the track; what is emitted later, the source notes.
			if err := h.await(ctx, gen, emitted); err != nil {
				return nil, err
			}
			return h.changed(), nil
		},
		Final: func(emitted uint64) { h.mark(gen, emitted) },
		Write: s.write,
	})
	if err != nil {
		return fmt.Errorf("replicate: copy %s: %w", e.opts.Database, err)
	}
	if err := e.failpoint("copy-after"); err != nil {
		return err
	}
	if err := h.await(ctx, gen, copied.Emitted); err != nil {
		return err
	}
	end, c, err := h.position(copied)
	if err == nil && (end.PageSize != header.PageSize || kind == segment.KindPages && c.whole) {
		// The page size changed after it was decided what to write.
		err = fmt.Errorf("replicate: TXID %d does not continue what was to be copied: %w", end.TXID, local.ErrCopyLost)
	}
	if err != nil {
		return err
	}
	header.PrevChain = end.Chain
	entry := exportEntry(kind, &base, c, &end, &copied)
	object, size, err := s.finish(header, entry)
	if err != nil {
		return err
	}
	if err := e.failpoint(kind.String() + "-before"); err != nil {
		return err
	}
	h.mu.Lock()
	h.publishing = ctx.Err() == nil
	h.mu.Unlock()
	at := e.clock.Now()
	if err := h.create(ctx, exportKey{kind: kind, min: header.MinTXID, max: end.TXID, sum: end.Checksum}, object, &end); err != nil {
		return err
	}
	h.published(pointOf(kind, &end, at))
	e.noteExported(size + int64(len(object)))
	e.opts.Counters.exported(kind)
	e.log.Info("replica condensed", "kind", kind.String(), "txid", end.TXID, "bytes", size+int64(len(object)))
	return e.failpoint(kind.String() + "-after")
}

// position returns where on the line the copy is, and what changed since the last
// export up to there.
func (h *exporter) position(copied Copied) (end lineEnd, c *changes, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.marks[copied.Emitted]
	if at == nil {
		return end, nil, fmt.Errorf("replicate: no log segment ended where the copy is of: %w", local.ErrCopyLost)
	}
	if at.Checksum != copied.Checksum || at.Commit != copied.Commit || at.PageSize != copied.PageSize {
		return end, nil, fmt.Errorf("replicate: the copy has checksum %016x with %d pages of %d bytes, the replica's line %016x with %d of %d at TXID %d",
			copied.Checksum, copied.Commit, copied.PageSize, at.Checksum, at.Commit, at.PageSize, at.TXID)
	}
	return *at, h.track.upTo(at.TXID), nil
}

// exportEntry is what the export of the position end says: a snapshot, or the changes
// c since base.
func exportEntry(kind segment.Kind, base *lastExport, c *changes, end *lineEnd, copied *Copied) *segment.Entry {
	raw := copied.LastRaw
	if raw == 0 {
		raw = end.LastTime
	}
	en := &segment.Entry{
		Kind: segment.Snapshot, PageSize: end.PageSize, Count: end.TXID,
		Commit: end.Commit, MinCommit: end.Commit, Post: end.Checksum, WAL: end.WAL,
		FirstMono: end.LastTime, LastMono: end.LastTime, FirstRaw: raw, LastRaw: raw,
	}
	if kind == segment.KindPages {
		en.Kind, en.Count = segment.Pages, end.TXID-base.max
		en.Pre, en.PreCommit, en.MinCommit = base.sum, base.commit, c.minCommit
		en.FirstMono, en.FirstRaw = c.firstMono, c.firstRaw
	}
	return en
}

// create creates the small object that makes the copy count. The engine's own
// create would tell people that replication has stopped.
func (h *exporter) create(ctx context.Context, k exportKey, object []byte, end *lineEnd) error {
	var b backoff
	for {
		err := timedStore{h.e.opts.Store, uploadTimeout(len(object))}.Create(ctx, k.key(), object)
		if errors.Is(err, objstore.ErrExist) {
			// A lost reply: the key names the state, so whichever it is will do.
			err = h.same(ctx, k, end)
		}
		if err == nil || ctx.Err() != nil || !h.e.transient(err) || b.attempt >= exportAttempts {
			return err
		}
		if err := sleep(ctx, h.e.clock, b.next(), nil); err != nil {
			return err
		}
	}
}

// exportAttempts: a copy isn't thrown away because a request failed.
const exportAttempts = 8

// same checks that what has the key k is of this line.
func (h *exporter) same(ctx context.Context, k exportKey, end *lineEnd) error {
	l := line{timedStore{h.e.opts.Store, uploadTimeout(headerSize)}, end.Database}
	hd, err := l.header(ctx, k.key(), k.kind)
	if err == nil && (hd.Key() != k.key() || hd.PrevChain != end.Chain) {
		err = fmt.Errorf("replicate: %s is of another line: %w", k.key(), ErrCorrupt)
	}
	return err
}

// note puts into the status what is known; h.mu is held.
func (h *exporter) note(err error) {
	d := h.dueness()
	var s HistoryStatus
	if h.looked {
		s.Next = d.next()
		if p := h.snapshot; p.kind != 0 {
			s.Snapshot = &ExportStatus{p.max, p.at}
		}
		if p := h.last; p.kind == segment.KindPages {
			s.Pages = &ExportStatus{p.max, p.at}
		}
	}
	if err != nil {
		s.Error = err.Error()
		if s.Next.Before(h.retry) {
			s.Next = h.retry
		}
	}
	h.e.mu.Lock()
	defer h.e.mu.Unlock()
	h.e.status.History = s
}

// noteExported counts what an export has uploaded.
func (e *Engine) noteExported(bytes int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.Uploaded += bytes
}
