package model

import (
	"fmt"
	"strings"
)

// hist is a state of a database: the list of its commits. 0 is the empty one.
type hist uint16

type histNode struct {
	before hist
	commit uint8 // machine*perMachine + number
}

// id is an object: its content, and by its prev all that came before. 0 is none.
type id uint16

type kind uint8

const (
	claim    kind = iota
	entries       // commits
	adopt         // the database's content becomes the line's
	adoptRef      // … and its pages are in a snapshot to come
	repair        // what differs, of a database that had reached the state before
	snapshot
)

// object is a log segment or a snapshot.
type object struct {
	kind     kind
	session  uint8 // machine*perMachine + number
	key      uint8 // min, unless NextKey is off
	min, max uint8
	prev     id   // log: the segment before; snapshot: the segment that ends with max
	post     hist // state after max
}

// perMachine bounds commits and sessions of one machine; machines*perMachine
// bits fit into 16.
const (
	perMachine = 5
	machines   = 3
	keys       = 16 // TXIDs below that
)

// table interns states and objects: the same content has the same ID.
type table struct {
	hists   []histNode
	masks   []uint16 // commits in it
	histIDs map[histNode]hist
	objects []object
	lost    []uint16 // commits that adopt entries up to here overrode
	ids     map[object]id
}

func newTable() *table {
	return &table{
		hists: []histNode{{}}, masks: []uint16{0}, histIDs: map[histNode]hist{},
		objects: []object{{}}, lost: []uint16{0}, ids: map[object]id{},
	}
}

func (t *table) commit(h hist, c uint8) hist {
	n := histNode{h, c}
	if h, ok := t.histIDs[n]; ok {
		return h
	}
	t.hists = append(t.hists, n)
	t.masks = append(t.masks, t.masks[h]|1<<c)
	t.histIDs[n] = hist(len(t.hists) - 1)
	return t.histIDs[n]
}

// grewFrom reports whether h is old with more commits, or old itself, and how
// many more.
func (t *table) grewFrom(h, old hist) (n int, ok bool) {
	for ; h != old; n++ {
		if h == 0 {
			return 0, false
		}
		h = t.hists[h].before
	}
	return n, true
}

func (t *table) intern(o object) id {
	if i, ok := t.ids[o]; ok {
		return i
	}
	t.objects = append(t.objects, o)
	lost := t.lost[o.prev]
	if o.kind == adopt || o.kind == adoptRef {
		lost |= t.masks[t.objects[o.prev].post] &^ t.masks[o.post]
	}
	t.lost = append(t.lost, lost)
	i := id(len(t.objects) - 1)
	if i == 0 || i >= deletion {
		panic("model: too many objects")
	}
	t.ids[o] = i
	return i
}

// max is the last TXID of o.
func (t *table) max(o id) uint8 { return t.objects[o].max }

// isBefore reports whether a is b or on the way to it.
func (t *table) isBefore(a, b id) bool {
	for b != a && b != 0 {
		b = t.objects[b].prev
	}
	return b == a
}

func (t *table) histText(h hist) string {
	if h == 0 {
		return "nothing"
	}
	var list []string
	for ; h != 0; h = t.hists[h].before {
		list = append(list, commitName(t.hists[h].commit))
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return strings.Join(list, " ")
}

func commitName(c uint8) string { return fmt.Sprintf("%c%d", 'a'+c/perMachine, c%perMachine+1) }
func sessionName(s uint8) string {
	return fmt.Sprintf("%c%d", 'A'+s/perMachine, s%perMachine+1)
}

func (t *table) text(i id) string {
	if i == 0 {
		return "nothing"
	}
	o := t.objects[i]
	switch o.kind {
	case claim:
		return fmt.Sprintf("log/%d (claim of %s)", o.key, sessionName(o.session))
	case snapshot:
		return fmt.Sprintf("snapshot/%d (%s: %s)", o.max, sessionName(o.session), t.histText(o.post))
	}
	what := [...]string{entries: "state", adopt: "adopt", adoptRef: "adopt without pages", repair: "repair"}[o.kind]
	return fmt.Sprintf("log/%d (%s, TXID %d to %d, %s: %s)", o.key, sessionName(o.session), o.min, o.max, what, t.histText(o.post))
}
