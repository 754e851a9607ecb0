package vfs

import (
	"context"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// weather is how the store behaves towards a process.
type weather int

const (
	fair  weather = iota
	held          // nothing new is stored: who wants that waits
	out           // nothing works
	flaky         // some calls fail, before or after their effect, some take time
	late          // the next log segment fails and arrives some time; then as out
)

var weathers = []string{"fair", "held", "out", "flaky", "late"}

// lateObject is a request that the store has still to see.
type lateObject struct {
	key  string
	data []byte
}

// lateStore keeps requests for later while the weather is late.
type lateStore struct {
	replicate.Store
	p *process
	l *life
}

func (s lateStore) Create(ctx context.Context, key string, data []byte) error {
	p := s.p
	p.mu.Lock()
	if p.weather == late {
		p.weather = out
		p.late = append(p.late, lateObject{key, data})
		p.mu.Unlock()
		s.l.counts.add("faults", "late")
		return faultstore.ErrInjected
	}
	p.mu.Unlock()
	if s.l.teeth.lose != nil && s.l.teeth.lose(key) {
		return nil
	}
	err := s.Store.Create(ctx, key, data)
	if kind, _, _ := strings.Cut(key, "/"); err == nil && (kind == "pages" || kind == "snapshot") {
		s.l.counts.add("exports", kind)
	}
	return err
}

// arrive makes requests that are under way arrive.
func (l *life) arrive() {
	for _, o := range l.under {
		l.say("  a late request arrives: %s", o.key)
		l.bucket.Create(context.Background(), o.key, o.data) // an object that is there stays
	}
	l.under = nil
}

func (p *process) setWeather(w weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	close(p.calls)
	p.calls = make(chan struct{})
}

// faults are what the weather does to calls.
func (p *process) faults(l *life) faultstore.Hooks {
	return faultstore.Hooks{
		Before: func(ctx context.Context, c faultstore.Call) error {
			for {
				p.mu.Lock()
				w, calls, n := p.weather, p.calls, p.random.IntN(100)
				p.mu.Unlock()
				write := c.Op == faultstore.Create || c.Op == faultstore.Upload
				switch {
				case p.m.disk.Dead():
					return errDied
				case w == out:
					l.counts.add("faults", "out")
					return faultstore.ErrInjected
				case w == flaky && n < 25:
					l.counts.add("faults", "before")
					return faultstore.ErrInjected
				case w == held && write:
					select {
					case <-calls:
						continue
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			}
		},
		After: func(_ context.Context, c faultstore.Call, err error) error {
			p.mu.Lock()
			w, n := p.weather, p.random.IntN(100)
			p.mu.Unlock()
			if err == nil && w == flaky && n < 25 {
				l.counts.add("faults", "lost reply")
				return faultstore.ErrInjected
			}
			return err
		},
		Latency: func(faultstore.Call) time.Duration {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.weather == flaky && p.random.IntN(4) == 0 {
				l.counts.add("faults", "latency")
				return time.Duration(p.random.IntN(2000)) * time.Microsecond
			}
			return 0
		},
	}
}

// failpoints of capture and engine that a database of this size passes.
var failpoints = []string{
	"root-before", "root-after", "session", "claim-before", "claim-after", "log-before", "log-after", "lineage-before", "lineage-after", "durable-before", "durable-after",
	"checkpoint", "restart", "truncate", "delete", "spool-append", "spool-sync", "log-sync",
}

// exportFailpoints are those of the engine that condenses what it has uploaded.
var exportFailpoints = []string{
	"copy-before", "copy-after", "pages-before", "pages-after", "snapshot-before", "snapshot-after",
}

// plan says where the process dies.
func (p *process) plan(at string, pass int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.crashAt, p.passes = at, pass
}

// failpoint is called at each step that capture and engine take.
func (p *process) failpoint(l *life, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m.disk.Dead() {
		return errDied
	}
	if name == p.crashAt {
		if p.passes--; p.passes == 0 {
			p.m.disk.Kill()
			p.died = name
			return errDied
		}
	}
	return nil
}
