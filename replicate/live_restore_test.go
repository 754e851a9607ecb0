package replicate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// tickStore makes readers wait for the writer now and then, so that what they have
// listed goes while they read.
type tickStore struct {
	Store
	mu    sync.Mutex
	cond  *sync.Cond
	ticks int
	ended bool
	rng   *rand.Rand
}

func newTickStore(s Store) *tickStore {
	ts := &tickStore{Store: s, rng: rand.New(rand.NewPCG(7, 7))}
	ts.cond = sync.NewCond(&ts.mu)
	return ts
}

func (s *tickStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	s.mu.Lock()
	if s.rng.IntN(6) == 0 {
		for until := s.ticks + 1 + s.rng.IntN(4); s.ticks < until && !s.ended; {
			s.cond.Wait()
		}
	}
	s.mu.Unlock()
	return s.Store.Get(ctx, key, r)
}

func (s *tickStore) tick(ended bool) {
	s.mu.Lock()
	s.ticks++
	s.ended = s.ended || ended
	s.mu.Unlock()
	s.cond.Broadcast()
}

// 200 restores, of the newest state and of the past, while a writer goes on, writes
// page segments and snapshots, and deletes: each gives exactly the state that it
// says, or fails by saying that it is not there any more. The newest never fails.
func TestRestoreWhileRetaining(t *testing.T) {
	clock := newAutoClock()
	mem := objstore.NewMemAt(clock.Now)
	mc := newMachine(t, mem, 11)
	mc.clock = clock
	keep := Keep{Log: time.Hour, Pages: 3 * time.Hour, Snapshots: 6 * time.Hour, PagesEvery: 10 * time.Minute, SnapshotEvery: 90 * time.Minute}

	var acked atomic.Uint64
	var states sync.Map // TXID → *state
	stop, stopped := make(chan struct{}), make(chan struct{})
	reading := newTickStore(mem)
	began := make(chan struct{})
	deleted, sessions := 0, 0
	go func() {
		defer close(stopped)
		defer reading.tick(true)
		rng := rand.New(rand.NewPCG(3, 3))
		var p *process
		for n := 0; ; n++ {
			select {
			case <-stop:
				p.close(t)
				deleted += p.Status().Retention.Objects
				return
			default:
			}
			if p == nil || rng.IntN(60) == 0 {
				if p != nil {
					p.close(t)
					deleted += p.Status().Retention.Objects
				}
				sessions++
				p = mc.open(func(o *EngineOptions) { o.Keep = keep })
				if err := p.wait(t); err != nil {
					t.Errorf("session %d: %v", sessions, err)
					return
				}
			}
			clock.add(time.Duration(1+rng.IntN(8)) * time.Minute) // before: what is due is looked at with uploads
			for range 1 + rng.IntN(4) {
				mc.m.commit()
			}
			txid, err := p.Sync(t.Context())
			if err != nil {
				t.Errorf("sync: %v", err)
				return
			}
			mc.m.mu.Lock()
			states.Store(txid, mc.m.cur)
			mc.m.mu.Unlock()
			acked.Store(txid)
			p.settled(t)
			reading.tick(false)
			if n == 60 {
				close(began)
			}
		}
	}()
	select {
	case <-began:
	case <-stopped:
		t.FailNow()
	}
	rng := rand.New(rand.NewPCG(5, 5))
	var newest, past, gone int
	for round := range 200 {
		owed := acked.Load()
		var asked uint64
		var then time.Time
		switch rng.IntN(4) {
		case 0:
			asked = 1 + rng.Uint64N(owed)
		case 1:
			asked = owed - rng.Uint64N(min(owed, 40))
		case 2:
			then = clock.Now().Add(-time.Duration(rng.IntN(600)) * time.Minute)
		}
		latest := asked == 0 && then.IsZero()
		res, b, err := restoreTo(t, reading, func(o *RestoreOptions) { o.TXID, o.Timestamp = asked, then })
		switch {
		case err != nil && !latest && errors.Is(err, ErrNotRestorable):
			gone++
			continue
		case err != nil:
			t.Fatalf("round %d, TXID %d of %d, %v: %v", round, asked, owed, then, err)
		case asked != 0 && res.TXID != asked, latest && res.TXID < owed, !then.IsZero() && res.Time.After(then):
			t.Fatalf("round %d: asked for TXID %d (%d are acknowledged), %v; got %d of %v", round, asked, owed, then, res.TXID, res.Time)
		}
		mc.m.mu.Lock()
		want := mc.m.states[res.tail.Checksum]
		mc.m.mu.Unlock()
		if st, ok := states.Load(res.TXID); ok {
			want = st.(*state)
		}
		if want == nil || !bytes.Equal(b, want.image()) {
			t.Fatalf("round %d: TXID %d restored is not what was committed", round, res.TXID)
		}
		if latest {
			newest++
		} else {
			past++
		}
	}
	close(stop)
	<-stopped
	t.Logf("%d restores of the newest state, %d of the past, %d of what is gone; %d sessions deleted %d objects", newest, past, gone, sessions, deleted)
	if newest < 20 || past < 20 || gone < 5 || deleted < 100 {
		t.Error("too little happened")
	}
}
