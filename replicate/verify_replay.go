package replicate

import (
	"context"
	"slices"

	"github.com/outwash/outwash/internal/segment"
)

// replayer has the page hashes of the state after the log segment that was read
// last, as far as bases and log lead to it.
type replayer struct {
	im    *image
	at    uint64 // TXID of the segment that was read last
	valid bool   // im has the state after it
}

// before returns the hashes of the state that the segment follows; nil: nothing
// that is whole leads there.
func (r *replayer) before(ctx context.Context, v *verifier, h *segment.Header) (*image, error) {
	if r.valid && r.at == h.MinTXID-1 {
		return r.im, nil
	}
	r.valid = false
	if h.MinTXID == 1 {
		r.im = newImage(nil, h.PageSize)
		return r.im, nil
	}
	im, err := v.stateAt(ctx, h.MinTXID-1)
	r.im = im
	return im, err
}

// jump goes on with the state after txid, if there is a base that ends there.
func (r *replayer) jump(ctx context.Context, v *verifier, txid uint64) error {
	im, err := v.stateAt(ctx, txid)
	if err != nil || im == nil {
		return err
	}
	r.im, r.at, r.valid = im, txid, true
	return nil
}

// stateAt makes the state at txid of snapshot and page segments alone; nil: they
// don't lead there, or are damaged, which is known already.
func (v *verifier) stateAt(ctx context.Context, txid uint64) (*image, error) {
	base := chooseBase(v.list.exports, txid)
	if n := len(base); n == 0 || base[n-1].max != txid {
		return nil, nil
	}
	var at layers
	if err := at.load(ctx, v, base); err != nil || len(at.loaded) < len(base) {
		return nil, err
	}
	return at.im, nil
}

// layers are a snapshot and page segments that were put on one another.
type layers struct {
	im     *image
	loaded []exportKey
}

// below returns the hashes of the state that k is put on by a restore to it; nil: k
// is not what a restore to its TXID ends with, or what is below is damaged.
func (l *layers) below(ctx context.Context, v *verifier, k exportKey) (*image, error) {
	base := chooseBase(v.list.exports, k.max)
	n := len(base)
	if n == 0 || base[n-1].key() != k.key() {
		return nil, nil
	}
	if !sameExports(l.loaded, base[:n-1]) || l.im == nil {
		*l = layers{}
		if err := l.load(ctx, v, base[:n-1]); err != nil || len(l.loaded) < n-1 {
			*l = layers{}
			return nil, err
		}
	}
	if k.kind == segment.KindSnapshot || l.im == nil {
		*l = layers{im: newImage(nil, defaultPageSize)}
	}
	return l.im, nil
}

func sameExports(a, b []exportKey) bool {
	return slices.EqualFunc(a, b, func(x, y exportKey) bool { return x.key() == y.key() })
}

// load puts the layers of a base on one another, unless one of them is damaged.
func (l *layers) load(ctx context.Context, v *verifier, base []exportKey) error {
	damaged := func(k exportKey) bool {
		f := v.exports[k.key()]
		return f != nil && len(f.faults) > 0
	}
	if slices.ContainsFunc(base, damaged) { // nothing is read in vain
		return nil
	}
	for _, k := range base {
		got, err := v.openExport(ctx, k)
		if err != nil || got.fault != nil {
			return err
		}
		if k.kind == segment.KindSnapshot || l.im == nil {
			l.im = newImage(nil, got.o.Header.PageSize)
		}
		fault, err := v.records(ctx, got.o, l.im, use{})
		if err != nil || fault != nil {
			return err
		}
		l.loaded = append(l.loaded, k)
	}
	return nil
}
