package replicate

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/outwash/outwash/internal/segment"
)

// What of a base is kept in memory while it is loaded, in bytes; what is beyond that
// is read twice.
const (
	heldFrames = 8 << 20  // index frames of data objects: 8 bytes a page
	heldInline = 16 << 20 // segments that carry their pages
)

// baseLoader makes the state that a snapshot and the page segments after it say. It
// reads all indexes first and finds out which block has the newest image of each
// page; then it reads these blocks alone, in parallel, and writes each page once.
//
// Memory: 12 bytes a page (winner and the image's hashes), what is held, 256 KiB for
// each request and a MiB for each worker.
type baseLoader struct {
	*restorer
	layers []baseLayer
	// winner has, by page number − 1, the number of the block with the newest image.
	// Blocks are counted over all layers from 1; 0: no block, the page is zero.
	winner []uint32
	blocks uint32       // so far
	held   int64        // bytes of frames
	inline int64        // bytes of inline segments
	dirty  atomic.Int64 // bytes written since the last startWriteback
	// workers decode and write. There is one for each processor: with one for each
	// request, they keep pushing each other's buffers out of its cache.
	workers workers[*baseWorker]
	begun   int // how many have been started that will take one
}

// A baseLayer is one of these segments.
type baseLayer struct {
	key    exportKey
	o      *segment.Object // nil: to be read again
	chain  segment.Hash    // its chain value
	first  []uint32        // number of the first block in each frame, and of the one behind the last
	frames [][]byte        // of a data object; nil: to be read again
}

// loadBase loads the plan's base into the image, of which nothing is left.
func (r *restorer) loadBase(ctx context.Context) error {
	b := &baseLoader{restorer: r}
	err := r.readBase(ctx, func(i int, o *segment.Object) error {
		k := r.plan.base[i]
		if k.kind == segment.KindPages {
			if err := r.a.fits(o.Header); err != nil {
				return fmt.Errorf("replicate: %s: %w", k.key(), err)
			}
		}
		r.expect(o)
		if err := b.index(ctx, k, o); err != nil {
			return fmt.Errorf("replicate: %s: %w", k.key(), err)
		}
		r.a.onBase(r.base[i])
		return nil
	})
	if err != nil || r.a.im.f == nil {
		return err
	}
	return b.pages(ctx)
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

// index puts a segment on what is there already.
func (b *baseLoader) index(ctx context.Context, k exportKey, o *segment.Object) error {
	im, h := b.a.im, o.Header
	kept := min(im.commit, h.PreCommit, h.MinCommit) // see "kept" in docs/FORMAT.md
	if h.Kind == segment.KindSnapshot || h.Replaces {
		kept, b.layers = 0, nil
	}
	for _, hash := range im.hashes[kept:] {
		im.sum ^= hash
	}
	im.pageSize, im.commit = h.PageSize, h.Commit
	im.hashes, b.winner = im.hashes[:kept], b.winner[:kept]
	if err := b.room(min(h.Commit, im.noted+maxImplied)); err != nil {
		return err
	}
	b.layers = append(b.layers, baseLayer{key: k, chain: o.Chain})
	l := &b.layers[len(b.layers)-1]
	l.o = o
	var err error
	if h.External {
		err = b.externalIndex(ctx, l)
	} else {
		l.first = []uint32{b.blocks + 1}
		for _, e := range o.Entries {
			for i := range e.Blocks {
				if err := b.block(&e.Blocks[i]); err != nil {
					return err
				}
			}
		}
		if b.inline += o.Size; b.inline > b.opts.limit(heldInline) {
			b.inline -= o.Size
			l.o = nil
		}
	}
	if err != nil {
		return err
	}
	l.first = append(l.first, b.blocks+1)
	if err := b.room(im.commit); err != nil {
		return err
	}
	b.zero(kept)
	if im.sum != h.Post {
		return fmt.Errorf("the pages make checksum %016x, expected %016x: %w", im.sum, h.Post, ErrCorrupt)
	}
	return nil
}

// room makes room for the hashes of so many pages. What no index has proven yet is
// not believed beyond a bound.
func (b *baseLoader) room(pages uint64) error {
	im := b.a.im
	if pages <= uint64(len(im.hashes)) {
		return nil
	}
	if err := im.bound(pages, 0); err != nil {
		return err
	}
	n := min(max(pages, 2*uint64(len(im.hashes))), im.commit)
	im.hashes, b.winner = extend(im.hashes, n), extend(b.winner, n)
	return nil
}

// extend makes s n elements long; what is new is zero.
func extend[T any](s []T, n uint64) []T {
	if uint64(cap(s)) < n {
		grown := make([]T, n)
		copy(grown, s)
		return grown
	}
	old := len(s)
	s = s[:n]
	clear(s[old:])
	return s
}

func (b *baseLoader) externalIndex(ctx context.Context, l *baseLayer) error {
	o := l.o
	if err := checkDataHeader(ctx, b.store, o); err != nil {
		return err
	}
	l.frames = make([][]byte, len(o.Root.Frames))
	dec := o.Frames()
	err := inOrder(ctx, ahead[[]byte]{
		n: len(l.frames), parallel: b.parallelism(),
		size:  func(i int) int64 { return o.Root.Frames[i].Size() },
		fetch: func(ctx context.Context, i int) ([]byte, error) { return fetchFrame(ctx, b.store, o, i) },
	}, func(i int, frame []byte) error {
		recs, err := dec.Next(frame)
		if err != nil {
			return fmt.Errorf("replicate: %s: %w", o.DataKey(), err)
		}
		l.first = append(l.first, b.blocks+1)
		for _, rec := range recs {
			if rec.Block == nil {
				continue
			}
			if last := rec.Block.Last(); last > o.Header.Commit {
				return beyondCommit(o, last)
			}
			if err := b.block(rec.Block); err != nil {
				return fmt.Errorf("replicate: %s: %w", o.DataKey(), err)
			}
		}
		if b.a.im.f != nil && b.held+int64(len(frame)) <= b.opts.limit(heldFrames) {
			b.held += int64(len(frame))
			l.frames[i] = frame
		}
		return nil
	})
	if err != nil {
		return err
	}
	return dec.Close()
}

func beyondCommit(o *segment.Object, page uint64) error {
	return fmt.Errorf("replicate: %s has page %d of %d: %w", o.DataKey(), page, o.Header.Commit, ErrCorrupt)
}

// block notes that the next block has the newest image of its pages.
func (b *baseLoader) block(blk *segment.Block) error {
	b.blocks++
	im := b.a.im
	im.noted += uint64(len(blk.Pages))
	if err := b.room(blk.Last()); err != nil {
		return err
	}
	for _, p := range blk.Pages {
		im.sum ^= im.hashes[p.No-1] ^ p.Hash
		im.hashes[p.No-1] = p.Hash
		b.winner[p.No-1] = b.blocks
	}
	return nil
}

// zero notes that pages after kept that the newest layer doesn't have are zero.
func (b *baseLoader) zero(kept uint64) {
	im := b.a.im
	zeros := make([]byte, im.pageSize)
	lock := segment.LockPage(im.pageSize)
	for i := kept; i < im.commit; i++ {
		if b.winner[i] == 0 && i+1 != lock {
			im.hashes[i] = segment.PageHash(i+1, zeros)
			im.sum ^= im.hashes[i]
		}
	}
}
