package replicate

import (
	"fmt"
	"slices"

	"github.com/outwash/outwash/internal/segment"
)

// plan finds out, for all that a replica promises, whether it can be restored: each
// end of a snapshot or page segment, and each TXID that the log has. Which base a
// restore begins with changes only where one ends, so the line is looked at in
// pieces.
func (a *analyser) plan() {
	var keys []exportKey
	from := []uint64{1}
	end := uint64(0)
	for _, f := range a.exports {
		if a.void(f) {
			continue
		}
		keys = append(keys, f.exportKey)
		if f.max != from[len(from)-1] {
			from = append(from, f.max)
		}
		end = max(end, f.max)
	}
	if n := len(a.line); n > 0 {
		end = max(end, a.line[n-1].max)
	}
	for i, lo := range from {
		hi := end
		if i+1 < len(from) {
			hi = from[i+1] - 1
		}
		if hi >= lo {
			a.piece(piece{lo: lo, hi: hi, base: chooseBase(keys, lo), end: i > 0 || len(keys) > 0 && keys[0].max == 1})
		}
	}
}

// piece is TXIDs whose restores begin with the same base.
type piece struct {
	lo, hi uint64
	base   []exportKey
	end    bool // lo is the end of a snapshot or page segment
}

func (a *analyser) piece(p piece) {
	var bad []*cause
	at := uint64(0)
	for _, k := range p.base {
		bad = append(bad, a.faulty[k.key()]...)
		at = k.max
	}
	if len(bad) > 0 {
		lost := a.held(p, p.lo, true)
		for _, c := range bad {
			c.Lost = append(c.Lost, lost...)
		}
		return
	}
	reach, why := a.walk(p.base, at, p.hi)
	if p.end && reach >= p.lo {
		a.restorable = append(a.restorable, TXIDs{p.lo, p.lo})
	}
	a.addRestorable(max(p.lo, at+1), min(reach, p.hi))
	if reach >= p.hi {
		return
	}
	// What is beyond reach is lost if it belongs to the line that the log ends with,
	// or if something ends with lo. Otherwise it is what retention was about to
	// remove, or what nobody needs.
	next, _ := a.at(reach + 1)
	solid := next > 0 && a.line[next-1].max == reach && a.torn(next)
	lost := a.held(p, max(reach+1, p.lo), false)
	needed := len(lost) > 0 || p.end && reach < p.lo && a.promised(p.lo) || solid
	if !needed || why == nil && next == len(a.line) && !(p.end && reach < p.lo) {
		return
	}
	hole := TXIDs{1, 0} // in the log
	condensed := uint64(0)
	if why == nil {
		if c, txid := a.condensed(p, reach); c != nil {
			why, condensed = []*cause{c}, txid
		} else {
			for next < a.main && a.line[next].fact.claim() {
				next++ // claims alone mean nothing
			}
			why = []*cause{a.obstacle(p, reach, next, solid)}
			if next < len(a.line) {
				hole = TXIDs{max(reach+1, p.lo), min(p.hi, a.line[next].min-1)}
			}
		}
	}
	switch why[0].Kind {
	case quiet:
		return
	case FindingVoid:
		why[0].needed = true
		return
	}
	lost = a.held(p, max(reach+1, p.lo), true)
	switch {
	case condensed != 0:
		lost = append(lost, TXIDs{condensed, condensed})
	case hole.From <= hole.To: // what is gone could be restored, too
		lost = append(lost, hole)
	}
	for _, c := range why {
		c.needed = true
		c.Lost = append(c.Lost, lost...)
	}
	// What else is in the way behind that.
	for i := next; i < len(a.line) && a.line[i].min <= p.hi; i++ {
		el := &a.line[i]
		also := el.causes
		if el.joint != nil && i > next && condensed == 0 {
			el.joint.needed = true
			also = append(slices.Clone(also), el.joint)
		}
		for _, c := range also {
			if !slices.Contains(why, c) {
				c.Lost = append(c.Lost, a.held(p, max(p.lo, el.min), true)...)
			}
		}
	}
}

// promised reports whether the state at the end of a snapshot or page segment is
// kept on purpose.
func (a *analyser) promised(end uint64) bool {
	return slices.ContainsFunc(a.exports, func(f *exportFact) bool {
		return f.max == end && (f.kind == segment.KindSnapshot || a.younger(f.modified, a.keep.Pages))
	})
}

// quiet is the kind of what is in the way of restores and yet as it should be.
const quiet FindingKind = ""

// walk follows the log from the base's state, at a TXID, as far as it is whole, up
// to hi. why is what stops it, unless nothing is there.
func (a *analyser) walk(base []exportKey, at, hi uint64) (reach uint64, why []*cause) {
	for reach = at; reach < hi; {
		i, ok := a.at(reach + 1)
		if !ok {
			return reach, nil
		}
		el := &a.line[i]
		switch {
		case el.min != reach+1: // a base that ends within it: that was noticed
			return reach, []*cause{a.cause(FindingGap, segment.LogKey(el.min), "no restore can begin within it")}
		case reach > at && el.joint != nil:
			return reach, []*cause{el.joint}
		case reach == at && !a.follows(base, el):
			return reach, []*cause{a.cause(FindingForeign, segment.LogKey(el.min), "it does not continue %s", base[len(base)-1].key())}
		case len(el.causes) > 0:
			return reach, el.causes
		case el.fact.needsBase:
			c := a.needsBase(i)
			return reach, []*cause{c}
		}
		reach = el.max
	}
	return reach, nil
}

// follows reports whether el follows a base by its chain value.
func (a *analyser) follows(base []exportKey, el *element) bool {
	if len(base) == 0 || el.fact.h == nil {
		return true
	}
	key := base[len(base)-1].key()
	i := slices.IndexFunc(a.exports, func(f *exportFact) bool { return f.key() == key })
	return a.exports[i].h == nil || a.exports[i].h.PrevChain == el.fact.h.PrevChain
}

// needsBase is about an adopt entry that has no snapshot: the last of several
// attempts counts.
func (a *analyser) needsBase(i int) *cause {
	for next := i + 1; ; next++ {
		h := a.line[i].fact.h
		key := segment.SnapshotKey(h.MaxTXID, h.Post)
		switch {
		case next == len(a.line):
			return a.cause(FindingVoid, segment.LogKey(h.MinTXID), "a database was about to be taken over, and its snapshot, %s, isn't there yet", key)
		case a.line[next].fact.needsBase:
			if slices.ContainsFunc(a.exports, func(f *exportFact) bool { return f.max == a.line[next].max }) {
				return &cause{} // an attempt that another one followed
			}
			i = next
		case !a.line[next].fact.claim():
			return a.cause(FindingMissing, key, "it is not there; it has the pages of the database that %s took over", segment.LogKey(h.MinTXID))
		}
	}
}

// obstacle is what is missing between reach and the element next, where the log has
// nothing but claims. Unless the log goes on to reach, it may be a snapshot or page
// segment with which the log below could go.
func (a *analyser) obstacle(p piece, reach uint64, next int, solid bool) *cause {
	to := p.hi
	if next < len(a.line) {
		to = a.line[next].min - 1
	}
	c := a.hole(reach+1, to)
	if next < len(a.line) && a.line[next].fact.h != nil && !solid {
		key := segment.SnapshotKey(to, a.line[next].fact.h.Pre)
		c.What = fmt.Sprintf("the log has nothing for %v, and neither %s nor a page segment ends with TXID %d: one or the other is missing", TXIDs{reach + 1, to}, key, to)
	}
	return c
}

// condensed is what is missing where the log is gone, as it may be, and something
// that is there builds on a snapshot or page segment that would lead there. It is
// told by the page segment that begins behind it; it ended with txid.
func (a *analyser) condensed(p piece, reach uint64) (c *cause, txid uint64) {
	var above *exportFact
	i, _ := a.at(reach + 1)
	for ; i < a.main && a.line[i].fact.claim(); i++ {
	}
	for _, f := range a.exports {
		switch {
		case f.kind != segment.KindPages || f.min <= reach+1:
		case p.end && reach < p.lo && f.max == p.lo && (i == len(a.line) || a.line[i].min >= f.min):
			above = f
		case above == nil && i < len(a.line) && f.min == a.line[i].min:
			above = f
		}
	}
	if above == nil {
		return nil, 0
	}
	for i := len(a.exports) - 1; i >= 0; i-- { // what it builds on directly may be there
		if f := a.exports[i]; f.kind == segment.KindPages && f.max == above.min-1 && f.min > reach+1 {
			above = f
		}
	}
	r := TXIDs{reach + 1, above.min - 1}
	return a.cause(FindingGap, fmt.Sprintf("%s%016x-%016x-…", segment.PagesPrefix, r.From, r.To),
		"neither a snapshot nor page segments lead to TXID %d, which %s builds on, and the log has nothing for %v", r.To, above.key(), r), r.To
}

// held are the TXIDs from a TXID on to the end of p that log and exports have; only
// those that are promised, of the run that the line ends with, unless all is true.
func (a *analyser) held(p piece, from uint64, all bool) (held []TXIDs) {
	if p.end && from == p.lo {
		if all {
			held = append(held, TXIDs{p.lo, p.lo})
		}
	}
	for i, _ := a.at(from); i < len(a.line) && a.line[i].min <= p.hi; i++ {
		el := &a.line[i]
		if i < a.main && (!all || el.fact.claim()) || !all && (!el.young || el.holder) {
			continue
		}
		held = append(held, TXIDs{max(el.min, from), min(el.max, p.hi)})
	}
	return held
}

// addRestorable notes a range that can be restored; before the first commit there
// is nothing.
func (a *analyser) addRestorable(from, to uint64) {
	for i, _ := a.at(from); i < len(a.line) && a.line[i].min <= to; i++ {
		if el := &a.line[i]; el.fact.h == nil || el.fact.h.Commit > 0 {
			a.restorable = append(a.restorable, TXIDs{max(el.min, from), min(el.max, to)})
		}
	}
}
