package replicate

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// writebackEvery is after how many bytes the disk is set to work: without, all of it
// waits for the sync in the end. 500 MB came back in 0.61 to 0.83 of the time (bench,
// 8 pairs).
const writebackEvery = 16 << 20

// pages writes the pages that some block has; the others are holes in the file.
func (b *baseLoader) pages(ctx context.Context) error {
	if err := b.a.im.truncate(0); err != nil {
		return err
	}
	wins := make([]bool, b.blocks+1)
	expected := uint64(0)
	for _, w := range b.winner {
		wins[w] = true
		if w != 0 {
			expected++
		}
	}
	if f, ok := b.a.im.f.(*os.File); ok && expected+1 >= b.a.im.commit { // no block has the lock page
		reserve(f, int64(b.a.im.commit)*int64(b.a.im.pageSize))
	}
	for range min(runtime.GOMAXPROCS(0), b.parallelism()) {
		b.workers.give(b.worker())
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
	if err == nil && b.a.im.written != expected { // a mistake of ours: no image may be missing
		err = fmt.Errorf("replicate: %d of the base's %d pages were written", b.a.im.written, expected)
	}
	return err
}

// layer starts the writing of what wins in l.
func (b *baseLoader) layer(ctx context.Context, g *errgroup.Group, l *baseLayer, wins []bool) error {
	o := l.o
	l.o = nil
	if !anyTrue(wins[l.first[0]:l.first[len(l.first)-1]]) {
		for i := range l.frames {
			b.readsOnly(o, i, nil)
		}
		return nil
	}
	if o == nil {
		b.meter.total.Add(l.key.size)
		var err error
		if o, err = b.readExport(ctx, l.key); err != nil {
			return err
		}
		if key := l.key.key(); o.Chain != l.chain { // retired, and written once more with other blocks
			return &lostError{key, fmt.Errorf("replicate: read %s: %w", key, objstore.ErrChanged)}
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
			b.readsOnly(o, i, nil)
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if frame == nil {
			b.meter.total.Add(o.Root.Frames[i].Size())
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
		all := runs(refs)
		b.readsOnly(o, i, all)
		for _, run := range all {
			mine := numbers[:len(run)]
			numbers = numbers[len(run):]
			b.begun++
			me := b.begun
			g.Go(func() error {
				var w *baseWorker
				return readRun(ctx, b.store, o.DataKey(), run, func(blk *segment.Block, stored []byte) error {
					if w == nil {
						w = b.workers.take(me)
					}
					err := w.block(mine[0], blk, stored)
					mine = mine[1:]
					return err
				}, func() {
					if w != nil {
						b.workers.give(w)
						w = nil
					}
				})
			})
		}
	}
	return nil
}

// readsOnly takes the blocks of frame i that aren't in these runs from what is to be read.
func (b *baseLoader) readsOnly(o *segment.Object, i int, runs [][]*segment.Block) {
	at := int64(segment.DataHeaderSize)
	if i > 0 {
		f := &o.Root.Frames[i-1]
		at = f.Offset + f.Size()
	}
	skipped := o.Root.Frames[i].Offset - at
	for _, run := range runs {
		last := run[len(run)-1]
		skipped -= last.Offset + int64(last.Stored) - run[0].Offset
	}
	b.meter.total.Add(-skipped)
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
			b.begun++
			me := b.begun
			g.Go(func() error {
				w := b.workers.take(me)
				defer b.workers.give(w)
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
	dirty  *atomic.Int64
	dec    *segment.BlockDecoder
	plain  []byte
}

func (b *baseLoader) worker() *baseWorker {
	return &baseWorker{im: b.a.im, winner: b.winner, pages: &b.meter, dirty: &b.dirty, dec: segment.NewBlockDecoder()}
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
	if err := writePages(w.im.f, pages, plain, w.im.pageSize); err != nil {
		return err
	}
	if f, ok := w.im.f.(*os.File); ok && w.dirty.Add(int64(len(plain))) >= writebackEvery {
		w.dirty.Store(0)
		startWriteback(f)
	}
	return nil
}

var _ file = (*os.File)(nil)
