package vfs

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
)

// Schedules: a seed is the life of a database. Connections come and go, write,
// roll back, spill, check points of every mode, VACUUM; the store fails in every
// way; processes are killed at failpoints and between any two writes of SQLite, the
// power fails (see internal/crashdisk), other machines take over. After each crash
// and in between it must hold that
//
//   - what a restore gives is a state that was committed, byte by byte, and has
//     everything that Sync has promised; it never goes back;
//   - the database is what SQLite promises, and its next opening is not refused,
//     unless it has lost what the replica has, or another machine goes on;
//   - once that is synced, a restore gives what the database is.
//
// A seed fixes what is drawn: each step, its statements, their bytes, what faults
// and failpoints are planned, what a loss of power takes. It does not fix when the
// goroutines of capture and engine run, hence not how many commits an entry holds,
// how far uploads are when a step crashes the process, which calls a fault hits,
// nor SQLite's random salts. So a failure may need a few runs of its seed.

var (
	flagLives   = flag.Int("lives", 1000, "lives of TestSchedules, from -seed on")
	flagAtATime = flag.Int("at-a-time", 8, "lives of TestSchedules side by side")
)

// TestSchedules lives through many lives. To see one of them:
//
//	go test ./vfs -run TestSchedules -seed 4711 -lives 1 -v
func TestSchedules(t *testing.T) {
	n := *flagLives
	if testing.Short() {
		n = min(n, 200)
	}
	var c counts
	began := time.Now()
	all := teeth{off: gatesOff(*flagOff)}
	fails := schedules(t, *flagSeed, n, all, &c, 3)
	// What is rare depends on when goroutines run, too: some more lives have it.
	for more := 100; n >= 1000 && more <= n && len(fails) == 0 && len(c.missing()) > 0; more += 100 {
		fails = schedules(t, *flagSeed+uint64(n+more-100), 100, all, &c, 3)
	}
	t.Logf("%d lives in %.1fs\n%s", c.get("lives", "all"), time.Since(began).Seconds(), c.String())
	for _, f := range fails {
		t.Error(f)
	}
	if len(fails) == 0 && n >= 1000 {
		for _, what := range c.missing() {
			t.Errorf("never happened: %s", what)
		}
	}
}

// missing is what should have happened and did not.
func (c *counts) missing() (whats []string) {
	for group, all := range expected() {
		for _, what := range all {
			if c.get(group, what) == 0 {
				whats = append(whats, group+": "+what)
			}
		}
	}
	return whats
}

// expected is what must have happened in a thousand lives.
func expected() map[string][]string {
	return map[string][]string{
		"commits":          {"all"},
		"checkpoints":      {"PASSIVE", "FULL", "RESTART", "TRUNCATE"},
		"crashes":          append([]string{"no failpoint", "copy-before", "snapshot-before"}, failpoints...),
		"exports":          {"pages", "snapshot"},
		"faults":           {"before", "lost reply", "latency", "out", "late"},
		"power losses":     {"OFF", "NORMAL", "FULL", "EXTRA"},
		"takeovers":        {"down", "running"},
		"restarts":         {"in order"},
		"restores checked": {"all"},
	}
}

// TestSchedulesHaveTeeth breaks something: the schedules must notice.
func TestSchedulesHaveTeeth(t *testing.T) {
	gate := func(gates string) teeth { return teeth{off: gatesOff(gates)} }
	lie := func(suffix string) teeth {
		return teeth{lies: func(name string) bool { return strings.HasSuffix(name, suffix) }}
	}
	cases := map[string]teeth{
		"gate checkpoint,restart":  gate("checkpoint,restart"),
		"gate checkpoint,truncate": gate("checkpoint,truncate"),
		"gate checkpoint,delete":   gate("checkpoint,delete"),
		"uploads are not synced":   gate("durable"),
		"spool is not synced":      lie(filepath.Join(local.Suffix, "spool")),
		"lineage is not synced":    lie("lineage.new"),
		"WAL is not synced":        lie("-wal"),
		"database is not synced":   lie("t.db"),
		"store loses":              {lose: func(key string) bool { return strings.HasPrefix(key, "log/") && strings.HasSuffix(key, "5") }},
	}
	if testing.Short() {
		maps.DeleteFunc(cases, func(name string, _ teeth) bool { return strings.HasPrefix(name, "gate") })
	}
	for name, teeth := range cases {
		t.Run(name, func(t *testing.T) {
			for seed := *flagSeed; seed < *flagSeed+4000; seed += 200 {
				if fails := schedules(t, seed, 200, teeth, &counts{}, 1); len(fails) > 0 {
					first, _, _ := strings.Cut(fails[0], "\n")
					t.Logf("noticed: %s", first)
					return
				}
			}
			t.Error("nobody notices")
		})
	}
}

// schedules runs n lives and returns what failed, not much more than limit.
func schedules(t testing.TB, seed uint64, n int, teeth teeth, c *counts, limit int) (fails []string) {
	root := t.TempDir()
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		if d, err := os.MkdirTemp("/dev/shm", "outwash-schedules"); err == nil {
			root = d
			t.Cleanup(func() { os.RemoveAll(d) })
		}
	}
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range min(n, *flagAtATime) {
		s := &slot{dir: filepath.Join(root, fmt.Sprint(i)), name: fmt.Sprintf("schedule%d", i)}
		wg.Go(func() {
			for {
				k := next.Add(1) - 1
				mu.Lock()
				enough := len(fails) >= limit
				mu.Unlock()
				if k >= int64(n) || enough {
					return
				}
				l := &life{seed: seed + uint64(k), slot: s, teeth: teeth, counts: c}
				l.r = rand.New(rand.NewPCG(l.seed, 7))
				if *flagLives == 1 {
					l.verbose = func(s string) { t.Log(s) }
				}
				if err := l.watched(); err != nil {
					mu.Lock()
					fails = append(fails, fmt.Sprintf("seed %d: %v\n%s\n\n  go test ./vfs -run TestSchedules -seed %d -lives 1 -v\n",
						l.seed, err, strings.Join(l.story, "\n"), l.seed))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return fails
}

// watched ends the program if the life doesn't end: nothing in it may hang.
func (l *life) watched() error {
	defer time.AfterFunc(3*patience, func() {
		b := make([]byte, 1<<20)
		os.Stderr.Write(b[:runtime.Stack(b, true)])
		panic(fmt.Sprintf("seed %d is stuck:\n%s", l.seed, strings.Join(l.story, "\n")))
	}).Stop()
	return l.live()
}

// counts says what happened in all lives.
type counts struct {
	mu sync.Mutex
	m  map[string]map[string]int
}

func (c *counts) add(group, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]map[string]int{}
	}
	if c.m[group] == nil {
		c.m[group] = map[string]int{}
	}
	c.m[group][what]++
}

func (c *counts) get(group, what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[group][what]
}

func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	var groups []string
	for g := range c.m {
		groups = append(groups, g)
	}
	slices.Sort(groups)
	for _, g := range groups {
		var whats []string
		for w := range c.m[g] {
			whats = append(whats, w)
		}
		slices.Sort(whats)
		fmt.Fprintf(&b, "%s:", g)
		for _, w := range whats {
			fmt.Fprintf(&b, " %s %d,", w, c.m[g][w])
		}
		b.WriteString("\n")
	}
	return b.String()
}
