package replicate

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/segment"
)

// TestWriteSnapshotBeside: a writer goes on while the snapshot is uploaded, and
// somebody else writes the same one.
func TestWriteSnapshotBeside(t *testing.T) {
	mc := newMachine(t, NewMemStore(), 6)
	p := mc.open()
	mc.change(2, 200)
	txid := p.sync(t)
	was := mc.m.cur
	s := &snapStore{Store: mc.store, upload: func(string) error {
		mc.change(3, 50)
		p.sync(t)
		return nil
	}}
	r, err := snapshotNow(t, s)
	if err != nil || !r.Written || r.TXID != txid || r.Checksum != fmt.Sprintf("%016x", was.sum) {
		t.Fatalf("%+v, %v; expected TXID %d", r, err, txid)
	}
	if res := mc.checkNewest(); res.Snapshot != txid {
		t.Errorf("restored from %d", res.Snapshot)
	}
	txid = p.sync(t)
	p.close(t)
	s.upload = func(string) error {
		s.upload = nil
		mc.mustSnapshot(txid)
		return nil
	}
	if r, err = snapshotNow(t, s); err != nil || r.Written || r.TXID != txid {
		t.Errorf("somebody was faster: %+v, %v", r, err)
	}
	mc.checkNewest()
}

// TestWriteSnapshotInline: a program wrote the same snapshot meanwhile, as one object.
func TestWriteSnapshotInline(t *testing.T) {
	mc, txid := written(t, 10, 1, 1, 3)
	end := mc.end()
	m := fileImage{f: bytes.NewReader(mc.m.cur.image()), pageSize: end.PageSize}
	for i, page := range mc.m.cur.pages {
		m.hashes = append(m.hashes, segment.PageHash(uint64(i)+1, page))
	}
	b, err := m.block(segment.NewBlockEncoder(), 1, end.Commit)
	if err != nil {
		t.Fatal(err)
	}
	e := snapshotEntry(&segment.Entry{Commit: end.Commit, Post: end.Checksum, LastMono: end.LastTime, LastRaw: end.LastTime, WAL: end.WAL}, txid)
	e.Blocks, e.Body = []segment.Block{b.b}, segment.BytesBody(b.stored)
	object, _, err := segment.Encode(segment.Header{
		Kind: segment.KindSnapshot, PageSize: end.PageSize, Database: end.Database, Session: segment.NewID(), MinTXID: 1, PrevChain: end.Chain,
	}, []*segment.Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	s := &snapStore{Store: mc.store, upload: func(string) error {
		put(t, mc.store, segment.SnapshotKey(txid, end.Checksum), object)
		return nil
	}}
	for range 2 { // while it is written, and before
		if r, err := snapshotNow(t, s); err != nil || r.Written || r.TXID != txid {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if res := mc.checkNewest(); res.Snapshot != txid {
		t.Errorf("restored from %d", res.Snapshot)
	}
}

// TestWriteSnapshotRetired: what was to be read is deleted while it is read, since a
// newer snapshot made it superfluous.
func TestWriteSnapshotRetired(t *testing.T) {
	for _, trigger := range []string{segment.DataPrefix, segment.LogPrefix, segment.SnapshotPrefix} {
		mc := newMachine(t, NewMemStore(), 9)
		p := mc.open()
		mc.change(2, 100)
		mc.mustSnapshot(p.sync(t))
		old := append(keys(t, mc.store, segment.SnapshotPrefix), keys(t, mc.store, segment.DataPrefix)...)
		for range 5 {
			mc.change(2, 30)
			p.sync(t)
		}
		was := keys(t, mc.store, segment.LogPrefix)
		var once sync.Once
		written := 0
		s := &snapStore{Store: mc.store, create: func(key string) error {
			if key != segment.InfoKey {
				written++
			}
			return nil
		}}
		probed := false
		inner := s.create
		s.create = func(key string) error {
			probed = true // what follows is the restore
			return inner(key)
		}
		s.get = func(key string) {
			if !probed || !strings.HasPrefix(key, trigger) {
				return
			}
			once.Do(func() {
				mc.change(2, 100)
				mc.mustSnapshot(p.sync(t))
				for _, k := range append(old, was[1:]...) {
					if err := mc.store.Delete(t.Context(), k); err != nil {
						t.Error(err)
					}
				}
			})
		}
		r, err := snapshotNow(t, s)
		if err != nil || r.Checksum != fmt.Sprintf("%016x", mc.m.cur.sum) || r.Written || written+int(r.Uploaded) != 0 {
			t.Errorf("%s: %+v, %v; expected the newest state, of which there is a snapshot", trigger, r, err)
		}
		mc.checkNewest()
		p.close(t)
	}
}
