package replicate

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// RestoreOptions says what to restore and where to. Store (or URL) and Output
// are necessary.
type RestoreOptions struct {
	Store Store
	URL   string // opened if Store is nil
	// Output is the database file to make. It is complete or absent: everything
	// is written to a temporary file beside it.
	// Its directory must be there, unless Parents makes it, with those above it.
	Output  string
	Parents bool
	// Database is the path of the database that Output is, or will be once it is
	// renamed, if the newest state is restored to go on from it; "": it is not. Beside
	// it is noted that this very file is the replica's end: so that it may extend the
	// replica as long as nobody else has, though it is changed before anything
	// replicates it. Of states that TXID or Timestamp select nothing is noted.
	Database string
	// TXID to restore; 0: the newest, or Timestamp's.
	TXID uint64
	// Timestamp selects the last commit at or before it; zero: the newest.
	Timestamp time.Time
	// Force replaces an existing database, with its -wal, -shm, -journal and
	// -replicated. No process may have it open.
	Force bool
	// DryRun finds out what would be restored and writes nothing.
	DryRun bool
	// Check, if set, is called with the finished file's temporary name before it
	// becomes Output: an error discards it. It may leave files whose names begin
	// with that name.
	Check func(path string) error
	// Progress, if set, is called from time to time, by one goroutine at a time.
	Progress func(Progress)
	// Parallelism is how many requests run at once, 1 to 64; 0: 8, or 64 where objects
	// are small.
	Parallelism int
	Logger      *slog.Logger // nil: none

	forget bool // nothing is held that can be read again; for tests
}

// limit is n, unless nothing is to be held.
func (o *RestoreOptions) limit(n int64) int64 {
	if o.forget {
		return 0
	}
	return n
}

// Progress of a restore.
type Progress struct {
	TXID       uint64 `json:"txid"`        // position reached; 0 while the snapshot is read
	TargetTXID uint64 `json:"target_txid"` // 0 while unknown
	Fetched    int64  `json:"fetched"`     // bytes read from the store
	Total      int64  `json:"total"`       // bytes to read, as far as known
	Pages      uint64 `json:"pages"`       // pages written
}

// RestoreResult says what was restored.
type RestoreResult struct {
	Database string    `json:"database"` // database ID
	Replica  string    `json:"replica"`
	Output   string    `json:"output"`
	TXID     uint64    `json:"txid"`
	Checksum string    `json:"checksum"` // hex
	Time     time.Time `json:"time"`     // of the last commit
	Snapshot uint64    `json:"snapshot"` // TXID of the snapshot begun with; 0: none
	// PageSegments is how many page segments were applied behind it, and Base the
	// TXID where the log took over from them; 0: it began with the log.
	PageSegments int    `json:"page_segments"`
	Base         uint64 `json:"base"`
	Latest       bool   `json:"latest"` // TXID is the replica's newest
	// Exact: this is the state that was asked for. Of a time within merged commits, or
	// further back than the log, it is false where there may have been later commits
	// before that time, which can't be restored one by one; Notes say so.
	Exact bool     `json:"exact"`
	Notes []string `json:"notes,omitempty"` // what people should know
	// Directory is the outermost of the directories that were made for Output.
	Directory string `json:"directory,omitempty"`
	Pages     uint64 `json:"pages"`
	PageSize  uint32 `json:"page_size"`
	Bytes     int64  `json:"bytes"` // size of the database
	// Fetched is how many bytes were read from the store, Objects from how many
	// objects, Requests with how many GET and LIST requests; a page of a listing
	// counts as 1000 keys. Of a dry run they say what a restore would take: the
	// objects and their sizes, and about how many requests.
	Fetched  int64   `json:"fetched"`
	Objects  int     `json:"objects"`
	Requests int     `json:"requests"`
	Duration float64 `json:"duration"` // seconds

	hashes []uint64
	tail   Tail
}

// Tail is the line up to the restored position. Its Chain is the chain value of
// the log segment that holds it, which may go on beyond it.
func (r *RestoreResult) Tail() Tail { return r.tail }

// PageHashes returns the hash of each page, page 1's first; the lock page's is 0.
func (r *RestoreResult) PageHashes() []uint64 { return r.hashes }

// Restore rebuilds a database. Everything read is verified: each object's bytes,
// the chain from object to object, each page, the checksum after each entry. If
// ctx ends or anything fails, there is no output and the temporary file is gone.
// Memory: 12 bytes a page and buffers; a database of 10 GB took 102 MiB in all.
//
// The TXID with which a snapshot or page segment ends is restored from those alone, so
// that it can be where the log of that time is gone. What is left of the log beside it
// is not compared: there may be holes in it, in which writers that had been asleep left
// something. [Verify] does compare it.
//
// The newest log segment being deleted can't be told from its never having been
// written; everything older can.
//
// Errors: [ErrNoReplica], [ErrNotRestorable], [ErrOutputExists], [ErrCorrupt],
// [ErrVersion], [ErrForeign], and those of stores.
func Restore(ctx context.Context, opts RestoreOptions) (RestoreResult, error) {
	began := time.Now()
	store := opts.Store
	if store == nil {
		var err error
		if store, err = OpenStore(ctx, opts.URL); err != nil {
			return RestoreResult{}, fmt.Errorf("replicate: %w", err)
		}
	}
	r := &restorer{opts: opts, store: &readingStore{Store: store}, log: opts.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.target = target{txid: opts.TXID}
	if !opts.Timestamp.IsZero() {
		if opts.TXID != 0 {
			return RestoreResult{}, fmt.Errorf("replicate: restore: a TXID and a timestamp: give one of them: %w", ErrConfig)
		}
		r.target.time = max(opts.Timestamp.UnixMicro(), 1)
	}
	err := r.run(ctx)
	if err != nil {
		return RestoreResult{}, err
	}
	res := r.result(store)
	res.Duration = time.Since(began).Seconds()
	return res, nil
}

// restorer is one restore.
type restorer struct {
	opts   RestoreOptions
	store  *readingStore
	log    *slog.Logger
	line   *line
	target target
	plan   plan
	aside  aside
	base   []*segment.Object // of the plan, without their data objects
	a      *applier
	latest bool
	// inexact and notes are what the result says of a time whose state isn't there.
	inexact  bool
	notes    []string
	made     []string // directories
	expected cost     // of a dry run
	meter    meter
}

func (r *restorer) run(ctx context.Context) (err error) {
	if !r.opts.DryRun {
		if err := checkOutput(r.opts.Output, r.opts.Force); err != nil && !(r.opts.Parents && absentDirectory(err)) {
			return err
		}
	}
	info, err := retryValue(ctx, func() (*segment.ReplicaInfo, error) { return readRoot(ctx, r.store) })
	if err != nil {
		return err
	}
	if info == nil {
		return fmt.Errorf("replicate: %s: %w (there is no object %s)", r.store, ErrNoReplica, segment.InfoKey)
	}
	r.line = &line{r.store, info.Database}
	r.meter = meter{report: r.opts.Progress, store: r.store}
	r.store.progress = r.meter.tick
	if r.opts.DryRun {
		return r.attempts(ctx, func() error { return r.dryRun(ctx) })
	}
	if r.opts.Parents {
		if err := r.makeParents(); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				r.removeParents()
			}
		}()
	}
	return output{r.opts.Output, r.opts.Force, r.leave}.with(func(f *os.File) error {
		if err := r.attempts(ctx, func() error { return r.rebuild(ctx, f) }); err != nil {
			return err
		}
		if err := f.Truncate(int64(r.a.im.commit) * int64(r.a.im.pageSize)); err != nil {
			return fmt.Errorf("replicate: %w %s: %w", errWrite, f.Name(), err)
		}
		if err := r.checkSpool(); err != nil {
			return err
		}
		if r.opts.Check == nil {
			return nil
		}
		if err := r.opts.Check(f.Name()); err != nil {
			return fmt.Errorf("replicate: the restored database failed its check: %w", err)
		}
		return nil
	})
}

// begin prepares for the plan to be carried out.
func (r *restorer) begin(f file) {
	r.a = &applier{line: r.line, im: newImage(f, defaultPageSize), target: r.target, tail: Tail{Database: r.line.database}}
	r.latest, r.inexact, r.notes = false, false, nil
	r.meter.im = r.a.im
	r.meter.pages.Store(0)
	r.meter.total.Store(r.store.fetched.Load())
}

// rebuild makes the database in f; nil: only its page hashes.
func (r *restorer) rebuild(ctx context.Context, f file) error {
	r.begin(f)
	if err := r.a.im.truncate(0); err != nil {
		return err
	}
	for _, k := range r.plan.logs {
		r.meter.total.Add(k.size)
	}
	if err := r.loadBase(ctx); err != nil {
		return err
	}
	if err := r.applyLogs(ctx); err != nil {
		return err
	}
	r.meter.at(r.a.tail.TXID, r.a.tail.TXID)
	r.meter.last = time.Time{}
	r.meter.tick()
	return r.checkReached(ctx)
}

// expect adds o's data object to what is to be read; of one of which nothing is applied
// the blocks are not.
func (r *restorer) expect(o *segment.Object) {
	if !o.Header.External {
		return
	}
	size := o.Root.Size
	if o.Header.MaxTXID <= r.a.tail.TXID {
		size = segment.DataHeaderSize
		for i := range o.Root.Frames {
			size += o.Root.Frames[i].Size()
		}
	}
	r.meter.total.Add(size)
}

// readBase gives the objects of the base to use, in order. r.base keeps them without
// what they carry.
func (r *restorer) readBase(ctx context.Context, use func(i int, o *segment.Object) error) error {
	r.base = nil
	for _, k := range r.plan.base {
		r.meter.total.Add(k.size)
	}
	return inOrder(ctx, ahead[*segment.Object]{
		n: len(r.plan.base), parallel: r.parallelism(),
		size:  func(i int) int64 { return r.plan.base[i].size },
		fetch: func(ctx context.Context, i int) (*segment.Object, error) { return r.readExport(ctx, r.plan.base[i]) },
	}, func(i int, o *segment.Object) error {
		bare := *o
		bare.Entries = nil
		r.base = append(r.base, &bare)
		return use(i, o)
	})
}

func (r *restorer) readExport(ctx context.Context, k exportKey) (*segment.Object, error) {
	o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.export(ctx, k) })
	return o, dataError(k.key(), err)
}

// applyLogs applies the planned segments and, if the line may go on, those that
// follow until there is none.
func (r *restorer) applyLogs(ctx context.Context) error {
	err := r.prefetch(ctx, r.plan.logs, func(o *segment.Object) error {
		r.expect(o)
		if err := r.a.segment(ctx, o); err != nil {
			return err
		}
		r.meter.at(r.a.tail.TXID, r.target.txid)
		return nil
	})
	if err != nil {
		return err
	}
	next := r.a.tail.TXID + 1
	if r.a.prev != nil {
		next = r.a.prev.MaxTXID + 1
	}
	if !r.a.reached && r.plan.next != 0 && r.plan.next != next {
		return missingLog(next, r.plan.next)
	}
	for r.plan.open && !r.a.reached {
		o, err := retryValue(ctx, func() (*segment.Object, error) { return r.line.next(ctx, next) })
		if err != nil {
			return err
		}
		if o == nil {
			return r.atEnd(next)
		}
		r.meter.total.Add(o.Size)
		r.expect(o)
		if err := r.a.segment(ctx, o); err != nil {
			return err
		}
		next = o.Header.MaxTXID + 1
	}
	return nil
}

// atEnd notes that there is no segment at next. That is the line's end only if
// the one before it is there: the newest segment is never deleted.
func (r *restorer) atEnd(next uint64) error {
	n := len(r.plan.base)
	switch {
	case r.a.prev != nil:
		r.latest = true
		return nil
	case n == 0 && len(r.plan.exports) > 0:
		return fmt.Errorf("replicate: %s is missing: %w", segment.LogKey(next), errGap)
	case n == 0:
		r.latest = true
		return nil
	}
	b := r.plan.base[n-1]
	return fmt.Errorf("replicate: the log behind %s is missing: neither the segment that ends with TXID %d nor %s is there, so it isn't known what followed (TXID %[2]d itself can be restored): %[4]w",
		b.key(), b.max, segment.LogKey(next), ErrCorrupt)
}

func (r *restorer) result(store Store) RestoreResult {
	t := r.a.tail
	res := RestoreResult{
		Database: r.line.database.String(), Replica: store.String(), Output: r.opts.Output,
		TXID: t.TXID, Checksum: fmt.Sprintf("%016x", t.Checksum), Time: timeOf(t.LastTime),
		Base: r.plan.at(), Latest: r.latest, Exact: !r.inexact, Notes: append(r.aside.notes, r.notes...),
		Pages: t.Commit, PageSize: t.PageSize, Bytes: int64(t.Commit) * int64(t.PageSize),
		Fetched: r.store.fetched.Load(), Objects: int(r.store.objects.Load()), Requests: int(r.store.requests.Load()),
		hashes: r.a.im.hashes, tail: t,
	}
	if len(r.made) > 0 {
		res.Directory = r.made[0]
	}
	if r.opts.DryRun {
		res.Fetched, res.Objects, res.Requests = r.expected.bytes, r.expected.objects, r.expected.requests
	}
	for _, k := range r.plan.base {
		if k.kind == segment.KindSnapshot {
			res.Snapshot = k.max
		} else {
			res.PageSegments++
		}
	}
	return res
}

func retryValue[T any](ctx context.Context, f func() (T, error)) (v T, err error) {
	err = retry(ctx, func() error {
		v, err = f()
		return err
	})
	return v, err
}
