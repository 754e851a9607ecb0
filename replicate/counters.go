package replicate

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// Counters make [Figures]. The zero value counts from zero. Who opens one engine
// after another for a database gives them the same Counters, so that the figures go
// on; methods are safe for concurrent use and allocate nothing.
type Counters struct {
	commits                                            atomic.Uint64
	transactions, merges, repairs, adopts, claims      atomic.Uint64
	retries, restores, fences, snapshots, pageSegments atomic.Uint64
	deleted, deletedBytes                              atomic.Uint64

	store [operations]operationCounters
}

type operationCounters struct {
	count, errors, sent, received atomic.Uint64
	nanoseconds                   atomic.Int64
	latency                       [latencyBounds + 1]atomic.Uint64
}

// Figures returns what was counted so far.
func (c *Counters) Figures() Figures {
	f := Figures{
		Commits: c.commits.Load(),
		Entries: EntryFigures{
			Transactions: c.transactions.Load(), Merges: c.merges.Load(), Repairs: c.repairs.Load(),
			Adopts: c.adopts.Load(), Claims: c.claims.Load(),
		},
		Retries: c.retries.Load(), Restores: c.restores.Load(), Fences: c.fences.Load(),
		Snapshots: c.snapshots.Load(), PageSegments: c.pageSegments.Load(),
		Deleted: c.deleted.Load(), DeletedBytes: c.deletedBytes.Load(),
	}
	for op := range operations {
		from, to := &c.store[op], f.Store.of(op)
		to.Count, to.Errors = from.count.Load(), from.errors.Load()
		to.Sent, to.Received = from.sent.Load(), from.received.Load()
		to.Seconds = time.Duration(from.nanoseconds.Load()).Seconds()
		for i := range from.latency {
			to.Latency[i] = from.latency[i].Load()
		}
	}
	return f
}

// acknowledged counts entries that are in the replica.
func (c *Counters) acknowledged(entries ...*segment.Entry) {
	for _, e := range entries {
		switch e.Kind {
		case segment.Transaction:
			c.transactions.Add(1)
			c.commits.Add(e.Count)
		case segment.Merge:
			c.merges.Add(1)
			c.commits.Add(e.Count)
		case segment.Repair:
			c.repairs.Add(1)
		case segment.Adopt:
			c.adopts.Add(1)
		}
	}
}

// exported counts a snapshot or page segment.
func (c *Counters) exported(kind segment.Kind) {
	if kind == segment.KindSnapshot {
		c.snapshots.Add(1)
	} else {
		c.pageSegments.Add(1)
	}
}

// Store returns store, with what is asked of it counted.
func (c *Counters) Store(store Store) Store { return countedStore{store, c} }

type countedStore struct {
	Store
	counters *Counters
}

// begin counts an operation; end is called with how it ended.
func (s countedStore) begin(op operation) pendingOperation {
	return pendingOperation{&s.counters.store[op], time.Now()}
}

type pendingOperation struct {
	*operationCounters
	began time.Time
}

func (p pendingOperation) end(err error) {
	p.took(time.Since(p.began))
	p.failed(err)
}

func (o *operationCounters) took(d time.Duration) {
	o.count.Add(1)
	o.nanoseconds.Add(int64(d))
	bounds := LatencyBounds()
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	o.latency[i].Add(1)
}

// failed counts err, if it is one.
func (o *operationCounters) failed(err error) {
	switch {
	case err == nil, errors.Is(err, objstore.ErrExist), errors.Is(err, objstore.ErrNotExist), errors.Is(err, context.Canceled):
	default:
		o.errors.Add(1)
	}
}

// Create implements Store.
func (s countedStore) Create(ctx context.Context, key string, data []byte) error {
	p := s.begin(opCreate)
	err := s.Store.Create(ctx, key, data)
	p.end(err)
	if err == nil {
		p.sent.Add(uint64(len(data)))
	}
	return err
}

// Put implements Store.
func (s countedStore) Put(ctx context.Context, key string, data []byte) error {
	p := s.begin(opPut)
	err := s.Store.Put(ctx, key, data)
	p.end(err)
	if err == nil {
		p.sent.Add(uint64(len(data)))
	}
	return err
}

// Upload implements Store.
func (s countedStore) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	p := s.begin(opUpload)
	n, err := s.Store.Upload(ctx, key, countedReader{r, &p.sent})
	p.end(err)
	return n, err
}

// countedReader shows how far a long upload is.
type countedReader struct {
	io.Reader
	n *atomic.Uint64
}

func (r countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(uint64(n))
	return n, err
}

// Get implements Store.
func (s countedStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	op := opGetRange
	if r.Offset == 0 && r.Length == 0 {
		op = opGet
	}
	p := s.begin(op)
	body, info, err := s.Store.Get(ctx, key, r)
	p.end(err)
	if err != nil {
		return nil, info, err
	}
	return &countedBody{ReadCloser: body, op: p.operationCounters}, info, nil
}

type countedBody struct {
	io.ReadCloser
	op   *operationCounters
	told bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.op.received.Add(uint64(n))
	if err != nil && err != io.EOF && !b.told {
		b.told = true
		b.op.failed(err)
	}
	return n, err
}

// List implements Store.
func (s countedStore) List(ctx context.Context, prefix, after string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		p := s.begin(opList)
		answered := false
		for info, err := range s.Store.List(ctx, prefix, after) {
			if !answered {
				answered = true
				p.end(err)
			} else {
				p.failed(err)
			}
			if !yield(info, err) {
				return
			}
		}
		if !answered {
			p.end(nil)
		}
	}
}

// Delete implements Store.
func (s countedStore) Delete(ctx context.Context, keys ...string) error {
	p := s.begin(opDelete)
	err := s.Store.Delete(ctx, keys...)
	p.end(err)
	return err
}
