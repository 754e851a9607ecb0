package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// A line is one replica's log as it is read.
type line struct {
	store    Store
	database ID
}

// fetch reads a whole object of at most limit bytes.
func fetch(ctx context.Context, store Store, key string, limit int64) ([]byte, error) {
	body, info, err := store.Get(ctx, key, Range{})
	if err != nil {
		return nil, fmt.Errorf("replicate: read %s: %w", key, err)
	}
	defer body.Close()
	if info.Size > limit {
		return nil, fmt.Errorf("replicate: %s has %d bytes, more than the %d that Outwash writes there: %w", key, info.Size, limit, ErrForeign)
	}
	var b bytes.Buffer
	b.Grow(int(max(info.Size, 0)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(body, limit+1)); err != nil {
		return nil, fmt.Errorf("replicate: read %s: %w", key, err)
	}
	return b.Bytes(), nil
}

// isOurs tells an object that Outwash wrote (and that may be damaged) from one
// that it never wrote.
func isOurs(b []byte) bool { return bytes.HasPrefix(b, []byte("OUTWASH")) }

// badObject names the object that couldn't be decoded.
func badObject(key string, b []byte, err error) error {
	if !isOurs(b) && !errors.Is(err, ErrVersion) {
		return fmt.Errorf("replicate: %s is not an object of Outwash, but has a key that this replica needs: move it away: %w (%w)", key, ErrForeign, err)
	}
	return fmt.Errorf("replicate: %s: %w", key, err)
}

// readRoot reads the replica's root: nil without error if there is none.
func readRoot(ctx context.Context, store Store) (*segment.ReplicaInfo, error) {
	b, err := fetch(ctx, store, segment.InfoKey, segment.MaxInfo)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := segment.ParseReplicaInfo(b)
	if err != nil {
		return nil, fmt.Errorf("replicate: %s, the root of %s: %w", segment.InfoKey, store, err)
	}
	return info, nil
}

// check verifies that o may stand at key.
func (l *line) check(key string, h *segment.Header, kind segment.Kind) error {
	switch {
	case h.Database != l.database:
		return fmt.Errorf("replicate: %s belongs to database %s, not to %s: another replica's object was copied here: %w",
			key, h.Database, l.database, ErrForeign)
	case h.Kind != kind:
		return fmt.Errorf("replicate: %s is a %s segment: %w", key, h.Kind, ErrCorrupt)
	case h.Commit > maxPages:
		return fmt.Errorf("replicate: %s: %w", key, tooManyPages("it", h.Commit))
	}
	return nil
}

// maxPages is SQLite's limit. The format has none, but few bytes can describe a
// database of zeros whose page hashes alone would not fit into any memory.
const maxPages = 1<<32 - 2

func tooManyPages(what string, pages uint64) error {
	return fmt.Errorf("%s is of a database with %d pages, SQLite knows %d at most: %w", what, pages, uint64(maxPages), ErrVersion)
}

// parseLog decodes the log segment at txid.
func (l *line) parseLog(txid uint64, b []byte) (*segment.Object, error) {
	key := segment.LogKey(txid)
	o, err := segment.Parse(b)
	if err != nil {
		return nil, badObject(key, b, err)
	}
	if err := l.check(key, o.Header, segment.KindLog); err != nil {
		return nil, err
	}
	if o.Header.MinTXID != txid {
		return nil, fmt.Errorf("replicate: %s begins with TXID %d: %w", key, o.Header.MinTXID, ErrCorrupt)
	}
	return o, nil
}

// log reads the log segment at txid; ErrNotExist if there is none.
func (l *line) log(ctx context.Context, txid uint64) (*segment.Object, error) {
	b, err := fetch(ctx, l.store, segment.LogKey(txid), segment.MaxInline)
	if err != nil {
		return nil, err
	}
	return l.parseLog(txid, b)
}

// logKey is an object in a listing of the log.
type logKey struct {
	txid uint64
	size int64
}

// listLog lists the log segments whose first TXID is from or later. Foreign
// keys are left out.
func (l *line) listLog(ctx context.Context, from uint64) ([]logKey, error) {
	return l.listUntil(ctx, from, segment.MaxTXID)
}

// listUntil lists the log segments whose first TXID is from to until, and the next
// one after those.
func (l *line) listUntil(ctx context.Context, from, until uint64) ([]logKey, error) {
	after := ""
	if from > 1 {
		after = segment.LogKey(from - 1)
	}
	var keys []logKey
	for info, err := range l.store.List(ctx, segment.LogPrefix, after) {
		if err != nil {
			return nil, fmt.Errorf("replicate: list %s: %w", segment.LogPrefix, err)
		}
		if txid, ok := segment.ParseLogKey(info.Key); ok {
			keys = append(keys, logKey{txid, info.Size})
			if txid > until {
				break
			}
		}
	}
	return keys, nil
}

// listFrom lists the log from the segment that holds txid, or from the nearest
// before it.
func (l *line) listFrom(ctx context.Context, txid uint64) ([]logKey, error) {
	return l.listBetween(ctx, txid, segment.MaxTXID, func([]logKey) bool { return false })
}

// listBetween does so up to the first segment that begins after until. Keys name
// only the first TXID of a segment, so the listing begins somewhat earlier; what is
// earlier still is asked for if that did not suffice, unless enough says so.
func (l *line) listBetween(ctx context.Context, txid, until uint64, enough func([]logKey) bool) ([]logKey, error) {
	from := uint64(1)
	if txid > 64 {
		from = txid - 64
	}
	keys, err := l.listUntil(ctx, from, until)
	for back := uint64(64 * 64); err == nil && from > 1 && (len(keys) == 0 || keys[0].txid > txid) && !enough(keys); back *= 64 {
		end := from - 1
		from = 1
		if back < txid && back < 1<<24 {
			from = txid - back
		}
		var before []logKey
		before, err = l.listUntil(ctx, from, end)
		for len(before) > 0 && before[len(before)-1].txid > end {
			before = before[:len(before)-1]
		}
		keys = append(before, keys...)
	}
	return keys, err
}

// snapshotKey is an object in a listing of the snapshots.
type snapshotKey struct {
	txid, sum uint64
	size      int64
}

// listSnapshots lists the snapshots, oldest first.
func listSnapshots(ctx context.Context, store Store) ([]snapshotKey, error) {
	var list []snapshotKey
	for info, err := range store.List(ctx, segment.SnapshotPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("replicate: list %s: %w", segment.SnapshotPrefix, err)
		}
		if txid, sum, ok := segment.ParseSnapshotKey(info.Key); ok {
			list = append(list, snapshotKey{txid, sum, info.Size})
		}
	}
	return list, nil
}

// lineEnd is the end of a line.
type lineEnd struct {
	Tail
	header *segment.Header // nil: the line is empty
	// needsBase: the line can't be restored, because the snapshot that its last
	// adopt entry needs is missing.
	needsBase bool
	owner     *Owner // of the last claim seen
}

// advance makes o the end.
func (e *lineEnd) advance(o *segment.Object) {
	h := o.Header
	needsBase := e.needsBase && h.Claim
	for _, entry := range o.Entries {
		needsBase = needsBase || entry.NeedsBase
	}
	owner := e.owner
	if h.Claim {
		owner = ownerOf(h.Owner)
	}
	*e = lineEnd{Tail: tailOf(o), header: h, needsBase: needsBase, owner: owner}
}

// tailOf returns the line's end after o. The kind of an external segment's last
// entry is not known without its data object: 0.
func tailOf(o *segment.Object) Tail {
	h := o.Header
	t := Tail{
		TXID: h.MaxTXID, Checksum: h.Post, Commit: h.Commit, PageSize: h.PageSize, LastTime: h.LastMono,
		WAL: h.WAL, Database: h.Database, Session: h.Session, Chain: o.Chain,
	}
	if n := len(o.Entries); n > 0 {
		t.Kind = o.Entries[n-1].Kind
	} else if h.Claim {
		t.Kind = segment.Claim
	}
	return t
}

// follows checks that o comes directly after end.
func (e *lineEnd) follows(o *segment.Object) error {
	if err := o.Header.Follows(e.header, e.Chain); err != nil {
		return fmt.Errorf("replicate: %s does not continue the line that ends at TXID %d: %w (%w)",
			segment.LogKey(o.Header.MinTXID), e.TXID, err, ErrCorrupt)
	}
	return nil
}

// end finds the end of the line. hint is a TXID that it had once (0: unknown).
// A listing may lag behind, so the end counts only when a GET of the next key
// says that there is none.
//
// What is listed last can be a stray claim: one that a writer, asleep for long,
// put into a hole that retention had left. By the time that it is read the line
// has gone on behind it. Hence a line that breaks is looked at once more.
func (l *line) end(ctx context.Context, hint uint64) (lineEnd, error) {
	end, err := l.readEnd(ctx, hint)
	if errors.Is(err, segment.ErrChain) {
		return l.readEnd(ctx, hint)
	}
	return end, err
}

func (l *line) readEnd(ctx context.Context, hint uint64) (lineEnd, error) {
	end := lineEnd{Tail: Tail{Database: l.database}}
	snapshot := "" // one that exists
	if hint == 0 {
		snaps, err := listSnapshots(ctx, l.store)
		if err != nil {
			return end, err
		}
		if n := len(snaps); n > 0 {
			hint = snaps[n-1].txid
			snapshot = segment.SnapshotKey(hint, snaps[n-1].sum)
		}
	}
	keys, err := l.listFrom(ctx, max(hint, 1))
	if err != nil {
		return end, err
	}
	next := uint64(1) // claims are never deleted: a line that isn't empty has this one
	if n := len(keys); n > 0 {
		next = keys[n-1].txid
	}
	for first := true; ; first = false {
		o, err := l.log(ctx, next)
		if errors.Is(err, objstore.ErrNotExist) {
			if first && len(keys) > 0 {
				return end, fmt.Errorf("replicate: %s is listed but can't be read (it may have been deleted by hand): %w",
					segment.LogKey(next), errListed)
			}
			break
		}
		if err != nil {
			return end, err
		}
		if !first || next == 1 {
			if err := end.follows(o); err != nil {
				return end, err
			}
		}
		end.advance(o)
		next = end.TXID + 1
	}
	if end.header == nil && snapshot != "" { // a line begun now would lie below it
		return end, fmt.Errorf("replicate: there is %s, but no log: its objects were deleted (by a lifecycle rule, perhaps): %w", snapshot, ErrCorrupt)
	}
	return end, l.checkBase(ctx, &end)
}

// errListed is not permanent: listings can be late in both directions.
var errListed = errors.New("listing and object disagree")

// checkBase finds out whether an end that may need a snapshot has it.
func (l *line) checkBase(ctx context.Context, end *lineEnd) error {
	if end.header == nil || end.Commit == 0 || !end.needsBase && end.Kind != segment.Claim {
		return nil
	}
	snaps, err := listSnapshots(ctx, l.store)
	if err != nil {
		return err
	}
	if len(snaps) > 0 {
		end.needsBase = false // a later adopt entry without its snapshot is found below
	}
	// Sessions that crashed after their claim leave claims, which cover one TXID
	// each; an adopt entry that needs a base is alone in its segment, too.
	for txid := end.TXID; txid > 0; txid-- {
		o, err := l.log(ctx, txid)
		if errors.Is(err, objstore.ErrNotExist) {
			return nil // the end of a longer segment
		}
		if err != nil {
			return err
		}
		if o.Header.Claim {
			continue
		}
		if len(o.Entries) == 1 && o.Entries[0].NeedsBase {
			end.needsBase = true
			for _, s := range snaps {
				if s.txid >= txid {
					end.needsBase = false
				}
			}
		}
		return nil
	}
	return nil
}
