package replicate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// replaced asks nobody and lets the database take the replica's place.
func replaced(asked *[]error) func(*EngineOptions) {
	return func(o *EngineOptions) {
		o.Adopt = func(_ context.Context, refusal error, _ Tail) error {
			*asked = append(*asked, refusal)
			return nil
		}
	}
}

func TestAdoptOverridesRefusal(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  error
		setup func(mc *machine)
	}{
		{"other database", ErrDiverged, func(mc *machine) {
			o := newMachine(t, objstore.NewMem(), 77)
			for range 9 {
				o.m.commit()
			}
			mc.m.mu.Lock()
			defer mc.m.mu.Unlock()
			mc.m.cur, mc.m.states[o.m.cur.sum], mc.m.file = o.m.cur, o.m.cur, "other"
			mc.db = filepath.Join(mc.t.TempDir(), "other")
		}},
		{"diverged", ErrDiverged, func(mc *machine) { mc.m.sneak(); mc.m.file = "copy" }},
		{"repair without proof", ErrRepair, func(mc *machine) { mc.m.sneak(); mc.boot = "second" }},
		{"earlier position", ErrDiverged, func(mc *machine) { mc.m.back(mc.m.states[mc.m.entries[2].Post]); mc.boot = "second" }},
		{"larger pages", ErrDiverged, func(mc *machine) {
			n := len(mc.m.entries)
			mc.m.whole(1024)
			mc.m.entries, mc.m.file = mc.m.entries[:n], "copy"
		}},
		{"many pages", ErrDiverged, func(mc *machine) { grown(mc.m, 600); mc.m.file = "copy" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			mc := lived(t, objstore.NewMem(), 3)
			before := walk(t, mc.store)
			old := mc.m.cur
			c.setup(mc)
			mc.refused(c.kind)
			no := errors.New("no")
			mc.refused(no, func(o *EngineOptions) {
				o.Adopt = func(context.Context, error, Tail) error { return no }
			})
			var asked []error
			p := mc.open(replaced(&asked))
			p.sync(t)
			if len(asked) != 1 || !errors.Is(asked[0], c.kind) {
				t.Fatalf("asked %v", asked)
			}
			if got := lastKind(t, mc.store); got != segment.Adopt {
				t.Fatalf("the line ends with a %v", got)
			}
			mc.checkNewest()
			mc.checkHashes()
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
			mc.checkAll()
			end := before[len(before)-1].Header.MaxTXID
			if _, b, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.TXID = end }); err != nil || string(b) != string(old.image()) {
				t.Fatalf("TXID %d, before it was overridden: %v", end, err)
			}
			// From here on it is this machine's.
			mc.m.sneak()
			p = mc.open()
			p.sync(t)
			p.close(t)
			if got := lastKind(t, mc.store); got != segment.Repair {
				t.Fatalf("the line ends with a %v", got)
			}
			mc.checkNewest()
		})
	}
}

// A crash between the claim and the adopt entry proves nothing: it is asked again,
// and nothing is taken for a repair.
func TestCrashDuringAdopt(t *testing.T) {
	for _, at := range []string{"claim-after", "lineage-after", "log-before", "log-after"} {
		for _, settles := range []bool{false, true} {
			t.Run(fmt.Sprint(at, settles), func(t *testing.T) {
				mc := lived(t, objstore.NewMem(), 3)
				mc.m.sneak()
				mc.m.file, mc.m.settles = "copy", settles
				var asked []error
				p := mc.open(replaced(&asked), diesAt(at))
				<-p.Done()
				p.kill()
				if at == "log-after" {
					p = mc.open() // it is the replica's state now
					p.sync(t)
					p.close(t)
					return
				}
				mc.refused(ErrDiverged)
				p = mc.open(replaced(&asked))
				p.sync(t)
				p.close(t)
				if len(asked) != 2 || lastKind(t, mc.store) != segment.Adopt {
					t.Fatalf("asked %v", asked)
				}
				mc.checkNewest()
			})
		}
	}
}

// The replica lost objects; it is agreed to go on without them.
func TestAdoptOverReplicaThatFellBehind(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 4)
	segs := walk(t, mc.store)
	mc.store.Delete(t.Context(), segment.LogKey(segs[len(segs)-1].Header.MinTXID))
	mc.refused(ErrDiverged)
	var asked []error
	p := mc.open(replaced(&asked))
	p.sync(t)
	p.close(t)
	mc.checkNewest()
	mc.checkAll()
	p = mc.open()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
	if len(asked) != 1 {
		t.Fatalf("asked %v", asked)
	}
}

// Another machine began to take over its database and never finished: this one
// may take its place, with a snapshot of its own.
func TestAdoptOverUnfinishedFirstContact(t *testing.T) {
	for _, pages := range []int{40, 300} {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 4)
			grown(mc.m, 300)
			mc.m.notOurs = true
			p := mc.open(diesAt("snapshot-before"))
			<-p.Done()
			p.kill()
			c := newMachine(t, mc.store, 5)
			grown(c.m, pages)
			c.m.notOurs = true
			c.refused(ErrDiverged)
			var asked []error
			p = c.open(replaced(&asked))
			if err := p.wait(t); err != nil {
				t.Fatal(err)
			}
			c.m.commit()
			p.sync(t)
			p.close(t)
			c.m.notOurs = false
			c.checkNewest()
			c.checkHashes()
			c.checkAll()
			if len(asked) != 1 {
				t.Fatalf("asked %v", asked)
			}
			mc.m.mu.Lock()
			mc.m.notOurs = true
			mc.m.mu.Unlock()
			mc.refused(ErrDiverged)
		})
	}
}
