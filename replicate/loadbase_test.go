package replicate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func TestRuns(t *testing.T) {
	block := func(offset, stored int64) *segment.Block {
		return &segment.Block{Offset: offset, Stored: uint32(stored)}
	}
	for _, c := range []struct {
		name   string
		blocks []*segment.Block
		want   []int // lengths
	}{
		{"none", nil, nil},
		{"together", []*segment.Block{block(64, 10), block(74, 0), block(74, 5)}, []int{3}},
		{"small gap", []*segment.Block{block(64, 10), block(74+rangeGap, 5)}, []int{2}},
		{"large gap", []*segment.Block{block(64, 10), block(75+rangeGap, 5)}, []int{1, 1}},
		{"one request's worth", []*segment.Block{block(0, rangeSize-9), block(rangeSize-9, 9)}, []int{2}},
		{"more than that", []*segment.Block{block(0, rangeSize-9), block(rangeSize-9, 10)}, []int{1, 1}},
		{"more with the gap", []*segment.Block{block(0, rangeSize-20), block(rangeSize-9, 10)}, []int{1, 1}},
	} {
		var got []int
		for _, r := range runs(c.blocks) {
			got = append(got, len(r))
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: runs of %d, expected %d", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: runs of %d, expected %d", c.name, got, c.want)
			}
		}
	}
}

// rangesStore notes what is read of data objects.
type rangesStore struct {
	Store
	mu   sync.Mutex
	read map[string]int64
}

func (s *rangesStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	s.mu.Lock()
	s.read[key] += r.Length
	s.mu.Unlock()
	return s.Store.Get(ctx, key, r)
}

// Of a snapshot whose pages have all changed since, nothing is read but its index.
func TestSupersededBlocksAreNotRead(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 77)
	p := mc.open()
	mc.m.mu.Lock()
	large(mc.m, 400)
	mc.m.mu.Unlock()
	before := p.sync(t)
	mc.m.mu.Lock()
	var next [][]byte
	changed := map[uint64]bool{}
	for no, p := range mc.m.cur.pages {
		next = append(next, bytes.Clone(p))
		next[no][0]++
		changed[uint64(no)+1] = true
	}
	mc.m.entries = append(mc.m.entries, mc.m.entry(mc.m.cur, next, changed, uint64(len(next)), 1))
	mc.m.hook()
	mc.m.mu.Unlock()
	p.sync(t)
	p.close(t)
	rng := rand.New(rand.NewPCG(1, 2))
	mc.putSnapshot(rng, before, true)
	snapshot := keys(t, mc.store, segment.DataPrefix)
	firsts, lasts := mc.segments()
	for i, txid := range firsts {
		if txid == before+1 {
			mc.putPages(rng, txid, lasts[len(lasts)-1], true)
			break
		} else if i == len(firsts)-1 {
			t.Fatalf("no log segment begins at %d", before+1)
		}
	}
	for _, forget := range []bool{false, true} {
		var last Progress
		res, _, err := restoreTo(t, mc.store, func(o *RestoreOptions) {
			o.forget, o.Progress = forget, func(p Progress) { last = p }
		})
		if err != nil || last.Fetched != last.Total || last.Fetched != res.Fetched {
			t.Errorf("%v: %d bytes of %d at the end, %d in all", err, last.Fetched, last.Total, res.Fetched)
		}
	}
	store := &rangesStore{Store: mc.store, read: map[string]int64{}}
	res, image, err := restoreTo(t, store)
	if err != nil || !bytes.Equal(image, mc.m.cur.image()) || res.PageSegments != 1 {
		t.Fatalf("%v: %+v", err, res)
	}
	for _, key := range snapshot {
		if strings.Count(key, "-") > 0 {
			continue // of a log segment
		}
		size := int64(len(get(t, mc.store, key)))
		if got := store.read[key]; got == 0 || got > size/4 {
			t.Errorf("%d bytes of %d were read of the snapshot's data object", got, size)
		}
	}
}

// A base of which nothing fits into what may be held is read in the same way.
func TestBaseIsNotHeld(t *testing.T) {
	mc := replica(t)
	want, image, err := restoreTo(t, mc.store)
	if err != nil {
		t.Fatal(err)
	}
	got, again, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.forget = true })
	if err != nil || !bytes.Equal(image, again) {
		t.Fatalf("another database: %v", err)
	}
	if got.Requests <= want.Requests {
		t.Errorf("%d requests, %d with what can be held", got.Requests, want.Requests)
	}
}

// Many small log segments are asked for side by side, unless it is said how many.
func TestParallelOfSmallSegments(t *testing.T) {
	small, large := make([]logKey, 10), make([]logKey, 10)
	for i := range small {
		small[i].size, large[i].size = 500, 8<<20
	}
	for _, c := range []struct {
		given int
		keys  []logKey
		want  int
	}{
		{0, small, smallParallelism}, {0, large, restoreParallelism}, {0, append(small[:1:1], large[0]), restoreParallelism},
		{3, small, 3}, {3, large, 3}, {100, small, 64},
	} {
		r := &restorer{opts: RestoreOptions{Parallelism: c.given}}
		if got := r.parallel(c.keys); got != c.want {
			t.Errorf("parallelism %d, %d segments of %d bytes: %d at once, expected %d", c.given, len(c.keys), c.keys[0].size, got, c.want)
		}
	}
}

// swapStore gives another object from the second reading on.
type swapStore struct {
	Store
	mu   sync.Mutex
	key  string
	read int
	then []byte
}

func (s *swapStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	s.mu.Lock()
	if key == s.key {
		if s.read++; s.read > 1 {
			s.mu.Unlock()
			return io.NopCloser(bytes.NewReader(s.then)), ObjectInfo{Key: key, Size: int64(len(s.then))}, nil
		}
	}
	s.mu.Unlock()
	return s.Store.Get(ctx, key, r)
}

// A snapshot that is too large to be held can be another one when it is read again:
// deleted, and written once more with other blocks.
func TestExportIsAnotherOneWhenReadAgain(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 78)
	p := mc.open()
	mc.m.mu.Lock()
	large(mc.m, 60)
	mc.m.mu.Unlock()
	txid := p.sync(t)
	p.close(t)
	var objects [][]byte
	var key string
	for seed := range uint64(2) { // in blocks of other sizes
		key = mc.putSnapshot(rand.New(rand.NewPCG(seed, 2)), txid, false).key()
		objects = append(objects, get(t, mc.store, key))
	}
	for i, first := range objects {
		put(t, mc.store, key, first)
		store := &swapStore{Store: mc.store, key: key, then: objects[1-i]}
		_, image, err := restoreTo(t, store, func(o *RestoreOptions) { o.forget = true })
		if err != nil || !bytes.Equal(image, mc.m.cur.image()) {
			t.Errorf("%v: %d bytes", err, len(image))
		}
	}
}

// As many things are read at once as were asked for, and no more.
func TestInOrderParallelism(t *testing.T) {
	for _, parallel := range []int{1, 2, 7} {
		var mu sync.Mutex
		running, most := 0, 0
		full := make(chan struct{})
		var once sync.Once
		next := 0
		err := inOrder(t.Context(), ahead[int]{
			n: 30, parallel: parallel,
			size: func(int) int64 { return 1 },
			fetch: func(_ context.Context, i int) (int, error) {
				mu.Lock()
				running++
				if most = max(most, running); running == parallel {
					once.Do(func() { close(full) })
				}
				mu.Unlock()
				<-full // the first ones come together
				runtime.Gosched()
				mu.Lock()
				running--
				mu.Unlock()
				return i, nil
			},
		}, func(i, v int) error {
			if i != next || v != i {
				t.Errorf("%d: %d, expected %d", i, v, next)
			}
			next++
			return nil
		})
		if err != nil || next != 30 || most != parallel {
			t.Errorf("%d at once, expected %d: %v, %d", most, parallel, err, next)
		}
	}
}

// pauseStore breaks its first body off, and notes what is read while something is held.
type pauseStore struct {
	Store
	held, wrong bool
	breaks      int
}

func (s *pauseStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	s.wrong = s.wrong || s.held
	body, info, err := s.Store.Get(ctx, key, r)
	return &pauseBody{body, s, 0}, info, err
}

type pauseBody struct {
	io.ReadCloser
	s *pauseStore
	n int
}

func (b *pauseBody) Read(p []byte) (int, error) {
	b.s.wrong = b.s.wrong || b.s.held
	if b.n >= 1000 && b.s.breaks == 0 {
		b.s.breaks++
		return 0, errors.New("connection lost")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), 250)])
	b.n += n
	return n, err
}

// Who waits for the store, or until it is asked again, holds no worker: others could
// do with it.
func TestNothingIsHeldWhileTheStoreIsAwaited(t *testing.T) {
	ctx := t.Context()
	s := &pauseStore{Store: objstore.NewMem()}
	var data []byte
	var run []*segment.Block
	for i := range 20 {
		stored := bytes.Repeat([]byte{byte(i)}, 100)
		run = append(run, &segment.Block{Offset: int64(len(data)), Stored: uint32(len(stored)), Sum: sha256.Sum256(stored)})
		data = append(data, stored...)
	}
	if err := s.Put(ctx, "data/x", data); err != nil {
		t.Fatal(err)
	}
	var got []byte
	uses, kept := 0, 0
	use := func(_ *segment.Block, stored []byte) error {
		if s.held {
			kept++
		}
		s.held = true
		uses++
		got = append(got, stored...)
		return nil
	}
	pause := func() { s.held = false }
	if err := readRun(ctx, s, "data/x", run, use, pause); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) || uses != len(run) || s.breaks != 1 {
		t.Fatalf("%d bytes in %d blocks after %d breaks", len(got), uses, s.breaks)
	}
	if s.wrong || s.held {
		t.Fatalf("held while reading: %v; held in the end: %v", s.wrong, s.held)
	}
	if kept == 0 {
		t.Fatal("never held for a block that had been read already")
	}
	failed := errors.New("disk full")
	err := readRun(ctx, s, "data/x", run, func(*segment.Block, []byte) error {
		s.held = true
		return fmt.Errorf("%w: %w", errWrite, failed)
	}, pause)
	if !errors.Is(err, failed) || s.held {
		t.Fatalf("got %v; held in the end: %v", err, s.held)
	}
}
