package replicate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// checkpoint brings the newest state into the file, unsynced.
func (p *process) checkpoint() {
	p.src.m.mu.Lock()
	defer p.src.m.mu.Unlock()
	p.src.mu.Lock()
	defer p.src.mu.Unlock()
	if p.src.m.settles {
		return
	}
	p.src.m.inFile = p.src.m.cur
	if p.src.begun {
		p.src.m.settled = p.src.count()
	}
}

// losePower leaves any state since the last that was synced, and forgets those after.
func (m *model) losePower(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.history) == 0 {
		return
	}
	from := max(0, slices.Index(m.history, m.synced))
	n := from + rng.IntN(len(m.history)-from)
	m.cur, m.history = m.history[n], m.history[:n+1]
	if m.inFile != nil && !slices.Contains(m.history, m.inFile) {
		m.inFile = m.cur
	}
}

// Machines lose their power at any time, and with it what was not synced; writes
// pass uncaptured; sources lose entries. A repair only ever extends a line whose
// end the file had contained, and what is restored is what the file was.
func TestRandomPowerLoss(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 8
	}
	outcomes := map[string]int{}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomPower(t, seed, outcomes) })
	}
	t.Log(outcomes)
	for _, o := range []string{"repaired", "continued", "rolled forward", "adopted"} {
		if outcomes[o] == 0 && !testing.Short() {
			t.Errorf("nothing was %s: %v", o, outcomes)
		}
	}
}

func randomPower(t *testing.T, seed uint64, outcomes map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 17))
	mc := newMachine(t, objstore.NewMem(), seed)
	clock := newAutoClock()
	mc.clock, mc.m.settles = clock, seed%4 == 0
	if !mc.m.settles {
		mc.m.inFile = &state{} // all of it is in the WAL
	}
	files := 0
	restore := withRestore(func(tail Tail) error {
		mc.m.mu.Lock()
		defer mc.m.mu.Unlock()
		files++
		st := mc.m.states[tail.Checksum]
		mc.m.cur, mc.m.synced, mc.m.history = st, st, []*state{st}
		if !mc.m.settles {
			mc.m.inFile = st
		}
		mc.m.file = fmt.Sprint("restored", files)
		outcomes["rolled forward"]++
		return nil
	})
	adopt := func(o *EngineOptions) {
		o.Adopt = func(context.Context, error, Tail) error {
			outcomes["adopted"]++
			return nil
		}
	}
	check := func(o *EngineOptions) {
		s := o.Source.(*source)
		s.checkBegin = func(start Start, tail Tail) {
			mc.m.settled = 0
			contained := slices.ContainsFunc(mc.m.history, func(st *state) bool { return st.sum == tail.Checksum && st.commit() == tail.Commit })
			switch {
			case start == StartRepair && !contained:
				t.Errorf("repair of TXID %d, a state that the file never had", tail.TXID)
			case start == StartRepair:
				outcomes["repaired"]++
			case start == StartContinue:
				outcomes["continued"]++
			}
		}
	}
	crash := errors.New("power is gone")
	for range 12 {
		dies := rng.IntN(40) // at which failpoint
		p := mc.open(check, adopt, func(o *EngineOptions) {
			if rng.IntN(2) == 0 {
				restore(o)
			}
			if dies < 20 {
				o.Failpoint = func(string) error {
					if dies--; dies < 0 {
						return crash
					}
					return nil
				}
			}
		})
		for range 1 + rng.IntN(6) {
			switch rng.IntN(8) {
			case 0:
				p.checkpoint()
			case 1:
				<-clock.After(durableEvery)
			case 2:
				if p.isDecided() && p.Err() == nil && len(mc.m.entries) > 0 {
					p.src.mu.Lock()
					begun := p.src.begun
					p.src.mu.Unlock()
					if begun {
						mc.m.sneak()
						p.src.lose()
					}
				}
			default:
				mc.m.commit()
				p.Sync(within(t)) // it may have crashed
			}
		}
		if rng.IntN(3) == 0 {
			p.Close(within(t))
			p.dir.Close()
		}
		p.kill()
		if rng.IntN(2) == 0 {
			mc.m.losePower(rng)
			mc.boot += "'"
		}
		if rng.IntN(3) == 0 && mc.m.cur.commit() > 0 {
			mc.m.sneak()
		}
	}
	p := mc.open(check, adopt)
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
	mc.checkHashes()
	mc.checkSome(10)
}
