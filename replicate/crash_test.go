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
)

// The process dies at every failpoint in turn, at its first and second passing;
// the next one goes on: nothing is lost, and the replica always is a prefix.
func TestCrashAtEveryFailpoint(t *testing.T) {
	run := func(t *testing.T, content bool, crashAt string, pass int) (names []string) {
		mc := newMachine(t, objstore.NewMem(), 11)
		if content {
			grown(mc.m, 300)
			mc.m.notOurs = true
		}
		crash := errors.New("power is gone")
		var mu sync.Mutex
		seen := map[string]int{}
		fail := func(o *EngineOptions) {
			o.Failpoint = func(name string) error {
				mu.Lock()
				defer mu.Unlock()
				if seen[name]++; seen[name] == 1 {
					names = append(names, name)
				}
				if name == crashAt && seen[name] == pass {
					return crash
				}
				return nil
			}
		}
		work := func(p *process) error {
			if err := p.wait(t); err != nil {
				return err
			}
			for i := range 3 {
				mc.m.commit()
				if _, err := p.Sync(within(t)); err != nil {
					return err
				}
				if content {
					mc.m.notOurs = false // entries from here on prove it
				}
				if i == 1 {
					mc.m.mu.Lock()
					large(mc.m, 200)
					mc.m.mu.Unlock()
				}
			}
			return nil
		}
		p := mc.open(fail)
		err := work(p)
		if crashAt != "none" && pass == 1 && !errors.Is(err, crash) {
			t.Fatalf("no crash: %v", err)
		}
		p.kill()
		if info, _ := readRoot(t.Context(), mc.store); info != nil {
			if segs := walk(t, mc.store); len(segs) > 0 {
				res, b, err := restoreTo(t, mc.store)
				end := segs[len(segs)-1].Header
				switch {
				case end.Commit == 0 && errors.Is(err, ErrNotRestorable):
				case content && errors.Is(err, ErrNotRestorable) && !errors.Is(err, ErrCorrupt) && len(keys(t, mc.store, "snapshot/")) == 0: // the first contact isn't finished
				case err != nil:
					t.Fatal(err)
				default:
					if st := mc.m.states[res.tail.Checksum]; st == nil || string(b) != string(st.image()) {
						t.Fatal("the replica is not a state that was")
					}
				}
			}
		}
		mc.m.notOurs = content && len(mc.m.entries) == 0 && err != nil && len(keys(t, mc.store, "snapshot/")) == 0
		for try := 0; ; try++ {
			p = mc.open(fail)
			if err := work(p); err == nil {
				break
			} else if try == 1 || !errors.Is(err, crash) {
				t.Fatalf("after the crash: %v", err)
			}
			p.kill()
		}
		p.close(t)
		mc.checkNewest()
		mc.checkSome(4)
		return names
	}
	for _, content := range []bool{false, true} {
		names := run(t, content, "none", 1<<30)
		if len(names) < 8 {
			t.Fatalf("failpoints: %v", names)
		}
		for _, name := range names {
			for pass := 1; pass <= 2; pass++ {
				t.Run(fmt.Sprintf("content=%v/%s/%d", content, name, pass), func(t *testing.T) {
					run(t, content, name, pass)
				})
			}
		}
	}
}

// Random commits, faults and crashes; every entry is restored and compared.
func TestRandomLife(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 99))
			fs := faultstore.New(objstore.NewMem())
			var mu sync.Mutex
			chance := func(n int) bool {
				mu.Lock()
				defer mu.Unlock()
				return rng.IntN(n) == 0
			}
			fs.SetHooks(faultstore.Hooks{
				Before: func(context.Context, faultstore.Call) error {
					if chance(8) {
						return faultstore.ErrInjected
					}
					return nil
				},
				After: func(_ context.Context, _ faultstore.Call, err error) error {
					if chance(8) {
						return errors.Join(err, faultstore.ErrInjected)
					}
					return err
				},
			})
			mc := newMachine(t, fs, seed+100)
			for range 6 {
				p := mc.open()
				for i := 0; i < 12 && !chance(15); i++ {
					mc.m.commit()
					if chance(3) {
						p.sync(t)
					}
				}
				if chance(2) {
					p.kill()
				} else {
					p.close(t)
				}
			}
			p := mc.open()
			p.sync(t)
			p.close(t)
			mc.store = fs.Inner()
			mc.checkNewest()
			mc.checkSome(20)
		})
	}
}
