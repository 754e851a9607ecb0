package killtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// retain does what retention does, at its strictest: it makes the newest state a
// base and deletes what lies below it, but never a claim and never the newest
// segment. Nobody may write meanwhile.
func retain(t *testing.T, store replicate.Store, dir string) {
	t.Helper()
	fatal := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatalf("retain: %v", err)
		}
	}
	var all []replicate.ObjectInfo
	for info, err := range store.List(t.Context(), segment.LogPrefix, "") {
		fatal(err)
		all = append(all, info)
	}
	if len(all) == 0 {
		return
	}
	newest := all[len(all)-1]
	tail, err := segment.Parse(read(t, store, newest.Key))
	fatal(err)
	out := filepath.Join(dir, "base.db")
	os.Remove(out)
	res, err := replicate.Restore(t.Context(), replicate.RestoreOptions{Store: store, Output: out})
	if errors.Is(err, replicate.ErrNotRestorable) { // claims alone
		return
	}
	fatal(err)
	h := tail.Header
	if res.TXID != h.MaxTXID {
		t.Fatalf("retain: restored TXID %d, the line ends at %d", res.TXID, h.MaxTXID)
	}
	image, err := os.ReadFile(out)
	fatal(err)
	e := &segment.Entry{
		Kind: segment.Snapshot, PageSize: h.PageSize, Count: h.MaxTXID, Commit: h.Commit, MinCommit: h.Commit, Post: h.Post,
		FirstMono: h.LastMono, LastMono: h.LastMono, FirstRaw: h.LastMono, LastRaw: h.LastMono, WAL: h.WAL,
	}
	enc := segment.NewBlockEncoder()
	var body []byte
	for no := uint64(1); no <= h.Commit; no++ {
		page := image[(no-1)*uint64(h.PageSize):][:h.PageSize]
		stored, codec, base := enc.Encode(nil, page, nil)
		e.Blocks = append(e.Blocks, segment.Block{
			Codec: codec, Base: base, Stored: uint32(len(stored)), Pages: []segment.Page{{No: no, Hash: segment.PageHash(no, page)}},
		})
		body = append(body, stored...)
	}
	e.Body = segment.BytesBody(body)
	object, _, err := segment.Encode(segment.Header{
		Kind: segment.KindSnapshot, PageSize: h.PageSize, Database: h.Database, Session: h.Session, MinTXID: 1, PrevChain: tail.Chain,
	}, []*segment.Entry{e})
	fatal(err)
	if err := store.Create(t.Context(), segment.SnapshotKey(h.MaxTXID, h.Post), object); !errors.Is(err, replicate.ErrExist) {
		fatal(err)
	}
	for _, info := range all[:len(all)-1] {
		if info.Size != segment.ClaimSize {
			fatal(store.Delete(t.Context(), info.Key))
		}
	}
}

func read(t *testing.T, store replicate.Store, key string) []byte {
	t.Helper()
	body, _, err := store.Get(t.Context(), key, replicate.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
