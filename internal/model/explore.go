package model

import (
	"fmt"
	"hash/maphash"
	"strings"
)

// A role is what a machine is in a world, and how much it does there.
type role struct {
	content  int  // commits in its database from the beginning
	restores bool // it restores a missing database (replica_restore=auto)
	adopts   bool // whom it would refuse it adopts (outwash adopt)
	large    bool // its database is too large for an adopt entry with pages
	commits  int
	sessions int
}

// A world bounds what is explored.
type world struct {
	name    string
	n       int // machines
	roles   [machines]role
	faults  int      // replies that get lost
	exports int      // snapshots by running sessions
	mishaps int      // of the following
	power   bool     // losses of power
	blind   bool     // changes while nobody looks
	swap    bool     // older files put in the place of the database
	over    bool     // … and written over it, so that it seems to be the same file
	adopts  int      // times
	lag     bool     // listings at open may lack the newest key
	clone   bool     // the last machine may begin as a copy of the first, lineage and all
	sweeps  bool     // data that no snapshot names is deleted
	reader  bool     // somebody restores, slowly
	merge   bool     // what waits at open may be captured as one entry
	before  []action // what has happened already
}

type verb uint8

const (
	doStep verb = iota
	doLost
	doStale
	doBegin // after a crash, or the first time
	doCommit
	doExport
	doRetain
	doSweep
	doMerge
	doSettle
	doPower
	doBlind
	doSwap
	doClone
	doRestore // arg: mode
	doLand    // arg: which late request
	numVerbs
)

// action is something that can happen.
type action struct {
	verb verb
	arg  uint8 // machine, if nothing else is said
}

// explorer looks at every state of a world once, breadth first.
type explorer struct {
	t     *table
	world world
	off   rules

	seed    maphash.Seed
	seen    set
	solo    set
	checked state // states that differ elsewhere need no check
	nodes   []node
	bad     string
	found   [numNotes]bool // by the present action
	notes   [numNotes]int  // states in which it was first found; 0: never

	saying bool
	said   []string
}

// node says how a state was reached.
type node struct {
	parent int32
	by     action
}

// A note is something that is no violation, but should not surprise.
type note int

const (
	// strayRead: an open meets a claim that a fenced session left in a gap, and
	// takes what follows for damage.
	strayRead note = iota
	// strayClone: the same of a claim, with a session of the lineage running elsewhere.
	strayClone
	// byTXID: what is acknowledged can be restored only by naming a TXID.
	byTXID
	// lateList: a listing lacked so much that the replica seems to be damaged.
	lateList
	// needsPerson: a mishap leaves a machine with a database that is not on the
	// line, and nobody else can go on either.
	needsPerson
	numNotes
)

var noteNames = [numNotes]string{"stray claim read at open", "stray claim, lineage copied", "restorable by TXID only", "a late listing looks like damage", "a person must decide after a mishap"}

func (n note) String() string { return noteNames[n] }

func (x *explorer) note(n note) { x.found[n] = true }

// result of an exploration.
type result struct {
	states, moves, depth int
	objects              int
	violation            string // "": none
	trace                []string
	steps                int // of the trace
}

func newExplorer(w world, off rules) *explorer {
	return &explorer{t: newTable(), world: w, off: off, seed: maphash.MakeSeed()}
}

func (x *explorer) hash(s *state) uint64 { return maphash.Comparable(x.seed, *s) }

func (x *explorer) say(format string, a ...any) {
	if x.saying {
		x.said = append(x.said, fmt.Sprintf(format, a...))
	}
}

func (x *explorer) who(s *state, i int) string {
	if !x.saying && x.bad == "" {
		return "" // nobody listens
	}
	return sessionName(s.m[i].session(i))
}

func (x *explorer) violate(format string, a ...any) {
	if x.bad == "" {
		x.bad = fmt.Sprintf(format, a...)
	}
}

// start is the state from which a world begins.
func (x *explorer) start() state {
	var s state
	for i := range x.world.n {
		for range x.world.roles[i].content {
			x.commit(&s, i)
			s.m[i].safe = s.m[i].db
		}
	}
	for _, a := range x.world.before {
		if !x.do(&s, a) {
			panic(fmt.Sprintf("model: world %s: %v can't happen", x.world.name, a))
		}
	}
	s.faults, s.exports = 0, 0
	for i := range x.world.n {
		s.m[i].set(fresh, false)
	}
	return s
}

func (x *explorer) commit(s *state, i int) {
	m := &s.m[i]
	m.db = x.t.commit(m.db, uint8(i*perMachine)+m.commits)
	m.file = max(m.file, 1)
	m.commits++
	m.set(fresh, false)
}

// do lets a happen, if it can; else the state is worthless.
func (x *explorer) do(s *state, a action) bool {
	i := int(a.arg)
	switch a.verb {
	case doLand:
		return x.land(s, i)
	case doRestore:
		return x.slowly(s, mode(i))
	}
	m, w, role := &s.m[i], &x.world, &x.world.roles[i]
	switch a.verb {
	case doStep:
		return x.step(s, i, answered)
	case doLost:
		return int(s.faults) < w.faults && x.step(s, i, lost)
	case doStale:
		return (w.lag || !x.has(FreshList)) && (w.lag || m.phase == confirming) && x.step(s, i, stale)
	case doBegin:
		if int(m.sessions) >= role.sessions {
			return false
		}
		m.begin()
		x.say("%s begins", x.who(s, i))
	case doCommit:
		if m.phase != running || m.is(restored) && !m.is(claimed) || int(m.commits) >= role.content+role.commits {
			return false
		}
		x.commit(s, i)
		x.say("%c commits: %s", 'a'+i, x.t.histText(m.db))
	case doExport:
		return x.export(s, i)
	case doRetain:
		return x.retain(s, i)
	case doSweep:
		return x.sweep(s, i)
	case doSettle:
		return x.settle(s, i)
	case doPower, doBlind, doSwap:
		return x.mishap(s, i, a.verb)
	case doMerge:
		n, _ := x.t.grewFrom(m.db, x.t.objects[m.end].post)
		if !w.merge || m.phase != running || m.is(claimed|adopting|exporting) || m.merged != 0 || n < 2 {
			return false
		}
		m.merged = m.db
		x.say("%s merges what waits", x.who(s, i))
	case doClone:
		if last := w.n - 1; !w.clone || i != 0 || s.m[last].sessions > 0 || s.m[last].db != 0 || m.db == 0 {
			return false
		}
		s.m[w.n-1].kept = m.kept
		s.m[w.n-1].commits, s.m[w.n-1].sessions, s.m[w.n-1].file = 0, 0, m.file+8
		x.say("%c is copied to another machine", 'a'+i)
	}
	return true
}

// land lets a late request arrive.
func (x *explorer) land(s *state, n int) bool {
	if n >= len(s.late) || s.late[n] == 0 {
		return false
	}
	i := s.dropLate(n)
	if i >= deletion {
		x.say("a late request deletes log/%d", i&^deletion)
		s.log[i&^deletion] = 0
		return true
	}
	x.say("a late request creates %s", x.t.text(i))
	return x.create(s, i) // else nothing happens, now or later
}

// run explores until a violation is found, everything was seen, or limit states
// were.
func (x *explorer) run(limit int) (r result) {
	first := x.start()
	type entry struct {
		s    state
		node int32
	}
	level := []entry{{first, 0}}
	x.nodes = []node{{-1, action{}}}
	x.seen.add(x.hash(&first))
	for len(level) > 0 && len(x.nodes) < limit {
		var next []entry
		for _, from := range level {
			for v := verb(0); v < numVerbs; v++ {
				n := x.world.n
				if v >= doRestore {
					n = len(from.s.late)
				}
				for i := range n {
					s := from.s
					a := action{v, uint8(i)}
					x.found = [numNotes]bool{}
					ok := x.do(&s, a)
					if ok && x.bad == "" {
						x.prune(&s)
						x.check(&s)
					}
					if !ok && x.bad == "" {
						continue
					}
					r.moves++
					if x.bad == "" {
						if !x.seen.add(x.hash(&s)) {
							continue
						}
						x.progress(&s)
					}
					x.nodes = append(x.nodes, node{from.node, a})
					for n, found := range x.found {
						if found && x.notes[n] == 0 {
							x.notes[n] = len(x.nodes) - 1
						}
					}
					if x.bad != "" {
						r.states, r.depth = len(x.nodes), r.depth+1
						r.trace, r.steps, r.violation = x.trace(len(x.nodes)-1, x.bad)
						return r
					}
					next = append(next, entry{s, int32(len(x.nodes) - 1)})
				}
			}
		}
		level = next
		r.depth++
	}
	r.states, r.objects = len(x.nodes), len(x.t.objects)
	return r
}

// trace tells how a node is reached, by doing it again.
func (x *explorer) trace(n int, bad string) (lines []string, steps int, why string) {
	var acts []action
	for ; x.nodes[n].parent >= 0; n = int(x.nodes[n].parent) {
		acts = append(acts, x.nodes[n].by)
	}
	again := newExplorer(x.world, x.off)
	again.saying = true
	s := again.start()
	lines = again.said
	for i := len(acts) - 1; i >= 0; i-- {
		again.said = nil
		again.do(&s, acts[i])
		if again.bad == "" {
			again.prune(&s)
			again.check(&s)
		}
		lines = append(lines, fmt.Sprintf("%2d. %s", len(acts)-i, strings.Join(again.said, "\n    ")))
	}
	if again.bad == "" && bad != "" { // what the last state makes impossible
		again.bad = bad
	}
	if again.bad != "" {
		lines = append(lines, "VIOLATION: "+again.bad)
	}
	return lines, len(acts), again.bad
}

// set is a set of hashes.
type set struct {
	slots []uint64
	n     int
}

func (t *set) add(h uint64) bool {
	if h == 0 {
		h = 1
	}
	if 2*t.n >= len(t.slots) {
		old := t.slots
		t.slots = make([]uint64, max(1024, 2*len(old)))
		for _, h := range old {
			if h != 0 {
				t.put(h)
			}
		}
	}
	if !t.put(h) {
		return false
	}
	t.n++
	return true
}

func (t *set) put(h uint64) bool {
	for i := h & uint64(len(t.slots)-1); ; i = (i + 1) & uint64(len(t.slots)-1) {
		switch t.slots[i] {
		case 0:
			t.slots[i] = h
			return true
		case h:
			return false
		}
	}
}
