package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// The process dies at every failpoint of an export, in turn, while it goes on to
// commit: what is published is right, and the next session publishes more.
func TestExportCrash(t *testing.T) {
	for _, inline := range []int64{64 << 10, 4 << 10} { // without and with a data object
		for _, name := range []string{"copy-before", "copy-after", "pages-before", "pages-after", "snapshot-before", "snapshot-after", "log-before", "log-after"} {
			for pass := 1; pass <= 2; pass++ {
				t.Run(fmt.Sprintf("%d/%s/%d", inline, name, pass), func(t *testing.T) {
					mc := newMachine(t, objstore.NewMem(), 71)
					clock := mc.clock.(*autoClock)
					crash := errors.New("power is gone")
					var mu sync.Mutex
					seen, armed := 0, false
					fail := func(o *EngineOptions) {
						o.inline = inline
						o.Failpoint = func(at string) error {
							mu.Lock()
							defer mu.Unlock()
							if at == name && armed {
								if seen++; seen == pass {
									return crash
								}
							}
							return nil
						}
					}
					arm := func(on bool) {
						mu.Lock()
						defer mu.Unlock()
						armed = on
					}
					work := func(p *process) error {
						for i := range 10 {
							clock.add(40 * time.Minute)
							mc.m.commit()
							if _, err := p.Sync(within(t)); err != nil {
								return err
							}
							p.settled(t)
							if i == 2 {
								arm(true)
							}
						}
						return nil
					}
					every := 20 * time.Hour
					if strings.HasPrefix(name, "snapshot") {
						every = 2 * time.Hour
					}
					p := mc.open(fail, condense(time.Hour, every))
					p.src.onCopy = func(int) { mc.m.commit() }
					err := work(p)
					if err == nil {
						_, err = p.Sync(within(t))
					}
					if !errors.Is(err, crash) && !errors.Is(p.Err(), crash) {
						t.Fatalf("no crash: %v", err)
					}
					p.kill()
					mc.checkExports()
					arm(false)
					before := len(exportsOf(t, mc.store))
					p = mc.open(condense(time.Hour, 2*time.Hour))
					if err := work(p); err != nil {
						t.Fatal(err)
					}
					arm(false)
					p.close(t)
					if mc.checkExports(); len(exportsOf(t, mc.store)) <= before {
						t.Error("nothing was published after the crash")
					}
					mc.checkNewest()
					mc.checkSome(4)
				})
			}
		}
	}
}

// counting is a log that counts warnings with a text.
type counting struct {
	slog.Handler
	mu    sync.Mutex
	texts []string
}

func (c *counting) Enabled(context.Context, slog.Level) bool { return true }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counting) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Level >= slog.LevelWarn {
		c.texts = append(c.texts, r.Message)
	}
	return nil
}

func (c *counting) count(text string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.texts {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// Whatever makes exports fail, the log goes on, people are told once, attempts become
// rarer, and the first one that can succeed does.
func TestExportFailures(t *testing.T) {
	refused := func(op faultstore.Op, prefixes ...string) func(fs *faultstore.Store, p *process) func() {
		return func(fs *faultstore.Store, _ *process) func() {
			fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
				for _, prefix := range prefixes {
					if txid, _, _ := segment.ParseDataKey(c.Key); txid == 0 && strings.HasPrefix(c.Key, prefix) && c.Op == op {
						return faultstore.ErrInjected
					}
				}
				return nil
			}})
			return func() { fs.SetHooks(faultstore.Hooks{}) }
		}
	}
	copyFails := func(err error) func(fs *faultstore.Store, p *process) func() {
		return func(_ *faultstore.Store, p *process) func() {
			p.src.copyErr = func() error { return err }
			return func() { p.src.copyErr = nil }
		}
	}
	for _, c := range []struct {
		name  string
		begin func(fs *faultstore.Store, p *process) (end func())
	}{
		{"listings", refused(faultstore.List, segment.SnapshotPrefix)},
		{"uploads", refused(faultstore.Upload, segment.DataPrefix)},
		{"publication", refused(faultstore.Create, segment.PagesPrefix, segment.SnapshotPrefix)},
		{"denied", func(fs *faultstore.Store, _ *process) func() {
			fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
				if strings.HasPrefix(c.Key, segment.PagesPrefix) || strings.HasPrefix(c.Key, segment.SnapshotPrefix) {
					return objstore.ErrDenied
				}
				return nil
			}})
			return func() { fs.SetHooks(faultstore.Hooks{}) }
		}},
		{"copies", copyFails(errors.New("the disk is away"))},
		{"locked", copyFails(local.ErrLocked)},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := faultstore.New(objstore.NewMem())
			mc := newMachine(t, fs, 5)
			p := mc.open()
			mc.m.commit()
			p.sync(t)
			p.close(t) // what there is must be asked for
			clock, log := mc.clock.(*autoClock), &counting{}
			p = mc.open(condense(time.Hour, 24*time.Hour), func(o *EngineOptions) { o.Logger, o.inline = slog.New(log), 1<<10 })
			mc.m.mu.Lock()
			large(mc.m, 100)
			mc.m.mu.Unlock()
			p.sync(t)
			attempts := 0
			end := c.begin(fs, p)
			for range 40 {
				clock.add(5 * time.Minute)
				if c.name != "locked" && c.name != "copies" {
					clock.add(25 * time.Minute)
				}
				mc.m.commit()
				before := p.Status().History.Next
				p.sync(t)
				p.settled(t)
				if s := p.Status(); s.State != StateReplicating || s.Error != "" {
					t.Fatalf("%+v", s)
				} else if !s.History.Next.Equal(before) {
					attempts++
				}
			}
			s := p.Status().History
			if s.Error == "" || len(exportsOf(t, fs.Inner())) > 0 {
				t.Fatalf("%+v, %d exports", s, len(exportsOf(t, fs.Inner())))
			}
			if n := log.count("no page segment"); n != 1 {
				t.Errorf("%d warnings", n)
			}
			if attempts < 4 || attempts > 36 {
				t.Errorf("%d attempts", attempts)
			}
			end()
			clock.add(61 * time.Minute)
			mc.m.commit()
			p.sync(t)
			p.settled(t)
			if s := p.Status().History; s.Error != "" || s.Snapshot == nil {
				t.Fatalf("%+v", s)
			}
			p.close(t)
			mc.store = fs.Inner()
			if n, _ := mc.checkExports(); n != 1 {
				t.Errorf("%d snapshots", n)
			}
			mc.checkNewest()
		})
	}
}

// Answers that get lost don't make two of one export, and none is lost.
func TestExportLostReplies(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 5)
	clock := mc.clock.(*autoClock)
	p := mc.open(condense(time.Hour, 30*time.Hour))
	mc.m.commit()
	p.sync(t)
	lost := map[string]bool{}
	var mu sync.Mutex
	fs.SetHooks(faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Op == faultstore.Create && !strings.HasPrefix(c.Key, segment.LogPrefix) && !lost[c.Key] {
			lost[c.Key] = true
			return faultstore.ErrInjected
		}
		return err
	}})
	for range 12 {
		clock.add(time.Hour)
		mc.m.commit()
		p.sync(t)
		p.settled(t)
		if s := p.Status().History; s.Error != "" {
			t.Fatal(s.Error)
		}
	}
	p.close(t)
	snapshots, pages := mc.checkExports()
	if snapshots != 1 || pages < 8 || len(lost) != snapshots+pages {
		t.Errorf("%d snapshots, %d page segments, %d replies lost", snapshots, pages, len(lost))
	}
}

// Much that changes makes a page segment due at once.
func TestExportByCost(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 9)
	p := mc.open(func(o *EngineOptions) { o.replay = 100 << 10 })
	for range 6 {
		mc.m.mu.Lock()
		large(mc.m, 100) // 50 KiB
		mc.m.mu.Unlock()
		p.sync(t)
		p.settled(t)
	}
	p.close(t)
	if snapshots, pages := mc.checkExports(); snapshots != 1 || pages != 2 {
		t.Errorf("%d snapshots, %d page segments", snapshots, pages)
	}
}

// Entries that are given up while pages are copied end the copy; the next one is
// right again.
func TestExportLost(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 12)
	clock := mc.clock.(*autoClock)
	p := mc.open(condense(time.Hour, 24*time.Hour))
	for i := range 8 {
		if i == 3 || i == 4 {
			p.src.onCopy = func(int) {
				p.src.onCopy = nil
				mc.m.commit()
				p.src.lose()
				mc.m.sneak()
			}
		}
		clock.add(time.Hour)
		mc.m.commit()
		p.sync(t)
		p.settled(t)
		until(t, func() bool { return p.Status().State == StateReplicating })
		p.sync(t)
	}
	p.close(t)
	if snapshots, pages := mc.checkExports(); snapshots != 1 || pages < 4 {
		t.Errorf("%d snapshots, %d page segments", snapshots, pages)
	}
	mc.checkNewest()
}

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
	clock := &manualClock{now: time.UnixMicro(1_700_000_000_000_000)}
	mc := newMachine(t, objstore.NewMem(), 6)
	mc.clock = clock
	p := mc.open(condense(time.Hour, 24*time.Hour), func(o *EngineOptions) { o.MaxLag = 30 * time.Minute })
	p.src.onCopy = func(int) { mc.m.commit() }
	mc.m.commit()
	p.sync(t)
	clock.advance(61 * time.Minute)
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
