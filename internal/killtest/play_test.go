package killtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// command is a step of a machine.
type command struct {
	Op      string // open, idle, commit, work, close, stale
	Who     string
	Path    string
	Store   string
	Acks    string // file that work notes acknowledged rows in
	Restore vfs.RestoreMode
	N       int
	Sync    bool
}

func (m *machine) do(c command, note func(int)) said {
	switch c.Op {
	case "open":
		return m.open(c.Restore)
	case "idle":
		return m.idle()
	case "commit":
		return m.commit(c.N, c.Sync)
	case "work":
		return m.work(c.N, note)
	case "close":
		return m.close(c.Sync)
	case "stale":
		return m.stale()
	}
	return said{Wrong: "unknown step " + c.Op}
}

// actor makes the steps of a machine, in this process or another one.
type actor interface {
	do(c command) said
	pid() int
}

// play is one round: somebody is held up, others take over and go on, he wakes.
type play struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	store replicate.Store // without faults
	enter func(who string) actor
	shown []string // what happened, for failures

	owner    actor
	who      string
	path     string
	takers   int
	rows     map[string]int    // committed by each taker
	sessions map[string]string // of the takers: who
	pids     map[string]int
	retained int
}

func newPlay(t *testing.T, r *rand.Rand, dir string, store replicate.Store) *play {
	return &play{t: t, r: r, dir: dir, store: store, rows: map[string]int{}, sessions: map[string]string{}, pids: map[string]int{}}
}

func (p *play) fatal(format string, a ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s", fmt.Sprintf(format, a...), strings.Join(p.shown, "\n"))
}

// must makes a step of the owner, which nothing may prevent.
func (p *play) must(c command) said {
	p.t.Helper()
	c.Who, c.Path = p.who, p.path
	s := p.owner.do(c)
	p.shown = append(p.shown, fmt.Sprintf("%s: %s %d sync=%v: %+v", p.who, c.Op, c.N, c.Sync, s))
	if s.Wrong != "" || s.How != "" {
		p.fatal("the owner could not %s: %s%s", c.Op, s.Wrong, s.Told)
	}
	p.rows[p.who] = s.Rows
	if s.Session != "" {
		p.sessions[s.Session] = p.who
		p.pids[p.who] = p.owner.pid()
	}
	return s
}

// enterTaker lets a machine restore the replica and go on.
func (p *play) enterTaker() {
	p.takers++
	p.who = fmt.Sprint("taker", p.takers)
	p.path = filepath.Join(p.dir, p.who+".db")
	p.owner = p.enter(p.who)
	p.must(command{Op: "open", Restore: vfs.RestoreAuto})
	p.must(command{Op: "commit", N: 1, Sync: true})
}

// takeOver is what happens while somebody is held up.
func (p *play) takeOver() {
	p.enterTaker()
	for range p.r.IntN(6) {
		switch p.r.IntN(6) {
		case 0:
			p.must(command{Op: "commit", N: 1 + p.r.IntN(8)})
		case 1, 2:
			p.must(command{Op: "commit", N: 1 + p.r.IntN(3), Sync: true})
		case 3:
			p.must(command{Op: "commit", N: 1, Sync: true})
			retain(p.t, p.store, p.dir)
			p.retained++
			p.shown = append(p.shown, "log below the newest state deleted")
		case 4: // a session after the other
			p.must(command{Op: "close"})
			p.must(command{Op: "open"})
		case 5: // and a machine after the other
			if p.takers < 3 {
				p.must(command{Op: "close"})
				p.enterTaker()
			}
		}
	}
	p.must(command{Op: "commit", N: 1, Sync: true})
}

// curtain checks what the one who was held up was told, and that the replica has
// the owner's database with all that he had uploaded before.
func (p *play) curtain(woken said, acked int) {
	p.t.Helper()
	p.shown = append(p.shown, fmt.Sprintf("paused: %+v, %d rows acknowledged", woken, acked))
	if woken.Wrong != "" || woken.How == "" {
		p.fatal("woken: %s", woken.Wrong)
	}
	if woken.How == "fenced" {
		if who, ok := p.sessions[woken.By]; !ok || woken.PID != 0 && woken.PID != p.pids[who] {
			p.fatal("fenced by session %q, process %d: which is nobody's", woken.By, woken.PID)
		}
	}
	p.must(command{Op: "commit", N: 1, Sync: true})
	p.must(command{Op: "close"})
	if _, err := os.Stat(p.path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		p.fatal("the owner's log is still there: %v", err)
	}
	out := filepath.Join(p.dir, "restored.db")
	if _, err := replicate.Restore(p.t.Context(), replicate.RestoreOptions{Store: p.store, Output: out}); err != nil {
		p.fatal("%v", err)
	}
	want, err := os.ReadFile(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(want) == 0 || !bytes.Equal(want, got) {
		p.fatal("the restored database (%d bytes) is not the owner's (%d bytes)", len(got), len(want))
	}
	if n, err := rowsOf(out, "paused"); err != nil || n < acked || n > woken.Rows {
		p.fatal("restored are %d rows of the paused one, %d were acknowledged, %d committed: %v", n, acked, woken.Rows, err)
	}
	for who, n := range p.rows {
		if got, err := rowsOf(out, who); err != nil || got != n {
			p.fatal("restored are %d rows of %s, %d were committed: %v", got, who, n, err)
		}
	}
}

// cast counts what the rounds were like.
type cast struct {
	how                          map[string]int
	takers, retained, acked, all int
}

func (c *cast) add(p *play, woken said, acked int) {
	how := woken.How
	if how == "fenced" && woken.PID == 0 {
		how = "fenced by an unknown owner"
	}
	c.how[how]++
	c.takers += p.takers
	c.retained += p.retained
	c.all++
	if acked > 0 {
		c.acked++
	}
}

func (c *cast) String() string {
	return fmt.Sprintf("%d rounds (%d after something was acknowledged): %d machines took over, the log was deleted %d times; the one that woke was %v",
		c.all, c.acked, c.takers, c.retained, c.how)
}
