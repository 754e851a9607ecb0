package replicate

import (
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// What of a replica goes, and what stays, is decided here from listings alone.
//
// Promised are: every TXID whose log segment is younger than Keep.Log; the end of
// every page segment younger than Keep.Pages; every snapshot younger than
// Keep.Snapshots, and the newest one always. What a promised point needs is what
// chooseBase chooses for it, and the log from the segment that holds that base's
// end up to the point. Age is the store's: an object's LastModified against that of
// the newest log segment, so that a replica that nobody writes to loses nothing,
// and no writer's clock counts.
//
// Why this is safe while others write, restore and delete:
//
//   - Never deleted are claims, the newest log segment, the root, foreign keys, and
//     what is younger than retainMargin. Of the log only that goes which lies below
//     the base of the oldest promised TXID, the oldest first: whoever appends does so
//     far above, and a writer that wakes after any pause meets a claim.
//   - Descriptors are listed before data objects. A descriptor whose data object is
//     missing in the later listing is void: it was published by a writer that had
//     been paused until its data was swept, or another retention deletes it. It
//     counts for nothing here, as it does for restores.
//   - A descriptor counts as a base here only when it is older than the margin: so
//     nothing relies on one that a writer, asleep for a day, has just published
//     while its data was being swept.
//   - Two retentions at once: each keeps every export behind the snapshot that its
//     oldest promised point begins with, needed or not. An export published
//     meanwhile can only shorten what a restore reads of those.
//   - A restore under way may find gone what it had listed. It sees that (404), and
//     plans anew.
//
// internal/model explores these rules with a log that is kept for no time at all.

const (
	// retainMargin is how old an object must be, at least, to be deleted.
	retainMargin = time.Hour
	// orphanAge is the same for data that no descriptor names: what is being written
	// is not named yet.
	orphanAge = 24 * time.Hour
)

// A logObject is a log segment in a listing. There can be very many.
type logObject struct {
	txid     uint64
	size     int64
	modified int64 // µs, by the store's clock
}

func (o logObject) claim() bool { return o.size == segment.ClaimSize }

// A heldExport is a snapshot or page segment, with what its descriptor says.
type heldExport struct {
	exportKey
	data string // key of its data object; "": it has none
}

// holdings are what a replica has.
type holdings struct {
	now time.Time // LastModified of the newest log segment
	// log is ascending and goes at least up to the first segment, but for claims,
	// that is younger than Keep.Log.
	log     []logObject
	exports []heldExport
	data    []ObjectInfo // listed after exports
}

// A verdict is what becomes of an object.
type verdict struct {
	goes bool
	why  string
}

func stays(format string, a ...any) verdict { return verdict{false, fmt.Sprintf(format, a...)} }
func goes(format string, a ...any) verdict  { return verdict{true, fmt.Sprintf(format, a...)} }

// span is a range of TXIDs.
type span struct{ from, to uint64 }

// A retention says of each object of its holdings whether it goes.
type retention struct {
	h    holdings
	keep Keep

	// first is the oldest promised TXID of the log; MaxUint64: nothing of the log goes.
	first uint64
	// base is where the base ends that first needs, baseKey the last object of that
	// base, holder the log segment that holds that TXID: what lies below can go.
	base, holder uint64
	baseKey      string
	needed       []span // of the log below holder
	// floor is the snapshot that the oldest promised point begins with; 0: none.
	floor    uint64
	snapshot uint64 // the newest
	named    map[string]int
	void     []bool
}

// newRetention finds out what h and keep promise.
func newRetention(h holdings, keep Keep) *retention {
	keep = keep.withDefaults().atLeast(retainMargin)
	r := &retention{h: h, keep: keep, first: math.MaxUint64, named: map[string]int{}, void: make([]bool, len(h.exports))}
	there := make(map[string]bool, len(h.data))
	for _, o := range h.data {
		there[o.Key] = true
	}
	var settled []exportKey
	for i, x := range h.exports {
		if x.data != "" {
			r.named[x.data] = i
			r.void[i] = !there[x.data]
		}
		if r.void[i] {
			continue
		}
		if x.kind == segment.KindSnapshot {
			r.snapshot = max(r.snapshot, x.max)
		}
		if r.older(x.modified, retainMargin) {
			settled = append(settled, x.exportKey)
		}
	}
	if keep.Log == Forever || len(h.log) == 0 {
		return r
	}
	r.first = h.log[r.firstPromised()].txid
	oldest := r.first
	for i, x := range h.exports {
		if x.kind == segment.KindPages && !r.void[i] && r.young(x.modified, keep.Pages) {
			oldest = min(oldest, x.max)
		}
	}
	for _, x := range settled {
		if x.kind == segment.KindSnapshot && x.max <= oldest {
			r.floor = max(r.floor, x.max)
		}
	}
	if base := chooseBase(settled, r.first); len(base) > 0 {
		last := base[len(base)-1]
		r.base, r.baseKey = last.max, last.key()
		r.holder = r.holding(r.base)
	}
	r.findNeeded(settled)
	return r
}

// older reports whether what was modified then is older than age, by the store.
func (r *retention) older(modified time.Time, age time.Duration) bool {
	return age != Forever && r.h.now.Sub(modified) > age
}

// young reports whether a promise for age covers what was modified then. What is of
// the future was written while the store's clock was wrong: nothing is known of its
// age, so it isn't deleted, and promises nothing.
func (r *retention) young(modified time.Time, age time.Duration) bool {
	return age == Forever || !r.older(modified, age) && modified.Sub(r.h.now) <= retainMargin
}

// firstPromised is the index of the first log segment that is younger than
// Keep.Log, or else of the newest. Claims before it that follow one another belong
// to it, if they are young; a young claim that stands below old segments was left
// in a gap by a writer that had been asleep, and means nothing.
func (r *retention) firstPromised() int {
	young := func(o logObject) bool { return r.young(time.UnixMicro(o.modified), r.keep.Log) }
	log := r.h.log
	i := 0
	for i < len(log)-1 && (log[i].claim() || !young(log[i])) {
		i++
	}
	for i > 0 && log[i-1].claim() && young(log[i-1]) && log[i-1].txid == log[i].txid-1 {
		i--
	}
	return i
}

// holding is the first TXID of the log segment that holds txid; 0: none does.
func (r *retention) holding(txid uint64) uint64 {
	i := sort.Search(len(r.h.log), func(i int) bool { return r.h.log[i].txid > txid })
	if i == 0 {
		return 0
	}
	return r.h.log[i-1].txid
}

// findNeeded finds what of the log below the holder the ends of page segments need,
// because page segments alone don't lead to them: one before is void, say.
func (r *retention) findNeeded(settled []exportKey) {
	i := 0
	for i < len(r.h.log) && r.h.log[i].claim() {
		i++
	}
	for n, x := range r.h.exports {
		if x.kind != segment.KindPages || r.void[n] || !r.young(x.modified, r.keep.Pages) ||
			i == len(r.h.log) || x.max < r.h.log[i].txid || x.max >= r.base {
			continue
		}
		at := uint64(0)
		if base := chooseBase(settled, x.max); len(base) > 0 {
			at = base[len(base)-1].max
		}
		if at < x.max {
			r.needed = append(r.needed, span{r.holding(at), x.max})
		}
	}
}

// log is the verdict on a log segment.
func (r *retention) log(o logObject) verdict {
	switch newest := r.h.log[len(r.h.log)-1].txid; {
	case o.claim():
		return stays("a claim: stays for good")
	case r.first == math.MaxUint64:
		return stays("the log is kept forever")
	case o.txid == newest:
		return stays("the newest log segment")
	case o.txid >= r.first:
		return stays("younger than %s", FormatKeepDuration(r.keep.Log))
	case r.base == 0:
		return stays("no snapshot or page segment has what is in it")
	case o.txid >= r.holder:
		return stays("follows the end of %s, on which the log that is kept rests", r.baseKey)
	case !r.older(time.UnixMicro(o.modified), retainMargin):
		return stays("younger than %s", FormatKeepDuration(retainMargin))
	}
	for _, s := range r.needed {
		if s.from <= o.txid && o.txid <= s.to {
			return stays("leads to a page segment's end that is younger than %s", FormatKeepDuration(r.keep.Pages))
		}
	}
	return goes("older than %s, and %s has what is in it", FormatKeepDuration(r.keep.Log), r.baseKey)
}

// export is the verdict on h.exports[i].
func (r *retention) export(i int) verdict {
	x := r.h.exports[i]
	switch {
	case !r.older(x.modified, retainMargin):
		return stays("younger than %s", FormatKeepDuration(retainMargin))
	case r.void[i]:
		return goes("void: its data object %s is missing", x.data)
	case r.first == math.MaxUint64:
		return stays("the log is kept forever, and restores of it begin here")
	case x.kind == segment.KindSnapshot && x.max == r.snapshot:
		return stays("the newest snapshot")
	case x.kind == segment.KindSnapshot && !r.older(x.modified, r.keep.Snapshots):
		return stays("younger than %s", FormatKeepDuration(r.keep.Snapshots))
	case x.kind == segment.KindSnapshot && x.max >= r.floor:
		return stays("what is kept of page segments and log rests on it")
	case x.kind == segment.KindSnapshot:
		return goes("older than %s", FormatKeepDuration(r.keep.Snapshots))
	case !r.older(x.modified, r.keep.Pages):
		return stays("younger than %s", FormatKeepDuration(r.keep.Pages))
	case x.max > r.floor:
		return stays("what is kept of page segments and log rests on it")
	}
	return goes("older than %s", FormatKeepDuration(r.keep.Pages))
}

// dataObject is the verdict on a data object. What it is of goes first.
func (r *retention) dataObject(o ObjectInfo) verdict {
	txid, _, _ := segment.ParseDataKey(o.Key)
	if !r.older(o.Modified, retainMargin) {
		return stays("younger than %s", FormatKeepDuration(retainMargin))
	}
	if txid != 0 {
		return r.logData(txid)
	}
	i, ok := r.named[o.Key]
	switch {
	case !ok && r.older(o.Modified, orphanAge):
		return goes("nothing names it, and it is older than %s", FormatKeepDuration(orphanAge))
	case !ok:
		return stays("nothing names it yet, and it is younger than %s", FormatKeepDuration(orphanAge))
	case r.export(i).goes:
		return goes("%s goes", r.h.exports[i].key())
	}
	return stays("of %s", r.h.exports[i].key())
}

// logData is the verdict on data of the log segment that begins at txid.
func (r *retention) logData(txid uint64) verdict {
	log, key := r.h.log, segment.LogKey(txid)
	i := sort.Search(len(log), func(i int) bool { return log[i].txid >= txid })
	switch {
	case i == len(log): // not listed so far, or still to come
		return stays("of %s", key)
	case log[i].txid != txid:
		return goes("%s is gone", key)
	case log[i].claim():
		return goes("%s is a claim of another session", key)
	case r.log(log[i]).goes:
		return goes("%s goes", key)
	}
	return stays("of %s", key)
}
