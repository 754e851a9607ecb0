package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// expiredSegments is how many log segments a session lists at a time, if there are
// more that are too old: what was kept for years and isn't to be kept any more goes
// in pieces, of which each takes some ten MB of memory and about 1000 requests.
const expiredSegments = 500_000

// An inventory lists what retention decides about. It remembers what descriptors
// say: a session reads each once, unless people delete it and it is written anew.
type inventory struct {
	line  line
	most  int                  // instead of expiredSegments, in tests; 0: that
	names map[string]described // by the descriptor's key
}

// described is what a descriptor says.
type described struct {
	modified time.Time
	data     string // key of its data object; "": it has none
}

// whole lists everything.
func (v *inventory) whole(ctx context.Context) (h holdings, err error) {
	if err := v.exportsAndData(ctx, &h); err != nil {
		return h, err
	}
	err = v.listLog(ctx, "", func(o logObject) bool {
		h.log = append(h.log, o)
		return true
	})
	if err != nil {
		return h, err
	}
	if n := len(h.log); n > 0 {
		h.now = time.UnixMicro(h.log[n-1].modified)
	}
	return h, v.lookAgain(ctx, &h)
}

// expired lists what keep lets go, and no more of the log than is older than it
// has to be. newest is the first TXID of the newest log segment.
func (v *inventory) expired(ctx context.Context, keep Keep, newest uint64) (h holdings, err error) {
	found := uint64(0)
	err = v.listLog(ctx, segment.LogKey(newest-1), func(o logObject) bool {
		found, h.now = o.txid, time.UnixMicro(o.modified)
		return false
	})
	if err != nil {
		return h, err
	}
	if found != newest {
		return h, fmt.Errorf("replicate: %s was written and is not listed: %w", segment.LogKey(newest), errListed)
	}
	if err := v.exportsAndData(ctx, &h); err != nil {
		return h, err
	}
	if keep.Log != Forever {
		old, future := h.now.Add(-max(keep.Log, retainMargin)).UnixMicro(), h.now.Add(retainMargin).UnixMicro()
		enough := v.enough(&h)
		err = v.listLog(ctx, "", func(o logObject) bool {
			h.log = append(h.log, o)
			return o.claim() || (o.modified < old || o.modified > future && o.txid != newest) && !enough(o.txid)
		})
		if err != nil {
			return h, err
		}
	}
	return h, v.lookAgain(ctx, &h)
}

// enough returns what reports, told of each log segment but claims, whether so many
// were listed that the rest is for the next time. The last one counts as promised
// then. There is a snapshot behind the first, so that something goes.
func (v *inventory) enough(h *holdings) func(txid uint64) bool {
	most := v.most
	if most == 0 {
		most = expiredSegments
	}
	there := h.listed()
	n, first := 0, uint64(0)
	return func(txid uint64) bool {
		if n++; n == 1 {
			first = txid
		}
		return n >= most && slices.ContainsFunc(h.exports, func(x heldExport) bool {
			return x.kind == segment.KindSnapshot && first < x.max && x.max <= txid &&
				(x.data == "" || there[x.data]) && h.now.Sub(x.modified) > retainMargin
		})
	}
}

// listed has the keys of h.data.
func (h *holdings) listed() map[string]bool {
	there := make(map[string]bool, len(h.data))
	for _, o := range h.data {
		there[o.Key] = true
	}
	return there
}

func (v *inventory) listLog(ctx context.Context, after string, yield func(logObject) bool) error {
	for o, err := range v.line.store.List(ctx, segment.LogPrefix, after) {
		if err != nil {
			return fmt.Errorf("replicate: list %s: %w", segment.LogPrefix, err)
		}
		if txid, ok := segment.ParseLogKey(o.Key); ok && !yield(logObject{txid, o.Size, o.Modified.UnixMicro()}) {
			return nil
		}
	}
	return nil
}

// exportsAndData lists the descriptors, and only then the data objects.
func (v *inventory) exportsAndData(ctx context.Context, h *holdings) error {
	keys, err := listExports(ctx, v.line.store)
	if err != nil {
		return err
	}
	for o, err := range v.line.store.List(ctx, segment.DataPrefix, "") {
		if err != nil {
			return fmt.Errorf("replicate: list %s: %w", segment.DataPrefix, err)
		}
		if _, _, ok := segment.ParseDataKey(o.Key); ok {
			h.data = append(h.data, o)
		}
	}
	if h.exports, err = v.describe(ctx, keys); err != nil {
		return err
	}
	for k := range v.names { // those that are gone
		if !holds(keys, k) {
			delete(v.names, k)
		}
	}
	return v.findData(ctx, h, h.exports)
}

// findData looks for data objects of exports that the listing lacks: that it does is
// a reason to look, not to delete.
func (v *inventory) findData(ctx context.Context, h *holdings, exports []heldExport) error {
	there := h.listed()
	for _, x := range exports {
		if x.data == "" || there[x.data] {
			continue
		}
		o, err := v.find(ctx, x.data)
		if err != nil {
			return err
		}
		if o != nil {
			h.data = append(h.data, *o)
		}
	}
	return nil
}

// findLog does so for log segments that data objects are of.
func (v *inventory) findLog(ctx context.Context, h *holdings) error {
	looked := map[uint64]bool{}
	for _, d := range h.data {
		txid, _, _ := segment.ParseDataKey(d.Key)
		i := sort.Search(len(h.log), func(i int) bool { return h.log[i].txid >= txid })
		if txid == 0 || i == len(h.log) || h.log[i].txid == txid || looked[txid] || h.now.Sub(d.Modified) <= retainMargin {
			continue
		}
		looked[txid] = true
		o, err := v.find(ctx, segment.LogKey(txid))
		if err != nil {
			return err
		}
		if o != nil {
			h.log = slices.Insert(h.log, i, logObject{txid, o.Size, o.Modified.UnixMicro()})
		}
	}
	return nil
}

// find asks for an object that a listing lacks; nil: there is none.
func (v *inventory) find(ctx context.Context, key string) (*ObjectInfo, error) {
	body, o, err := v.line.store.Get(ctx, key, Range{Length: 1})
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("replicate: read %s: %w", key, err)
	}
	body.Close()
	o.Key = key
	return &o, nil
}

func holds(keys []exportKey, key string) bool {
	for _, k := range keys {
		if k.key() == key {
			return true
		}
	}
	return false
}

// lookAgain looks for the log segments of data that is about to go because there are
// none, and lists the descriptors once more if data is because none names it: one may
// have been published since.
func (v *inventory) lookAgain(ctx context.Context, h *holdings) error {
	if err := v.findLog(ctx, h); err != nil {
		return err
	}
	named := map[string]bool{}
	for _, x := range h.exports {
		named[x.data] = true
	}
	orphans := false
	for _, o := range h.data {
		txid, _, _ := segment.ParseDataKey(o.Key)
		orphans = orphans || txid == 0 && !named[o.Key] && h.now.Sub(o.Modified) > orphanAge
	}
	if !orphans {
		return nil
	}
	keys, err := listExports(ctx, v.line.store)
	if err != nil {
		return err
	}
	again, err := v.describe(ctx, keys)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, x := range h.exports {
		known[x.key()] = true
	}
	again = slices.DeleteFunc(again, func(x heldExport) bool { return known[x.key()] })
	h.exports = append(h.exports, again...)
	return v.findData(ctx, h, again)
}

// describe finds out the data objects of exports. Those that were deleted since
// they were listed are left out.
func (v *inventory) describe(ctx context.Context, keys []exportKey) ([]heldExport, error) {
	list := make([]heldExport, len(keys))
	gone := make([]bool, len(keys))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(historyRequests)
	for i, k := range keys {
		list[i].exportKey = k
		if d, ok := v.names[k.key()]; ok && d.modified.Equal(k.modified) {
			list[i].data = d.data
			continue
		}
		g.Go(func() (err error) {
			list[i].data, err = v.dataName(gctx, k)
			if gone[i] = errors.Is(err, objstore.ErrNotExist); gone[i] {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	n := 0
	for i, x := range list {
		if !gone[i] {
			v.names[x.key()] = described{x.modified, x.data}
			list[n] = x
			n++
		}
	}
	return list[:n], nil
}

// dataName reads what data object a descriptor names. The descriptor of one is
// small; of one that carries its blocks only the header is read.
func (v *inventory) dataName(ctx context.Context, k exportKey) (string, error) {
	key := k.key()
	if k.size > headerSize {
		h, err := v.line.header(ctx, key, k.kind)
		if err != nil || !h.External {
			return "", err
		}
	}
	b, err := fetch(ctx, v.line.store, key, segment.MaxInline)
	if err != nil {
		return "", err
	}
	o, err := segment.Parse(b)
	if err != nil {
		return "", badObject(key, b, err)
	}
	if err := v.line.check(key, o.Header, k.kind); err != nil {
		return "", err
	}
	if got := o.Header.Key(); got != key {
		return "", fmt.Errorf("replicate: %s says that it is %s: %w", key, got, ErrCorrupt)
	}
	if !o.Header.External {
		return "", nil
	}
	return o.DataKey(), nil
}
