package replicate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// SnapshotOptions says of what [WriteSnapshot] writes a snapshot.
type SnapshotOptions struct {
	Store Store // necessary
	// TempDir is where the database is rebuilt, "": the system's directory for that.
	// It needs as much room as the database.
	TempDir string
	// Parallelism is how many requests run at once, 1 to 64; 0: 8.
	Parallelism int
	// Progress, if set, is called from time to time, by one goroutine at a time: of
	// reading with bytes read from the store, of writing with bytes of the database.
	Progress func(writing bool, done, total int64)
}

// SnapshotResult says which snapshot there is now.
type SnapshotResult struct {
	Database string    `json:"database"` // database ID
	Replica  string    `json:"replica"`
	Written  bool      `json:"written"` // by this call; else it was there already
	Key      string    `json:"key"`     // the snapshot's; "": the replica has no content
	TXID     uint64    `json:"txid"`    // of the snapshot
	Newest   uint64    `json:"newest"`  // TXID of the replica; beyond TXID there are only claims
	Checksum string    `json:"checksum"`
	Time     time.Time `json:"time"` // of the last commit
	Pages    uint64    `json:"pages"`
	PageSize uint32    `json:"page_size"`
	Bytes    int64     `json:"bytes"`    // size of the database
	Fetched  int64     `json:"fetched"`  // bytes read from the store
	Uploaded int64     `json:"uploaded"` // bytes written to it
	Duration float64   `json:"duration"` // seconds
}

// WriteSnapshot writes a snapshot of a replica's newest state, as an engine does from
// time to time, from what is in the store alone: for databases whose program doesn't
// run. It may run beside a writer, because a state that is in the log never changes;
// what is written is the state at the end of the log as it was read. If there is a
// snapshot of that already, nothing is written.
//
// The database is rebuilt in TempDir, in a directory that nobody else can enter. The
// snapshot is proven page by page against the hashes that the replica has of them.
//
// Errors are those of [Restore] and of stores.
func WriteSnapshot(ctx context.Context, opts SnapshotOptions) (SnapshotResult, error) {
	began := time.Now()
	w := snapshotWriter{opts: opts}
	err := w.run(ctx)
	if err != nil {
		return SnapshotResult{}, err
	}
	w.res.Duration = time.Since(began).Seconds()
	return w.res, nil
}

type snapshotWriter struct {
	opts  SnapshotOptions
	store *guard
	res   SnapshotResult
}

func (w *snapshotWriter) run(ctx context.Context) error {
	reads := &readingStore{Store: w.opts.Store}
	info, err := retryValue(ctx, func() (*segment.ReplicaInfo, error) { return readRoot(ctx, reads) })
	if err != nil {
		return err
	}
	if info == nil {
		return fmt.Errorf("replicate: %s: %w (there is no object %s)", w.opts.Store, ErrNoReplica, segment.InfoKey)
	}
	w.res = SnapshotResult{Database: info.Database.String(), Replica: w.opts.Store.String()}
	l := &line{reads, info.Database}
	done, err := retryValue(ctx, func() (bool, error) { return w.upToDate(ctx, l) })
	w.res.Fetched = reads.fetched.Load()
	if done || err != nil {
		return err
	}
	// Who may not write hears of it now, not after everything was read.
	w.store = &guard{Store: w.opts.Store, missing: func(conditions) {}}
	err = retry(ctx, func() error {
		stale, err := w.store.probe(ctx, info.Database)
		return errors.Join(stale, err)
	})
	if err != nil {
		return fmt.Errorf("replicate: write a snapshot: %w", err)
	}
	dir, err := os.MkdirTemp(w.opts.TempDir, "outwash-snapshot-") // mode 0700
	if err != nil {
		return fmt.Errorf("replicate: write a snapshot: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "database")
	r, err := Restore(ctx, RestoreOptions{
		Store: w.opts.Store, Output: file, Parallelism: w.opts.Parallelism,
		Progress: func(p Progress) { w.progress(false, p.Fetched, p.Total) },
	})
	if err != nil {
		return err
	}
	w.res.Fetched += r.Fetched
	return w.publish(ctx, file, &r)
}

func (w *snapshotWriter) progress(writing bool, done, total int64) {
	if w.opts.Progress != nil {
		w.opts.Progress(writing, done, total)
	}
}

// upToDate reports whether nothing is to be written: the replica has no content, or
// behind the newest snapshot there are only claims.
func (w *snapshotWriter) upToDate(ctx context.Context, l *line) (bool, error) {
	end, err := l.end(ctx, 0)
	if err != nil {
		return false, err
	}
	if end.needsBase {
		return false, nil // the restore says what is missing
	}
	w.res.TXID, w.res.Newest = end.TXID, end.TXID
	if end.Commit == 0 {
		return true, nil
	}
	snaps, err := listSnapshots(ctx, l.store)
	if err != nil || len(snaps) == 0 {
		return false, err
	}
	s := snaps[len(snaps)-1]
	if s.sum != end.Checksum || s.txid > end.TXID {
		return false, nil
	}
	for log, err := range l.store.List(ctx, segment.LogPrefix, segment.LogKey(s.txid)) {
		if err != nil {
			return false, fmt.Errorf("replicate: list %s: %w", segment.LogPrefix, err)
		}
		if txid, ok := segment.ParseLogKey(log.Key); ok && txid <= end.TXID && log.Size != segment.ClaimSize {
			return false, nil
		}
	}
	// It counts only if it is whole: its data may have been deleted.
	key := segment.SnapshotKey(s.txid, s.sum)
	o, err := l.snapshot(ctx, s)
	if err == nil && o.Header.External {
		err = checkDataHeader(ctx, l.store, o)
	}
	switch {
	case (errors.Is(err, objstore.ErrNotExist) || isVerdict(err)) && s.txid < end.TXID:
		return false, nil // there is a free key for another one
	case err != nil:
		return false, fmt.Errorf("replicate: %s, of the newest state, can't be used: delete it, then write another one: %w", key, err)
	}
	h := o.Header
	w.res.Key, w.res.TXID = key, s.txid
	w.describe(h.Post, h.Commit, h.PageSize, h.LastMono)
	return true, nil
}

func (w *snapshotWriter) describe(sum, commit uint64, pageSize uint32, last int64) {
	w.res.Checksum, w.res.Time = fmt.Sprintf("%016x", sum), timeOf(last)
	w.res.Pages, w.res.PageSize, w.res.Bytes = commit, pageSize, int64(commit)*int64(pageSize)
}

// publish uploads the database in file, and creates the snapshot that names it.
func (w *snapshotWriter) publish(ctx context.Context, file string, r *RestoreResult) error {
	t := r.Tail()
	if !r.Latest || t.Commit == 0 {
		return fmt.Errorf("replicate: write a snapshot: TXID %d is not the replica's newest state: %w", t.TXID, ErrNotRestorable)
	}
	w.res.Key, w.res.TXID, w.res.Newest = segment.SnapshotKey(t.TXID, t.Checksum), t.TXID, t.TXID
	w.describe(t.Checksum, t.Commit, t.PageSize, t.LastTime)
	// A program that goes on writing may have written it meanwhile.
	if err := w.existing(ctx, &t, nil); !errors.Is(err, objstore.ErrNotExist) {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("replicate: write a snapshot: %w", err)
	}
	defer f.Close()
	// The clock's own time of the last commit isn't in the tail.
	entry := snapshotEntry(&segment.Entry{Commit: t.Commit, Post: t.Checksum, LastMono: t.LastTime, LastRaw: t.LastTime, WAL: t.WAL}, t.TXID)
	h := segment.Header{
		Kind: segment.KindSnapshot, PageSize: t.PageSize, Database: t.Database, Session: segment.NewID(),
		MinTXID: 1, PrevChain: t.Chain,
	}
	var root *segment.Root
	var size int64
	err = retry(ctx, func() error {
		image := fileImage{f: f, pageSize: t.PageSize, hashes: r.PageHashes(), wrote: func(done int64) { w.progress(true, done, r.Bytes) }}
		d := segment.DataHeader{Kind: h.Kind, PageSize: h.PageSize, Name: segment.NewID(), Database: h.Database, Session: h.Session}
		root, size, err = uploadData(ctx, w.store, d, 0, 1<<20+r.Bytes+r.Bytes/50, func(dw *segment.DataWriter) error {
			if err := image.write(ctx, dw, t.Checksum); err != nil {
				return err
			}
			return dw.EndEntry(entry)
		})
		return err
	})
	if err != nil {
		return err
	}
	object, _, err := segment.EncodeExternal(h, []*segment.Entry{entry}, root)
	if err != nil {
		return fmt.Errorf("replicate: encode the snapshot: %w", err)
	}
	w.res.Uploaded = size
	err = retry(ctx, func() error { return w.store.Create(ctx, w.res.Key, object) })
	switch {
	case errors.Is(err, objstore.ErrExist):
		// Somebody else was faster, or a reply was lost: the key names the state. If it
		// isn't ours, what was uploaded has no meaning, and retention sweeps it.
		return w.existing(ctx, &t, root)
	case err != nil:
		return err
	}
	w.res.Written, w.res.Uploaded = true, size+int64(len(object))
	return nil
}

// existing checks the snapshot that has the key; root is what was uploaded for one.
func (w *snapshotWriter) existing(ctx context.Context, t *Tail, root *segment.Root) error {
	l := &line{w.store, t.Database}
	o, err := retryValue(ctx, func() (*segment.Object, error) {
		return l.snapshot(ctx, snapshotKey{txid: t.TXID, sum: t.Checksum})
	})
	if err == nil && o.Header.PrevChain != t.Chain {
		err = fmt.Errorf("replicate: %s is of another line: %w", w.res.Key, ErrCorrupt)
	}
	if err == nil {
		w.res.Written = root != nil && o.Header.External && o.Root.Data == root.Data
	}
	return err
}
