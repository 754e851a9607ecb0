package segment

import (
	"fmt"
	"strconv"
	"strings"
)

// InfoKey is the key of the replica's root, see [ReplicaInfo].
const InfoKey = "outwash"

// Prefixes of the keys of a replica.
const (
	LogPrefix      = "log/"
	PagesPrefix    = "pages/"
	SnapshotPrefix = "snapshot/"
	DataPrefix     = "data/"
)

// LogKey returns the key of the log segment that begins at txid.
func LogKey(txid uint64) string { return LogPrefix + hex16(txid) }

// ParseLogKey is the inverse of [LogKey]; ok is false for any other key.
func ParseLogKey(key string) (txid uint64, ok bool) {
	s, ok := strings.CutPrefix(key, LogPrefix)
	if !ok {
		return 0, false
	}
	return parseTXID(s)
}

// PagesKey returns the key of the page segment of minTXID..maxTXID; sum is the
// checksum after maxTXID.
func PagesKey(minTXID, maxTXID, sum uint64) string {
	return PagesPrefix + hex16(minTXID) + "-" + hex16(maxTXID) + "-" + hex16(sum)
}

// ParsePagesKey is the inverse of [PagesKey]; ok is false for any other key.
func ParsePagesKey(key string) (minTXID, maxTXID, sum uint64, ok bool) {
	s, ok := strings.CutPrefix(key, PagesPrefix)
	if !ok || len(s) != 50 || s[16] != '-' || s[33] != '-' {
		return 0, 0, 0, false
	}
	minTXID, ok1 := parseTXID(s[:16])
	maxTXID, ok2 := parseTXID(s[17:33])
	sum, ok3 := parseHex16(s[34:])
	if !ok1 || !ok2 || !ok3 || minTXID > maxTXID {
		return 0, 0, 0, false
	}
	return minTXID, maxTXID, sum, true
}

// SnapshotKey returns the key of the snapshot at txid, whose checksum is sum.
func SnapshotKey(txid, sum uint64) string {
	return SnapshotPrefix + hex16(txid) + "-" + hex16(sum)
}

// ParseSnapshotKey is the inverse of [SnapshotKey]; ok is false for any other key.
func ParseSnapshotKey(key string) (txid, sum uint64, ok bool) {
	s, ok := strings.CutPrefix(key, SnapshotPrefix)
	if !ok || len(s) != 33 || s[16] != '-' {
		return 0, 0, false
	}
	txid, ok1 := parseTXID(s[:16])
	sum, ok2 := parseHex16(s[17:])
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	return txid, sum, true
}

// Key returns the key that a segment with this header has. An object found under
// another one is not what was written there.
func (h *Header) Key() string {
	switch h.Kind {
	case KindPages:
		return PagesKey(h.MinTXID, h.MaxTXID, h.Post)
	case KindSnapshot:
		return SnapshotKey(h.MaxTXID, h.Post)
	}
	return LogKey(h.MinTXID)
}

// DataKey returns the key of the data object of a snapshot or page segment.
func DataKey(name ID) string { return DataPrefix + name.String() }

// LogDataKey returns the key of the data object of the log segment that begins at
// txid: so a listing tells which data objects the log needs.
func LogDataKey(txid uint64, name ID) string { return DataPrefix + hex16(txid) + "-" + name.String() }

// ParseDataKey is the inverse of [DataKey], for which txid is 0, and of
// [LogDataKey]; ok is false for any other key.
func ParseDataKey(key string) (txid uint64, name ID, ok bool) {
	s, ok := strings.CutPrefix(key, DataPrefix)
	if !ok {
		return 0, ID{}, false
	}
	if first, rest, found := strings.Cut(s, "-"); found {
		if txid, ok = parseTXID(first); !ok {
			return 0, ID{}, false
		}
		s = rest
	}
	name, err := ParseID(s)
	if err != nil || name.IsZero() {
		return 0, ID{}, false
	}
	return txid, name, true
}

// DataKey returns the key of the data object of an external segment.
func (o *Object) DataKey() string { return o.Header.dataKey(o.Root.Data) }

func (h *Header) dataKey(name ID) string {
	if h.Kind == KindLog {
		return LogDataKey(h.MinTXID, name)
	}
	return DataKey(name)
}

func hex16(v uint64) string { return fmt.Sprintf("%016x", v) }

func parseHex16(s string) (uint64, bool) {
	if !lowerHex(s, 16) {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 16, 64)
	return v, err == nil
}

func parseTXID(s string) (uint64, bool) {
	v, ok := parseHex16(s)
	return v, ok && v >= 1 && v <= MaxTXID
}
