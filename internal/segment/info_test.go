package segment

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestReplicaInfo(t *testing.T) {
	info := ReplicaInfo{Database: testDB, Created: time.Unix(1_700_000_000, 0).UTC()}
	b, err := MarshalReplicaInfo(info)
	if err != nil {
		t.Fatal(err)
	}
	b = readGolden(t, InfoKey, b)
	got, err := ParseReplicaInfo(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Database != info.Database || !got.Created.Equal(info.Created) || got.Requires != nil {
		t.Errorf("%+v", got)
	}
	s := string(b)
	edit := func(old, repl string) string {
		if !strings.Contains(s, old) {
			t.Fatal(old)
		}
		return strings.Replace(s, old, repl, 1)
	}
	for _, tc := range []struct {
		name, text string
		want       error
	}{
		{"unknown key", edit(`"format"`, `"later": {"a": [1, 2]}, "format"`), nil},
		{"nothing required", edit(`"format"`, `"requires": [], "format"`), nil},
		{"other case is another key", edit(`"format"`, `"FORMAT": 2, "format"`), nil},
		{"no space", strings.NewReplacer("\n", "", "  ", "").Replace(s), nil},
		{"format 2", edit(`"format": 1`, `"format": 2`), ErrVersion},
		{"requires", edit(`"format"`, `"requires": ["x"], "format"`), ErrVersion},
		{"page hash", edit("xxh64", "xxh3"), ErrVersion},
		{"object hash", edit("sha256", "blake3"), ErrVersion},
		{"empty", "", ErrCorrupt},
		{"array", "[]", ErrCorrupt},
		{"null", "null", ErrCorrupt},
		{"cut", s[:len(s)/2], ErrCorrupt},
		{"trailing", s + "{}", ErrCorrupt},
		{"twice", edit(`"format"`, `"format": 1, "format"`), ErrCorrupt},
		{"no format", edit(`"format"`, `"Format"`), ErrCorrupt},
		{"format null", edit(`"format": 1`, `"format": null`), ErrCorrupt},
		{"format string", edit(`"format": 1`, `"format": "1"`), ErrCorrupt},
		{"database", edit(testDB.String(), "x"), ErrCorrupt},
		{"database zero", edit(testDB.String(), ID{}.String()), ErrCorrupt},
		{"created", edit("2023-", "23-"), ErrCorrupt},
		{"requires no list", edit(`"format"`, `"requires": "x", "format"`), ErrCorrupt},
		{"requires null", edit(`"format"`, `"requires": null, "format"`), ErrCorrupt},
		{"not UTF-8", edit("Outwash", "Outwash\xff"), ErrCorrupt},
		{"too long", s + strings.Repeat(" ", MaxInfo), ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := ParseReplicaInfo([]byte(tc.text)); !errors.Is(err, tc.want) {
				t.Errorf("error %v, expected %v", err, tc.want)
			}
		})
	}
	if _, err := MarshalReplicaInfo(ReplicaInfo{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no database: %v", err)
	}
}
