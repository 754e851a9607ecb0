package replicate

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

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
// Memory: 12 bytes a page (winner and the image's hashes), what is held, and a MiB
// for each worker.
type baseLoader struct {
	*restorer
	layers []baseLayer
	// winner has, by page number − 1, the number of the block with the newest image.
	// Blocks are counted over all layers from 1; 0: no block, the page is zero.
	winner []uint32
	blocks uint32 // so far
	held   int64  // bytes of frames
	inline int64  // bytes of inline segments
}

// A baseLayer is one of these segments.
type baseLayer struct {
	key    exportKey
	o      *segment.Object // nil: to be read again
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
	im.hashes = resize(im.hashes, kept, h.Commit)
	b.winner = resize(b.winner, kept, h.Commit)
	b.layers = append(b.layers, baseLayer{key: k})
	l := &b.layers[len(b.layers)-1]
	l.o = o
	var err error
	if h.External {
		err = b.externalIndex(ctx, l)
	} else {
		l.first = []uint32{b.blocks + 1}
		for _, e := range o.Entries {
			for i := range e.Blocks {
				b.block(&e.Blocks[i])
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
	b.zero(kept)
	if im.sum != h.Post {
		return fmt.Errorf("the pages make checksum %016x, expected %016x: %w", im.sum, h.Post, ErrCorrupt)
	}
	return nil
}

// resize keeps the first kept elements; those behind are zero, n in all.
func resize[T any](s []T, kept, n uint64) []T {
	if uint64(cap(s)) < n {
		grown := make([]T, n)
		copy(grown, s[:kept])
		return grown
	}
	s = s[:n]
	clear(s[min(kept, n):])
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
			b.block(rec.Block)
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
func (b *baseLoader) block(blk *segment.Block) {
	b.blocks++
	im := b.a.im
	for _, p := range blk.Pages {
		im.sum ^= im.hashes[p.No-1] ^ p.Hash
		im.hashes[p.No-1] = p.Hash
		b.winner[p.No-1] = b.blocks
	}
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

// pages writes the pages that some block has; the others are holes in the file.
func (b *baseLoader) pages(ctx context.Context) error {
	if err := b.a.im.truncate(0); err != nil {
		return err
	}
	wins := make([]bool, b.blocks+1)
	for _, w := range b.winner {
		wins[w] = true
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(b.parallelism())
	for i := range b.layers {
		if err := b.layer(gctx, g, &b.layers[i], wins); err != nil {
			g.Go(func() error { return err })
			break
		}
	}
	err := g.Wait()
	b.a.im.written = b.meter.pages.Load()
	return err
}

// layer starts the writing of what wins in l.
func (b *baseLoader) layer(ctx context.Context, g *errgroup.Group, l *baseLayer, wins []bool) error {
	o := l.o
	l.o = nil
	if !anyTrue(wins[l.first[0]:l.first[len(l.first)-1]]) {
		return nil
	}
	if o == nil {
		var err error
		if o, err = b.readExport(ctx, l.key); err != nil {
			return err
		}
	}
	if !o.Header.External {
		b.inlinePages(g, o, l.first[0], wins)
		return nil
	}
	if err := b.externalPages(ctx, g, o, l, wins); err != nil {
		return fmt.Errorf("replicate: %s: %w", l.key.key(), err)
	}
	return nil
}

// externalPages starts the reading of a data object's blocks that win.
func (b *baseLoader) externalPages(ctx context.Context, g *errgroup.Group, o *segment.Object, l *baseLayer, wins []bool) (err error) {
	for i, frame := range l.frames {
		first := l.first[i]
		if !anyTrue(wins[first:l.first[i+1]]) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if frame == nil {
			if frame, err = fetchFrame(ctx, b.store, o, i); err != nil {
				return err
			}
		}
		l.frames[i] = nil
		blocks, err := o.ParseFrame(i, frame)
		if err != nil {
			return err
		}
		var refs []*segment.Block
		var numbers []uint32
		for j := range blocks {
			if number := first + uint32(j); wins[number] {
				refs, numbers = append(refs, &blocks[j]), append(numbers, number)
			}
		}
		for _, run := range runs(refs) {
			mine := numbers[:len(run)]
			numbers = numbers[len(run):]
			g.Go(func() error {
				w := b.worker()
				return readRun(ctx, b.store, o.DataKey(), run, func(blk *segment.Block, stored []byte) error {
					err := w.block(mine[0], blk, stored)
					mine = mine[1:]
					return err
				})
			})
		}
	}
	return nil
}

func anyTrue(list []bool) bool {
	for _, v := range list {
		if v {
			return true
		}
	}
	return false
}

// inlinePages starts the decoding of the blocks that an object carries.
func (b *baseLoader) inlinePages(g *errgroup.Group, o *segment.Object, number uint32, wins []bool) {
	const share = 32 // blocks: some MiB
	for _, e := range o.Entries {
		var off int64
		for blocks := e.Blocks; len(blocks) > 0; {
			mine, at, from := blocks[:min(share, len(blocks))], off, number
			blocks = blocks[len(mine):]
			for i := range mine {
				off += int64(mine[i].Stored)
			}
			number += uint32(len(mine))
			if !anyTrue(wins[from:number]) {
				continue
			}
			g.Go(func() error {
				w := b.worker()
				var stored []byte
				for i := range mine {
					stored = grow(stored, int(mine[i].Stored))
					if _, err := readAt(e.Body, stored, at); err != nil {
						return err
					}
					at += int64(mine[i].Stored)
					if err := w.block(from+uint32(i), &mine[i], stored); err != nil {
						return fmt.Errorf("replicate: %s: %w", o.Header.Key(), err)
					}
				}
				return nil
			})
		}
	}
}

// baseWorker writes blocks. Each page is written by the block that has its newest
// image alone, so that workers don't meet.
type baseWorker struct {
	im     *image
	winner []uint32
	pages  *meter
	dec    *segment.BlockDecoder
	plain  []byte
}

func (b *baseLoader) worker() *baseWorker {
	return &baseWorker{im: b.a.im, winner: b.winner, pages: &b.meter, dec: segment.NewBlockDecoder()}
}

// wins reports whether the page is there in the end, and the block has its image.
func (w *baseWorker) wins(page uint64, number uint32) bool {
	return page <= uint64(len(w.winner)) && w.winner[page-1] == number
}

func (w *baseWorker) block(number uint32, b *segment.Block, stored []byte) (err error) {
	wins := 0
	for _, p := range b.Pages {
		if w.wins(p.No, number) {
			wins++
		}
	}
	if wins == 0 {
		return nil
	}
	if w.plain, err = w.dec.Decode(w.plain[:0], b, stored, w.im.pageSize, nil); err != nil {
		return err
	}
	w.pages.pages.Add(uint64(wins))
	if b.Codec == segment.CodecZero {
		return nil // a hole has that content
	}
	pages, plain := b.Pages, w.plain
	if wins < len(pages) {
		size := int(w.im.pageSize)
		pages, plain = nil, plain[:0]
		for i, p := range b.Pages {
			if w.wins(p.No, number) {
				pages = append(pages, p)
				plain = append(plain, w.plain[i*size:(i+1)*size]...)
			}
		}
	}
	return writePages(w.im.f, pages, plain, w.im.pageSize)
}

var _ file = (*os.File)(nil)
