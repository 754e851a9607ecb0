package replicate

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/segment"
)

// decodeInline decodes the blocks of an entry that stand alone.
func decodeInline(e *segment.Entry, pageSize uint32) error {
	dec := segment.NewBlockDecoder()
	var stored, pages []byte
	var off int64
	for i := range e.Blocks {
		b := &e.Blocks[i]
		stored = grow(stored, int(b.Stored))
		if _, err := readAt(e.Body, stored, off); err != nil {
			return err
		}
		off += int64(b.Stored)
		if b.Base != segment.BaseNone {
			continue
		}
		var err error
		if pages, err = dec.Decode(pages[:0], b, stored, pageSize, nil); err != nil {
			return fmt.Errorf("TXID %d: %w", e.MaxTXID, err)
		}
	}
	return nil
}

// readBlocks reads what is wanted of the blocks, several ranges at a time.
func (v *verifier) readBlocks(ctx context.Context, o *segment.Object, blocks []*segment.Block) error {
	if !v.opts.ReadData {
		return nil
	}
	key := o.DataKey()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.opts.Parallelism)
	for _, run := range runs(blocks) {
		if !v.opts.Subset.has(key, run[0].Offset) {
			continue
		}
		g.Go(func() error {
			dec := segment.NewBlockDecoder()
			var pages []byte
			return readRun(ctx, v.store, key, run, func(b *segment.Block, stored []byte) (err error) {
				v.blocksRead.Add(1)
				if b.Base == segment.BaseNone {
					pages, err = dec.Decode(pages[:0], b, stored, o.Header.PageSize, nil)
				}
				return err
			}, func() {})
		})
	}
	return g.Wait()
}
