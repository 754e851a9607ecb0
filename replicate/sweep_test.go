package replicate

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// sweeper is a store that can sweep.
type sweeper struct {
	Store
	calls atomic.Int64
	sweep func(ctx context.Context, prefix string, age time.Duration, ours func(string) bool) (int, error)
}

func (s *sweeper) SweepUploads(ctx context.Context, prefix string, age time.Duration, ours func(string) bool) (int, error) {
	s.calls.Add(1)
	return s.sweep(ctx, prefix, age, ours)
}

// A session asks once for what others left behind, after it has claimed the line;
// one that writes nothing doesn't ask. It asks for keys of our own format alone.
func TestSweepOnceInASession(t *testing.T) {
	mem := objstore.NewMem()
	asked := make(chan bool, 10)
	store := &sweeper{Store: mem, sweep: func(ctx context.Context, prefix string, age time.Duration, ours func(string) bool) (int, error) {
		claimed := false
		for range mem.List(ctx, segment.LogPrefix, "") {
			claimed = true
		}
		asked <- claimed
		if prefix != "data/" || age < 24*time.Hour {
			t.Errorf("asked to sweep %s older than %v", prefix, age)
		}
		for key, want := range map[string]bool{
			segment.DataKey(segment.NewID()): true, "data/": false, "data/x": false, segment.LogKey(1): false, segment.InfoKey: false,
		} {
			if ours(key) != want {
				t.Errorf("%s: ours is %v", key, !want)
			}
		}
		return 3, nil
	}}
	var log bytes.Buffer
	mc := newMachine(t, store, 1)
	p := mc.open(func(o *EngineOptions) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 3 {
		mc.m.commit()
		p.sync(t)
	}
	if claimed := <-asked; !claimed {
		t.Error("asked before the claim")
	}
	p.close(t)
	if n := store.calls.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if !bytes.Contains(log.Bytes(), []byte("earlier sessions left unfinished")) || !bytes.Contains(log.Bytes(), []byte("uploads=3")) {
		t.Errorf("log: %s", &log)
	}
	p = mc.open()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	p.close(t)
	if n := store.calls.Load(); n != 1 {
		t.Errorf("a session that writes nothing asked")
	}
}

// Not being permitted to is nothing that anybody hears of.
func TestSweepDeniedIsQuiet(t *testing.T) {
	for _, refusal := range []error{objstore.ErrDenied, objstore.ErrUnsupported, context.DeadlineExceeded} {
		store := &sweeper{Store: objstore.NewMem(), sweep: func(context.Context, string, time.Duration, func(string) bool) (int, error) { return 0, refusal }}
		var log bytes.Buffer
		mc := newMachine(t, store, 2)
		p := mc.open(func(o *EngineOptions) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		for range 2 {
			mc.m.commit()
			p.sync(t)
		}
		st := p.Status()
		p.close(t)
		if st.State != StateReplicating || st.Error != "" || st.Warning != "" || st.Retries != 0 || store.calls.Load() != 1 {
			t.Errorf("%v: asked %d times, status %+v", refusal, store.calls.Load(), st)
		}
		if bytes.Contains(log.Bytes(), []byte("unfinished")) {
			t.Errorf("%v: the log says so: %s", refusal, &log)
		}
	}
}

// A sweep that takes its time holds up neither commits nor the end.
func TestSweepHoldsUpNothing(t *testing.T) {
	ended := make(chan struct{})
	store := &sweeper{Store: objstore.NewMem(), sweep: func(ctx context.Context, _ string, _ time.Duration, _ func(string) bool) (int, error) {
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}}
	mc := newMachine(t, store, 3)
	p := mc.open()
	for range 3 {
		mc.m.commit()
		p.sync(t)
	}
	p.close(t)
	select {
	case <-ended:
	default:
		t.Error("closed before the sweep had ended")
	}
}
