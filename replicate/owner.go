package replicate

import (
	"context"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// Fencer says which session extended the replica in another one's place.
type Fencer struct {
	Session string `json:"session"`         // "" if it couldn't be found out
	Object  string `json:"object"`          // of which the fenced session wanted the key
	Owner   *Owner `json:"owner,omitempty"` // what that session says of itself
}

// ownerTime bounds how long it is looked for a name to put into a message.
const ownerTime = 5 * time.Second

// claimant returns who opened the session that wrote the log segment at txid; nil
// if that can't be found with a few requests: a listing, and a small read. Only
// claims say it, and on a line the newest one counts.
func (l *line) claimant(ctx context.Context, session ID, txid uint64) *Owner {
	ctx, cancel := context.WithTimeout(ctx, ownerTime)
	defer cancel()
	for _, back := range []uint64{64, 4096, 1 << 16} {
		after := ""
		if txid > back {
			after = segment.LogKey(txid - back)
		}
		var claim uint64
		for info, err := range l.store.List(ctx, segment.LogPrefix, after) {
			if err != nil {
				return nil
			}
			n, ok := segment.ParseLogKey(info.Key)
			if ok && n > txid {
				break
			}
			if ok && info.Size == segment.ClaimSize {
				claim = n
			}
		}
		if claim != 0 {
			o, err := l.log(ctx, claim)
			if err != nil || o.Header.Session != session {
				return nil
			}
			return ownerOf(o.Header.Owner)
		}
		if after == "" {
			break
		}
	}
	return nil
}

// nameWriter finds out who wrote end, for a refusal that should say it; false if
// there is nothing new to say.
func (e *Engine) nameWriter(ctx context.Context, end *lineEnd) bool {
	if end.header == nil || end.owner != nil {
		return false
	}
	l := line{e.opts.Store, end.Database}
	end.owner = l.claimant(ctx, end.Session, end.TXID)
	return end.owner != nil
}

// fencedBy is the end: somebody else has the key that would be ours. Writes fail
// before it is looked who that is.
func (e *Engine) fencedBy(ctx context.Context, key string, o *segment.Object) error {
	f := &FencedError{Key: key, Session: o.Header.Session, Owner: ownerOf(o.Header.Owner)}
	if f.Owner == nil && o.Header.Session == e.end.Session {
		f.Owner = e.end.owner
	}
	if f.Owner == nil {
		var failure error = f
		e.writeErr.Store(&failure)
		l := line{e.opts.Store, e.end.Database}
		known := *f
		known.Owner = l.claimant(ctx, o.Header.Session, o.Header.MinTXID)
		f = &known
	}
	return f
}

// fencer is what the status says about a FencedError.
func (e *FencedError) fencer() *Fencer {
	f := &Fencer{Object: e.Key, Owner: e.Owner}
	if !e.Session.IsZero() {
		f.Session = e.Session.String()
	}
	return f
}

// writer names who wrote the line's end, for refusals.
func (e *lineEnd) writer() string {
	if e.owner == nil {
		return "session " + e.Session.String() + ", owner unknown"
	}
	return "session " + e.Session.String() + ", " + e.owner.String()
}
