package replicate

import (
	"context"
	"fmt"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// End is the end of a replica's line, and who wrote it.
type End struct {
	Replica  string    `json:"replica"`  // URL without secrets
	Database string    `json:"database"` // database ID
	Created  time.Time `json:"created"`
	// TXID and Checksum (hex) are the newest position, Time that of its last commit;
	// zero: nothing was replicated yet.
	TXID     uint64    `json:"txid"`
	Checksum string    `json:"checksum"`
	Time     time.Time `json:"time,omitzero"`
	PageSize uint32    `json:"page_size"`
	Pages    uint64    `json:"pages"`
	// Session wrote it, Owner is what that says of itself; nil: not found.
	Session string `json:"session,omitempty"`
	Owner   *Owner `json:"owner,omitempty"`
	// Snapshot and PageSegment are the newest ones, with the time at which they were
	// written by the store's clock; nil: none.
	Snapshot    *ExportStatus `json:"snapshot,omitempty"`
	PageSegment *ExportStatus `json:"page_segment,omitempty"`

	Tail Tail `json:"-"`
}

// ReadEnd finds the end of a replica with about nine requests, of which four or five
// are listings. database and txid are what the caller knows of it (zero: nothing),
// which makes the listings shorter. Errors: ErrNoReplica, and those of the store.
func ReadEnd(ctx context.Context, store Store, database ID, txid uint64) (*End, error) {
	info, err := readRoot(ctx, store)
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("replicate: %s: %w (there is no object %s)", store, ErrNoReplica, segment.InfoKey)
	}
	if info.Database != database {
		txid = 0
	}
	l := &line{store, info.Database}
	end, err := l.end(ctx, txid)
	if err != nil {
		return nil, err
	}
	e := &End{Replica: store.String(), Database: info.Database.String(), Created: info.Created, Tail: end.Tail}
	if end.header == nil {
		return e, nil
	}
	e.TXID, e.Checksum, e.Time = end.TXID, fmt.Sprintf("%016x", end.Checksum), timeOf(end.LastTime)
	e.PageSize, e.Pages, e.Session, e.Owner = end.PageSize, end.Commit, end.Session.String(), end.owner
	if e.Owner == nil {
		e.Owner = l.claimant(ctx, end.Session, end.TXID)
	}
	list, err := listExports(ctx, store)
	if err != nil {
		return nil, err
	}
	for _, k := range list {
		newest := &e.Snapshot
		if k.kind == segment.KindPages {
			newest = &e.PageSegment
		}
		if *newest == nil || (*newest).TXID < k.max {
			*newest = &ExportStatus{TXID: k.max, Time: k.modified}
		}
	}
	return e, nil
}
