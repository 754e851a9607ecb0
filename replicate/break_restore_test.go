package replicate

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// The log is gone (a lifecycle rule, say) and the snapshot is not: what followed
// it is unknown, which is no reason to call it the newest state.
func TestSnapshotWithoutLog(t *testing.T) {
	mc := replica(t)
	store := clone(t, mc.store)
	store.Delete(t.Context(), keys(t, store, segment.LogPrefix)...)
	for name, change := range map[string]func(*RestoreOptions){
		"newest":  func(*RestoreOptions) {},
		"dry run": func(o *RestoreOptions) { o.DryRun = true },
		"by time": func(o *RestoreOptions) { o.Timestamp = time.Now().Add(time.Hour) },
	} {
		out := filepath.Join(t.TempDir(), "out")
		opts := RestoreOptions{Store: store, Output: out}
		change(&opts)
		if _, err := Restore(within(t), opts); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), segment.LogKey(3)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	res, _, err := restoreTo(t, store, func(o *RestoreOptions) { o.TXID = 2 })
	if err != nil || res.Latest {
		t.Errorf("the snapshot's own TXID: %v, newest: %v", err, res.Latest)
	}

	// Nobody begins a second line below the snapshots of the first.
	b := newMachine(t, store, 5)
	b.m.commit()
	p := b.open()
	if err := p.wait(t); !errors.Is(err, ErrCorrupt) {
		t.Errorf("opened: %v", err)
	}
	p.kill()
	if n := len(keys(t, store, segment.LogPrefix)); n != 0 {
		t.Errorf("%d log segments were written", n)
	}
}

// A snapshot ends where its log segment does, so that it tells the next key.
func TestSnapshotWithinSegment(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 3)
	p := mc.open()
	mc.m.mu.Lock()
	for range 3 {
		mc.m.commitN(1, 3)
	}
	mc.m.mu.Unlock()
	p.sync(t)
	p.close(t)
	segs := walk(t, mc.store)
	o := segs[len(segs)-1]
	if len(o.Entries) < 2 {
		t.Fatalf("%d entries", len(o.Entries))
	}
	for i, e := range o.Entries {
		snap := &segment.Object{Header: &segment.Header{Kind: segment.KindSnapshot, MinTXID: 1, MaxTXID: e.MaxTXID, Post: e.Post, Commit: e.Commit, PrevChain: o.Chain}}
		a := &applier{base: snap, tail: Tail{TXID: e.MaxTXID}}
		if err := a.joins(o); errors.Is(err, ErrCorrupt) != (i < len(o.Entries)-1) {
			t.Errorf("at TXID %d of %d: %v", e.MaxTXID, o.Header.MaxTXID, err)
		}
	}
}

// Few bytes can claim to be a database of petabytes; that is an error, not a
// request for memory.
func TestHugeCommitSize(t *testing.T) {
	for _, kind := range []segment.Kind{segment.KindSnapshot, segment.KindLog} {
		mc := replica(t)
		segs := walk(t, mc.store)
		last := segs[len(segs)-1]
		h := segment.Header{Kind: kind, PageSize: 512, Database: last.Header.Database, Session: last.Header.Session, PrevChain: last.Chain}
		e := &segment.Entry{Count: 1, Commit: 1 << 50, MinCommit: 1 << 50, Post: 7, FirstMono: 1 << 60, LastMono: 1 << 60, FirstRaw: 1 << 60, LastRaw: 1 << 60}
		var key string
		if kind == segment.KindSnapshot {
			e.Kind, e.Count, h.MinTXID = segment.Snapshot, last.Header.MaxTXID, 1
			key = segment.SnapshotKey(last.Header.MaxTXID, e.Post)
		} else {
			e.Kind, h.MinTXID = segment.Transaction, last.Header.MaxTXID+1
			e.Pre, e.PreCommit = last.Header.Post, last.Header.Commit
			key = segment.LogKey(h.MinTXID)
		}
		b, _, err := segment.Encode(h, []*segment.Entry{e})
		if err != nil {
			t.Fatal(err)
		}
		put(t, mc.store, key, b)
		if _, _, err := restoreTo(t, mc.store); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), key) {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

// A database that nobody else may read is not readable after it was restored.
func TestForceKeepsMode(t *testing.T) {
	mc := replica(t)
	out := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(out, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(within(t), RestoreOptions{Store: mc.store, Output: out, Force: true, Check: func(path string) error {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("while it is made: %v, %v", fi.Mode(), err)
		}
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(out); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", fi.Mode(), err)
	}
}

// A writer's clock was years ahead for one commit. Which of the commits since
// then lie before a time can't be told, so none is taken for the answer.
func TestClockWasAhead(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	p := mc.open()
	var before uint64
	for _, year := range []int{2024, 2025, 2027, 2040, 2028, 2029} {
		mc.m.mu.Lock()
		mc.m.now = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
		mc.m.commitN(1, 3)
		mc.m.mu.Unlock()
		if txid := p.sync(t); year == 2025 {
			before = txid
		}
	}
	p.close(t)
	at := func(year int) func(*RestoreOptions) {
		return func(o *RestoreOptions) { o.Timestamp = time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC) }
	}
	if res, _, err := restoreTo(t, mc.store, at(2025)); err != nil || res.TXID != before {
		t.Errorf("before the jump: TXID %d, %v; expected %d", res.TXID, err, before)
	}
	for _, year := range []int{2028, 2030} {
		if res, _, err := restoreTo(t, mc.store, at(year)); !errors.Is(err, ErrNotRestorable) || !strings.Contains(err.Error(), "clock") {
			t.Errorf("%d: TXID %d, %v", year, res.TXID, err)
		}
	}
	if res, _, err := restoreTo(t, mc.store, at(2041)); err != nil || !res.Latest {
		t.Errorf("after all: TXID %d, %v", res.TXID, err)
	}
}

type hintStore struct {
	Store
	hints []int64
}

func (s *hintStore) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	s.hints = append(s.hints, objstore.SizeHint(ctx))
	return s.Store.Upload(ctx, key, r)
}

// The store is told how large a data object can become: S3 cuts an upload into
// 10,000 parts at most.
func TestUploadsHaveSizeHint(t *testing.T) {
	store := &hintStore{Store: objstore.NewMem()}
	mc := newMachine(t, store, 21)
	grown(mc.m, 300)
	mc.m.notOurs = true
	size := int64(len(mc.m.cur.image()))
	p := mc.open(func(o *EngineOptions) { o.small, o.inline = 1, 1<<10 })
	mc.m.commit()
	p.sync(t)
	mc.m.notOurs = false
	mc.m.mu.Lock()
	large(mc.m, 200)
	mc.m.mu.Unlock()
	p.sync(t)
	p.close(t)
	if len(store.hints) < 2 || store.hints[0] < size || store.hints[1] < 200*512 {
		t.Fatal(store.hints)
	}
}
