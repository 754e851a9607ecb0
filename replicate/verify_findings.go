package replicate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/segment"
)

// findings makes findings of what was read.
func (v *verifier) findings() []Finding {
	ev := evidence{data: v.list.data, odd: v.list.odd, orphans: v.opts.now().Add(-v.opts.orphanAge), keep: v.opts.Keep.withDefaults()}
	if n := len(v.list.logs); n > 0 {
		ev.now = v.list.logs[n-1].Modified
	}
	for _, f := range v.logs {
		ev.logs = append(ev.logs, f)
	}
	slices.SortFunc(ev.logs, func(x, y *logFact) int {
		if x.txid < y.txid {
			return -1
		}
		return 1
	})
	for _, f := range v.exports {
		ev.exports = append(ev.exports, f)
	}
	slices.SortFunc(ev.exports, func(x, y *exportFact) int {
		if x.max != y.max {
			if x.max < y.max {
				return -1
			}
			return 1
		}
		return strings.Compare(x.key(), y.key())
	})
	v.meaning = analyse(ev)
	var all []Finding
	if v.root != nil {
		all = append(all, *v.root)
	}
	broken := slices.ContainsFunc(v.meaning.findings, func(c *cause) bool { return c.Damage() })
	lost := slices.ContainsFunc(v.meaning.findings, func(c *cause) bool { return len(c.Lost) > 0 })
	for _, c := range v.meaning.findings {
		f := c.Finding
		f.Cost, f.Do = costOf(&f, lost), whatToDo(&f, broken)
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(x, y Finding) int {
		switch a, b := x.Damage(), y.Damage(); {
		case a && !b:
			return -1
		case b && !a:
			return 1
		}
		return strings.Compare(x.Key, y.Key)
	})
	return all
}

// costOf says what is lost; lost: something is because of a finding.
func costOf(f *Finding, lost bool) string {
	switch {
	case len(f.Lost) > 0:
		const most = 5
		var list []string
		for _, r := range f.Lost[:min(most, len(f.Lost))] {
			list = append(list, strings.TrimPrefix(r.String(), "TXID "))
		}
		more := ""
		if n := len(f.Lost) - most; n > 0 {
			more = fmt.Sprintf(" and %d further ranges", n)
		}
		return "can't be restored: TXID " + strings.Join(list, ", ") + more
	case f.Cost != "":
		return f.Cost
	case f.Kind == FindingOrphan, f.Kind == FindingStray:
		return "nothing: it takes up space"
	case f.Kind == FindingVoid:
		return "what follows can't be restored before that; what is before can"
	case f.Kind == FindingNewer:
		return ""
	case lost: // perhaps it would be there with this object, had it not been lost by another
		return "nothing more than what the other findings say is lost"
	}
	return "nothing: everything that the replica promises can be restored without it"
}

// whatToDo says what to do.
func whatToDo(f *Finding, broken bool) string {
	export := strings.HasPrefix(f.Key, segment.SnapshotPrefix) || strings.HasPrefix(f.Key, segment.PagesPrefix)
	switch f.Kind {
	case FindingOrphan:
		if broken {
			return "leave it until the replica is whole again: a segment that is damaged may be the one that names it"
		}
		return "it can be deleted"
	case FindingStray:
		return "it can be deleted; find out who wrote it: two programs may be writing to this replica"
	case FindingVoid:
		return "open the database with its program: it begins again"
	case FindingNewer:
		return "verify with a newer Outwash"
	case FindingDamaged, FindingForeign:
		s := "put the right version back, if the bucket keeps versions"
		if export && len(f.Lost) > 0 {
			s += "; or move it away: where the log is still there, restores begin with what is before it"
		}
		return s + after(f)
	}
	return "put it back, if the bucket keeps versions, and find out who deleted it" + after(f)
}

func after(f *Finding) string {
	if len(f.Lost) == 0 {
		return ""
	}
	return "; a new snapshot makes what follows it restorable, whatever is lost before"
}

// result sums up what was verified.
func (v *verifier) result(findings []Finding) VerifyResult {
	r := VerifyResult{
		Database: v.line.database.String(), LogSegments: len(v.list.logs), DataObjects: len(v.list.data), Bytes: v.list.bytes,
		Findings: findings, Restorable: v.meaning.restorable, BlocksRead: v.blocksRead.Load(), Against: v.db.result,
		Fetched: v.store.fetched.Load(), Requests: int(v.store.requests.Load()),
	}
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	if r.Restorable == nil {
		r.Restorable = []TXIDs{}
	}
	for _, k := range v.list.exports {
		if k.kind == segment.KindSnapshot {
			r.Snapshots++
		} else {
			r.PageSegments++
		}
	}
	for _, f := range v.logs {
		r.Blocks += f.blocks
	}
	for _, f := range v.exports {
		r.Blocks += f.blocks
	}
	if h := v.end(); h != nil {
		r.TXID, r.Time, r.Checksum, r.Pages, r.PageSize = h.MaxTXID, timeOf(h.LastMono), fmt.Sprintf("%016x", h.Post), h.Commit, h.PageSize
	}
	return r
}

// end is the header of the newest log segment; nil: there is none that can be read.
func (v *verifier) end() *segment.Header {
	var newest *logFact
	for _, f := range v.logs {
		if newest == nil || f.txid > newest.txid {
			newest = f
		}
	}
	if newest == nil {
		return nil
	}
	return newest.h
}
