package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

const (
	page        = 1000 // objects that one request lists
	foreignMost = 5    // foreign keys that are named
	jumps       = 24   // listings, at most, that look for the log's end
)

// look lists a page of what is at the path, and one of what comes behind the log,
// for a first sight of what is not Outwash's.
func (x *examination) look(ctx context.Context, r *Replica) error {
	for _, after := range []string{"", segment.LogPrefix + "~"} {
		full, last := false, ""
		n := 0
		for info, err := range x.store.List(ctx, "", after) {
			if err != nil {
				return err
			}
			found := &r.Foreign
			if strings.HasPrefix(info.Key, Prefix) {
				found = &r.Scratch
			}
			if !ours(info.Key) && len(*found) < foreignMost {
				*found = append(*found, info.Key)
			}
			last = info.Key
			if n++; n == page {
				full = true
				break
			}
		}
		if !full || last > segment.LogPrefix+"~" {
			break
		}
	}
	return nil
}

func ours(key string) bool {
	if key == segment.InfoKey {
		return true
	}
	_, isLog := segment.ParseLogKey(key)
	_, _, isSnapshot := segment.ParseSnapshotKey(key)
	_, _, _, isPages := segment.ParsePagesKey(key)
	_, _, isData := segment.ParseDataKey(key)
	return isLog || isSnapshot || isPages || isData
}

// glance reads whose replica is at the path, and how new it is, in a few requests:
// the root, the log's last object, and the last claim if it is near.
func (x *examination) glance(ctx context.Context, r *Replica) error {
	root, err := x.get(ctx, segment.InfoKey, objstore.Range{Length: segment.MaxInfo + 1})
	if err != nil {
		return err
	}
	info, err := segment.ParseReplicaInfo(root)
	if err != nil {
		return err
	}
	r.Database, r.Created = info.Database.String(), info.Created
	if failed(x.f.List) {
		return nil
	}
	last, err := x.lastPage(ctx)
	if err != nil {
		return err
	}
	if len(last) == 0 {
		r.Empty = true
		return nil
	}
	end, err := x.header(ctx, last[len(last)-1].Key)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil // deleted since it was listed
	}
	if err != nil {
		return err
	}
	if end.Database != info.Database {
		return fmt.Errorf("%s belongs to database %s: %w", last[len(last)-1].Key, end.Database, replicate.ErrForeign)
	}
	r.TXID, r.Time = end.MaxTXID, time.UnixMicro(end.LastMono)
	for i := len(last) - 1; i >= 0; i-- {
		if last[i].Size != segment.ClaimSize {
			continue
		}
		// Nothing is decided by it: without a claim at hand the writer stays unsaid.
		if claim, err := x.header(ctx, last[i].Key); err == nil && claim.Session == end.Session && claim.Owner != nil {
			r.Writer = fmt.Sprintf("%s on %s, process %d", claim.Owner.Program, claim.Owner.Host, claim.Owner.PID)
		}
		break
	}
	return nil
}

// lastPage returns the last log objects, a thousand at most. A log may be long, and
// a listing can't be read from its end: keys are numbers, so the end is found by
// doubling, then by halving.
func (x *examination) lastPage(ctx context.Context) ([]objstore.Info, error) {
	best, full, err := x.logPage(ctx, 0)
	if err != nil || !full {
		return best, err
	}
	low, _ := segment.ParseLogKey(best[len(best)-1].Key)
	high := uint64(0) // nothing is behind it; 0: unknown
	for range jumps {
		probe := low * 2
		if high != 0 {
			probe = low + (high-low)/2
		}
		if probe <= low {
			break
		}
		got, full, err := x.logPage(ctx, min(probe, segment.MaxTXID))
		switch {
		case err != nil:
			return nil, err
		case len(got) == 0:
			high = probe
			// What is between may fit into one page.
			if got, full, err = x.logPage(ctx, low); err != nil {
				return nil, err
			} else if !full {
				if len(got) > 0 {
					best = got
				}
				return best, nil
			}
		case !full:
			return got, nil
		default:
			best = got
		}
		if len(got) > 0 {
			best = got
			low, _ = segment.ParseLogKey(got[len(got)-1].Key)
		}
	}
	return best, nil
}

// logPage lists log objects behind a TXID. full: there may be more.
func (x *examination) logPage(ctx context.Context, after uint64) (list []objstore.Info, full bool, err error) {
	key := ""
	if after > 0 {
		key = segment.LogKey(after)
	}
	for info, err := range x.store.List(ctx, segment.LogPrefix, key) {
		if err != nil {
			return nil, false, err
		}
		if _, ok := segment.ParseLogKey(info.Key); !ok {
			continue
		}
		if list = append(list, info); len(list) == page {
			return list, true, nil
		}
	}
	return list, false, nil
}

// header reads the header of a log object.
func (x *examination) header(ctx context.Context, key string) (*segment.Header, error) {
	b, err := x.get(ctx, key, objstore.Range{Length: segment.ClaimSize})
	if err != nil {
		return nil, err
	}
	h, err := segment.ParseHeader(b)
	var more *segment.NeedMoreError
	if errors.As(err, &more) {
		if b, err = x.get(ctx, key, objstore.Range{Length: maxRead}); err == nil {
			h, err = segment.ParseHeader(b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return h, nil
}
