package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// rebuildSegments and rebuildBytes bound how much of the log is read in order to
	// know what changed; a snapshot is made without that.
	rebuildSegments = 50_000
	rebuildBytes    = 64 << 20 // or as much as the database has, if that is more
	// rebuildParallelism leaves room for the uploads that go on meanwhile.
	rebuildParallelism = 4
)

// errTooMuch: reading the log costs more than a snapshot.
var errTooMuch = errors.New("too much log to read")

// rebuild reads from the log what changed behind base, up to TXID to, where chain is
// the chain value. Of data objects it reads index frames only. limit is how many
// bytes it reads at most; 0: any number. An [ErrCorrupt] says that the log there is
// does not lead from the one to the other.
func (l *line) rebuild(ctx context.Context, base lastExport, to uint64, chain segment.Hash, limit int64) (*changes, error) {
	keys, err := retryValue(ctx, func() ([]logKey, error) { return l.listLog(ctx, base.max+1) })
	if err != nil {
		return nil, err
	}
	n, size := 0, int64(0)
	for n < len(keys) && keys[n].txid <= to {
		size += keys[n].size
		n++
	}
	keys = keys[:n]
	switch {
	case n == 0:
		return nil, fmt.Errorf("replicate: %s is missing: %w", segment.LogKey(base.max+1), errGap)
	case keys[0].txid != base.max+1:
		return nil, missingLog(base.max+1, keys[0].txid)
	case limit != 0 && (size > limit || n > rebuildSegments):
		return nil, fmt.Errorf("replicate: %d log segments of %d bytes from %s on: %w", n, size, segment.LogKey(base.max+1), errTooMuch)
	}
	c := newChanges(base.max)
	prev := base.chain
	err = inOrder(ctx, ahead[*segment.Object]{
		n: n, parallel: rebuildParallelism,
		size: func(i int) int64 { return keys[i].size },
		fetch: func(ctx context.Context, i int) (*segment.Object, error) {
			o, err := retryValue(ctx, func() (*segment.Object, error) { return l.log(ctx, keys[i].txid) })
			return o, dataError(segment.LogKey(keys[i].txid), err)
		},
	}, func(_ int, o *segment.Object) error {
		h := o.Header
		if h.MinTXID != c.to+1 {
			return missingLog(c.to+1, h.MinTXID)
		}
		if h.PrevChain != prev {
			return fmt.Errorf("replicate: %s does not follow what is there of TXID %d: %w", h.Key(), c.to, ErrCorrupt)
		}
		if h.PageSize != base.pageSize && base.commit > 0 {
			c.whole = true
		}
		prev = o.Chain
		return l.note(ctx, c, o)
	})
	if err == nil && (c.to != to || prev != chain) {
		err = fmt.Errorf("replicate: the log from %s on leads to TXID %d, not to what was TXID %d: %w", segment.LogKey(base.max+1), c.to, to, errGap)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// note takes up a log segment.
func (l *line) note(ctx context.Context, c *changes, o *segment.Object) error {
	for _, en := range o.Entries {
		c.entry(en, en.MaxTXID, entryPages(en), o.Header.PageSize)
	}
	if !o.Header.External {
		return nil
	}
	dec := o.Frames()
	var open local.PageSet // of the entry whose record is still to come
	for i := range o.Root.Frames {
		recs, err := nextFrame(ctx, l.store, o, dec, i)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.Entry != nil {
				c.entry(rec.Entry, rec.Entry.MaxTXID, open.All(), o.Header.PageSize)
				open = local.PageSet{}
				continue
			}
			if rec.Block.Last() > maxPages {
				return fmt.Errorf("replicate: %s has page %d: %w", o.DataKey(), rec.Block.Last(), ErrCorrupt)
			}
			for _, p := range rec.Block.Pages {
				open.Add(p.No)
			}
		}
	}
	return dec.Close()
}
