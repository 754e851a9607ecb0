package replicate

import (
	"context"
	"fmt"

	"github.com/outwash/outwash/internal/segment"
)

// cost is what a restore takes.
type cost struct {
	bytes             int64
	objects, requests int
}

// object adds an object that is read whole, with so many requests.
func (c *cost) object(size int64, requests int) {
	c.bytes += size
	c.objects++
	c.requests += requests
}

// data adds a data object: its header, its frames, its blocks.
func (c *cost) data(root *segment.Root) {
	frames := int64(0)
	for i := range root.Frames {
		frames += root.Frames[i].Size()
	}
	c.object(root.Size, 1+len(root.Frames)+int((root.Size-frames+rangeSize-1)/rangeSize))
}

// dryRun finds out what would be restored, from the objects of the base, a listing of
// the data objects, and the newest log segment that is wanted.
func (r *restorer) dryRun(ctx context.Context) error {
	r.begin(nil)
	c := cost{requests: int(r.store.requests.Load())}
	c.object(0, 0) // the root: read by now
	if err := r.readBase(ctx, func(int, *segment.Object) error { return nil }); err != nil {
		return err
	}
	sizes, spilled, err := r.listData(ctx)
	if err != nil {
		return err
	}
	for i, o := range r.base {
		c.object(r.plan.base[i].size, 1)
		if o.Header.External {
			if err := checkListed(sizes, o); err != nil {
				return err
			}
			c.data(o.Root)
		}
		if o.Header.Kind == segment.KindPages {
			if err := r.a.fits(o.Header); err != nil {
				return fmt.Errorf("replicate: %s: %w", o.Header.Key(), err)
			}
		}
		r.a.onBase(o)
	}
	for _, k := range r.plan.logs {
		c.object(k.size, 1)
		if !spilled[k.txid] {
			continue
		}
		o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.log(ctx, k.txid) })
		if err != nil {
			return dataError(segment.LogKey(k.txid), err)
		}
		if o.Header.External { // else what was uploaded there came to nothing
			if err := checkListed(sizes, o); err != nil {
				return err
			}
			c.data(o.Root)
		}
	}
	if err := r.dryLogs(ctx, &c); err != nil {
		return err
	}
	r.expected = c
	before := r.store.requests.Load()
	err = r.checkReached(ctx)
	r.expected.requests += int(r.store.requests.Load() - before)
	return err
}

// dryLogs reads the last of the planned log segments, and those behind it.
func (r *restorer) dryLogs(ctx context.Context, c *cost) error {
	n := len(r.plan.logs)
	next := r.a.tail.TXID + 1
	if n > 0 {
		next = r.plan.logs[n-1].txid
	} else if !r.plan.open {
		return nil
	}
	for i := 0; ; i++ {
		o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.next(ctx, next) })
		if err != nil {
			return err
		}
		planned := i == 0 && n > 0
		switch {
		case o == nil && planned:
			return &lostError{segment.LogKey(next), fmt.Errorf("replicate: %s is missing: %w", segment.LogKey(next), errGap)}
		case o == nil:
			c.requests++
			return r.atEnd(next)
		case !planned:
			c.object(o.Size, 1)
			if o.Header.External {
				c.data(o.Root)
			}
		case n > 1 && r.target.beyond(o.Header.MaxTXID, o.Header.LastMono):
			// The target can be the state before.
			key := segment.LogKey(r.plan.logs[n-2].txid)
			h, err := r.line.planned(ctx, key, segment.KindLog)
			if err != nil {
				return err
			}
			r.a.tail = tailOf(&segment.Object{Header: h})
		}
		if err := r.dryLog(ctx, o); err != nil {
			return err
		}
		next = o.Header.MaxTXID + 1
		if r.a.reached || !r.plan.open {
			return nil
		}
	}
}

// dryLog finds out which of a segment's entries would be applied.
func (r *restorer) dryLog(ctx context.Context, o *segment.Object) error {
	h := o.Header
	r.a.prev, r.a.chain = h, o.Chain
	if h.External && !r.target.beyond(h.MaxTXID, h.LastMono) {
		if h.MaxTXID > r.a.tail.TXID {
			r.a.tail = tailOf(o)
		}
		return nil
	}
	entries, err := r.line.entries(ctx, o)
	if err != nil {
		return err
	}
	for _, e := range entries {
		ok, err := r.a.wanted(e)
		if err != nil {
			return fmt.Errorf("replicate: %s: %w", h.Key(), err)
		}
		if ok {
			r.a.done(e)
		}
	}
	return nil
}

// listData lists the data objects: their sizes, and at which TXIDs there are some of
// log segments.
func (r *restorer) listData(ctx context.Context) (sizes map[string]int64, spilled map[uint64]bool, err error) {
	err = retry(ctx, func() error {
		sizes, spilled = map[string]int64{}, map[uint64]bool{}
		for o, err := range r.store.List(ctx, segment.DataPrefix, "") {
			if err != nil {
				return fmt.Errorf("replicate: list %s: %w", segment.DataPrefix, err)
			}
			if txid, _, ok := segment.ParseDataKey(o.Key); ok {
				sizes[o.Key] = o.Size
				spilled[txid] = true
			}
		}
		return nil
	})
	return sizes, spilled, err
}

// checkListed checks that a segment's data object is there.
func checkListed(sizes map[string]int64, o *segment.Object) error {
	key := o.DataKey()
	switch size, ok := sizes[key]; {
	case !ok:
		return &lostError{key, fmt.Errorf("replicate: %s, which %s needs, is missing: %w", key, o.Header.Key(), ErrCorrupt)}
	case size != o.Root.Size:
		return fmt.Errorf("replicate: %s has %d bytes, %s says %d: %w", key, size, o.Header.Key(), o.Root.Size, ErrCorrupt)
	}
	return nil
}
