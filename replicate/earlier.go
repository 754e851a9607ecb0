package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// earlierSegments is how many log segments are looked through at most.
	earlierSegments = 10000
	// staleSegments is the same where the database is about to be repaired, and only
	// a copy of an older state that was put over it is to be noticed.
	staleSegments = 256
)

// earlier finds where on the line, up to its end, the state with this checksum
// and size is: in the key of a snapshot or page segment, or else in the newest log
// segments, at most so many. 0: nowhere.
func (l *line) earlier(ctx context.Context, end *lineEnd, sum, commit uint64, most int) (uint64, error) {
	exports, err := listExports(ctx, l.store)
	if err != nil {
		return 0, err
	}
	byEnd(exports)
	for i := len(exports) - 1; i >= 0; i-- {
		k := exports[i]
		if k.sum != sum || k.max > end.TXID {
			continue
		}
		h, err := l.header(ctx, k.key(), k.kind)
		if errors.Is(err, objstore.ErrNotExist) {
			continue // deleted since it was listed
		}
		if err != nil {
			return 0, err
		}
		if h.Commit == commit {
			return k.max, nil
		}
	}
	keys, err := l.newest(ctx, end.TXID, most)
	if err != nil {
		return 0, err
	}
	found := uint64(0)
	err = inOrder(ctx, ahead[*segment.Object]{
		n: len(keys), parallel: restoreParallelism,
		size: func(i int) int64 { return keys[i].size },
		fetch: func(ctx context.Context, i int) (*segment.Object, error) {
			o, err := l.log(ctx, keys[i].txid)
			if errors.Is(err, objstore.ErrNotExist) || isVerdict(err) {
				return nil, nil // deleted since it was listed, or damaged: the state isn't known to be there
			}
			return o, err
		},
	}, func(_ int, o *segment.Object) error {
		var err error
		if o != nil {
			found, err = l.stateIn(ctx, o, sum, commit)
		}
		if err == nil && found != 0 {
			err = errReached
		}
		return err
	})
	return found, err
}

// newest lists the n newest log segments up to txid, the newest first. Claims are
// left out: they repeat the state before.
func (l *line) newest(ctx context.Context, txid uint64, n int) ([]logKey, error) {
	keys, err := l.listLog(ctx, 1)
	if err != nil {
		return nil, err
	}
	var list []logKey
	for i := len(keys) - 1; i >= 0 && len(list) < n; i-- {
		if k := keys[i]; k.txid <= txid && k.size != segment.ClaimSize {
			list = append(list, k)
		}
	}
	return list, nil
}

// stateIn returns the TXID of the newest entry in o that leaves the state; 0: none.
func (l *line) stateIn(ctx context.Context, o *segment.Object, sum, commit uint64) (txid uint64, err error) {
	switch h := o.Header; {
	case h.Post == sum && h.Commit == commit:
		return h.MaxTXID, nil
	case h.External && h.Entries == 1:
		return 0, nil
	}
	entries, err := l.entries(ctx, o)
	for _, e := range entries {
		if e.Post == sum && e.Commit == commit {
			txid = e.MaxTXID
		}
	}
	return txid, err
}

// entries returns the entries of a segment; those of an external one are without
// blocks, and are read from its data object.
func (l *line) entries(ctx context.Context, o *segment.Object) ([]*segment.Entry, error) {
	if !o.Header.External {
		return o.Entries, nil
	}
	var all []*segment.Entry
	dec := o.Frames()
	for i := range o.Root.Frames {
		recs, err := nextFrame(ctx, l.store, o, dec, i)
		if err != nil {
			return nil, fmt.Errorf("replicate: %s: %w", segment.LogKey(o.Header.MinTXID), err)
		}
		for _, rec := range recs {
			if rec.Entry != nil {
				all = append(all, rec.Entry)
			}
		}
	}
	return all, dec.Close()
}
