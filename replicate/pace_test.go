package replicate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/testclock"
)

func until(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// The first commit after a pause goes at once; those that follow share the
// upload that MaxLag allows; Sync doesn't wait for it; idle costs nothing.
func TestMaxLag(t *testing.T) {
	clock := testclock.New(time.UnixMicro(1_700_000_000_000_000))
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 6)
	mc.clock = clock
	p := mc.open(func(o *EngineOptions) { o.MaxLag = time.Second })
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	mc.m.commit()
	until(t, func() bool { return p.Status().Uploads == 2 && clock.Waiting() == 1 })
	for range 5 {
		mc.m.commit()
	}
	clock.Move(999 * time.Millisecond)
	if s := p.Status(); s.Uploads != 2 || s.Backlog != 5 || s.LagSeconds < 0.9 || s.Captured <= s.TXID {
		t.Fatalf("%+v", s)
	}
	clock.Move(time.Millisecond)
	until(t, func() bool { return p.Status().Backlog == 0 })
	if s := p.Status(); s.Uploads != 3 || s.LagSeconds != 0 || s.Captured != s.TXID {
		t.Fatalf("%+v", s)
	}
	mc.m.commit()
	p.sync(t)
	if s := p.Status(); s.Uploads != 4 {
		t.Fatalf("%+v", s)
	}
	until(t, func() bool { return clock.Waiting() > 0 })
	clock.Move(time.Second)
	requests := fs.Total()
	clock.Move(time.Hour)
	if fs.Total() != requests || p.Status().Uploads != 4 {
		t.Fatal("an idle engine makes requests")
	}
	p.close(t)
	mc.checkNewest()
}

// Bodies that break off are read again, from where it happened.
func TestBrokenBodies(t *testing.T) {
	mc := replica(t)
	fs := faultstore.New(mc.store)
	var mu sync.Mutex
	broken := map[string]int{}
	fs.SetHooks(faultstore.Hooks{Body: func(c faultstore.Call, r io.ReadCloser) io.ReadCloser {
		mu.Lock()
		defer mu.Unlock()
		if broken[c.Key]++; broken[c.Key] > 1 {
			return r
		}
		b, _ := io.ReadAll(r)
		r.Close()
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), brokenReader{}))
	}})
	mc.store = fs
	mc.checkNewest()
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestFileStore(t *testing.T) {
	store, err := OpenStore(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mc := newMachine(t, store, 6)
	for range 3 {
		p := mc.open()
		for range 3 {
			mc.m.commit()
			p.sync(t)
		}
		p.close(t)
	}
	mc.checkNewest()
	mc.checkSome(5)
}

func TestCancelledContextStops(t *testing.T) {
	mc := newMachine(t, NewMemStore(), 6)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mc.m.mu.Lock() // the commit below must not be taken before
	p.src.stop = 1
	mc.m.mu.Unlock()
	mc.m.commit()
	if _, err := p.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := p.Close(ctx); err == nil {
		t.Fatal("closed with a backlog")
	}
	if p.Err() != nil || p.Status().State != StateClosed {
		t.Fatal(p.Err())
	}
	if _, err := p.Sync(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// The status says since when its state is what it is.
func TestStateSince(t *testing.T) {
	clock := testclock.New(time.UnixMicro(1_700_000_000_000_000))
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 6)
	mc.clock = clock
	p := mc.open()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	mc.m.commit()
	p.sync(t)
	begun := clock.Now()
	if s := p.Status(); s.State != StateReplicating || !s.StateSince.Equal(begun) {
		t.Fatalf("%s since %s", s.State, s.StateSince)
	}
	clock.Move(time.Minute)
	fs.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	mc.m.commit()
	until(t, func() bool { return p.Status().State == StateUnreachable && clock.Waiting() > 0 })
	clock.Move(time.Minute)
	until(t, func() bool { return p.Status().Retries >= 2 })
	if s := p.Status(); !s.StateSince.Equal(begun.Add(time.Minute)) {
		t.Fatalf("%s since %s", s.State, s.StateSince)
	}
}
