package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// An inventory lists what retention decides about. It remembers what descriptors
// say, which never changes: a session reads each once.
type inventory struct {
	line  line
	names map[string]string // of data objects, "" for none, by the descriptor's key
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
		err = v.listLog(ctx, "", func(o logObject) bool {
			h.log = append(h.log, o)
			return o.claim() || o.modified < old || o.modified > future && o.txid != newest
		})
		if err != nil {
			return h, err
		}
	}
	return h, v.lookAgain(ctx, &h)
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
	there := map[string]bool{}
	for o, err := range v.line.store.List(ctx, segment.DataPrefix, "") {
		if err != nil {
			return fmt.Errorf("replicate: list %s: %w", segment.DataPrefix, err)
		}
		if _, _, ok := segment.ParseDataKey(o.Key); ok {
			h.data, there[o.Key] = append(h.data, o), true
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
	// That a listing lacks something is a reason to look, not to delete.
	for _, x := range h.exports {
		if x.data == "" || there[x.data] {
			continue
		}
		body, o, err := v.line.store.Get(ctx, x.data, Range{Length: 1})
		switch {
		case errors.Is(err, objstore.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("replicate: read %s: %w", x.data, err)
		}
		body.Close()
		o.Key = x.data
		h.data = append(h.data, o)
	}
	return nil
}

func holds(keys []exportKey, key string) bool {
	for _, k := range keys {
		if k.key() == key {
			return true
		}
	}
	return false
}

// lookAgain lists the descriptors once more if data is about to go because none
// names it: one may have been published since.
func (v *inventory) lookAgain(ctx context.Context, h *holdings) error {
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
	for _, x := range again {
		if !known[x.key()] { // so young that it stays in any case
			h.exports = append(h.exports, x)
		}
	}
	return nil
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
		if name, ok := v.names[k.key()]; ok {
			list[i].data = name
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
			v.names[x.key()] = x.data
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
