package replicate

import (
	"iter"
	"math"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// changes are what happened behind TXID from, up to TXID to, as a page segment says
// it. Memory: a bit for each page of the database.
type changes struct {
	from, to  uint64
	pages     local.PageSet // written, and not dropped since
	minCommit uint64        // fewest pages after any TXID
	cost      int64         // bytes that replaying the log writes
	commits   bool          // there is more than claims
	whole     bool          // the state at from counts for nothing; or it has other pages
	// Times of the first thing that happened.
	firstMono, firstRaw int64
}

func newChanges(from uint64) *changes {
	return &changes{from: from, to: from, minCommit: math.MaxUint64}
}

// entry takes up an entry that ends at TXID to and wrote pages.
func (c *changes) entry(en *segment.Entry, to uint64, pages iter.Seq[uint64], pageSize uint32) {
	if c.to == c.from {
		c.firstMono, c.firstRaw = en.FirstMono, en.FirstRaw
	}
	c.to = to
	c.minCommit = min(c.minCommit, en.MinCommit)
	if en.Kind == segment.Claim {
		return
	}
	c.commits = true
	c.whole = c.whole || en.Whole || en.NeedsBase
	// What a shrink dropped has to be written anew to be there again; else it is
	// zero, which follows from the smallest commit size.
	c.pages.Cut(en.MinCommit)
	for no := range pages {
		c.pages.Add(no)
		c.cost += int64(pageSize)
	}
}

// claim takes up a claim at TXID to; the database has commit pages.
func (c *changes) claim(to, commit uint64, time int64) {
	c.entry(&segment.Entry{Kind: segment.Claim, MinCommit: commit, FirstMono: time, FirstRaw: time}, to, nil, 0)
}

// add takes up what happened next: o begins where c ends.
func (c *changes) add(o *changes) {
	if o.to == o.from {
		return
	}
	if c.to == c.from {
		c.firstMono, c.firstRaw = o.firstMono, o.firstRaw
	}
	c.to = o.to
	c.minCommit = min(c.minCommit, o.minCommit)
	c.pages.Cut(o.minCommit)
	c.pages.Merge(&o.pages)
	c.cost += o.cost
	c.commits = c.commits || o.commits
	c.whole = c.whole || o.whole
}

func (c *changes) clone() *changes {
	d := *c
	d.pages = *c.pages.Clone()
	return &d
}

// entryPages yields the pages of an entry's blocks.
func entryPages(en *segment.Entry) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := range en.Blocks {
			for _, p := range en.Blocks[i].Pages {
				if !yield(p.No) {
					return
				}
			}
		}
	}
}

// track holds the changes up to the line's end, cut at positions that may become
// those of an export: what is published then is taken away, what isn't stays.
type track struct {
	chain  segment.Hash // of the log segment that ends where the track begins
	pieces []*changes   // at least one; each begins where the one before ends
}

func newTrack(t Tail) track {
	return track{chain: t.Chain, pieces: []*changes{newChanges(t.TXID)}}
}

func (t *track) from() uint64   { return t.pieces[0].from }
func (t *track) last() *changes { return t.pieces[len(t.pieces)-1] }

// cut begins a new piece at the end.
func (t *track) cut() {
	if l := t.last(); l.to > l.from {
		t.pieces = append(t.pieces, newChanges(l.to))
	}
}

// join makes one piece of all.
func (t *track) join() *changes {
	for _, c := range t.pieces[1:] {
		t.pieces[0].add(c)
	}
	t.pieces = t.pieces[:1]
	return t.pieces[0]
}

// upTo returns the changes up to TXID to, where there is a cut, or all of them.
func (t *track) upTo(to uint64) *changes {
	all := t.pieces[0].clone()
	for _, c := range t.pieces[1:] {
		if c.from >= to {
			break
		}
		all.add(c)
	}
	return all
}

// drop forgets the changes up to TXID to, if there is a cut; chain is that of the
// log segment that ends there.
func (t *track) drop(to uint64, chain segment.Hash) {
	for i, c := range t.pieces {
		if c.from == to {
			t.pieces, t.chain = t.pieces[i:], chain
			return
		}
	}
	if l := t.last(); l.to == to {
		t.pieces, t.chain = []*changes{newChanges(to)}, chain
	}
}

// prepend puts before what there is what was read from the log; c ends where the
// track begins.
func (t *track) prepend(c *changes, chain segment.Hash) {
	t.pieces = append([]*changes{c}, t.pieces...)
	t.chain = chain
}
