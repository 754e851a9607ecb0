package replicate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// PruneOptions says what [Prune] deletes. Store is necessary.
type PruneOptions struct {
	Store Store
	// Keep says how long what is promised; what else there is goes. Its intervals
	// mean nothing here.
	Keep Keep
	// DryRun only says what would go.
	DryRun bool
	// Progress, if set, is called after each batch with the objects deleted so far.
	Progress func(objects int)
}

// PruneResult says what goes, and what stays and why.
type PruneResult struct {
	Replica  string    `json:"replica"`
	Database string    `json:"database"` // database ID
	Now      time.Time `json:"now"`      // of the newest log segment: ages count from there
	DryRun   bool      `json:"dry_run"`
	// Keep says for how long log, page segments and snapshots are kept: an hour at
	// least, since nothing younger is ever deleted.
	Keep    Keep           `json:"-"`
	Objects []PrunedObject `json:"objects"` // by key
	// Deleted counts what was deleted, which is less than what goes if Prune failed.
	Deleted      int   `json:"deleted"`
	DeletedBytes int64 `json:"deleted_bytes"`
}

// PrunedObject is what becomes of an object.
type PrunedObject struct {
	Key      string    `json:"key"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
	Goes     bool      `json:"goes"`
	Why      string    `json:"why"`
}

// Prune deletes of a replica what Keep doesn't promise, as engines do while they
// write. It may run beside writers, restores, and itself. Ages are those of objects
// at the time of the newest log segment, so nothing of a replica that nobody writes
// to gets too old.
//
// If it fails, the result says what was deleted until then.
func Prune(ctx context.Context, opts PruneOptions) (*PruneResult, error) {
	if err := opts.Keep.Check(); err != nil {
		return nil, err
	}
	info, err := retryValue(ctx, func() (*segment.ReplicaInfo, error) { return readRoot(ctx, opts.Store) })
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("replicate: %s: %w (there is no object %s)", opts.Store, ErrNoReplica, segment.InfoKey)
	}
	v := inventory{line: line{opts.Store, info.Database}, names: map[string]described{}}
	h, err := retryValue(ctx, func() (holdings, error) { return v.whole(ctx) })
	if err != nil {
		return nil, err
	}
	r := newRetention(h, opts.Keep)
	res := &PruneResult{Replica: opts.Store.String(), Database: info.Database.String(), Now: h.now.UTC(), DryRun: opts.DryRun, Keep: r.keep, Objects: r.list()}
	if opts.DryRun {
		return res, nil
	}
	return res, r.deletion().run(ctx, opts.Store, func(batch []ObjectInfo) {
		res.Deleted += len(batch)
		for _, o := range batch {
			res.DeletedBytes += o.Size
		}
		if opts.Progress != nil {
			opts.Progress(res.Deleted)
		}
	})
}

// list is the verdict on everything.
func (r *retention) list() (all []PrunedObject) {
	add := func(key string, size int64, modified time.Time, v verdict) {
		all = append(all, PrunedObject{key, size, modified.UTC(), v.goes, v.why})
	}
	for _, o := range r.h.log {
		add(segment.LogKey(o.txid), o.size, time.UnixMicro(o.modified), r.log(o))
	}
	for i, x := range r.h.exports {
		add(x.key(), x.size, x.modified, r.export(i))
	}
	for _, o := range r.h.data {
		add(o.Key, o.Size, o.Modified, r.dataObject(o))
	}
	slices.SortFunc(all, func(a, b PrunedObject) int { return strings.Compare(a.Key, b.Key) })
	return all
}
