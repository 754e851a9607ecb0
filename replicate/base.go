package replicate

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// An exportKey is a snapshot or a page segment in a listing.
type exportKey struct {
	kind     segment.Kind // KindSnapshot or KindPages
	min, max uint64       // TXIDs; of a snapshot min is 1
	sum      uint64       // checksum after max
	size     int64        // of the object, without its data object
	modified time.Time    // by the store's clock
}

func (k exportKey) key() string {
	if k.kind == segment.KindSnapshot {
		return segment.SnapshotKey(k.max, k.sum)
	}
	return segment.PagesKey(k.min, k.max, k.sum)
}

// parseExport is what a listing says of a snapshot or page segment; ok is false for
// other objects.
func parseExport(o ObjectInfo) (k exportKey, ok bool) {
	k = exportKey{kind: segment.KindSnapshot, min: 1, size: o.Size, modified: o.Modified}
	if k.max, k.sum, ok = segment.ParseSnapshotKey(o.Key); ok {
		return k, true
	}
	k.kind = segment.KindPages
	k.min, k.max, k.sum, ok = segment.ParsePagesKey(o.Key)
	return k, ok
}

// listExports lists the snapshots, then the page segments, each oldest first.
func listExports(ctx context.Context, store Store) ([]exportKey, error) {
	var list []exportKey
	for _, prefix := range []string{segment.SnapshotPrefix, segment.PagesPrefix} {
		for o, err := range store.List(ctx, prefix, "") {
			if err != nil {
				return nil, fmt.Errorf("replicate: list %s: %w", prefix, err)
			}
			if k, ok := parseExport(o); ok {
				list = append(list, k)
			}
		}
	}
	return list, nil
}

// chooseBase returns what a restore to TXID upTo begins with: the newest snapshot
// that isn't beyond it, or the empty database, and then page segments that go as far
// as they can, in order; each one's pages replace those of the ones before. A page
// segment fits on any state from the one before its min on, because it has the last
// image of every page that changed since.
//
// What is chosen depends on nothing but the exports up to upTo: one that is not
// chosen can go without changing that.
func chooseBase(exports []exportKey, upTo uint64) (base []exportKey) {
	at := uint64(0)
	for _, k := range exports {
		if k.kind == segment.KindSnapshot && k.max <= upTo && k.max > at {
			base, at = []exportKey{k}, k.max
		}
	}
	var pages []exportKey
	for _, k := range exports {
		if k.kind == segment.KindPages && k.max > at && k.max <= upTo {
			pages = append(pages, k)
		}
	}
	sort.Slice(pages, func(i, j int) bool {
		a, b := pages[i], pages[j]
		switch {
		case a.min != b.min:
			return a.min < b.min
		case a.max != b.max:
			return a.max < b.max
		}
		return a.sum < b.sum
	})
	for i := 0; ; {
		var next *exportKey
		for ; i < len(pages) && pages[i].min <= at+1; i++ {
			// Of those that go equally far the one with fewer TXIDs has fewer pages.
			if pages[i].max > at && (next == nil || pages[i].max >= next.max) {
				next = &pages[i]
			}
		}
		if next == nil {
			return base
		}
		base, at = append(base, *next), next.max
	}
}
