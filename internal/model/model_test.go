package model

import (
	"os"
	"strings"
	"testing"
	"time"
)

// With all rules nothing breaks.
func TestProtocol(t *testing.T) {
	list := worlds
	if os.Getenv("OUTWASH_MODEL") == "large" {
		list = append(list[:len(list):len(list)], largeWorlds...)
	}
	var states, moves int
	for _, w := range list {
		t.Run(w.name, func(t *testing.T) {
			began := time.Now()
			x := newExplorer(w, 0)
			r := x.run(1 << 30)
			t.Logf("%d states, %d transitions, depth %d, %d objects, %v", r.states, r.moves, r.depth, r.objects, time.Since(began).Round(time.Millisecond))
			states, moves = states+r.states, moves+r.moves
			if r.violation != "" {
				t.Errorf("%s\n%s", r.violation, strings.Join(r.trace, "\n"))
			}
			for n, at := range x.notes {
				if at != 0 {
					lines, steps, _ := x.trace(at, "")
					t.Logf("possible: %s, after %d steps", note(n), steps)
					if testing.Verbose() && os.Getenv("OUTWASH_MODEL") != "" {
						t.Log(strings.Join(lines, "\n"))
					}
				}
			}
		})
	}
	t.Logf("in all %d states, %d transitions", states, moves)
}

// planted switches rules off and says what must then break.
type planted struct {
	rule  Rule
	also  []Rule // off as well
	world world
	want  string // in the violation
	// spare says why nothing breaks.
	spare string
}

var bugs = []planted{
	{rule: ClaimFirst, world: deleting, want: "which is not in the line"},
	{rule: KeepClaims, world: deleting, want: "which is not in the line"},
	{rule: Confirm, world: deleting, want: "which is not in the line"},
	{rule: NextKey, world: racing, want: "under a key that no reader looks for"},
	{rule: Conditional, world: racing, want: "is of another history"},
	{rule: Compare, world: racing, want: "which is not in the line"},
	{rule: OwnEarlier, world: crashing, want: "fenced by its own machine"},
	{rule: Durable, world: crashing, want: "fenced by its own machine"},
	{rule: Frozen, world: crashing, want: "is of another history"},
	{rule: OwnAttempt, world: crashing, spare: "while Frozen holds there are no other attempts; see the next"},
	{rule: OwnAttempt, also: []Rule{Frozen}, world: crashing, want: "which is not in the line"},
	{rule: Follows, world: contact, want: "does not follow"},
	{rule: Acknowledged, world: deleting, want: "a restore fails"},
	{rule: AdoptFirst, world: contact, want: "a restore fails"},
	{rule: NeedsBase, world: contact, want: "can't be restored"},
	{rule: SameBoot, world: powerless, want: "can't be restored"},
	{rule: SameFile, world: swapping, want: "can't be restored"},
	{rule: OldState, world: writing, want: "can't be restored"},
	{rule: Untouched, world: writing, want: "can't be restored"},
	{rule: SyncFirst, world: powerless, want: "can't be restored"},
	{rule: KeepNewest, world: taking, want: "a restore fails"},
	{rule: KeepLog, world: deleting, want: "a restore fails"},
	{rule: AfterCreate, world: deleting, spare: "a plan stays right for ever: what a snapshot covers, it covers. But see the next"},
	{rule: AfterCreate, world: lagging, want: "fenced by its own machine"},
	{rule: Ascending, world: deleting, spare: "readers check the chain from a snapshot on, and meet a hole wherever it is; " +
		"what it gives is that what an interrupted deletion leaves looks like any other replica's beginning"},
	{rule: Ascending, world: restoring, spare: "likewise"},
	{rule: Whole, world: sweeping, want: "a restore fails"},
	{rule: FreshList, world: deleting, want: "which is not in the line"},
	{rule: FreshList, world: restoring, want: "more was acknowledged when it began"},
}

// Each rule is needed, or it is said why it is not.
func TestPlantedBugs(t *testing.T) {
	for _, b := range bugs {
		name := b.rule.String()
		for _, r := range b.also {
			name += " and " + r.String()
		}
		t.Run(name+", "+b.world.name, func(t *testing.T) {
			if r := newExplorer(b.world, 0).run(1 << 30); r.violation != "" {
				t.Fatalf("with all rules: %s\n%s", r.violation, strings.Join(r.trace, "\n"))
			}
			r := newExplorer(b.world, without(append(b.also, b.rule)...)).run(1 << 30)
			if b.want == "" {
				if r.violation != "" {
					t.Fatalf("this breaks after all: %s\n%s", r.violation, strings.Join(r.trace, "\n"))
				}
				t.Logf("nothing in all %d states: %s", r.states, b.spare)
				return
			}
			if !strings.Contains(r.violation, b.want) {
				t.Fatalf("%d states: %q, expected: %s\n%s", r.states, r.violation, b.want, strings.Join(r.trace, "\n"))
			}
			t.Logf("found after %d states, %d steps: %s", r.states, r.steps, r.violation)
			if os.Getenv("OUTWASH_MODEL") != "" {
				t.Log("\n" + strings.Join(r.trace, "\n"))
			}
		})
	}
}

// Nobody adds a rule without a bug planted for it.
func TestEveryRuleHasItsBug(t *testing.T) {
	for r := range numRules {
		n := 0
		for _, b := range bugs {
			if b.rule == r {
				n++
				if (b.want == "") == (b.spare == "") {
					t.Errorf("%s: what breaks, or why nothing does?", r)
				}
			}
		}
		if n == 0 || r.String() == "" {
			t.Errorf("rule %d (%s) has no planted bug", r, r)
		}
	}
}

// The check that somebody can go on notices when nobody can.
func TestProgressHasTeeth(t *testing.T) {
	x := newExplorer(crashing, 0)
	s := x.start()
	for _, v := range []verb{doBegin, doStep, doStep, doCommit, doStep, doStep, doStep} {
		if !x.do(&s, action{v, 0}) {
			t.Fatalf("verb %d can't happen", v)
		}
	}
	if x.progress(&s); x.bad != "" {
		t.Fatal(x.bad)
	}
	s.log[2], s.m[0].noted = 0, 0 // as if somebody had deleted the newest segment
	if x.progress(&s); x.bad == "" {
		t.Fatal("a session goes on from nothing")
	}
}
