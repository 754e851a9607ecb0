package replicate

import (
	"time"

	"github.com/outwash/outwash/internal/segment"
)

const (
	// replayCost is how many bytes of page images wait in the log at most before a
	// page segment is written, however short ago the last one was.
	replayCost = 256 << 20
	// youngSession is how long a session doesn't ask what exports there are.
	youngSession = time.Minute
	// youngTXIDs: a session that takes up a multiple of it asks all the same. So
	// does one of so many short sessions on average, whatever each of them does,
	// since each takes up two TXIDs or more; and nothing needs to be remembered.
	youngTXIDs = 64
)

// mayLook reports whether a session that began at began behind TXID first, and has
// come to TXID end with so much replay cost, may ask what exports there are: four
// requests that a program which opens, writes a row and closes need not make.
func mayLook(now, began time.Time, first, end uint64, cost, most int64) bool {
	return now.Sub(began) >= youngSession || cost >= most/16 || first/youngTXIDs != end/youngTXIDs
}

// An lastExport is a snapshot or page segment that there is, as far as the next one
// builds on it. The zero value is the beginning of the line.
type lastExport struct {
	kind     segment.Kind
	max      uint64
	sum      uint64
	commit   uint64
	pageSize uint32
	chain    segment.Hash // of the log segment that ends at max
	at       time.Time    // of writing; of one that was found: of its newest commit
}

// dueness is what it rests on whether an export is due.
type dueness struct {
	now            time.Time
	keep           Keep  // with defaults
	most           int64 // replayCost
	last, snapshot lastExport
	// without: the exports there are can't be continued by a page segment.
	without bool
	commits bool // something happened since last
	cost    int64
	pages   int    // changed since last, as far as known
	commit  uint64 // pages of the database
	young   bool
	small   bool // the database
}

// due returns what is to be written now: a snapshot, a page segment, or nothing (0).
//
// A snapshot takes a page segment's place where there is none yet: the page segment
// would have all pages, too. Likewise where more than half of the pages changed and
// the next snapshot is due in less than half of its interval: the page segment would
// be nearly as large, and the snapshot begins its interval anew. A young session
// writes a page segment though a snapshot is due, since the snapshot of a large
// database takes longer than such a session lives.
func (d *dueness) due() segment.Kind {
	every := d.keep.SnapshotEvery
	snapshots, pages := every != Forever, d.keep.PagesEvery != Forever
	if !d.commits || d.commit == 0 {
		return 0
	}
	age := d.now.Sub(d.snapshot.at)
	snapshotDue := snapshots && age >= every
	pagesDue := pages && (d.now.Sub(d.last.at) >= d.keep.PagesEvery || d.cost >= d.most)
	needed := d.without || d.snapshot.kind == 0 // rather than a page segment
	switch {
	case snapshots && needed && (snapshotDue || pagesDue):
		return segment.KindSnapshot
	case d.without:
		return 0
	case snapshotDue && !(pages && d.young && !d.small):
		return segment.KindSnapshot
	case !pagesDue:
		return 0
	case snapshots && age >= every/2 && uint64(d.pages) > d.commit/2 && (!d.young || d.small):
		return segment.KindSnapshot
	}
	return segment.KindPages
}

// next is when something will be due if commits go on; zero: never.
func (d *dueness) next() time.Time {
	var next time.Time
	if d.keep.PagesEvery != Forever {
		next = d.last.at.Add(d.keep.PagesEvery)
	}
	if every := d.keep.SnapshotEvery; every != Forever {
		if at := d.snapshot.at.Add(every); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}
