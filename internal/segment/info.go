package segment

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// MaxInfo is the longest root of a replica that is read.
const MaxInfo = 4096

const about = "A SQLite database, replicated by Outwash. Do not change or delete single objects; see https://github.com/outwash/outwash"

// ReplicaInfo is the root of a replica, the object at [InfoKey].
type ReplicaInfo struct {
	Database ID
	Created  time.Time
	Requires []string // features that a reader must know; none is known yet
}

type infoJSON struct {
	Format     int      `json:"format"`
	Database   string   `json:"database"`
	PageHash   string   `json:"page_hash"`
	ObjectHash string   `json:"object_hash"`
	Created    string   `json:"created"`
	About      string   `json:"about"`
	Requires   []string `json:"requires,omitempty"`
}

// MarshalReplicaInfo returns info as it is stored.
func MarshalReplicaInfo(info ReplicaInfo) ([]byte, error) {
	if info.Database.IsZero() || len(info.Requires) > 0 {
		return nil, invalidf("replica root: database %v, requires %q", info.Database, info.Requires)
	}
	b, err := json.MarshalIndent(infoJSON{
		Format: Version, Database: info.Database.String(), PageHash: "xxh64", ObjectHash: "sha256",
		Created: info.Created.UTC().Format(time.RFC3339), About: about,
	}, "", "  ")
	return append(b, '\n'), err
}

// ParseReplicaInfo decodes what [MarshalReplicaInfo] returns. Keys that it
// doesn't know are ignored; a feature or a format that it doesn't know is
// [ErrVersion].
func ParseReplicaInfo(b []byte) (*ReplicaInfo, error) {
	info, err := parseReplicaInfo(b)
	if err != nil {
		if !isKnown(err) {
			err = corruptf("%w", err)
		}
		return nil, fmt.Errorf("replica root %q: %w", InfoKey, err)
	}
	return info, nil
}

func parseReplicaInfo(b []byte) (*ReplicaInfo, error) {
	if len(b) > MaxInfo {
		return nil, fmt.Errorf("%d bytes, at most %d expected", len(b), MaxInfo)
	}
	keys, err := jsonObject(b)
	if err != nil {
		return nil, err
	}
	get := func(key string, v any) error {
		raw, ok := keys[key]
		if !ok {
			return fmt.Errorf("no %q", key)
		}
		if err := json.Unmarshal(raw, v); err != nil || string(raw) == "null" {
			return fmt.Errorf("%q is %.60q", key, raw)
		}
		return nil
	}
	var format int
	if err := get("format", &format); err != nil {
		return nil, err
	}
	if format != Version {
		return nil, unknownf("format %d, this Outwash knows %d", format, Version)
	}
	info := &ReplicaInfo{}
	if _, ok := keys["requires"]; ok {
		if err := get("requires", &info.Requires); err != nil {
			return nil, err
		}
		if len(info.Requires) > 0 {
			return nil, unknownf("it requires %.200q", info.Requires)
		}
	}
	var database, created string
	for _, f := range []struct{ key, want string }{{"page_hash", "xxh64"}, {"object_hash", "sha256"}} {
		var s string
		if err := get(f.key, &s); err != nil {
			return nil, err
		}
		if s != f.want {
			return nil, unknownf("%q is %.60q, this Outwash knows %q", f.key, s, f.want)
		}
	}
	if err := get("database", &database); err != nil {
		return nil, err
	}
	if info.Database, err = ParseID(database); err != nil || info.Database.IsZero() {
		return nil, fmt.Errorf("%q is %.60q, expected 32 hex digits", "database", database)
	}
	if err := get("created", &created); err != nil {
		return nil, err
	}
	if info.Created, err = time.Parse(time.RFC3339, created); err != nil {
		return nil, fmt.Errorf("%q: %w", "created", err)
	}
	// An offset can move the year out of what RFC 3339 can say.
	if info.Created = info.Created.UTC(); info.Created.Year() < 1 || info.Created.Year() > 9999 {
		return nil, fmt.Errorf("%q is %.60q", "created", created)
	}
	return info, nil
}

// jsonObject decodes one object and nothing after it. Unlike Unmarshal it tells
// keys apart by case and refuses one that occurs twice: two readers could
// understand it differently.
func jsonObject(b []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object: %.40q", b)
	}
	m := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := t.(string)
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("key %.60q occurs twice", key)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		m[key] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON object")
	}
	return m, nil
}
