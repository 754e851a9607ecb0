package replicate

import (
	"context"
	"time"
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
	Sessions  []SessionInfo  `json:"sessions"`
	Objects   int            `json:"objects"`
	Bytes     int64          `json:"bytes"`
	Foreign   []string       `json:"foreign,omitempty"` // keys that are not Outwash's
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

// ReadHistory lists a replica and reads what names its owners and times: its
// snapshots, claims and newest segment, not every segment.
func ReadHistory(ctx context.Context, store Store) (*History, error) { panic("soon") }

// Details reads the header of segment i of h.Segments, one small request.
func (h *History) Details(ctx context.Context, i int) (SegmentInfo, error) { panic("soon") }
