package replicate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// Every kind of write loses its reply several times; nothing is written twice.
func TestLostReplies(t *testing.T) {
	for _, kind := range []string{segment.InfoKey, segment.LogPrefix, segment.DataPrefix, segment.SnapshotPrefix, ""} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", kind, before), func(t *testing.T) {
				fs := faultstore.New(objstore.NewMem())
				lost := map[string]int{}
				var mu sync.Mutex
				fail := func(c faultstore.Call) error {
					mu.Lock()
					defer mu.Unlock()
					if c.Op != faultstore.Create && c.Op != faultstore.Upload || !strings.HasPrefix(c.Key, kind) {
						return nil
					}
					name := c.Key
					if c.Op == faultstore.Upload {
						name = "data"
					}
					if lost[name]++; lost[name] > 2 {
						return nil
					}
					return faultstore.ErrInjected
				}
				hooks := faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error { return errors.Join(err, fail(c)) }}
				if before {
					hooks = faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error { return fail(c) }}
				}
				fs.SetHooks(hooks)
				mc := newMachine(t, fs, 5)
				grown(mc.m, 300)
				mc.m.notOurs = true
				p := mc.open()
				if err := p.wait(t); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					mc.m.commit()
					p.sync(t)
				}
				mc.m.mu.Lock()
				large(mc.m, 200)
				mc.m.mu.Unlock()
				p.sync(t)
				s := p.Status()
				if s.State != StateReplicating || s.Error != "" || s.Retries == 0 || s.Backlog != 0 {
					t.Fatalf("%+v", s)
				}
				p.close(t)
				mc.checkNewest()
				if len(lost) == 0 {
					t.Fatal("nothing was lost")
				}
				segs := walk(t, fs.Inner())
				// The first commit may have become part of the export.
				if n := len(segs); n != 2+2+1 && n != 2+1+1 {
					t.Fatalf("%d log segments", n)
				}
			})
		}
	}
}

// Two engines begin at once on an empty path: one wins, the other is fenced, and
// the replica is the winner's alone.
func TestTwoWritersOneEmptyPath(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for round := range rounds {
		store := objstore.NewMem()
		var both [2]*machine
		var procs [2]*process
		for i := range both {
			both[i] = newMachine(t, store, uint64(2*round+i))
			both[i].m.commit()
			procs[i] = both[i].open()
		}
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range procs {
			wg.Go(func() {
				for range 3 {
					if _, err := procs[i].Sync(within(t)); err != nil {
						errs[i] = err
						return
					}
					both[i].m.commit()
				}
			})
		}
		wg.Wait()
		lost := 0
		if errs[0] == nil {
			lost = 1
		}
		win := 1 - lost
		// A writer that came a little later sees a line that isn't its own.
		if errs[win] != nil || !errors.Is(errs[lost], ErrFenced) && !errors.Is(errs[lost], ErrDiverged) {
			t.Fatalf("round %d: %v / %v", round, errs[0], errs[1])
		}
		if procs[lost].WriteError() == nil || procs[win].WriteError() != nil {
			t.Fatalf("round %d: write errors %v / %v", round, procs[0].WriteError(), procs[1].WriteError())
		}
		procs[win].close(t)
		both[win].checkNewest()
		procs[lost].kill()
	}
}

// A writer is paused in front of its upload; another one continues the line
// elsewhere. When it wakes it is fenced, whoever did what meanwhile.
func TestPausedWriterWakes(t *testing.T) {
	inner := objstore.NewMem()
	fs := faultstore.New(inner)
	a := newMachine(t, fs, 1)
	p := a.open()
	a.m.commit()
	p.sync(t)
	paused, wake := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create {
			once.Do(func() { close(paused) })
			<-wake
		}
		return nil
	}})
	b := newMachine(t, inner, 9) // a restored copy
	a.m.mu.Lock()
	b.m.cur = a.m.cur
	b.m.entries = append(b.m.entries, a.m.entries...)
	b.m.states[b.m.cur.sum] = b.m.cur
	a.m.mu.Unlock()
	a.m.commit()
	<-paused
	q := b.open()
	b.m.commit()
	q.sync(t)
	close(wake)
	_, err := p.Sync(within(t))
	var fenced *FencedError
	if !errors.As(err, &fenced) || !errors.Is(err, ErrFenced) || fenced.Owner == nil || fenced.Owner.PID == 0 || fenced.Session.String() != q.Status().Session {
		t.Fatalf("%v", err)
	}
	if s := p.Status(); s.State != StateFenced || s.Remedy == "" || !errors.Is(p.WriteError(), ErrFenced) {
		t.Fatalf("%+v", s)
	}
	if err := p.Close(within(t)); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	q.close(t)
	b.checkNewest()
}

// A request of a crashed process arrives after the next process has read the
// line: its claim, and a log segment with entries that wait.
func TestLateRequestOfEarlierSession(t *testing.T) {
	for _, at := range []string{"claim-before", "log-before"} {
		t.Run(at, func(t *testing.T) {
			fs := faultstore.New(objstore.NewMem())
			mc := newMachine(t, fs, 4)
			p := mc.open()
			mc.m.commit()
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.m.commit()
			mc.m.commit()

			var key string
			var late []byte
			fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
				if c.Op == faultstore.Create && (at == "claim-before") == (key == "") {
					key = c.Key
				}
				return nil
			}})
			// The object is what the process would have created: let it, take it away.
			p = mc.open()
			p.sync(t)
			p.kill()
			segs := walk(t, fs.Inner())
			claim, log := segs[len(segs)-2], segs[len(segs)-1]
			o := log
			if at == "claim-before" {
				o = claim
			}
			key = segment.LogKey(o.Header.MinTXID)
			late = get(t, fs.Inner(), key)
			for _, s := range segs {
				if s.Header.MinTXID >= o.Header.MinTXID {
					fs.Inner().Delete(t.Context(), segment.LogKey(s.Header.MinTXID))
				}
			}
			l, _ := p.dir.Lineage() // it never was acknowledged
			l.Noted.TXID = o.Header.MinTXID - 1
			if err := p.dir.NotePosition(l.Noted); err != nil {
				t.Fatal(err)
			}
			fs.SetHooks(faultstore.Hooks{})

			mc.m.commit()
			var once sync.Once
			fs.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, c faultstore.Call) error {
				if c.Op == faultstore.Create {
					once.Do(func() { fs.Inner().Create(ctx, key, late) })
				}
				return nil
			}})
			p = mc.open()
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
			mc.checkAll()
		})
	}
}

// An object of ours with other bytes has our key: acknowledged up to its end.
func TestEarlierAttemptLanded(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 4)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	p.src.mu.Lock()
	p.src.stop = 1 // hold entries back until there are three
	p.src.mu.Unlock()
	for range 3 {
		mc.m.commit()
	}
	e := *mc.m.entries[1]
	e.LiftTimes(p.end.LastTime)
	object, _, err := segment.Encode(segment.Header{Kind: segment.KindLog, PageSize: 512, Database: p.end.Database, Session: p.session,
		MinTXID: p.end.TXID + 1, PrevChain: p.end.Chain}, []*segment.Entry{&e})
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Create(t.Context(), segment.LogKey(p.end.TXID+1), object); err != nil {
		t.Fatal(err)
	}
	p.src.mu.Lock()
	p.src.stop = 0
	p.src.mu.Unlock()
	p.src.signal()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
	mc.checkAll()
}

// Foreign objects are left alone, unless they have a key that is needed.
func TestForeignObjects(t *testing.T) {
	store := objstore.NewMem()
	put(t, store, "readme", []byte("hello"))
	put(t, store, "log/notes", []byte("hello"))
	put(t, store, "snapshot/x", []byte("hello"))
	mc := newMachine(t, store, 4)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	next := segment.LogKey(p.Status().TXID + 1)
	put(t, store, next, []byte("not a segment"))
	mc.m.commit()
	if _, err := p.Sync(within(t)); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), next) {
		t.Fatal(err)
	}
	if p.WriteError() == nil {
		t.Fatal("writes go on")
	}
	p.kill()
	p = mc.open()
	if err := p.wait(t); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), next) {
		t.Fatal(err)
	}
	if _, _, err := restoreTo(t, store); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), next) {
		t.Fatal(err)
	}
	h, err := ReadHistory(t.Context(), clone(t, store))
	if err == nil {
		t.Fatalf("%+v", h)
	}
	p.kill()
	store.Delete(t.Context(), next)
	h, err = ReadHistory(t.Context(), store)
	if err != nil || len(h.Foreign) != 3 {
		t.Fatalf("%+v, %v", h, err)
	}
	p = mc.open()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

func TestNewerVersionWritesNothing(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 4)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	key := segment.LogKey(p.Status().TXID + 1)
	b := get(t, fs.Inner(), segment.LogKey(2))
	b[7]++ // the version in the magic
	put(t, fs.Inner(), key, b)
	before := fs.Count(faultstore.Create)
	mc.m.commit()
	p = mc.open()
	if err := p.wait(t); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), key) {
		t.Fatal(err)
	}
	if fs.Count(faultstore.Create) != before {
		t.Fatal("wrote to a replica of a newer version")
	}
}

// lagStore lists nothing that was created lately.
type lagStore struct {
	objstore.Store
	hide atomic.Int64
}

func (s *lagStore) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		var all []objstore.Info
		for i, err := range s.Store.List(ctx, prefix, after) {
			if err != nil {
				yield(i, err)
				return
			}
			all = append(all, i)
		}
		for _, i := range all[:max(0, len(all)-int(s.hide.Load()))] {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func TestListingLags(t *testing.T) {
	store := &lagStore{Store: objstore.NewMem()}
	mc := newMachine(t, store, 4)
	for _, hide := range []int64{0, 1, 3, 1000} {
		store.hide.Store(hide)
		p := mc.open()
		for range 4 {
			mc.m.commit()
			p.sync(t)
		}
		p.close(t)
		mc.checkNewest()
	}
	mc.checkAll()
}
