package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

const (
	// retainEvery is how often a session that writes looks for what can go.
	retainEvery = time.Hour
	// retainTime bounds it; what is left is for the next time.
	retainTime = 10 * time.Minute
	// deleteBatch is how many objects are deleted at once, what one request takes:
	// https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
	deleteBatch = 1000
)

// RetentionStatus says what a session has deleted of its replica's history.
type RetentionStatus struct {
	Last    time.Time `json:"last"` // when it was last looked; zero: never
	Objects int       `json:"objects"`
	Bytes   int64     `json:"bytes"`
	// Error is why what could go has stayed, "" if nothing has.
	Error  string `json:"error,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// A retainer deletes what a replica's history doesn't need any more.
type retainer struct {
	inventory
	keep Keep
	told bool // that it failed
}

// deletion is what goes, in the order in which it goes.
type deletion struct {
	orphans  []ObjectInfo // data that goes whatever becomes of the others
	segments []ObjectInfo // log segments, ascending; then page segments; then snapshots
	data     []ObjectInfo // of those
}

func (r *retention) deletion() (d deletion) {
	for _, o := range r.h.log {
		if r.log(o).goes {
			d.segments = append(d.segments, ObjectInfo{Key: segment.LogKey(o.txid), Size: o.size, Modified: time.UnixMicro(o.modified)})
		}
	}
	for _, kind := range []segment.Kind{segment.KindPages, segment.KindSnapshot} {
		for i, x := range r.h.exports {
			if x.kind == kind && r.export(i).goes {
				d.segments = append(d.segments, ObjectInfo{Key: x.key(), Size: x.size, Modified: x.modified})
			}
		}
	}
	going := map[string]bool{}
	for _, o := range d.segments {
		going[o.Key] = true
	}
	for _, o := range r.h.data {
		if !r.dataObject(o).goes {
			continue
		}
		txid, _, _ := segment.ParseDataKey(o.Key)
		if _, named := r.named[o.Key]; named || txid != 0 && going[segment.LogKey(txid)] {
			d.data = append(d.data, o)
		} else {
			d.orphans = append(d.orphans, o)
		}
	}
	return d
}

// run deletes. Orphans go first: who publishes what names one must not have done so
// for as long as retainMargin by then, and the rest can take hours. Other data goes
// once all that might name it is gone: what is left then, is for the next time. done
// is told of each batch.
func (d deletion) run(ctx context.Context, store Store, done func([]ObjectInfo)) error {
	orphans := deleteAll(ctx, store, d.orphans, done)
	failed := deleteAll(ctx, store, d.segments, done)
	if failed == nil {
		failed = deleteAll(ctx, store, d.data, done)
	}
	return errors.Join(failed, orphans)
}

// deleteAll goes on where single objects can't be deleted, because they are locked,
// say, and stops where the store doesn't answer.
func deleteAll(ctx context.Context, store Store, list []ObjectInfo, done func([]ObjectInfo)) error {
	var failed error
	for batch := range slices.Chunk(list, deleteBatch) {
		keys := make([]string, len(batch))
		for i, o := range batch {
			keys[i] = o.Key
		}
		err := store.Delete(ctx, keys...)
		if err == nil {
			done(batch)
			continue
		}
		if failed == nil {
			failed = fmt.Errorf("replicate: delete what needn't be kept any more: %w", err)
		}
		if ctx.Err() != nil || !errors.Is(err, ErrDenied) {
			return failed
		}
	}
	return failed
}

// retain deletes what Keep lets go. upkeep says when: once in an hour while there
// are commits, and after something was published. newest is the first TXID of a log
// segment, not a claim, that this session has just created: who could do that is not
// fenced, and the time of it is the store's. Failures end nothing: they are told
// once, and by the status. It returns the TXID of the newest export that is void; 0:
// none is.
func (e *Engine) retain(ctx context.Context, newest uint64) (void uint64) {
	r := &e.retainer
	if r.names == nil {
		r.line, r.names = line{e.opts.Store, e.databaseID()}, map[string]described{}
		r.keep = e.opts.Keep.withDefaults()
	}
	if r.keep.Log == Forever && r.keep.Pages == Forever && r.keep.Snapshots == Forever {
		return 0
	}
	now := e.clock.Now()
	objects, bytes := 0, int64(0)
	void, err := r.once(ctx, newest, func(batch []ObjectInfo) {
		objects += len(batch)
		for _, o := range batch {
			bytes += o.Size
		}
	})
	if ctx.Err() != nil {
		err = nil
	}
	e.mu.Lock()
	s := &e.status.Retention
	s.Last, s.Error, s.Remedy = now, "", ""
	s.Objects, s.Bytes = s.Objects+objects, s.Bytes+bytes
	e.opts.Counters.deleted.Add(uint64(objects))
	e.opts.Counters.deletedBytes.Add(uint64(bytes))
	if err != nil {
		s.Error, s.Remedy = err.Error(), retainRemedy(err)
	}
	e.mu.Unlock()
	switch {
	case err == nil:
		r.told = false
		if objects > 0 {
			e.log.Info("deleted what the history needs no more", "objects", objects, "bytes", bytes)
		}
	case !r.told:
		r.told = true
		e.log.Warn("what the history needs no more can't be deleted, replication goes on", "error", err, "remedy", retainRemedy(err))
	}
	return void
}

// databaseID is the replica's, for goroutines that e.end doesn't belong to.
func (e *Engine) databaseID() ID {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, _ := segment.ParseID(e.status.ID) // noteEnd has written it
	return id
}

// once deletes what goes, and returns what retain does.
func (r *retainer) once(ctx context.Context, newest uint64, done func([]ObjectInfo)) (void uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, retainTime)
	defer cancel()
	h, err := r.expired(ctx, r.keep, newest)
	if err != nil {
		return 0, err
	}
	ret := newRetention(h, r.keep)
	for i, x := range h.exports {
		if ret.void[i] {
			void = max(void, x.max)
		}
	}
	return void, ret.deletion().run(ctx, r.line.store, done)
}

func retainRemedy(err error) string {
	if errors.Is(err, ErrDenied) {
		return "permit s3:DeleteObject (outwash policy has all that a replica needs), or keep everything: keep forever"
	}
	if errors.Is(err, ErrUnreachable) || remedy(err) == "" {
		return "none needed: it is tried again in an hour"
	}
	return remedy(err)
}
