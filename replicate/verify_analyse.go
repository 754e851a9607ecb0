package replicate

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// evidence is what a verification has read; analyse is a pure function of it.
type evidence struct {
	logs    []*logFact    // ascending
	exports []*exportFact // by max, ascending
	data    map[string]ObjectInfo
	odd     []ObjectInfo
	now     time.Time // by the store: when the newest log segment was written
	keep    Keep
	orphans time.Time // data objects that were modified before, and nobody names, are orphans
}

// A meaning is what the evidence means.
type meaning struct {
	findings   []*cause
	restorable []TXIDs
}

// A cause is a finding while it is made.
type cause struct {
	Finding
	needed bool // it is reported
}

// element is a log segment in its place.
type element struct {
	fact     *logFact
	min, max uint64
	joint    *cause // why it doesn't join the one before; nil: it does
	young    bool   // retention keeps it
	solid    bool   // it belongs to more than claims, which retention leaves: so it has removed nothing behind it
	holder   bool   // it has the end of a snapshot or page segment, and what was before it is gone
	causes   []*cause
}

type analyser struct {
	evidence
	meaning
	byKey  map[string]*cause
	line   []element
	main   int // index of the element that begins the run which the line ends with
	faulty map[string][]*cause
}

func analyse(ev evidence) meaning {
	a := &analyser{evidence: ev, byKey: map[string]*cause{}, faulty: map[string][]*cause{}}
	a.ownFaults()
	a.join()
	a.linkExports()
	a.checkEnds()
	a.plan()
	a.restorable = mergeRanges(a.restorable)
	a.checkRuns()
	a.findings = slices.DeleteFunc(a.findings, func(c *cause) bool { return !c.needed })
	for _, c := range a.findings {
		c.Lost = mergeRanges(c.Lost)
	}
	return a.meaning
}

// cause returns the finding about an object; the first that is said of it counts.
func (a *analyser) cause(kind FindingKind, key, format string, args ...any) *cause {
	if c := a.byKey[key]; c != nil {
		return c
	}
	c := &cause{Finding: Finding{Kind: kind, Key: key, What: fmt.Sprintf(format, args...)}}
	a.byKey[key] = c
	a.findings = append(a.findings, c)
	return c
}

func (a *analyser) report(kind FindingKind, key, format string, args ...any) *cause {
	c := a.cause(kind, key, format, args...)
	c.needed = true
	return c
}

func (a *analyser) faults(segmentKey string, faults []*fault) (all []*cause) {
	for _, f := range faults {
		what := f.what
		if f.key != segmentKey {
			what += fmt.Sprintf(" (%s needs it)", segmentKey)
		}
		all = append(all, a.report(f.kind, f.key, "%s", what))
	}
	return all
}

// ownFaults are those that reading showed, of each object alone.
func (a *analyser) ownFaults() {
	named := map[string]string{}
	size := func(key, by string, want int64, causes []*cause) []*cause {
		if key == "" {
			return causes
		}
		named[key] = by
		if o, ok := a.data[key]; ok && o.Size != want {
			causes = append(causes, a.report(FindingDamaged, key, "it has %d bytes; %s says that there are %d", o.Size, by, want))
		}
		return causes
	}
	for i, f := range a.logs {
		key := segment.LogKey(f.txid)
		el := element{fact: f, min: f.txid, max: f.txid, causes: a.faults(key, f.faults), young: a.younger(f.modified, a.keep.Log)}
		if f.h != nil {
			el.max = f.h.MaxTXID
			el.causes = size(f.data, key, f.dataSize, el.causes)
		} else if i+1 < len(a.logs) {
			el.max = a.logs[i+1].txid - 1
		} else if n := len(a.exports); n > 0 {
			el.max = max(el.max, a.exports[n-1].max)
		}
		a.line = append(a.line, el)
	}
	for _, f := range a.exports {
		key := f.key()
		causes := size(f.data, key, f.dataSize, a.faults(key, f.faults))
		if len(causes) > 0 {
			a.faulty[key] = causes
		}
	}
	for key, o := range a.data {
		if named[key] == "" && o.Modified.Before(a.orphans) {
			a.report(FindingOrphan, key, "no segment names it").Bytes = o.Size
		}
	}
	for _, o := range a.odd {
		a.report(FindingStray, o.Key, "Outwash writes no objects with such a key").Bytes = o.Size
	}
}

// torn reports whether what is missing before line[i] is nothing that retention has
// removed: something older is there. Where single objects can't be deleted that may
// be so, far below what is kept.
func (a *analyser) torn(i int) bool {
	if i == 0 || !a.line[i-1].solid {
		return false
	}
	before := i - 1
	for ; i < len(a.line)-1 && a.line[i].fact.claim(); i++ {
	}
	return a.line[before].young || i < len(a.line) && a.line[i].young
}

// younger reports whether what was written then is kept for so long.
func (a *analyser) younger(modified time.Time, keep time.Duration) bool {
	return keep == Forever || a.now.Sub(modified) <= keep
}

// void reports whether restores do without an export, because its data is missing.
func (a *analyser) void(f *exportFact) bool {
	return slices.ContainsFunc(f.faults, func(x *fault) bool { return x.kind == FindingMissing && x.key == f.data })
}

// join finds out which log segments join: an object that lies within another one
// is none.
func (a *analyser) join() {
	line := a.line[:0]
	for _, el := range a.line {
		if n := len(line); n > 0 && el.min <= line[n-1].max {
			// Restores that read on past it fail, whoever wrote it.
			c := a.report(FindingForeign, segment.LogKey(el.min), "it lies within %s, which goes on to TXID %d", segment.LogKey(line[n-1].min), line[n-1].max)
			line[n-1].causes = append(line[n-1].causes, c)
			continue
		}
		line = append(line, el)
	}
	a.line = line
	breaks := make([]error, len(line)+1)
	for i := 1; i < len(line); i++ {
		p, el := &line[i-1], &line[i]
		if p.max+1 == el.min && p.fact.h != nil && el.fact.h != nil {
			breaks[i] = el.fact.h.Follows(p.fact.h, p.fact.chain)
		}
	}
	for i := 1; i < len(line); i++ {
		p, el := &line[i-1], &line[i]
		switch {
		case p.max+1 < el.min:
			el.joint = a.hole(p.max+1, el.min-1)
		case breaks[i] == nil:
		case breaks[i-1] != nil && breaks[i+1] == nil: // the one before fits nowhere
			el.joint = a.cause(FindingForeign, segment.LogKey(p.min), "")
		default:
			el.joint = a.cause(FindingForeign, segment.LogKey(el.min), "it does not continue %s: %v", segment.LogKey(p.min), breaks[i])
		}
	}
	ends := map[uint64]bool{}
	for _, f := range a.exports {
		ends[f.max] = true
	}
	gone := true // all that was before, but claims
	for i := range line {
		el := &line[i]
		gone = gone || el.joint != nil
		el.holder = gone && ends[el.max]
		gone = gone && el.fact.claim() && el.min != 1
		el.solid = !el.fact.claim() || i > 0 && line[i-1].solid && el.joint == nil
	}
	for i := len(line) - 1; i > 0 && line[i].joint == nil; i-- {
		a.main = i - 1
	}
	if n := len(line); n > 0 && line[n-1].joint != nil {
		a.main = n - 1
	}
}

func (a *analyser) hole(from, to uint64) *cause {
	return a.cause(FindingGap, segment.LogKey(from), "it is missing: the log has nothing for %v", TXIDs{from, to})
}

// at returns the index of the element that holds txid, or of the next one.
func (a *analyser) at(txid uint64) (i int, holds bool) {
	i = sort.Search(len(a.line), func(i int) bool { return a.line[i].max >= txid })
	return i, i < len(a.line) && a.line[i].min <= txid
}

// linkExports compares snapshots and page segments with the log around them.
func (a *analyser) linkExports() {
	for _, f := range a.exports {
		if f.h == nil {
			continue
		}
		if what := a.link(f); what != "" {
			c := a.report(FindingForeign, f.key(), "%s", what)
			a.faulty[f.key()] = append(a.faulty[f.key()], c)
		}
	}
}

func (a *analyser) link(f *exportFact) string {
	h := f.h
	if i, ok := a.at(h.MaxTXID); ok {
		el := &a.line[i]
		l, key := el.fact.h, segment.LogKey(el.min)
		switch {
		case l == nil || el.joint != nil && el.joint.Key == key:
		case l.MaxTXID != h.MaxTXID:
			return fmt.Sprintf("it ends within %s, which goes on to TXID %d", key, l.MaxTXID)
		case el.fact.chain != h.PrevChain || l.Post != h.Post || l.Commit != h.Commit || l.PageSize != h.PageSize:
			return fmt.Sprintf("it is not of the line of %s, which ends with the same TXID", key)
		}
	} else if i >= a.main && i < len(a.line) && a.line[i].min == h.MaxTXID+1 {
		if l := a.line[i].fact.h; l != nil && (l.PrevChain != h.PrevChain || l.Pre != h.Post || l.PreCommit != h.Commit) {
			return fmt.Sprintf("it is not of the line of %s, which follows it", segment.LogKey(l.MinTXID))
		}
	}
	if h.Kind != segment.KindPages {
		return ""
	}
	pre, commit, of := a.before(h.MinTXID)
	if of != "" && (pre != h.Pre || commit != h.PreCommit) {
		return fmt.Sprintf("it is not of the line of %s: that has checksum %016x and %d pages before TXID %d, this %016x and %d",
			of, pre, commit, h.MinTXID, h.Pre, h.PreCommit)
	}
	return ""
}

// before returns the state before txid, as log or exports say.
func (a *analyser) before(txid uint64) (sum, commit uint64, of string) {
	i, ok := a.at(txid)
	if ok && a.line[i].min == txid && a.line[i].fact.h != nil {
		h := a.line[i].fact.h
		return h.Pre, h.PreCommit, segment.LogKey(txid)
	}
	if i, ok = a.at(txid - 1); ok && a.line[i].max == txid-1 && a.line[i].fact.h != nil {
		h := a.line[i].fact.h
		return h.Post, h.Commit, segment.LogKey(h.MinTXID)
	}
	for _, f := range a.exports {
		if f.max == txid-1 && f.h != nil && len(a.faulty[f.key()]) == 0 {
			return f.h.Post, f.h.Commit, f.key()
		}
	}
	return 0, 0, ""
}

// checkEnds looks for what is missing at the ends of the log.
func (a *analyser) checkEnds() {
	end := uint64(0)
	if n := len(a.line); n > 0 {
		end = a.line[n-1].max
	}
	if n := len(a.exports); n > 0 && a.exports[n-1].max > end {
		c := a.report(FindingMissing, segment.LogKey(end+1)+"…", "%s ends with TXID %d, and the log with TXID %d", a.exports[n-1].key(), a.exports[n-1].max, end)
		c.Cost = fmt.Sprintf("what followed TXID %d is not known", a.exports[n-1].max)
	}
	if (len(a.line) == 0 || a.line[0].min != 1) && (len(a.line) > 0 || len(a.exports) > 0) {
		a.report(FindingMissing, segment.LogKey(1), "it is not there; claims are never removed, and it is the line's first").Cost =
			"a writer that slept since the beginning could begin the line a second time"
	}
}

// checkRuns looks at what joins nothing: holes that nobody falls into, and runs of the
// log of which nobody can use anything.
func (a *analyser) checkRuns() {
	for i := range a.line {
		el := &a.line[i]
		// Retention removes the oldest first, and leaves claims: behind anything else
		// there is no hole.
		if i > 0 && el.joint != nil && a.torn(i) && a.covered(a.line[i-1].max, a.line[i-1].max) {
			el.joint.needed = true
			if el.joint.Kind == FindingGap {
				el.joint.Lost = append(el.joint.Lost, without(TXIDs{a.line[i-1].max + 1, el.min - 1}, a.restorable)...)
			}
		}
		if i < a.main && !el.fact.claim() && el.fact.h != nil && len(el.causes) == 0 && !a.covered(el.min, el.max) {
			c := a.report(FindingStray, segment.LogKey(el.min), "")
			c.Kind, c.Bytes = FindingStray, el.fact.size
			c.What = "what is before and after it is gone, or of another line: a writer's leftovers"
		}
	}
}

// covered reports whether some of the TXIDs can be restored, or are known to be lost.
func (a *analyser) covered(from, to uint64) bool {
	in := func(r TXIDs) bool { return r.From <= to && r.To >= from }
	if slices.ContainsFunc(a.restorable, in) {
		return true
	}
	return slices.ContainsFunc(a.findings, func(c *cause) bool { return c.needed && slices.ContainsFunc(c.Lost, in) })
}

// mergeRanges sorts ranges, and joins those that meet.
func mergeRanges(all []TXIDs) []TXIDs {
	slices.SortFunc(all, func(x, y TXIDs) int {
		if x.From < y.From {
			return -1
		}
		return 1
	})
	var out []TXIDs
	for _, r := range all {
		if n := len(out); n > 0 && r.From <= out[n-1].To+1 {
			out[n-1].To = max(out[n-1].To, r.To)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// without returns what of r is in none of the ranges, which are sorted.
func without(r TXIDs, ranges []TXIDs) (rest []TXIDs) {
	for _, x := range ranges {
		if x.To < r.From || x.From > r.To {
			continue
		}
		if x.From > r.From {
			rest = append(rest, TXIDs{r.From, x.From - 1})
		}
		r.From = x.To + 1
	}
	if r.From <= r.To {
		rest = append(rest, r)
	}
	return rest
}
