package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// Follow applies all entries of a replica's log, from the first TXID on, and calls
// each (which may be nil) after each of them, with the mirror at it. So it sees
// every state that can be restored, without any code of the restore. It returns the
// newest TXID.
func (m *Mirror) Follow(ctx context.Context, store objstore.Store, each func(e *segment.Entry, m *Mirror) error) (txid uint64, err error) {
	for {
		b, err := read(ctx, store, segment.LogKey(txid+1))
		if errors.Is(err, objstore.ErrNotExist) {
			return txid, nil
		}
		if err != nil {
			return txid, err
		}
		o, err := segment.Parse(b)
		if err != nil {
			return txid, fmt.Errorf("mirror: %s: %w", segment.LogKey(txid+1), err)
		}
		if o.Header.MinTXID != txid+1 {
			return txid, fmt.Errorf("mirror: %s begins with %d", segment.LogKey(txid+1), o.Header.MinTXID)
		}
		entries, err := entries(ctx, store, o)
		if err != nil {
			return txid, err
		}
		for _, e := range entries {
			e.Pre, e.PreCommit = m.end()
			if err := m.follow(ctx, store, e); err != nil {
				return txid, fmt.Errorf("mirror: TXID %d to %d: %w", e.MinTXID, e.MaxTXID, err)
			}
			if each != nil {
				if err := each(e, m); err != nil {
					return txid, fmt.Errorf("mirror: TXID %d to %d: %w", e.MinTXID, e.MaxTXID, err)
				}
			}
		}
		if sum, commit := m.end(); sum != o.Header.Post || commit != o.Header.Commit {
			return txid, fmt.Errorf("mirror: %s leads to %016x/%d, says %016x/%d", o.Header.Key(), sum, commit, o.Header.Post, o.Header.Commit)
		}
		txid = o.Header.MaxTXID
	}
}

func (m *Mirror) end() (sum, commit uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sum, uint64(len(m.pages))
}

// follow applies an entry; one without pages names the state of a snapshot.
func (m *Mirror) follow(ctx context.Context, store objstore.Store, e *segment.Entry) error {
	if !e.NeedsBase {
		return m.Apply(e)
	}
	key := segment.SnapshotKey(e.MaxTXID, e.Post)
	b, err := read(ctx, store, key)
	if err != nil {
		return err
	}
	o, err := segment.Parse(b)
	if err != nil {
		return fmt.Errorf("mirror: %s: %w", key, err)
	}
	snapshot, err := entries(ctx, store, o)
	if err != nil {
		return err
	}
	image := make([]byte, int(e.Commit)*int(o.Header.PageSize))
	for _, s := range snapshot {
		var off int64
		for i := range s.Blocks {
			stored := make([]byte, s.Blocks[i].Stored)
			if _, err := s.Body.ReadAt(stored, off); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			off += int64(len(stored))
			plain, err := m.dec.Decode(nil, &s.Blocks[i], stored, o.Header.PageSize, nil)
			if err != nil {
				return fmt.Errorf("mirror: %s: %w", key, err)
			}
			for j, p := range s.Blocks[i].Pages {
				copy(image[int(p.No-1)*int(o.Header.PageSize):], plain[j*int(o.Header.PageSize):][:o.Header.PageSize])
			}
		}
	}
	m.Load(image, int(o.Header.PageSize))
	if sum, _ := m.end(); sum != e.Post {
		return fmt.Errorf("mirror: %s has the state %016x, not %016x", key, sum, e.Post)
	}
	return nil
}

// entries returns a segment's entries with their pages, wherever these are.
func entries(ctx context.Context, store objstore.Store, o *segment.Object) ([]*segment.Entry, error) {
	all := o.Entries
	if o.Header.External {
		data, err := read(ctx, store, o.DataKey())
		if err != nil {
			return nil, err
		}
		dec := o.Frames()
		e := &segment.Entry{}
		var body []byte
		for i := range o.Root.Frames {
			f := &o.Root.Frames[i]
			records, err := dec.Next(data[f.Offset : f.Offset+f.Size()])
			if err != nil {
				return nil, fmt.Errorf("mirror: %s: %w", o.DataKey(), err)
			}
			for _, r := range records {
				if b := r.Block; b != nil {
					e.Blocks = append(e.Blocks, *b)
					body = append(body, data[b.Offset:b.Offset+int64(b.Stored)]...)
					continue
				}
				r.Entry.Blocks, r.Entry.Body = e.Blocks, segment.BytesBody(body)
				all = append(all, r.Entry)
				e, body = &segment.Entry{}, nil
			}
		}
		if err := dec.Close(); err != nil {
			return nil, fmt.Errorf("mirror: %s: %w", o.DataKey(), err)
		}
	}
	for _, e := range all {
		e.PageSize = o.Header.PageSize
	}
	return all, nil
}

func read(ctx context.Context, store objstore.Store, key string) ([]byte, error) {
	body, _, err := store.Get(ctx, key, objstore.Range{})
	if err != nil {
		return nil, fmt.Errorf("mirror: %s: %w", key, err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("mirror: %s: %w", key, err)
	}
	return b, nil
}
