package replicate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// The database is at a state that the line had before.
func TestEarlierPosition(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprint(snapshot), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 3)
			if snapshot {
				grown(mc.m, 300)
				mc.m.notOurs = true
			}
			first := mc.m.cur
			p := mc.open()
			p.sync(t) // what is committed during the export is no state of the line
			var states []*state
			txids := map[*state]uint64{first: 2}
			for range 12 {
				mc.m.commit()
				states = append(states, mc.m.cur)
				if len(states)%4 == 0 { // several entries in a segment
					p.sync(t)
				}
			}
			mc.m.notOurs = false
			p.close(t)
			mc.boot = "second" // the power was lost, and commits with it
			for _, o := range walk(t, mc.store) {
				for _, e := range o.Entries {
					for _, st := range states {
						if e.Post == st.sum {
							txids[st] = e.MaxTXID
						}
					}
				}
			}
			newest := mc.m.cur
			if snapshot {
				states = append(states, first)
			}
			for _, st := range states {
				if st == newest {
					continue
				}
				mc.m.back(st)
				err := mc.refused(ErrDiverged)
				if want := fmt.Sprintf("at TXID %d,", txids[st]); !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

// So it is where only a page segment's name has that state any more: a file that was
// restored to where the log is gone.
func TestEarlierPositionOfPageSegment(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 3)
	p := mc.open()
	for range 12 {
		mc.m.commit()
		p.sync(t)
	}
	p.close(t)
	firsts, lasts := mc.segments()
	states := mc.lineStates()
	mc.putPages(rand.New(rand.NewPCG(1, 1)), firsts[0], lasts[5], true)
	for _, first := range firsts[1:8] {
		mc.store.Delete(t.Context(), segment.LogKey(first))
	}
	mc.boot = "second" // the power was lost, and commits with it
	mc.m.back(states[lasts[5]].state)
	err := mc.refused(ErrDiverged)
	if want := fmt.Sprintf("at TXID %d,", lasts[5]); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
}

// Rolled forward is what the lineage knows as this machine's, and nothing else.
func TestRollForward(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 3)
	p := mc.open()
	mc.m.commit()
	old := mc.m.cur
	p.sync(t)
	mc.m.commit()
	p.sync(t)
	p.close(t)
	newest := mc.m.cur
	mc.boot = "second" // the power was lost, and commits with it

	restores := 0
	auto := withRestore(func(tail Tail) error {
		restores++
		if tail.Checksum != newest.sum {
			t.Errorf("restore at %016x", tail.Checksum)
		}
		mc.m.back(newest)
		mc.m.file = fmt.Sprint("restored", restores)
		return nil
	})
	// Made by outwash restore -txid: moved here, with the old lineage.
	mc.m.back(old)
	mc.m.file = "put here"
	mc.refused(ErrDiverged, auto)
	// Or copied elsewhere, without any.
	c := newMachine(t, mc.store, 4)
	c.m.cur, c.m.file = old, "copy"
	c.refused(ErrDiverged, auto)
	if restores != 0 {
		t.Fatalf("restored %d times", restores)
	}

	mc.m.file = "file"
	claims := len(walk(t, mc.store))
	p = mc.open(auto)
	if err := p.wait(t); err != nil || restores != 1 {
		t.Fatalf("%v, restored %d times", err, restores)
	}
	if n := len(walk(t, mc.store)); n != claims+1 {
		t.Fatalf("%d segments were written, expected a claim", n-claims)
	}
	p.close(t)
	l, err := p.dir.Lineage()
	if err != nil || l.File != "restored1" {
		t.Fatalf("%+v, %v", l, err)
	}

	// What a restore made is this machine's: it is rolled forward, too.
	mc.boot = "third"
	mc.m.back(old)
	p = mc.open(auto)
	if err := p.wait(t); err != nil || restores != 2 {
		t.Fatalf("%v, restored %d times", err, restores)
	}
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

// A restore that doesn't bring the database to the end isn't repeated for ever.
func TestRestoreInVain(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 3)
	mc.m.missing = true
	n := 0
	p := mc.open(withRestore(func(Tail) error { n++; return nil }))
	if err := p.wait(t); !errors.Is(err, ErrDiverged) || n != mostRestores {
		t.Fatalf("%v after %d restores", err, n)
	}
}

// Another machine extends the replica while the database is restored: it is
// restored again, though no session of this machine has claimed anything yet.
func TestRestoredTooEarly(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint(crash), func(t *testing.T) {
			other := newMachine(t, objstore.NewMem(), 3)
			o := other.open()
			other.m.commit()
			o.sync(t)
			mc := newMachine(t, other.store, 4)
			restores := 0
			auto := withRestore(func(Tail) error {
				restores++
				mc.m.mu.Lock()
				mc.m.cur, mc.m.file = other.m.cur, fmt.Sprint("restored", restores)
				mc.m.mu.Unlock()
				if restores == 1 {
					other.m.commit()
					o.sync(t)
				}
				return nil
			})
			if crash {
				p := mc.open(auto, func(o *EngineOptions) {
					s := o.Source.(*source)
					s.onEvidence = func() {
						if restores == 1 {
							s.changedEvidence = 1000 // for as long as the process lives
						}
					}
				})
				if err := p.wait(t); !errors.Is(err, local.ErrChanged) {
					t.Fatal(err)
				}
				p.kill()
			}
			p := mc.open(auto)
			if err := p.wait(t); err != nil || restores != 2 {
				t.Fatalf("%v, restored %d times", err, restores)
			}
			mc.m.states[mc.m.cur.sum] = mc.m.cur
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
			o.kill()
		})
	}
}

// Who makes the database from the replica in order to go on claims the line before
// anything is committed, so that no commit of it comes too late: also the process
// that finds what one has made that died before its claim.
func TestRestoredAndDiedBeforeClaim(t *testing.T) {
	for _, extended := range []bool{false, true} {
		t.Run(fmt.Sprint("extended=", extended), func(t *testing.T) {
			other := newMachine(t, objstore.NewMem(), 3)
			o := other.open()
			other.m.commit()
			o.sync(t)
			mc := newMachine(t, other.store, 4)
			restores := 0
			auto := withRestore(func(Tail) error {
				restores++
				mc.m.mu.Lock()
				defer mc.m.mu.Unlock()
				mc.m.cur, mc.m.file = other.m.cur, fmt.Sprint("restored", restores)
				return nil
			})
			p := mc.open(auto, func(o *EngineOptions) {
				o.Failpoint = func(name string) error {
					if name == "claim-before" {
						return errors.New("killed")
					}
					return nil
				}
			})
			if err := p.wait(t); err == nil || restores != 1 {
				t.Fatalf("%v, restored %d times", err, restores)
			}
			p.kill()
			if extended {
				other.m.commit()
				o.sync(t)
			}
			segments := len(walk(t, mc.store))
			p = mc.open(auto)
			if err := p.wait(t); err != nil || restores > 2 || extended != (restores == 2) {
				t.Fatalf("%v, restored %d times", err, restores)
			}
			if n := len(walk(t, mc.store)) - segments; n != 1 {
				t.Fatalf("%d segments were written, expected a claim", n)
			}
			other.m.commit()
			if _, err := o.Sync(within(t)); !errors.Is(err, ErrFenced) {
				t.Errorf("the writer before: %v", err)
			}
			mc.m.states[mc.m.cur.sum] = mc.m.cur
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
			o.kill()

			segments = len(walk(t, mc.store))
			p = mc.open(auto)
			if err := p.wait(t); err != nil || len(walk(t, mc.store)) != segments {
				t.Errorf("opened again: %v, %d segments were written", err, len(walk(t, mc.store))-segments)
			}
			p.close(t)
		})
	}
}
