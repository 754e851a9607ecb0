package replicate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// A retainStore is a store with a clock that notes what is asked of it, and denies
// deletions.
type retainStore struct {
	*objstore.Mem
	now     time.Time
	mu      sync.Mutex // asked
	asked   []string   // "list log/", "get …", "delete N"
	listed  int        // objects that listings gave
	deleted []string
	locked  func(key string) bool // its deletion is denied
	hidden  func(key string) bool // listings lack it
}

func newRetainStore() *retainStore {
	s := &retainStore{now: time.Unix(1_700_000_000, 0)}
	s.Mem = objstore.NewMemAt(func() time.Time { return s.now })
	return s
}

func (s *retainStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	s.mu.Lock()
	s.asked = append(s.asked, "get "+key)
	s.mu.Unlock()
	return s.Mem.Get(ctx, key, r)
}

func (s *retainStore) List(ctx context.Context, prefix, after string) iter.Seq2[ObjectInfo, error] {
	s.asked = append(s.asked, "list "+prefix)
	return func(yield func(ObjectInfo, error) bool) {
		for o, err := range s.Mem.List(ctx, prefix, after) {
			if err == nil && s.hidden != nil && s.hidden(o.Key) {
				continue
			}
			s.listed++
			if !yield(o, err) {
				return
			}
		}
	}
}

func (s *retainStore) Delete(ctx context.Context, keys ...string) error {
	s.asked = append(s.asked, fmt.Sprintf("delete %d", len(keys)))
	var denied error
	for _, k := range keys {
		if s.locked != nil && s.locked(k) {
			denied = fmt.Errorf("test: delete %s: %w", k, ErrDenied)
			continue
		}
		s.deleted = append(s.deleted, k)
		if err := s.Mem.Delete(ctx, k); err != nil {
			return err
		}
	}
	return denied
}

// take returns what was asked since the last call, gets without their keys.
func (s *retainStore) take() (asked []string) {
	asked, s.asked, s.deleted, s.listed = s.asked, nil, nil, 0
	slices.Sort(asked)
	return asked
}

func (s *retainStore) put(t *testing.T, key string, n int) {
	t.Helper()
	if err := s.Create(t.Context(), key, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// logs writes one log object a second, whose first TXIDs are from up to to.
func (s *retainStore) logs(t *testing.T, from, to uint64) {
	t.Helper()
	for txid := from; txid <= to; txid++ {
		s.now = s.now.Add(time.Second)
		s.put(t, segment.LogKey(txid), 300)
	}
}

var retainDatabase = segment.ID{1}

// export writes a small snapshot (min 0) or page segment, and returns the keys of
// its descriptor and its data object.
func (s *retainStore) export(t *testing.T, min, max uint64, external bool) (key, data string) {
	t.Helper()
	h := segment.Header{Kind: segment.KindPages, PageSize: 512, Database: retainDatabase, Session: segment.ID{2}, MinTXID: min, PrevChain: segment.Hash{1}}
	page := bytes.Repeat([]byte{1}, 512)
	sum := segment.PageHash(1, page)
	e := &segment.Entry{Kind: segment.Pages, PageSize: 512, Count: max - min + 1, Commit: 1, MinCommit: 1, Pre: 5, PreCommit: 1, Post: sum, FirstMono: 1, LastMono: 2}
	if min == 0 {
		h.Kind, h.MinTXID = segment.KindSnapshot, 1
		e.Kind, e.Count, e.Pre, e.PreCommit = segment.Snapshot, max, 0, 0
	} else if min == 1 {
		e.Pre, e.PreCommit = 0, 0
	}
	enc := segment.NewBlockEncoder()
	stored, codec, base := enc.Encode(nil, page, nil)
	b := segment.Block{Codec: codec, Base: base, Stored: uint32(len(stored)), Pages: []segment.Page{{No: 1, Hash: sum}}}
	var object []byte
	var err error
	if !external {
		e.Blocks, e.Body = []segment.Block{b}, segment.BytesBody(stored)
		object, _, err = segment.Encode(h, []*segment.Entry{e})
	} else {
		name := segment.NewID()
		data = segment.DataKey(name)
		var buf bytes.Buffer
		w := segment.NewDataWriter(&buf, segment.DataHeader{Kind: h.Kind, PageSize: 512, Name: name, Database: h.Database, Session: h.Session})
		if err := w.WriteBlock(b, stored); err != nil {
			t.Fatal(err)
		}
		if err := w.EndEntry(e); err != nil {
			t.Fatal(err)
		}
		root, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), data, buf.Bytes()); err != nil {
			t.Fatal(err)
		}
		object, _, err = segment.EncodeExternal(h, []*segment.Entry{e}, root)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if h.Kind == segment.KindSnapshot {
		key = segment.SnapshotKey(max, sum)
	} else {
		key = segment.PagesKey(min, max, sum)
	}
	if err := s.Create(t.Context(), key, object); err != nil {
		t.Fatal(err)
	}
	return key, data
}

// retainEngine has as much of an engine as retention needs.
func retainEngine(s *retainStore, keep Keep) (*Engine, *bytes.Buffer) {
	var log bytes.Buffer
	e := &Engine{opts: EngineOptions{Store: s, Keep: keep, Counters: new(Counters)}, clock: newAutoClock(), log: slog.New(slog.NewTextHandler(&log, nil))}
	e.status.ID = retainDatabase.String()
	return e, &log
}

func (s *retainStore) keys(t *testing.T) (all []string) { return keys(t, s.Mem, "") }

// What expired goes, in order and by the thousand, and only what is needed is asked
// for.
func TestRetain(t *testing.T) {
	s := newRetainStore()
	s.put(t, segment.InfoKey, 10)
	s.put(t, "log/notes.txt", 10)
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 500)
	s.put(t, segment.LogDataKey(300, segment.ID{9}), 5000)
	s.logs(t, 501, 2600)
	snap, snapData := s.export(t, 0, 2600, true)
	s.put(t, segment.LogKey(2601), segment.ClaimSize)
	orphan := segment.DataKey(segment.ID{7})
	s.put(t, orphan, 100)
	s.now = s.now.Add(25 * time.Hour)
	s.logs(t, 2602, 2700)
	pages, pagesData := s.export(t, 2601, 2700, true)
	s.logs(t, 2701, 2800)

	e, _ := retainEngine(s, Keep{})
	s.take()
	before := s.keys(t)
	e.retain(t.Context(), 2800)
	want := []string{orphan, snap, pages, snapData, pagesData, segment.InfoKey, "log/notes.txt", segment.LogKey(1)}
	want = slices.DeleteFunc(want, func(k string) bool { return k == orphan })
	for txid := uint64(2600); txid <= 2800; txid++ {
		want = append(want, segment.LogKey(txid))
	}
	slices.Sort(want)
	if got := s.keys(t); !slices.Equal(got, want) {
		t.Errorf("there remain %v\nexpected      %v", got, want)
	}
	// The orphan goes first, before a snapshot can name it that others then rely on.
	if s.deleted[0] != orphan || !slices.IsSorted(s.deleted[1:2599]) || !strings.HasPrefix(s.deleted[2598], segment.LogPrefix) || s.deleted[2599] != segment.LogDataKey(300, segment.ID{9}) {
		t.Errorf("deleted in this order: %v", s.deleted)
	}
	if st := e.retentionStatus(); st.Objects != len(before)-len(want) || st.Objects != 2600 || st.Bytes == 0 || st.Error != "" || st.Last.IsZero() {
		t.Errorf("status: %+v", st)
	}
	// Only the young log is not listed: its first two, one for its time.
	if s.listed > 2602+2*2+4+5 {
		t.Errorf("listings gave %d objects", s.listed)
	}
	asked := s.take()
	exact := []string{
		"delete 1", "delete 1", "delete 1000", "delete 1000", "delete 598", "get " + pages, "get " + snap,
		"list data/", "list log/", "list log/", "list pages/", "list pages/", "list snapshot/", "list snapshot/",
	}
	if !slices.Equal(asked, exact) {
		t.Errorf("asked %v\nexpected %v", asked, exact)
	}

	// Again, with no more requests than listings.
	e.retain(t.Context(), 2800)
	if asked := s.take(); !slices.Equal(asked, []string{"list data/", "list log/", "list log/", "list pages/", "list snapshot/"}) {
		t.Errorf("once more asked: %v", asked)
	}
}

// retentionStatus is the part of the status that retention writes.
func (e *Engine) retentionStatus() RetentionStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status.Retention
}

// Forever asks for nothing.
func TestRetainForever(t *testing.T) {
	s := newRetainStore()
	s.logs(t, 1, 3)
	e, _ := retainEngine(s, Keep{Log: Forever, Pages: Forever, Snapshots: Forever})
	e.retain(t.Context(), 3)
	if len(s.asked) > 0 {
		t.Errorf("asked: %v", s.asked)
	}
	e, _ = retainEngine(s, Keep{Log: Forever})
	e.retain(t.Context(), 3)
	if asked := s.take(); !slices.Equal(asked, []string{"list data/", "list log/", "list pages/", "list snapshot/"}) {
		t.Errorf("with the log forever asked: %v", asked)
	}
}

// expiring is a replica of which the log up to TXID 10 can go.
func expiring(t *testing.T) *retainStore {
	s := newRetainStore()
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 10)
	s.export(t, 0, 10, true)
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 11, 20)
	return s
}

// A policy without s3:DeleteObject: told once, replication goes on; permitted later,
// it is done.
func TestRetainDenied(t *testing.T) {
	s := expiring(t)
	s.locked = func(string) bool { return true }
	e, log := retainEngine(s, Keep{})
	for range 3 {
		e.retain(t.Context(), 20)
	}
	if st := e.retentionStatus(); !strings.Contains(st.Error, "access denied") || !strings.Contains(st.Remedy, "s3:DeleteObject") || st.Objects != 0 {
		t.Errorf("status: %+v", st)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "s3:DeleteObject") {
		t.Errorf("warned %d times:\n%s", n, log)
	}
	s.locked = nil
	e.retain(t.Context(), 20)
	if st := e.retentionStatus(); st.Error != "" || st.Objects != 8 {
		t.Errorf("status: %+v", st)
	}
}

// One object under a lock doesn't keep the others; what it names stays with it.
func TestRetainLocked(t *testing.T) {
	s := expiring(t)
	s.put(t, segment.LogDataKey(3, segment.ID{3}), 10)
	orphan := segment.LogDataKey(1, segment.ID{4}) // of a claim: nothing of it goes first
	s.put(t, orphan, 10)
	s.now = s.now.Add(2 * time.Hour)
	s.logs(t, 21, 22)
	s.locked = func(key string) bool { return key == segment.LogKey(3) }
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 22)
	if st := e.retentionStatus(); !strings.Contains(st.Error, segment.LogKey(3)) {
		t.Errorf("status: %+v", st)
	}
	got := s.keys(t)
	for _, k := range []string{segment.LogKey(3), segment.LogDataKey(3, segment.ID{3}), segment.LogKey(10)} {
		if !slices.Contains(got, k) {
			t.Errorf("%s is gone", k)
		}
	}
	for _, k := range []string{segment.LogKey(2), segment.LogKey(9), orphan} {
		if slices.Contains(got, k) {
			t.Errorf("%s is there", k)
		}
	}
}

// A descriptor that can't be read names nobody knows what: nothing goes.
func TestRetainDamagedDescriptor(t *testing.T) {
	s := expiring(t)
	key := segment.PagesKey(2, 5, 77)
	s.put(t, key, 600)
	before := s.keys(t)
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 20)
	if st := e.retentionStatus(); !strings.Contains(st.Error, key) || st.Remedy == "" {
		t.Errorf("status: %+v", st)
	}
	if got := s.keys(t); !slices.Equal(got, before) {
		t.Errorf("there remain %v of %v", got, before)
	}
}

// A listing that lacks a data object is no proof that it is missing; one that lacks
// the newest log segment is late.
func TestRetainIncompleteListing(t *testing.T) {
	s := newRetainStore()
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 10)
	snap, data := s.export(t, 0, 10, true)
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 11, 20)
	s.hidden = func(key string) bool { return key == data }
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 20)
	if got := s.keys(t); !slices.Contains(got, snap) || !slices.Contains(got, data) || slices.Contains(got, segment.LogKey(5)) {
		t.Errorf("there remain %v", got)
	}
	s.logs(t, 21, 21)
	s.hidden = func(key string) bool { return key == segment.LogKey(21) }
	e.retain(t.Context(), 21)
	if st := e.retentionStatus(); !strings.Contains(st.Error, "not listed") {
		t.Errorf("status: %+v", st)
	}
}

// A snapshot that was published after its data was swept: the log isn't deleted for
// it, and it goes.
func TestRetainVoid(t *testing.T) {
	s := newRetainStore()
	s.put(t, segment.LogKey(1), segment.ClaimSize)
	s.logs(t, 2, 10)
	snap, data := s.export(t, 0, 10, true)
	if err := s.Mem.Delete(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(30 * time.Hour)
	s.logs(t, 11, 20)
	e, _ := retainEngine(s, Keep{})
	e.retain(t.Context(), 20)
	if !slices.Equal(s.deleted, []string{snap}) {
		t.Errorf("deleted: %v", s.deleted)
	}
}

// Claims that a writer, asleep for long, left in a gap don't hold back the rest; and
// claims of sessions that came to nothing are promised like other TXIDs.
func TestRetainClaims(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	at := func(txid uint64, claim bool, age time.Duration) logObject {
		o := logObject{txid, 300, now.Add(-age).UnixMicro()}
		if claim {
			o.size = segment.ClaimSize
		}
		return o
	}
	h := holdings{now: now, log: []logObject{
		at(1, true, 90*time.Hour), at(5, true, 2*time.Hour), at(9, false, 50*time.Hour), at(10, false, 49*time.Hour),
		at(12, true, 3*time.Hour), at(13, true, 2*time.Hour), at(14, false, 0),
	}, exports: []heldExport{
		{exportKey: exportKey{kind: segment.KindSnapshot, min: 1, max: 11, modified: now.Add(-40 * time.Hour)}},
		{exportKey: exportKey{kind: segment.KindSnapshot, min: 1, max: 13, modified: now.Add(-2 * time.Hour)}},
	}}
	r := newRetention(h, Keep{})
	if r.first != 12 || r.base != 11 || r.holder != 10 {
		t.Errorf("first %d, base %d, holder %d", r.first, r.base, r.holder)
	}
	if d := r.deletion(); len(d.segments) != 1 || d.segments[0].Key != segment.LogKey(9) {
		t.Errorf("goes: %v", d.segments)
	}
}
