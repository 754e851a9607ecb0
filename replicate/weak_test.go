package replicate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// weakStore is a store that refuses conditions as B2 does, or ignores them.
type weakStore struct {
	Store
	refuses bool
}

func (s weakStore) Create(ctx context.Context, key string, data []byte) error {
	if s.refuses {
		return fmt.Errorf("test: create %s: 501 NotImplemented: %w", key, objstore.ErrUnsupported)
	}
	return s.Store.Put(ctx, key, data)
}

// requests counts what f asks of fs, as "create 1, get 2".
func requests(fs *faultstore.Store, f func()) string {
	ops := []faultstore.Op{faultstore.Create, faultstore.Put, faultstore.Upload, faultstore.Get, faultstore.List, faultstore.Delete}
	before := map[faultstore.Op]int{}
	for _, op := range ops {
		before[op] = fs.Count(op)
	}
	f()
	var all []string
	for _, op := range ops {
		if n := fs.Count(op) - before[op]; n > 0 {
			all = append(all, fmt.Sprint(op, " ", n))
		}
	}
	return strings.Join(all, ", ")
}

// The whole life of a replica in stores of each kind, and what it costs.
func TestWeakStores(t *testing.T) {
	for _, c := range []struct {
		name                                    string
		store                                   func(Store) Store
		warning                                 string
		open, first, second, idle, again, third string
	}{
		{"keeps", func(s Store) Store { return s }, "",
			// root: missing, created, read; the end: two listings, one GET
			"create 1, get 3, list 2",
			// the probe reads and creates the root; claim; what is behind it; segment
			"create 3, get 1, list 1",
			"create 1",
			"get 3, list 1",
			"create 3, get 1, list 1",
			"create 1"},
		{"ignores", func(s Store) Store { return weakStore{s, false} }, "ignores conditional writes",
			"create 1, get 3, list 2",
			// the probe twice; each object is looked for first, the claim afterwards, too
			"create 2, put 2, get 4, list 1",
			"put 1, get 1",
			"get 3, list 1",
			"create 2, put 2, get 4, list 1",
			"put 1, get 1"},
		{"refuses", func(s Store) Store { return weakStore{s, true} }, "refuses conditional writes",
			"create 1, put 1, get 4, list 2",
			// the root's creation has shown it
			"put 2, get 3, list 1",
			"put 1, get 1",
			"get 3, list 1",
			"create 1, put 2, get 4, list 1",
			"put 1, get 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := objstore.NewMem()
			fs := faultstore.New(c.store(inner))
			a := newMachine(t, fs, 3)
			var p *process
			check := func(what, want string, f func()) {
				t.Helper()
				if got := requests(fs, f); got != want {
					t.Errorf("%s: %s; expected %s", what, got, want)
				}
			}
			start := func() {
				p = a.open()
				if err := p.wait(t); err != nil {
					t.Fatal(err)
				}
			}
			commit := func() {
				a.m.commit()
				p.sync(t)
			}
			check("first open", c.open, start)
			check("first commit", c.first, commit)
			check("second commit", c.second, commit)
			if s := p.Status(); !strings.Contains(s.Warning, c.warning) || (s.Warning == "") != (c.warning == "") || s.Error != "" || s.State != StateReplicating {
				t.Errorf("status: %+v", s)
			}
			check("close", "", func() { p.close(t) })
			check("idle open", c.idle, func() { start(); p.close(t) })
			start()
			check("commit of the next session", c.again, commit)
			check("another", c.third, commit)
			p.close(t)
			a.store = inner
			a.checkAll()

			// A copy of the database is continued elsewhere, by whoever comes later.
			start()
			commit()
			b := copyOf(a, 77)
			q := b.open()
			b.m.commit()
			q.sync(t)
			before := len(keys(t, inner, ""))
			a.m.commit()
			_, err := p.Sync(within(t))
			var fenced *FencedError
			if !errors.As(err, &fenced) || fenced.Session.String() != q.Status().Session || fenced.Owner == nil {
				t.Fatalf("the first one: %v", err)
			}
			if n := len(keys(t, inner, "")); n != before {
				t.Errorf("%d objects before, %d after", before, n)
			}
			b.m.commit()
			q.sync(t)
			q.close(t)
			b.store = inner
			b.checkNewest()
		})
	}
}

// Databases with content: by one entry, and by a snapshot.
func TestWeakFirstContact(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		for _, small := range []int64{1, 1 << 30} {
			inner := objstore.NewMem()
			mc := newMachine(t, weakStore{inner, refuses}, 4)
			grown(mc.m, 300)
			mc.m.notOurs = true
			p := mc.open(func(o *EngineOptions) { o.small = small })
			if err := p.wait(t); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				mc.m.commit()
				p.sync(t)
			}
			p.close(t)
			mc.checkNewest()
			if n := len(keys(t, inner, segment.SnapshotPrefix)); (n == 1) != (small == 1) {
				t.Errorf("%d snapshots", n)
			}
		}
	}
}

// Replies are lost, requests fail: a store that keeps conditions is never taken
// for one that doesn't, and no other for one that does.
func TestProbeWithFaults(t *testing.T) {
	for _, kind := range []string{"keeps", "ignores", "refuses"} {
		for _, after := range []bool{false, true} {
			var store Store = objstore.NewMem()
			if kind == "keeps" {
				store = &comparing{Store: store}
			} else {
				store = weakStore{store, kind == "refuses"}
			}
			fs := faultstore.New(store)
			var mu sync.Mutex
			n := map[string]int{}
			fail := func(c faultstore.Call) error {
				mu.Lock()
				defer mu.Unlock()
				key := string(c.Op) + c.Key
				if n[key]++; n[key] <= 2 {
					return faultstore.ErrInjected
				}
				return nil
			}
			if after {
				fs.SetHooks(faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error {
					if f := fail(c); f != nil {
						return f
					}
					return err
				}})
			} else {
				fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error { return fail(c) }})
			}
			mc := newMachine(t, fs, 5)
			p := mc.open()
			if err := p.wait(t); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				mc.m.commit()
				p.sync(t)
			}
			want := map[string]conditions{"keeps": conditionsKept, "ignores": conditionsIgnored, "refuses": conditionsRefused}[kind]
			if got := p.guard.known(); got != want {
				t.Errorf("%s, after=%v: taken for %d, expected %d", kind, after, got, want)
			}
			p.close(t)
			fs.SetHooks(faultstore.Hooks{})
			mc.checkNewest()
		}
	}
}

// comparing takes its own bytes for its own doing once, as package s3store does
// after a lost reply.
type comparing struct {
	Store
	once sync.Once
}

func (s *comparing) Create(ctx context.Context, key string, data []byte) error {
	err := s.Store.Create(ctx, key, data)
	if errors.Is(err, objstore.ErrExist) && key == segment.InfoKey {
		s.once.Do(func() { err = nil })
	}
	return err
}

// Somebody else's root replaces ours before the first claim, which a store that
// ignores conditions lets happen: we go on on that one's line.
func TestRootReplaced(t *testing.T) {
	inner := objstore.NewMem()
	mc := newMachine(t, weakStore{inner, false}, 6)
	p := mc.open()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	other := ID{1, 2, 3}
	root, err := segment.MarshalReplicaInfo(segment.ReplicaInfo{Database: other, Created: mc.clock.Now()})
	if err != nil {
		t.Fatal(err)
	}
	put(t, inner, segment.InfoKey, root)
	mc.m.commit()
	p.sync(t)
	if s := p.Status(); s.ID != other.String() || s.TXID < 2 {
		t.Fatalf("%+v", s)
	}
	p.close(t)
	mc.checkAll()

	// And deleted: nothing is written below a path that is no replica.
	p = mc.open()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	if err := inner.Delete(t.Context(), segment.InfoKey); err != nil {
		t.Fatal(err)
	}
	before := len(keys(t, inner, ""))
	mc.m.commit()
	if _, err := p.Sync(within(t)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "is gone") {
		t.Fatal(err)
	}
	if n := len(keys(t, inner, "")); n != before {
		t.Errorf("%d objects before, %d after", before, n)
	}
}

// Two begin at the same moment, and the store takes the root and the claim of
// both: one is fenced before it uploads anything, the other's replica is whole.
func TestWeakStoreTwoAtOnce(t *testing.T) {
	rounds := 60
	for round := range rounds {
		inner := objstore.NewMem()
		fs := faultstore.New(weakStore{inner, round%2 == 0})
		meet := meeting{at: map[string]chan struct{}{}}
		hooks := faultstore.Hooks{
			Before: func(_ context.Context, c faultstore.Call) error { meet.both("before", c); return nil },
			After:  func(_ context.Context, c faultstore.Call, err error) error { meet.both("after", c); return err },
		}
		fs.SetHooks(hooks)
		var both [2]*machine
		var procs [2]*process
		for i := range both {
			both[i] = newMachine(t, fs, uint64(2*round+i))
			both[i].m.commit()
			procs[i] = both[i].open()
		}
		var errs [2]error
		var wg sync.WaitGroup
		for i := range procs {
			wg.Go(func() {
				for range 3 {
					if _, errs[i] = procs[i].Sync(within(t)); errs[i] != nil {
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
		var fenced *FencedError
		if errs[1-lost] != nil || !errors.As(errs[lost], &fenced) || fenced.Session.String() != procs[1-lost].Status().Session {
			t.Fatalf("round %d: %v / %v", round, errs[0], errs[1])
		}
		procs[1-lost].close(t)
		both[1-lost].store = inner
		both[1-lost].checkNewest()
		procs[lost].kill()
	}
}

// meeting makes two writes of the same key wait for each other: of the root, and
// of the first claim.
type meeting struct {
	mu sync.Mutex
	at map[string]chan struct{}
}

func (m *meeting) both(when string, c faultstore.Call) {
	if c.Op != faultstore.Create && c.Op != faultstore.Put || c.Key != segment.InfoKey && c.Key != segment.LogKey(1) {
		return
	}
	key := fmt.Sprint(when, c.Op, c.Key)
	m.mu.Lock()
	other, second := m.at[key]
	switch {
	case !second:
		other = make(chan struct{})
		m.at[key] = other
	default:
		select {
		case <-other:
		default:
			close(other)
		}
	}
	m.mu.Unlock()
	if !second {
		select {
		case <-other:
		case <-time.After(patience): // it has gone another way
		}
	}
}
