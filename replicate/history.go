package replicate

import (
	"context"
	"fmt"
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
	Ranges    []TXIDRange    `json:"ranges"` // restorable, ascending
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

	store Store
}

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	Key      string    `json:"key"`
	TXID     uint64    `json:"txid"`
	Checksum string    `json:"checksum"`
	Time     time.Time `json:"time"` // of the last commit in it
	Pages    uint64    `json:"pages"`
	Bytes    int64     `json:"bytes"` // with its data object
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
// names its owners and times: the root, its snapshots, the newest 20 claims, the
// log's end and its first segment with content, not every segment. So it takes
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
	var snaps []snapshotKey
	for o, err := range store.List(ctx, "", "") {
		if err != nil {
			return nil, fmt.Errorf("replicate: list %s: %w", store, err)
		}
		if txid, ok := segment.ParseLogKey(o.Key); ok {
			h.Segments = append(h.Segments, SegmentInfo{Key: o.Key, Bytes: o.Size, Claim: o.Size == segment.ClaimSize, MinTXID: txid})
		} else if txid, sum, ok := segment.ParseSnapshotKey(o.Key); ok {
			snaps = append(snaps, snapshotKey{txid, sum, o.Size})
		} else if !ownKey(o.Key) {
			h.Foreign = append(h.Foreign, o.Key)
			continue
		}
		h.Objects++
		h.Bytes += o.Size
	}
	if err := h.readSnapshots(ctx, l, snaps); err != nil {
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
	return h, h.findRanges(ctx, l)
}

func ownKey(key string) bool {
	if _, _, _, ok := segment.ParsePagesKey(key); ok {
		return true
	}
	_, _, ok := segment.ParseDataKey(key)
	return ok || key == segment.InfoKey
}

const (
	// historyRequests is how many small objects are read at once.
	historyRequests = 8
	// historySessions is how many claims are read: they are never deleted, so
	// there are many in time.
	historySessions = 20
)

func (h *History) readSnapshots(ctx context.Context, l *line, snaps []snapshotKey) error {
	h.Snapshots = make([]SnapshotInfo, len(snaps))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(historyRequests)
	for i, k := range snaps {
		g.Go(func() error {
			o, err := l.snapshot(ctx, k)
			if err != nil {
				return err
			}
			h.Snapshots[i] = SnapshotInfo{
				Key: segment.SnapshotKey(k.txid, k.sum), TXID: k.txid, Checksum: fmt.Sprintf("%016x", k.sum),
				Time: timeOf(o.Header.LastMono), Pages: o.Header.Commit, Bytes: o.Size,
			}
			if o.Header.External {
				h.Snapshots[i].Bytes += o.Root.Size
			}
			return nil
		})
	}
	return g.Wait()
}

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

// findRanges says from where the line can be restored: from its first commit if
// the log begins with the line and goes on, else from the oldest snapshot.
func (h *History) findRanges(ctx context.Context, l *line) error {
	if h.Pages == 0 {
		return nil
	}
	from := TXIDRange{To: h.TXID, ToTime: h.Time}
	for i := range h.Segments { // the first that isn't a claim
		if h.Segments[i].Claim {
			continue
		}
		if h.Segments[i].MinTXID != uint64(i)+1 {
			break // the log before it is gone
		}
		o, err := l.log(ctx, uint64(i)+1)
		if err != nil {
			return err
		}
		for _, e := range o.Entries {
			if e.Commit > 0 {
				if !e.NeedsBase {
					from.From, from.FromTime = e.MaxTXID, timeOf(e.LastMono)
				}
				break
			}
		}
		if o.Header.External {
			from.From, from.FromTime = o.Header.MaxTXID, timeOf(o.Header.LastMono)
		}
		break
	}
	if len(h.Snapshots) > 0 && (from.From == 0 || h.Snapshots[0].TXID < from.From) {
		from.From, from.FromTime = h.Snapshots[0].TXID, h.Snapshots[0].Time
	}
	if from.From != 0 {
		h.Ranges = []TXIDRange{from}
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
