package replicate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// lived is a machine with some history, whose process has ended.
func lived(t *testing.T, store Store, seed uint64) *machine {
	mc := newMachine(t, store, seed)
	p := mc.open()
	for range 5 {
		mc.m.commit()
		p.sync(t)
	}
	p.close(t)
	return mc
}

func lastKind(t *testing.T, store Store) segment.EntryKind {
	segs := walk(t, store)
	o := segs[len(segs)-1]
	if o.Header.External {
		dec := o.Frames()
		var kind segment.EntryKind
		for i := range o.Root.Frames {
			recs, err := nextFrame(t.Context(), store, o, dec, i)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range recs {
				if r.Entry != nil {
					kind = r.Entry.Kind
				}
			}
		}
		return kind
	}
	return o.Entries[len(o.Entries)-1].Kind
}

// refused opens the machine's database and returns why that is refused.
func (mc *machine) refused(kind error, change ...func(*EngineOptions)) error {
	mc.t.Helper()
	p := mc.open(change...)
	err := p.wait(mc.t)
	if !errors.Is(err, kind) || !errors.Is(p.WriteError(), kind) {
		mc.t.Fatalf("%v, writes: %v; expected %v", err, p.WriteError(), kind)
	}
	p.kill()
	return err
}

// The database changed while nothing captured it, and it is proven that it had
// reached the replica's end: what differs becomes the next entry.
func TestRepairAfterUncapturedChange(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			mc := lived(t, objstore.NewMem(), seed)
			for i := range 3 {
				mc.m.sneak()
				if i == 1 {
					mc.m.sneak()
				}
				p := mc.open()
				p.sync(t)
				if got := lastKind(t, mc.store); got != segment.Repair {
					t.Fatalf("the line ends with a %v", got)
				}
				mc.checkNewest()
				mc.m.commit()
				p.sync(t)
				p.close(t)
			}
			mc.checkNewest()
			mc.checkHashes()
			mc.checkAll()
		})
	}
}

// The database is found at the replica's state when the repair begins.
func TestRepairWithNothingToRepair(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 1)
	st := mc.m.cur
	mc.m.sneak()
	n := len(walk(t, mc.store))
	p := mc.open(func(o *EngineOptions) { o.Source.(*source).onBegin = func() { mc.m.back(st) } })
	p.sync(t)
	if got := len(walk(t, mc.store)); got != n {
		t.Fatalf("%d segments were written", got-n)
	}
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

// The source gives up what waits: everything taken is uploaded, then the database
// is compared anew. Who waits in Sync waits until the repair is acknowledged.
func TestLostEntriesAreRepaired(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	p.src.mu.Lock()
	p.src.stop = p.src.taken
	p.src.mu.Unlock()
	for range 5 {
		mc.m.commit()
	}
	var synced atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		txid, err := p.Sync(within(t))
		if err != nil {
			t.Error(err)
		}
		synced.Store(txid)
	})
	until(t, p.syncWanted)
	p.src.lose()
	p.src.mu.Lock()
	p.src.stop = 0
	p.src.mu.Unlock()
	wg.Wait()
	segs := walk(t, mc.store)
	last := segs[len(segs)-1]
	if last.Entries[0].Kind != segment.Repair || synced.Load() != last.Header.MaxTXID {
		t.Fatalf("synced as TXID %d, the line ends with a %v at %d", synced.Load(), last.Entries[0].Kind, last.Header.MaxTXID)
	}
	mc.checkNewest()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
	mc.checkAll()
}

// A source that loses what it has as soon as it has begun is not begun again as
// fast as it loses, and all comes right in the end.
func TestLostAgainAndAgain(t *testing.T) {
	clock := newAutoClock()
	mc := newMachine(t, objstore.NewMem(), 1)
	mc.clock = clock
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	began := clock.Now()
	mc.m.mu.Lock()
	p.src.mu.Lock()
	p.src.losses = 6
	p.src.mu.Unlock()
	mc.m.mu.Unlock()
	mc.m.sneak()
	p.src.lose()
	p.sync(t)
	if waited := clock.Now().Sub(began); waited < 6*backoffFirst/2 {
		t.Errorf("begun 6 times within %v", waited)
	}
	p.close(t)
	mc.checkNewest()
}

// While the source has lost entries, Sync doesn't say that all is uploaded, and
// Close doesn't either.
func TestLostWhileUnreachable(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	down := outages(fs)
	mc := newMachine(t, fs, 1)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	down.Store(true)
	mc.m.sneak()
	p.src.lose()
	until(t, func() bool { return p.Status().State == StateUnreachable })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if txid, err := p.Sync(ctx); err == nil {
		t.Fatalf("synced as TXID %d", txid)
	}
	if err := p.Close(ctx); err == nil || !strings.Contains(err.Error(), "not uploaded") {
		t.Fatalf("closed: %v", err)
	}
	p.kill()
	down.Store(false)
	p = mc.open()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

// The database changes while it is compared: it is compared again, but not for ever.
func TestChangedWhileCompared(t *testing.T) {
	for _, n := range []int{1, 5, 1000} {
		for _, where := range []string{"evidence", "begin"} {
			t.Run(fmt.Sprint(where, n), func(t *testing.T) {
				mc := lived(t, objstore.NewMem(), 1)
				p := mc.open(func(o *EngineOptions) {
					s := o.Source.(*source)
					if where == "begin" {
						s.changedBegin = n
					} else {
						s.changedEvidence = n
					}
				})
				if n == 1000 {
					if err := p.wait(t); !errors.Is(err, local.ErrChanged) {
						t.Fatal(err)
					}
					return
				}
				mc.m.commit()
				p.sync(t)
				p.close(t)
				mc.checkNewest()
			})
		}
	}
}

// A connection may keep the database to itself for as long as it likes: it is
// compared when that is over.
func TestLockedWhileCompared(t *testing.T) {
	for _, where := range []string{"evidence", "begin"} {
		t.Run(where, func(t *testing.T) {
			mc := lived(t, objstore.NewMem(), 1)
			p := mc.open(func(o *EngineOptions) {
				s := o.Source.(*source)
				if where == "begin" {
					s.lockedBegin = 2 * mostChanges
				} else {
					s.lockedEvidence = 2 * mostChanges
				}
			})
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
		})
	}
}

// The application is let in before the source has begun, if at worst a repair can
// come of it.
func TestApplicationNeedNotWaitForBegin(t *testing.T) {
	for _, c := range []struct {
		proof string
		sneak bool
		boot  string
		early bool
	}{
		{"wal", false, "first", true},
		{"spool", false, "first", true},
		{"scan", false, "first", false},
		{"clean close", false, "first", false},
		{"wal", false, "second", false},
		{"", true, "first", true},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			mc := lived(t, objstore.NewMem(), 1)
			mc.boot = c.boot
			if c.sneak {
				mc.m.sneak()
			}
			early := make(chan bool, 1)
			var p *process
			gate := make(chan struct{})
			p = mc.open(func(o *EngineOptions) {
				s := o.Source.(*source)
				s.proof = c.proof
				s.onBegin = func() {
					<-gate
					early <- p.isDecided()
				}
			})
			close(gate)
			if got := <-early; got != c.early {
				t.Errorf("let in early: %v", got)
			}
			p.sync(t)
			p.close(t)
		})
	}
}

// Without the store nobody makes a new database where the replica has one.
func TestUnreachableAndNoFile(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := lived(t, fs, 1)
	fs.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	mc.m.missing = true
	p := mc.open()
	until(t, func() bool { return p.Status().Retries >= 5 })
	if p.isDecided() {
		t.Fatal("decided")
	}
	fs.SetHooks(faultstore.Hooks{})
	if err := p.wait(t); !errors.Is(err, ErrMissing) {
		t.Fatal(err)
	}
}

// A file takes the database's name: what the lineage proves is not that one's.
func TestNoRepairOfAnotherFile(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 1)
	mc.m.sneak()
	mc.m.file = "another"
	if err := mc.refused(ErrDiverged); !strings.Contains(err.Error(), "another file") {
		t.Error(err)
	}
}
