package killtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

var (
	flagPauses = flag.Int("pauses", 30, "how often to pause a process")
	flagStalls = flag.Int("stalls", 300, "how often to hold up a store in one process")
)

// inner is an actor in this process.
type inner struct{ *machine }

func (a inner) pid() int { return os.Getpid() }

func (a inner) do(c command) said { return a.machine.do(c, func(int) {}) }

// TestStalledWriter: in one process, a writer is held up before or after any
// request to its store, or while it has nothing to do.
func TestStalledWriter(t *testing.T) {
	if err := setupDriver(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	dir := memoryDir(t)
	sum := cast{how: map[string]int{}}
	for round := range *flagStalls {
		r := rand.New(rand.NewPCG(*flagSeed, uint64(round)))
		base := filepath.Join(dir, fmt.Sprint(round))
		if err := os.MkdirAll(base, 0o700); err != nil {
			t.Fatal(err)
		}
		store := replicate.NewMemStore()
		p := newPlay(t, r, base, store)
		p.enter = func(who string) actor {
			return inner{&machine{who: who, path: filepath.Join(base, who+".db"), store: store}}
		}
		fs := faultstore.New(store)
		a := &machine{who: "paused", path: filepath.Join(base, "paused.db"), store: fs}
		var acked atomic.Int64
		var woken said
		note := func(n int) { acked.Store(int64(n)) }

		if r.IntN(6) == 0 { // it has nothing to do
			if s := a.idle(); s.Wrong != "" || s.How != "" {
				t.Fatalf("round %d: %+v", round, s)
			}
			note(a.rows)
			p.takeOver()
			woken = a.work(500, note)
		} else {
			at, after := 1+r.IntN(30), r.IntN(2) == 0
			stalled, wake := make(chan string), make(chan struct{})
			var n atomic.Int64
			stall := func(c faultstore.Call) {
				if n.Add(1) == int64(at) {
					stalled <- fmt.Sprint(c.Op, " ", c.Key)
					<-wake
				}
			}
			var h faultstore.Hooks
			if after {
				h.After = func(_ context.Context, c faultstore.Call, err error) error { stall(c); return err }
			} else {
				h.Before = func(_ context.Context, c faultstore.Call) error { stall(c); return nil }
			}
			fs.SetHooks(h)
			var wg sync.WaitGroup
			wg.Go(func() {
				if woken = a.open(vfs.RestoreNever); woken.Wrong == "" && woken.How == "" {
					woken = a.work(2000, note)
				}
			})
			select {
			case what := <-stalled:
				p.shown = append(p.shown, fmt.Sprintf("held up at request %d, %s, after=%v", at, what, after))
			case <-time.After(slowest):
				t.Fatalf("round %d: not held up", round)
			}
			before := int(acked.Load())
			p.takeOver()
			close(wake)
			if r.IntN(2) == 0 {
				p.must(command{Op: "commit", N: 1 + r.IntN(3), Sync: true})
			}
			wg.Wait()
			if n := int(acked.Load()); n > before+2 { // what was in the store already, without a reply
				p.fatal("%d rows were acknowledged when it was held up, %d later", before, n)
			}
		}
		p.curtain(woken, int(acked.Load()))
		a.close(true)
		if woken.How == "fenced" {
			if s := a.stale(); s.Wrong != "" {
				p.fatal("round %d: %s", round, s.Wrong)
			}
		}
		sum.add(p, woken, int(acked.Load()))
		ctx, cancel := context.WithTimeout(t.Context(), slowest)
		vfs.Shutdown(ctx) // what the fenced one can't upload is its error
		cancel()
		os.RemoveAll(base)
	}
	t.Log(&sum)
	if sum.how["fenced"] == 0 || sum.retained == 0 {
		t.Error("nobody was fenced, or nothing deleted")
	}
}

// TestPausedWriter: a process is stopped at any moment, for as long as it takes
// others to take over, and goes on.
func TestPausedWriter(t *testing.T) {
	if !canPause {
		t.Skip("processes can't be paused here")
	}
	cache := t.TempDir()
	if err := setupDriver(cache); err != nil {
		t.Fatal(err)
	}
	dir := memoryDir(t)
	paused, other := startActor(t, cache), startActor(t, cache)
	sum := cast{how: map[string]int{}}
	for round := range *flagPauses {
		r := rand.New(rand.NewPCG(*flagSeed, uint64(1000+round)))
		base := filepath.Join(dir, fmt.Sprint(round))
		if err := os.MkdirAll(base, 0o700); err != nil {
			t.Fatal(err)
		}
		url := "file://" + base + "/replica"
		store, err := replicate.OpenStore(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		paused.url, other.url = url, url
		p := newPlay(t, r, base, store)
		p.enter = func(string) actor { return other }

		acks := filepath.Join(base, "acks")
		me := command{Who: "paused", Path: filepath.Join(base, "paused.db"), Acks: acks, N: 3000}
		open, work := me, me
		open.Op, work.Op = "open", "work"
		idle := r.IntN(6) == 0
		var woken said
		if idle {
			open.Op = "idle"
			if s := paused.do(open); s.Wrong != "" || s.How != "" {
				t.Fatalf("round %d: %+v", round, s)
			}
		} else {
			paused.send(open)
			if r.IntN(4) > 0 {
				if woken = paused.reply(); woken.Wrong != "" || woken.How != "" {
					t.Fatalf("round %d: %+v", round, woken)
				}
				paused.send(work)
			}
			time.Sleep(time.Duration(r.IntN(25000)) * time.Microsecond)
		}
		paused.pause()
		before := ackedRows(t, acks)
		p.shown = append(p.shown, fmt.Sprintf("round %d: paused, idle=%v, %d rows acknowledged", round, idle, before))
		p.takeOver()
		paused.wake()
		if r.IntN(2) == 0 {
			p.must(command{Op: "commit", N: 1 + r.IntN(3), Sync: true})
		}
		switch {
		case idle:
			woken = paused.do(work)
		case woken.Session != "": // it was at work
			woken = paused.reply()
		default:
			if woken = paused.reply(); woken.Wrong == "" && woken.How == "" {
				woken = paused.do(work)
			}
		}
		acked := ackedRows(t, acks)
		if acked > before+2 { // what was in the store already, without a reply
			p.fatal("%d rows were acknowledged when it was stopped, %d later", before, acked)
		}
		p.curtain(woken, acked)
		end := me
		end.Op, end.Sync = "close", true
		paused.do(end)
		if woken.How == "fenced" {
			end.Op = "stale"
			if s := paused.do(end); s.Wrong != "" {
				p.fatal("round %d: %s", round, s.Wrong)
			}
		}
		sum.add(p, woken, acked)
		os.RemoveAll(base)
	}
	t.Log(&sum)
	if sum.how["fenced"] == 0 || sum.retained == 0 {
		t.Error("nobody was fenced, or nothing deleted")
	}
}

func ackedRows(t *testing.T, file string) int {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	if len(lines) == 0 {
		return 0 // stopped before its first line
	}
	n, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
