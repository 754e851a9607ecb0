package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// uploadData streams what write gives, most bytes at most, to a new data object; of
// the log segment at txid, or, if that is 0, of an export.
func (e *Engine) uploadData(ctx context.Context, h segment.DataHeader, txid uint64, most int64, write func(*segment.DataWriter) error) (*segment.Root, int64, error) {
	h.Name, h.Database, h.Session = segment.NewID(), e.end.Database, e.session
	return uploadData(ctx, e.opts.Store, h, txid, most, write)
}

// uploadData is the same without an engine.
func uploadData(ctx context.Context, store Store, h segment.DataHeader, txid uint64, most int64, write func(*segment.DataWriter) error) (*segment.Root, int64, error) {
	key := segment.DataKey(h.Name)
	if txid != 0 {
		key = segment.LogDataKey(txid, h.Name)
	}
	pr, pw := io.Pipe()
	g, ctx := errgroup.WithContext(objstore.WithSizeHint(ctx, most))
	var size int64
	var uploadErr error
	g.Go(func() error {
		size, uploadErr = store.Upload(ctx, key, pr)
		pr.CloseWithError(errors.Join(errPipe, uploadErr))
		return uploadErr
	})
	var root *segment.Root
	dw := segment.NewDataWriter(pw, h)
	err := write(dw)
	if err == nil {
		root, err = dw.Close()
	}
	pw.CloseWithError(err)
	g.Wait() // the error is uploadErr
	if uploadErr != nil && (err == nil || errors.Is(err, errPipe)) {
		return nil, 0, fmt.Errorf("replicate: upload %s: %w", key, uploadErr)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("replicate: write %s: %w", key, err)
	}
	if size != root.Size {
		return nil, 0, fmt.Errorf("replicate: %s: the store took %d bytes of %d", key, size, root.Size)
	}
	return root, size, nil
}

// errPipe marks errors that only say that the upload has failed.
var errPipe = errors.New("upload ended")

// spill uploads the blocks of entries that are too large for the log. Until the
// log names the data object, another attempt can use another one.
func (e *Engine) spill(ctx context.Context, h segment.Header, entries []*segment.Entry) (root *segment.Root, size int64, err error) {
	if err := e.failpoint("data-before"); err != nil {
		return nil, 0, err
	}
	most := int64(1 << 20)
	for _, en := range entries {
		most += en.BodySize()
		for i := range en.Blocks {
			most += 64 + 20*int64(len(en.Blocks[i].Pages)) // its index
		}
	}
	err = e.persist(ctx, "upload large entries", StateReplicating, func(ctx context.Context) error {
		root, size, err = e.uploadData(ctx, segment.DataHeader{Kind: segment.KindLog, PageSize: h.PageSize}, h.MinTXID, most, func(dw *segment.DataWriter) error {
			for _, en := range entries {
				if err := writeEntry(dw, en); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return root, size, e.failpoint("data-after")
}

func writeEntry(dw *segment.DataWriter, en *segment.Entry) error {
	var off int64
	var stored []byte
	for _, b := range en.Blocks {
		stored = grow(stored, int(b.Stored))
		if n, err := readAt(en.Body, stored, off); err != nil {
			return fmt.Errorf("replicate: read captured entry at %d (%d of %d bytes): %w", off, n, len(stored), err)
		}
		if err := dw.WriteBlock(b, stored); err != nil {
			return err
		}
		off += int64(b.Stored)
	}
	return dw.EndEntry(en)
}

// readAt fills p: some readers report the end together with the last bytes.
func readAt(r io.ReaderAt, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// grow returns a slice of length n, b's memory if that suffices.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// firstContact takes over a database with content: a claim, so that a second
// writer is found out before much is uploaded; pages to a data object; an adopt
// entry that says which state they make; the snapshot that names both. After a
// crash in between the next open does it again.
func (e *Engine) firstContact(ctx context.Context) error {
	var (
		adopt, snap *segment.Entry
		root        *segment.Root
		size        int64
	)
	if err := e.claim(ctx, e.exportPageSize); err != nil {
		return err
	}
	if err := e.failpoint("export-before"); err != nil {
		return err
	}
	h := segment.DataHeader{Kind: segment.KindSnapshot, PageSize: e.exportPageSize}
	err := e.persist(ctx, "write the first snapshot", StateExporting, func(ctx context.Context) (err error) {
		end, err := e.turn(ctx)
		if err != nil {
			return err
		}
		defer end()
		// Pages that change meanwhile are copied again.
		root, size, err = e.uploadData(ctx, h, 0, 1<<20+2*e.exportSize, func(dw *segment.DataWriter) error {
			if adopt, err = e.opts.Source.Export(ctx, e.end.Tail, dw.WriteBlock); err != nil {
				return err
			}
			adopt.LiftTimes(e.end.LastTime)
			snap = snapshotEntry(adopt, e.end.TXID+1)
			return dw.EndEntry(snap)
		})
		return err
	})
	if err != nil {
		return err
	}
	if err := e.failpoint("export-after"); err != nil {
		return err
	}
	if err := e.adopt(ctx, adopt); err != nil {
		return err
	}
	return e.publish(ctx, snap, root, size)
}

// snapshotEntry is what the snapshot of the state after en, which becomes txid,
// says.
func snapshotEntry(en *segment.Entry, txid uint64) *segment.Entry {
	return &segment.Entry{
		Kind: segment.Snapshot, Count: txid,
		Commit: en.Commit, MinCommit: en.Commit, Post: en.Post,
		FirstMono: en.LastMono, LastMono: en.LastMono, FirstRaw: en.LastRaw, LastRaw: en.LastRaw, WAL: en.WAL,
	}
}

// adopt puts the adopt entry alone into a log segment.
func (e *Engine) adopt(ctx context.Context, adopt *segment.Entry) error {
	adopt.PageSize, adopt.NeedsBase, adopt.Count = e.exportPageSize, true, 1
	adopt.Pre, adopt.PreCommit = e.end.Checksum, e.end.Commit
	h := segment.Header{
		Kind: segment.KindLog, PageSize: adopt.PageSize, Database: e.end.Database, Session: e.session,
		MinTXID: e.end.TXID + 1, PrevChain: e.end.Chain,
	}
	f := &frozen{key: segment.LogKey(h.MinTXID)}
	var err error
	if f.object, f.chain, err = segment.Encode(h, []*segment.Entry{adopt}); err != nil {
		return fmt.Errorf("replicate: %s: encode the adopt entry: %w", e.opts.Database, err)
	}
	e.secure(adopt.WAL)
	if err := e.failpoint("adopt-before"); err != nil {
		return err
	}
	theirs, err := e.createLog(ctx, f)
	if err != nil {
		return err
	}
	if theirs != nil {
		return e.fencedBy(ctx, f.key, theirs)
	}
	if err := e.failpoint("adopt-after"); err != nil {
		return err
	}
	o, err := segment.Parse(f.object)
	if err != nil {
		return fmt.Errorf("replicate: %s, just written: %w", f.key, err)
	}
	e.end.advance(o)
	e.opts.Counters.acknowledged(adopt)
	e.history.acknowledged([]*segment.Entry{adopt}, e.end, e.proof.since)
	e.proof.reached = true
	e.noteEnd(1, o.Size)
	return e.noteLineage()
}

// publish creates the snapshot at the line's end.
func (e *Engine) publish(ctx context.Context, snap *segment.Entry, root *segment.Root, size int64) error {
	object, _, err := segment.EncodeExternal(segment.Header{
		Kind: segment.KindSnapshot, PageSize: e.end.PageSize, Database: e.end.Database, Session: e.session,
		MinTXID: 1, PrevChain: e.end.Chain,
	}, []*segment.Entry{snap}, root)
	if err != nil {
		return fmt.Errorf("replicate: %s: encode the snapshot: %w", e.opts.Database, err)
	}
	if err := e.failpoint("snapshot-before"); err != nil {
		return err
	}
	key := segment.SnapshotKey(e.end.TXID, e.end.Checksum)
	err = e.create(ctx, key, object)
	if errors.Is(err, objstore.ErrExist) {
		// A lost reply: the key names the state, so whichever snapshot it is will do.
		err = e.persist(ctx, "read "+key, StateExporting, func(ctx context.Context) error {
			l := line{e.opts.Store, e.end.Database}
			o, err := l.snapshot(ctx, snapshotKey{txid: e.end.TXID, sum: e.end.Checksum})
			if err == nil && o.Header.PrevChain != e.end.Chain {
				err = fmt.Errorf("replicate: %s is of another line: %w", key, ErrCorrupt)
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	e.end.needsBase = false
	e.history.published(pointOf(segment.KindSnapshot, &e.end, e.clock.Now()))
	e.noteEnd(0, size+int64(len(object)))
	e.opts.Counters.exported(segment.KindSnapshot)
	return e.failpoint("snapshot-after")
}
