package replicate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// copyOf is another machine with a copy of mc's database.
func copyOf(mc *machine, seed uint64) *machine {
	c := newMachine(mc.t, mc.store, seed)
	mc.m.mu.Lock()
	defer mc.m.mu.Unlock()
	c.m.cur, c.m.now = mc.m.cur, mc.m.now
	c.m.entries = append(c.m.entries, mc.m.entries...)
	for sum, st := range mc.m.states {
		c.m.states[sum] = st
	}
	return c
}

// prune is retention at its strictest: only claims and the newest segment stay.
func prune(t *testing.T, store Store) {
	t.Helper()
	all := keys(t, store, segment.LogPrefix)
	for _, key := range all[:len(all)-1] {
		if len(get(t, store, key)) != segment.ClaimSize {
			if err := store.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A copy of the database is opened and stays idle, so it has no claim yet. The
// writer goes on for days, and retention deletes the log that the copy would have
// met. The copy's claim finds its key free all the same, and must not count.
func TestIdleCopyWakesAfterRetention(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost=%v", lost), func(t *testing.T) {
			fs := faultstore.New(objstore.NewMem())
			a := newMachine(t, fs.Inner(), 1)
			p := a.open()
			a.m.commit()
			p.sync(t)
			b := copyOf(a, 9)
			b.store = fs
			q := b.open()
			if err := q.wait(t); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				a.m.commit()
				p.sync(t)
			}
			prune(t, fs.Inner())
			if lost {
				var once sync.Once
				fs.SetHooks(faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error {
					if c.Op == faultstore.Create {
						once.Do(func() { err = errors.Join(err, faultstore.ErrInjected) })
					}
					return err
				}})
			}
			b.m.commit()
			txid, err := q.Sync(within(t))
			var fenced *FencedError
			if !errors.As(err, &fenced) || fenced.Session.String() != p.Status().Session || q.WriteError() == nil {
				t.Fatalf("synced as TXID %d, %v", txid, err)
			}
			a.m.commit()
			p.sync(t) // the writer isn't disturbed
			p.close(t)
		})
	}
}

// A request of a crashed process takes over the database, and arrives when the
// next process has read the line and claims it: it compares anew and goes on.
func TestLateAdoptDuringFirstContact(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 4)
	grown(mc.m, 300)
	mc.m.notOurs = true
	small := func(o *EngineOptions) { o.small = 1 }
	var late []byte
	var key string
	p := mc.open(small, func(o *EngineOptions) {
		o.Failpoint = func(name string) error {
			if name == "adopt-after" { // it is in the store, but arrives later
				key = segment.LogKey(2)
				late = get(t, fs.Inner(), key)
				fs.Inner().Delete(t.Context(), key)
				return errors.New("power is gone")
			}
			return nil
		}
	})
	<-p.Done()
	p.kill()
	if late == nil {
		t.Fatal("no adopt entry was made")
	}
	var once sync.Once
	fs.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create && c.Key == key {
			once.Do(func() { fs.Inner().Create(ctx, key, late) })
		}
		return nil
	}})
	p = mc.open(small)
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

// A store that says of a key that it is taken, and then that it isn't there, is
// asked with pauses, not as fast as it answers.
func TestTakenButAbsent(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	clock := newAutoClock()
	mc := newMachine(t, fs, 4)
	mc.clock = clock
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	began := clock.Now()
	n := 0
	var mu sync.Mutex
	fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Op == faultstore.Create && n < 6 {
			n++
			return objstore.ErrExist
		}
		return nil
	}})
	mc.m.commit()
	p.sync(t)
	if waited := clock.Now().Sub(began); waited < 6*backoffFirst/2 {
		t.Errorf("asked 6 times within %v", waited)
	}
	p.close(t)
	mc.checkNewest()
}

// lateStore is a store to which creates come late: the caller gets an error, the
// object arrives at any later moment, after restarts and takeovers too. It keeps
// all that ever was under a key.
type lateStore struct {
	*objstore.Mem
	mu    sync.Mutex
	rng   *rand.Rand
	late  []lateCreate
	every map[string][][]byte
}

type lateCreate struct {
	key  string
	data []byte
}

func (s *lateStore) create(ctx context.Context, key string, data []byte) error {
	err := s.Mem.Create(ctx, key, data)
	if err == nil {
		known := false
		for _, b := range s.every[key] {
			known = known || string(b) == string(data)
		}
		if !known {
			s.every[key] = append(s.every[key], data)
		}
	}
	return err
}

func (s *lateStore) Create(ctx context.Context, key string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.late) > 0 && s.rng.IntN(6) == 0 { // one of the late ones arrives
		i := s.rng.IntN(len(s.late))
		l := s.late[i]
		s.late = append(s.late[:i], s.late[i+1:]...)
		s.create(ctx, l.key, l.data)
	}
	switch s.rng.IntN(8) {
	case 0:
		s.late = append(s.late, lateCreate{key, append([]byte(nil), data...)})
		return faultstore.ErrInjected
	case 1: // twice, and the reply is lost
		s.late = append(s.late, lateCreate{key, append([]byte(nil), data...)})
		s.create(ctx, key, data)
		return faultstore.ErrInjected
	}
	return s.create(ctx, key, append([]byte(nil), data...))
}

// Machines with copies of one database take over from one another, crash, and
// wake; requests arrive late; retention deletes all but claims and the newest
// segment. Whatever was acknowledged to a machine is on the one line.
func TestRandomTakeovers(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			ls := &lateStore{Mem: objstore.NewMem(), rng: rand.New(rand.NewPCG(seed, 8)), every: map[string][][]byte{}}
			machines := []*machine{newMachine(t, ls, seed*100)}
			procs := map[*machine]*process{}
			type ack struct{ txid, sum uint64 }
			acked := map[string]ack{} // by position and session
			fenced := map[string]bool{}
			look := func(mc *machine) {
				p := procs[mc]
				select {
				case <-p.Decided():
				default:
					return
				}
				s := p.Status()
				if errors.Is(p.Err(), ErrFenced) {
					fenced[s.Session] = true
				}
				if s.TXID > 0 && s.Uploads > 0 {
					var sum uint64
					fmt.Sscanf(s.Checksum, "%x", &sum)
					acked[fmt.Sprint(s.Session, s.TXID)] = ack{s.TXID, sum}
				}
			}
			for range 100 {
				mc := machines[max(0, len(machines)-1-rng.IntN(4))]
				p := procs[mc]
				switch rng.IntN(12) {
				case 0, 1: // crash
					if p != nil {
						look(mc)
						p.kill()
						delete(procs, mc)
					}
				case 2: // somebody copies the database, without its lineage, and opens the copy
					if len(machines) < 12 && (p == nil || p.WriteError() == nil) {
						c := copyOf(mc, seed*100+uint64(len(machines)))
						machines = append(machines, c)
						procs[c] = c.open()
						procs[c].wait(t)
					}
				case 3:
					ls.mu.Lock()
					if len(keys(t, ls.Mem, segment.LogPrefix)) > 1 {
						prune(t, ls.Mem)
					}
					ls.mu.Unlock()
				default:
					if p == nil {
						p = mc.open()
						procs[mc] = p
					}
					if p.wait(t) != nil {
						look(mc)
						p.kill()
						delete(procs, mc)
						continue
					}
					if idle := rng.IntN(4) == 0; idle {
						continue
					}
					mc.m.commit()
					p.Sync(within(t)) // it may be fenced
					look(mc)
				}
			}
			for mc, p := range procs {
				look(mc)
				p.kill()
			}
			// The line as it was, with what retention deleted.
			info, err := readRoot(t.Context(), ls)
			if err != nil || info == nil {
				t.Fatal(err)
			}
			l := &line{ls, info.Database}
			end := lineEnd{}
			states := map[uint64]uint64{}
			for {
				var next *segment.Object
				for _, b := range ls.every[segment.LogKey(end.TXID+1)] {
					o, err := l.parseLog(end.TXID+1, b)
					if err != nil {
						t.Fatal(err)
					}
					switch err := end.follows(o); {
					case err == nil && next != nil && !(o.Header.Claim && fenced[o.Header.Session.String()]):
						t.Fatalf("%s: two segments continue the line, by %s and %s", segment.LogKey(end.TXID+1), next.Header.Session, o.Header.Session)
					case err == nil && next == nil:
						next = o
					}
				}
				if next == nil {
					break
				}
				end.advance(next)
				states[end.TXID] = end.Checksum
			}
			for who, a := range acked {
				if sum, ok := states[a.txid]; !ok || sum != a.sum {
					t.Errorf("%s: TXID %d, checksum %016x was acknowledged and is not on the line", who, a.txid, a.sum)
				}
			}
			t.Logf("%d segments, %d acknowledged, %d fenced", len(states), len(acked), len(fenced))
		})
	}
}
