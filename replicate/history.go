package replicate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/segment"
)

// History is what a replica consists of.
type History struct {
	Database  string         `json:"database"` // database ID
	Replica   string         `json:"replica"`
	Created   time.Time      `json:"created"`
	TXID      uint64         `json:"txid"` // newest
	Time      time.Time      `json:"time"` // of the newest commit
	PageSize  uint32         `json:"page_size"`
	Pages     uint64         `json:"pages"`
	Snapshots []SnapshotInfo `json:"snapshots"`
	// PageSegments are all there are, ascending; of older ones than the newest 200
	// only what their keys tell, until ReadPageSegments.
	PageSegments []PagesInfo `json:"page_segments"`
	// Ranges are what can be restored, ascending: single TXIDs, where only a
	// snapshot or page segment ends, and at last the range in which the log has every
	// one (but those that were merged).
	Ranges []TXIDRange `json:"ranges"`
	// Writer is the newest session: who writes now, unless it has ended; sessions
	// leave nothing when they end.
	Writer *SessionInfo `json:"writer,omitempty"`
	// Sessions are the newest ones, ascending; OlderSessions counts the others,
	// which ReadSessions reads.
	Sessions      []SessionInfo `json:"sessions"`
	OlderSessions int           `json:"older_sessions"`
	Objects       int           `json:"objects"` // Outwash's; Foreign are not counted
	Bytes         int64         `json:"bytes"`
	Foreign       []string      `json:"foreign,omitempty"` // keys that are not Outwash's
	// Segments are the log segments; without details only key, size and MinTXID.
	Segments []SegmentInfo `json:"segments"`
	// Damaged says of each snapshot and page segment that can't be decoded why. They
	// are listed, but nothing is restored from them.
	Damaged []error `json:"-"`

	store   Store
	exports []exportInfo // by their ends
	unread  int          // of exports
	data    map[string]bool
}

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	Key      string    `json:"key"`
	TXID     uint64    `json:"txid"`
	Checksum string    `json:"checksum"`
	Time     time.Time `json:"time"` // of the last commit in it
	Pages    uint64    `json:"pages"`
	Bytes    int64     `json:"bytes"` // with its data object
	// Void: its data object is missing, so that it counts for nothing.
	Void bool `json:"void,omitempty"`
	// Damaged: it can't be decoded, and counts for nothing, either.
	Damaged bool `json:"damaged,omitempty"`
}

// PagesInfo describes a page segment.
type PagesInfo struct {
	Key      string    `json:"key"`
	MinTXID  uint64    `json:"min_txid"`
	TXID     uint64    `json:"txid"` // its last one, where it can be restored
	Checksum string    `json:"checksum"`
	Time     time.Time `json:"time,omitzero"`   // of the last commit in it
	Pages    uint64    `json:"pages,omitempty"` // of the database
	Bytes    int64     `json:"bytes"`           // with its data object
	Void     bool      `json:"void,omitempty"`
	Damaged  bool      `json:"damaged,omitempty"`
}

// TXIDRange is a range of transactions that can be restored.
type TXIDRange struct {
	From     uint64    `json:"from"`
	To       uint64    `json:"to"`
	FromTime time.Time `json:"from_time"`
	ToTime   time.Time `json:"to_time"`
}

// SessionInfo describes a claim: who opened a session, and when.
type SessionInfo struct {
	Session string    `json:"session"`
	TXID    uint64    `json:"txid"` // of the claim
	Time    time.Time `json:"time"`
	Owner   *Owner    `json:"owner,omitempty"`
}

// SegmentInfo describes a log segment.
type SegmentInfo struct {
	Key      string    `json:"key"`
	Bytes    int64     `json:"bytes"`
	Claim    bool      `json:"claim"`
	MinTXID  uint64    `json:"min_txid"`
	MaxTXID  uint64    `json:"max_txid,omitempty"`
	Entries  uint64    `json:"entries,omitempty"`
	Session  string    `json:"session,omitempty"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
	Pages    uint64    `json:"pages,omitempty"` // database size after it
	Checksum string    `json:"checksum,omitempty"`
}

// ReadHistory lists a replica (a request for each 1000 objects) and reads what
// names its owners and times: the root, its snapshots, the newest 200 page segments
// and 20 claims, the log's end and its first segment with content, not every segment. So it takes
// the log between a base and the end to be complete; Restore proves it.
func ReadHistory(ctx context.Context, store Store) (*History, error) {
	info, err := readRoot(ctx, store)
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("replicate: %s: %w (there is no object %s)", store, ErrNoReplica, segment.InfoKey)
	}
	h := &History{Database: info.Database.String(), Replica: store.String(), Created: info.Created, store: store}
	l := &line{store, info.Database}
	h.data = map[string]bool{}
	for o, err := range store.List(ctx, "", "") {
		if err != nil {
			return nil, fmt.Errorf("replicate: list %s: %w", store, err)
		}
		if txid, ok := segment.ParseLogKey(o.Key); ok {
			h.Segments = append(h.Segments, SegmentInfo{Key: o.Key, Bytes: o.Size, Claim: o.Size == segment.ClaimSize, MinTXID: txid})
		} else if k, ok := parseExport(o); ok {
			h.exports = append(h.exports, exportInfo{exportKey: k, bytes: o.Size})
		} else if _, _, ok := segment.ParseDataKey(o.Key); ok {
			h.data[o.Key] = true
		} else if o.Key != segment.InfoKey {
			h.Foreign = append(h.Foreign, o.Key)
			continue
		}
		h.Objects++
		h.Bytes += o.Size
	}
	slices.SortStableFunc(h.exports, func(a, b exportInfo) int { return cmp.Compare(a.max, b.max) })
	if err := h.readExports(ctx, historyPages); err != nil {
		return nil, err
	}
	if err := h.readClaims(ctx, historySessions); err != nil {
		return nil, err
	}
	var hint uint64
	if n := len(h.Segments); n > 0 {
		hint = h.Segments[n-1].MinTXID
	}
	end, err := l.end(ctx, hint)
	if err != nil {
		return nil, err
	}
	h.TXID, h.Time, h.PageSize, h.Pages = end.TXID, timeOf(end.LastTime), end.PageSize, end.Commit
	return h, h.findRanges(ctx)
}

const (
	// historyRequests is how many small objects are read at once.
	historyRequests = 8
	// historySessions is how many claims are read: they are never deleted, so
	// there are many in time.
	historySessions = 20
	// historyPages is how many page segments are: by default there are 168.
	historyPages = 200
)

// ReadSessions reads the sessions that ReadHistory left out, a small request each.
func (h *History) ReadSessions(ctx context.Context) error {
	if h.OlderSessions == 0 {
		return nil
	}
	return h.readClaims(ctx, len(h.Segments))
}

// readClaims finds the newest sessions, most of them: a claim is known by its length.
func (h *History) readClaims(ctx context.Context, most int) error {
	var claims []int
	for i := range h.Segments {
		if h.Segments[i].Claim {
			claims = append(claims, i)
		}
	}
	h.OlderSessions = max(0, len(claims)-most)
	claims = claims[h.OlderSessions:]
	h.Sessions = make([]SessionInfo, len(claims))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(historyRequests)
	for n, i := range claims {
		g.Go(func() error {
			header, err := h.header(ctx, i)
			if err != nil {
				return err
			}
			h.Sessions[n] = SessionInfo{Session: header.Session.String(), TXID: header.MinTXID, Time: timeOf(header.LastMono), Owner: ownerOf(header.Owner)}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if n := len(h.Sessions); n > 0 {
		h.Writer = &h.Sessions[n-1]
	}
	return nil
}

func (h *History) header(ctx context.Context, i int) (*segment.Header, error) {
	database, err := segment.ParseID(h.Database)
	if err != nil {
		return nil, err
	}
	l := &line{h.store, database}
	return l.header(ctx, h.Segments[i].Key, segment.KindLog)
}

// Details reads the header of segment i of h.Segments, one small request.
func (h *History) Details(ctx context.Context, i int) (SegmentInfo, error) {
	header, err := h.header(ctx, i)
	if err != nil {
		return SegmentInfo{}, err
	}
	s := h.Segments[i]
	s.MaxTXID, s.Entries, s.Session = header.MaxTXID, header.Entries, header.Session.String()
	s.From, s.To = timeOf(header.FirstMono), timeOf(header.LastMono)
	s.Pages, s.Checksum = header.Commit, fmt.Sprintf("%016x", header.Post)
	return s, nil
}
