package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// listing is what there is.
type listing struct {
	logs    []ObjectInfo
	exports []exportKey
	data    map[string]ObjectInfo
	odd     []ObjectInfo // under the replica's prefixes, with keys that Outwash doesn't write
	bytes   int64
}

// listAll lists objects before those that they name: what is written meanwhile
// names nothing that the listing lacks.
func (v *verifier) listAll(ctx context.Context) (l listing, err error) {
	l.data = map[string]ObjectInfo{}
	for _, prefix := range []string{segment.SnapshotPrefix, segment.PagesPrefix, segment.LogPrefix, segment.DataPrefix} {
		for o, err := range v.store.List(ctx, prefix, "") {
			if err != nil {
				return l, fmt.Errorf("replicate: list %s: %w", prefix, err)
			}
			if k, ok := parseExport(o); ok {
				l.exports = append(l.exports, k)
			} else if _, ok := segment.ParseLogKey(o.Key); ok {
				l.logs = append(l.logs, o)
			} else if _, _, ok := segment.ParseDataKey(o.Key); ok {
				l.data[o.Key] = o
			} else {
				l.odd = append(l.odd, o)
				continue
			}
			l.bytes += o.Size
		}
	}
	return l, nil
}

// A fault is what is wrong with one object.
type fault struct {
	kind FindingKind
	key  string
	what string
}

// faultOf makes a fault of an error that is about what was read; any other error is
// returned.
func faultOf(key string, err error) (*fault, error) {
	f := &fault{FindingDamaged, key, plain(err)}
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		f.kind, f.what = FindingMissing, "it is not there"
	case errors.Is(err, ErrVersion):
		f.kind = FindingNewer
	case errors.Is(err, ErrForeign):
		f.kind = FindingForeign
	case errors.Is(err, ErrCorrupt):
	default:
		return nil, err
	}
	return f, nil
}

// logFact is what is known of a log segment.
type logFact struct {
	txid      uint64
	size      int64
	modified  time.Time
	h         *segment.Header // nil: it can't be read
	chain     segment.Hash
	needsBase bool
	data      string // key of its data object
	dataSize  int64
	blocks    int64
	faults    []*fault // the segment's, or its data object's
	// wrong is what is wrong with it on top of the state before: known by who had that
	// state. was is what was found when it was looked at the last time.
	wrong *fault
	was   *logFact
}

func (f *logFact) claim() bool { return f.size == segment.ClaimSize }

// exportFact is what is known of a snapshot or page segment.
type exportFact struct {
	exportKey
	h        *segment.Header
	data     string
	dataSize int64
	blocks   int64
	faults   []*fault
}

// look lists the replica, forgets what is gone, and reads what is not known, or not
// known to be good.
func (v *verifier) look(ctx context.Context) error {
	list, err := retryValue(ctx, func() (listing, error) { return v.listAll(ctx) })
	if err != nil {
		return err
	}
	v.list = list
	logs, exports := map[uint64]*logFact{}, map[string]*exportFact{}
	var newLogs []*logFact
	var newExports []*exportFact
	for _, o := range list.logs {
		txid, _ := segment.ParseLogKey(o.Key)
		f := v.logs[txid]
		if f == nil || len(f.faults) > 0 {
			if f != nil {
				f.was = nil
			}
			f = &logFact{txid: txid, size: o.Size, modified: o.Modified, was: f}
			newLogs = append(newLogs, f)
			v.meter.total.Add(o.Size)
		}
		logs[txid] = f
	}
	for _, k := range list.exports {
		f := v.exports[k.key()]
		if f == nil || len(f.faults) > 0 {
			f = &exportFact{exportKey: k}
			newExports = append(newExports, f)
			v.meter.total.Add(k.size)
		}
		exports[k.key()] = f
	}
	if v.opts.ReadData && v.logs != nil && len(v.logs) == 0 {
		for _, o := range list.data {
			v.meter.total.Add(o.Size)
		}
	}
	v.logs, v.exports = logs, exports
	if err := v.readExports(ctx, newExports); err != nil {
		return err
	}
	return v.readLogs(ctx, newLogs)
}

// fetched is an object, or what is wrong with it.
type fetched struct {
	o     *segment.Object
	fault *fault
}

// open reads a segment, and the header of its data object.
func (v *verifier) open(ctx context.Context, key string, read func() (*segment.Object, error)) (got fetched, err error) {
	if got.o, err = retryValue(ctx, read); err != nil {
		got.o = nil
		got.fault, err = faultOf(key, err)
		return got, err
	}
	if got.o.Header.External {
		if err := checkDataHeader(ctx, v.store, got.o); err != nil {
			got.fault, err = faultOf(got.o.DataKey(), err)
			return got, err
		}
	}
	return got, nil
}

func (v *verifier) readLogs(ctx context.Context, facts []*logFact) error {
	return inOrder(ctx, ahead[fetched]{
		n: len(facts), parallel: v.opts.Parallelism,
		size: func(i int) int64 { return facts[i].size },
		fetch: func(ctx context.Context, i int) (fetched, error) {
			return v.open(ctx, segment.LogKey(facts[i].txid), func() (*segment.Object, error) { return v.line.log(ctx, facts[i].txid) })
		},
	}, func(i int, got fetched) error {
		f := facts[i]
		if got.fault != nil {
			f.faults = append(f.faults, got.fault)
		}
		if got.o == nil {
			return nil
		}
		f.note(got.o)
		if got.fault != nil {
			return nil
		}
		return v.applyLog(ctx, f, got.o)
	})
}

func (f *logFact) note(o *segment.Object) {
	f.h, f.chain = o.Header, o.Chain
	f.h.Owner, f.h.Extensions = nil, nil
	f.needsBase = len(o.Entries) == 1 && o.Entries[0].NeedsBase
	if o.Header.External {
		f.data, f.dataSize = o.DataKey(), o.Root.Size
	}
}

// applyLog reads the index of a log segment, and puts it on the state that the one
// before has left, if that is known.
func (v *verifier) applyLog(ctx context.Context, f *logFact, o *segment.Object) error {
	r := &v.replay
	if r.valid && f.txid <= r.at {
		r = &replayer{} // it is read once more; the state at the line's end is kept
	}
	im, err := r.before(ctx, v, o.Header)
	if err != nil {
		return err
	}
	fault, err := v.records(ctx, o, im, use{blocks: &f.blocks, entry: func(e *segment.Entry) { v.db.note(e.Post, e.Commit, e.MaxTXID) }})
	if err != nil {
		return err
	}
	switch {
	case im != nil && fault != nil && fault.key == o.Header.Key():
		f.wrong = fault
	case im == nil && fault == nil && f.was != nil && f.was.chain == f.chain:
		fault = f.was.wrong // the state before is no longer at hand
		f.wrong = fault
	}
	r.valid = im != nil && fault == nil && !f.needsBase
	if fault != nil {
		f.faults = append(f.faults, fault)
		return nil
	}
	r.at = o.Header.MaxTXID
	if !r.valid {
		return r.jump(ctx, v, o.Header.MaxTXID)
	}
	return nil
}

func (v *verifier) openExport(ctx context.Context, k exportKey) (fetched, error) {
	return v.open(ctx, k.key(), func() (*segment.Object, error) { return v.line.export(ctx, k) })
}

// readExports reads snapshots and page segments, and makes the state of each of
// those that a restore to it begins with.
func (v *verifier) readExports(ctx context.Context, facts []*exportFact) error {
	slices.SortStableFunc(facts, func(a, b *exportFact) int {
		switch {
		case a.max < b.max:
			return -1
		case a.max > b.max:
			return 1
		}
		return 0
	})
	var at layers
	return inOrder(ctx, ahead[fetched]{
		n: len(facts), parallel: v.opts.Parallelism,
		size:  func(i int) int64 { return facts[i].size },
		fetch: func(ctx context.Context, i int) (fetched, error) { return v.openExport(ctx, facts[i].exportKey) },
	}, func(i int, got fetched) error {
		f := facts[i]
		if got.fault != nil {
			f.faults = append(f.faults, got.fault)
		}
		if got.o == nil {
			return nil
		}
		f.h = got.o.Header
		f.h.Owner, f.h.Extensions = nil, nil
		if f.h.External {
			f.data, f.dataSize = got.o.DataKey(), got.o.Root.Size
		}
		if got.fault != nil {
			return nil
		}
		v.db.note(f.h.Post, f.h.Commit, f.h.MaxTXID)
		im, err := at.below(ctx, v, f.exportKey)
		if err != nil {
			return err
		}
		fault, err := v.records(ctx, got.o, im, use{blocks: &f.blocks})
		if err != nil {
			return err
		}
		if fault != nil {
			f.faults = append(f.faults, fault)
			at = layers{}
		} else if im != nil {
			at.loaded = append(at.loaded, f.exportKey)
		}
		return nil
	})
}

// use says what records does besides.
type use struct {
	entry  func(*segment.Entry) // nil: nothing
	blocks *int64               // counts those of the data object; nil: nothing is read of them
}

// records reads all of a segment's index. im, unless it is nil, gets the hashes of
// its pages, and each entry's checksum is compared. Blocks are read as ReadData says.
func (v *verifier) records(ctx context.Context, o *segment.Object, im *image, u use) (*fault, error) {
	key := o.Header.Key()
	put := func(e *segment.Entry, bs []*segment.Block) error {
		if u.entry != nil {
			u.entry(e)
		}
		if im == nil || e.NeedsBase {
			return nil
		}
		if e.Commit > maxPages {
			return tooManyPages(fmt.Sprintf("TXID %d", e.MaxTXID), e.Commit)
		}
		if err := im.begin(o.Header.PageSize, e, slices.Values(bs)); err != nil {
			return err
		}
		for _, b := range bs {
			im.note(b)
		}
		return im.endEntry(e)
	}
	if !o.Header.External {
		for _, e := range o.Entries {
			bs := make([]*segment.Block, len(e.Blocks))
			for i := range e.Blocks {
				bs[i] = &e.Blocks[i]
			}
			err := put(e, bs)
			if err == nil && v.opts.ReadData && u.blocks != nil {
				err = decodeInline(e, o.Header.PageSize)
			}
			if err != nil {
				return faultOf(key, err)
			}
		}
		return nil, nil
	}
	var open []*segment.Block // those whose entry is to come
	var wrong *fault
	dec := o.Frames()
	err := inOrder(ctx, ahead[[]byte]{
		n: len(o.Root.Frames), parallel: v.opts.Parallelism,
		size:  func(i int) int64 { return o.Root.Frames[i].Size() },
		fetch: func(ctx context.Context, i int) ([]byte, error) { return fetchFrame(ctx, v.store, o, i) },
	}, func(_ int, frame []byte) error {
		recs, err := dec.Next(frame)
		if err != nil {
			return err
		}
		var here []*segment.Block
		for _, rec := range recs {
			if rec.Block != nil {
				open, here = append(open, rec.Block), append(here, rec.Block)
				continue
			}
			if err := put(rec.Entry, open); err != nil {
				wrong, err = faultOf(key, err)
				return errors.Join(errReached, err)
			}
			open = open[:0]
		}
		if u.blocks == nil {
			return nil
		}
		*u.blocks += int64(len(here))
		return v.readBlocks(ctx, o, here)
	})
	if wrong == nil && err == nil {
		err = dec.Close()
	}
	if wrong != nil || err == nil {
		return wrong, nil
	}
	return faultOf(o.DataKey(), err)
}
