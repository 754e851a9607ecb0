package replicate

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/testclock"
)

// A program that opens, writes a row and closes makes no further requests for
// history, but for one such session in many; and its log doesn't grow for ever.
func TestExportsOfShortSessions(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 4)
	clock := mc.clock.(*autoClock)
	looks, sessions := 0, 150
	newest := uint64(0)
	for range sessions {
		before := fs.Count(faultstore.List)
		p := mc.open()
		mc.m.mu.Lock()
		mc.m.commitN(1, 2)
		mc.m.mu.Unlock()
		p.sync(t)
		newest = p.Status().TXID
		p.close(t)
		if fs.Count(faultstore.List) > before+3 {
			looks++
		}
		clock.add(30 * time.Minute)
	}
	mc.store = fs.Inner()
	snapshots, pages := mc.checkExports()
	list := exportsOf(t, mc.store)
	if looks == 0 || looks > sessions/16 || snapshots+pages < 3 {
		t.Errorf("%d of %d sessions asked; %d snapshots, %d page segments", looks, sessions, snapshots, pages)
	}
	if last := list[len(list)-1].max; newest-last > 2*youngTXIDs {
		t.Errorf("the newest of both is of TXID %d of %d", last, newest)
	}
	mc.checkNewest()
}

// An export that has far to go ends with the engine; one that is being published is
// waited for, but no longer than Close may.
func TestExportAtClose(t *testing.T) {
	for _, at := range []string{"copy", "publication", "publication, too long"} {
		t.Run(at, func(t *testing.T) {
			fs := faultstore.New(objstore.NewMem())
			mc := newMachine(t, fs, 5)
			clock := mc.clock.(*autoClock)
			p := mc.open(condense(time.Hour, 24*time.Hour))
			mc.m.commit()
			p.sync(t)
			clock.add(time.Hour)
			there, on := make(chan struct{}), make(chan struct{})
			fs.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, c faultstore.Call) error {
				if at != "copy" && c.Op == faultstore.Create && strings.HasPrefix(c.Key, segment.SnapshotPrefix) {
					close(there)
					select {
					case <-on:
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				}
				return nil
			}})
			if at == "copy" {
				p.src.onCopy = func(pass int) {
					if pass == 0 {
						close(there)
						<-on
					}
				}
			}
			mc.m.commit()
			p.sync(t)
			<-there
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			closed := make(chan error, 1)
			go func() { closed <- p.Close(ctx) }()
			switch at {
			case "copy":
				<-p.Done() // it isn't waited for
				close(on)
			case "publication":
				until(t, p.isClosing)
				close(on)
			default:
				until(t, p.isClosing)
				cancel()
			}
			if err := <-closed; err != nil {
				t.Fatal(err)
			}
			want := 0
			if at == "publication" {
				want = 1
			}
			if n := len(exportsOf(t, fs.Inner())); n != want {
				t.Errorf("%d exports, expected %d: %+v", n, want, p.Status())
			}
		})
	}
}

// A log segment ends at each position that a copy may turn out to be of, and an
// upload is not put off while a copy waits for it.
func TestExportDoesNotWaitForMaxLag(t *testing.T) {
	clock := testclock.New(time.UnixMicro(1_700_000_000_000_000))
	mc := newMachine(t, objstore.NewMem(), 6)
	mc.clock = clock
	p := mc.open(condense(time.Hour, 24*time.Hour), func(o *EngineOptions) { o.MaxLag = 30 * time.Minute })
	p.src.onCopy = func(int) { mc.m.commit() }
	mc.m.commit()
	p.sync(t)
	clock.Move(61 * time.Minute)
	mc.m.commit()
	until(t, func() bool { return len(exportsOf(t, mc.store)) == 1 })
	p.close(t)
	mc.checkExports()
}

// What a damaged export leaves is a snapshot, not silence.
func TestExportOnDamage(t *testing.T) {
	for _, what := range []string{"pages", "snapshot", "log"} {
		t.Run(what, func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 5)
			clock := mc.clock.(*autoClock)
			live := func() {
				p := mc.open(condense(time.Hour, 24*time.Hour))
				for range 4 {
					clock.add(time.Hour)
					mc.m.commit()
					p.sync(t)
					p.settled(t)
				}
				for range 3 {
					mc.m.commit()
					p.sync(t)
				}
				p.close(t)
			}
			live()
			list := exportsOf(t, mc.store)
			last := list[len(list)-1]
			before, _ := mc.checkExports()
			switch what {
			case "pages":
				b := bytes.Clone(get(t, mc.store, last.key()))
				b[70]++
				put(t, mc.store, last.key(), b)
			case "snapshot":
				b := bytes.Clone(get(t, mc.store, list[0].key()))
				b[70]++
				put(t, mc.store, list[0].key(), b)
			case "log":
				if err := mc.store.Delete(t.Context(), segment.LogKey(last.max+1)); err != nil {
					t.Fatal(err)
				}
			}
			live()
			after := 0
			for _, k := range exportsOf(t, mc.store) {
				if k.kind == segment.KindSnapshot {
					after++
				}
			}
			if after != before+1 {
				t.Errorf("%d snapshots, expected %d", after, before+1)
			}
			mc.checkNewest()
		})
	}
}
