package replicate

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/segment"
)

// loadBase makes the state that a snapshot and the page segments behind it say: the
// image's, which is empty.
func (r *restorer) loadBase(ctx context.Context, objs []*segment.Object) error {
	for _, o := range objs {
		load := r.loadPages
		if o.Header.Kind == segment.KindSnapshot {
			load = r.loadSnapshot
		}
		if err := load(ctx, o); err != nil {
			return fmt.Errorf("replicate: %s: %w", o.Header.Key(), err)
		}
		r.a.onBase(o)
	}
	return nil
}

// onBase notes that the image has the state at o's end.
func (a *applier) onBase(o *segment.Object) {
	h := o.Header
	a.base = o
	a.tail = Tail{
		TXID: h.MaxTXID, Checksum: h.Post, Commit: h.Commit, PageSize: h.PageSize, LastTime: h.LastMono, WAL: h.WAL,
		Database: h.Database, Session: h.Session, Chain: h.PrevChain, Kind: segment.Pages,
	}
	if h.Kind == segment.KindSnapshot {
		a.tail.Kind = segment.Snapshot
	}
}

// loadPages applies a page segment.
func (r *restorer) loadPages(ctx context.Context, o *segment.Object) error {
	im, h := r.a.im, o.Header
	if err := r.a.fits(h); err != nil {
		return err
	}
	if h.PageSize != im.pageSize {
		if err := im.reset(h.PageSize); err != nil {
			return err
		}
	}
	if !h.External {
		return r.loadInline(o)
	}
	if err := checkDataHeader(ctx, r.store, o); err != nil {
		return err
	}
	dec := o.Frames()
	for i := range o.Root.Frames {
		recs, err := nextFrame(ctx, r.store, o, dec, i)
		if err != nil {
			return err
		}
		var group []*segment.Block
		for _, rec := range recs {
			if rec.Block == nil {
				continue
			}
			if last := rec.Block.Last(); last > h.Commit {
				return beyondCommit(o, last)
			}
			group = append(group, rec.Block)
		}
		if err := r.a.blocks(ctx, o.DataKey(), group); err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.Entry != nil {
				err = im.end(rec.Entry, h.PreCommit)
			}
		}
		if err != nil {
			return err
		}
	}
	return dec.Close()
}

// fits checks that a page segment can be applied to the state at hand: that before
// it, or a later one.
func (a *applier) fits(h *segment.Header) error {
	t := a.tail
	switch {
	case h.MinTXID > t.TXID+1:
		return fmt.Errorf("it goes on from TXID %d, not from %d: %w", h.MinTXID-1, t.TXID, ErrCorrupt)
	case h.MinTXID == t.TXID+1 && (h.Pre != t.Checksum || h.PreCommit != t.Commit):
		return fmt.Errorf("it goes on from checksum %016x with %d pages, TXID %d has %016x with %d: %w", h.Pre, h.PreCommit, t.TXID, t.Checksum, t.Commit, ErrCorrupt)
	case h.PageSize != t.PageSize && t.Commit > 0 && !h.Replaces:
		return fmt.Errorf("it has pages of %d bytes, TXID %d has %d: %w", h.PageSize, t.TXID, t.PageSize, ErrCorrupt)
	case h.LastMono < t.LastTime:
		return fmt.Errorf("it ends %s, TXID %d was committed %s: %w", stamp(h.LastMono), t.TXID, stamp(t.LastTime), ErrCorrupt)
	}
	return nil
}

// loadSnapshot writes the pages of a snapshot into the image, several ranges at
// a time.
func (r *restorer) loadSnapshot(ctx context.Context, o *segment.Object) error {
	im, h := r.a.im, o.Header
	im.pageSize = h.PageSize
	if !h.External {
		return r.loadInline(o)
	}
	if err := checkDataHeader(ctx, r.store, o); err != nil {
		return err
	}
	if im.f == nil {
		return r.snapshotHashes(ctx, o)
	}
	frames, winner, entry, err := r.snapshotIndex(ctx, o)
	if err != nil {
		return err
	}
	im.hashes = make([]uint64, h.Commit)
	if err := r.snapshotPages(ctx, o, frames, winner); err != nil {
		return err
	}
	for _, hash := range im.hashes {
		im.sum ^= hash
	}
	im.commit = 0 // every page that no block had is zero
	im.written = r.meter.pages.Load()
	zero := *entry
	zero.Whole = true
	for p, w := range winner {
		if w != 0 {
			im.touched = append(im.touched, uint64(p)+1)
		}
	}
	return im.endEntry(&zero)
}

func (r *restorer) loadInline(o *segment.Object) error {
	stored := []byte(nil)
	for _, e := range o.Entries {
		var off int64
		for i := range e.Blocks {
			b := &e.Blocks[i]
			stored = grow(stored, int(b.Stored))
			if _, err := readAt(e.Body, stored, off); err != nil {
				return err
			}
			off += int64(b.Stored)
			if err := r.a.im.block(b, stored); err != nil {
				return err
			}
		}
		if err := r.a.im.end(e, o.Header.PreCommit); err != nil {
			return err
		}
	}
	return nil
}

// snapshotIndex reads all index frames and finds out which block has the image
// of each page that counts: the last one. winner holds block numbers from 1.
func (r *restorer) snapshotIndex(ctx context.Context, o *segment.Object) (frames [][]byte, winner []uint32, entry *segment.Entry, err error) {
	frames = make([][]byte, len(o.Root.Frames))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Parallelism)
	for i := range frames {
		g.Go(func() (err error) {
			frames[i], err = fetchFrame(gctx, r.store, o, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, nil, err
	}
	winner = make([]uint32, o.Header.Commit)
	dec := o.Frames()
	n := uint32(0)
	for i := range frames {
		recs, err := dec.Next(frames[i])
		if err != nil {
			return nil, nil, nil, fmt.Errorf("replicate: %s: %w", o.DataKey(), err)
		}
		for _, rec := range recs {
			if rec.Entry != nil {
				entry = rec.Entry
				continue
			}
			n++
			for _, p := range rec.Block.Pages {
				if p.No > o.Header.Commit {
					return nil, nil, nil, beyondCommit(o, p.No)
				}
				winner[p.No-1] = n
			}
		}
	}
	if err := dec.Close(); err != nil {
		return nil, nil, nil, err
	}
	return frames, winner, entry, nil
}

func beyondCommit(o *segment.Object, page uint64) error {
	return fmt.Errorf("replicate: %s has page %d of %d: %w", o.DataKey(), page, o.Header.Commit, ErrCorrupt)
}

// snapshotPages writes the pages that count in place.
func (r *restorer) snapshotPages(ctx context.Context, o *segment.Object, frames [][]byte, winner []uint32) error {
	key := o.DataKey()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Parallelism)
	first := uint32(1)
	for i := range frames {
		if ctx.Err() != nil {
			break
		}
		blocks, err := o.ParseFrame(i, frames[i])
		if err != nil {
			return err
		}
		frames[i] = nil
		refs := make([]*segment.Block, len(blocks))
		for j := range blocks {
			refs[j] = &blocks[j]
		}
		for _, run := range runs(refs) {
			number := first
			first += uint32(len(run))
			g.Go(func() error {
				w := snapshotWorker{im: r.a.im, winner: winner, pages: &r.meter, dec: segment.NewBlockDecoder()}
				at := number
				return readRun(ctx, r.store, key, run, func(b *segment.Block, stored []byte) error {
					err := w.block(at, b, stored)
					if err == nil {
						at++
					}
					return err
				})
			})
		}
	}
	return g.Wait()
}

// snapshotWorker writes blocks of a snapshot. Each page is written by the block
// that has its last image alone, so that workers don't meet.
type snapshotWorker struct {
	im     *image
	winner []uint32
	pages  *meter
	dec    *segment.BlockDecoder
	plain  []byte
}

func (w *snapshotWorker) block(number uint32, b *segment.Block, stored []byte) (err error) {
	wins := 0
	for _, p := range b.Pages {
		if w.winner[p.No-1] == number {
			wins++
		}
	}
	if wins == 0 {
		return nil
	}
	if w.plain, err = w.dec.Decode(w.plain[:0], b, stored, w.im.pageSize, nil); err != nil {
		return err
	}
	pages, plain := b.Pages, w.plain
	if wins < len(pages) {
		size := int(w.im.pageSize)
		pages, plain = nil, nil
		for i, p := range b.Pages {
			if w.winner[p.No-1] == number {
				pages = append(pages, p)
				plain = append(plain, w.plain[i*size:(i+1)*size]...)
			}
		}
	}
	if err := writePages(w.im.f, pages, plain, w.im.pageSize); err != nil {
		return err
	}
	for _, p := range pages {
		w.im.hashes[p.No-1] = p.Hash
	}
	w.pages.pages.Add(uint64(len(pages)))
	return nil
}

var _ file = (*os.File)(nil)
