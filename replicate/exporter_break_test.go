package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
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

// A database that gets another page size just when a page segment is to be written is
// not continued by one: nobody could restore it.
func TestExportOfAnotherPageSize(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 14)
	clock := mc.clock.(*autoClock)
	armed := make(chan bool, 1)
	var p *process
	p = mc.open(condense(time.Hour, 24*time.Hour), func(o *EngineOptions) {
		o.Failpoint = func(at string) error {
			if at != "copy-before" {
				return nil
			}
			select {
			case <-armed:
			default:
				return nil
			}
			mc.m.whole(1024)
			p.src.signal()
			for h := p.history; ; runtime.Gosched() { // until it is acknowledged
				h.mu.Lock()
				size := h.end.PageSize
				h.mu.Unlock()
				if size == 1024 {
					return nil
				}
			}
		}
	})
	mc.m.commit()
	p.sync(t)
	for i := range 4 {
		clock.add(time.Hour)
		mc.m.commit()
		if i == 2 {
			armed <- true
		}
		p.sync(t)
		p.settled(t)
	}
	p.close(t)
	if snapshots, pages := mc.checkExports(); snapshots != 2 || pages != 1 {
		t.Errorf("%d snapshots, %d page segments", snapshots, pages)
	}
	mc.checkNewest()
}

// A snapshot that somebody else wrote behind the session's beginning doesn't keep page
// segments from being written, though what changed since is not known by itself.
func TestExportBesideSnapshot(t *testing.T) {
	for _, every := range []time.Duration{24 * time.Hour, Forever} {
		mc := newMachine(t, objstore.NewMem(), 15)
		clock := mc.clock.(*autoClock)
		p := mc.open(condense(time.Hour, 24*time.Hour))
		mc.m.commit()
		p.sync(t)
		clock.add(2 * time.Hour)
		mc.m.commit()
		p.sync(t)
		p.settled(t)
		p.close(t) // there is a snapshot
		p = mc.open(condense(time.Hour, every))
		mc.m.commit()
		p.sync(t)
		res, err := WriteSnapshot(t.Context(), SnapshotOptions{Store: mc.store, TempDir: t.TempDir()})
		if err != nil || !res.Written {
			t.Fatal(res, err)
		}
		for range 3 {
			clock.add(90 * time.Minute)
			mc.m.commit()
			p.sync(t)
			p.settled(t)
		}
		p.close(t)
		if snapshots, pages := mc.checkExports(); snapshots != 2 || pages != 3 {
			t.Errorf("%v: %d snapshots, %d page segments", every, snapshots, pages)
		}
		mc.checkNewest()
	}
}

// Somebody deletes the data of the only snapshot while a session goes on: it writes
// another one, on which the replica can be restored again.
func TestExportAfterItsDataWasLost(t *testing.T) {
	clock := newAutoClock()
	mem := objstore.NewMemAt(clock.Now)
	mc := newMachine(t, mem, 72)
	mc.clock = clock
	grown(mc.m, 300)
	mc.m.notOurs = true
	p := mc.open(condense(time.Hour, 10*24*time.Hour), func(o *EngineOptions) { o.Keep.Log = time.Hour })
	p.sync(t)
	mc.m.notOurs = false
	work := func(hours int) {
		for range 2 * hours {
			clock.add(31 * time.Minute)
			mc.m.mu.Lock()
			mc.m.commitN(1, 12)
			mc.m.mu.Unlock()
			p.sync(t)
			p.settled(t)
		}
	}
	work(3)
	deleted := 0
	for _, k := range exportsOf(t, mem) {
		if o, _, _ := readExport(t, mem, k); k.kind == segment.KindSnapshot && o.Header.External {
			if err := mem.Delete(t.Context(), o.DataKey()); err != nil {
				t.Fatal(err)
			}
			deleted++
		}
	}
	if deleted != 1 {
		t.Fatalf("%d snapshots with a data object", deleted)
	}
	work(4)
	mc.checkNewest()
	p.close(t)
}
