package segment

import (
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	id := ID{0xab, 15: 1}
	for _, key := range []string{
		LogKey(1), LogKey(MaxTXID), PagesKey(1, 1, 0), PagesKey(0xabc, 0xdef, 1<<64-1),
		SnapshotKey(77, 0xfeed), DataKey(id), LogDataKey(0xabc, id),
	} {
		if again, ok := rekey(key); !ok || again != key {
			t.Errorf("%s comes back as %s", key, again)
		}
		for _, other := range []string{
			key + "0", key[:len(key)-1], " " + key, key + "\n", "/" + key, key + "/",
			strings.Replace(key, "/", "//", 1), strings.Replace(key, "/0", "/+", 1), strings.Replace(key, "/0", "/-", 1),
			strings.Replace(key, "/0", "/_", 1), strings.ToUpper(key), strings.Replace(key, "-", "_", 1) + "x",
		} {
			if again, ok := rekey(other); ok && other != key {
				t.Errorf("%q passes as %s", other, again)
			}
		}
	}
	for _, key := range []string{
		"log/0000000000000000", "log/8000000000000000", "log/00000000000000AB", "log/0x00000000000001", "log/",
		"pages/0000000000000002-0000000000000001-0000000000000000", "snapshot/0000000000000000-0000000000000000",
		"data/00000000000000000000000000000000", "data/0000000000000000-" + ID{1}.String(), "data/0000000000000001-", "data/-" + ID{1}.String(), "outwash", "",
	} {
		if again, ok := rekey(key); ok {
			t.Errorf("%q passes as %s", key, again)
		}
	}
	if LogKey(0xabc) != "log/0000000000000abc" || PagesKey(1, 2, 3) != "pages/0000000000000001-0000000000000002-0000000000000003" {
		t.Error("layout")
	}
}

// rekey parses a key and makes it again.
func rekey(key string) (string, bool) {
	if txid, ok := ParseLogKey(key); ok {
		return LogKey(txid), true
	}
	if lo, hi, sum, ok := ParsePagesKey(key); ok {
		return PagesKey(lo, hi, sum), true
	}
	if txid, sum, ok := ParseSnapshotKey(key); ok {
		return SnapshotKey(txid, sum), true
	}
	if txid, id, ok := ParseDataKey(key); ok && txid > 0 {
		return LogDataKey(txid, id), true
	} else if ok {
		return DataKey(id), true
	}
	return "", false
}

func TestID(t *testing.T) {
	id := NewID()
	got, err := ParseID(id.String())
	if err != nil || got != id || id.IsZero() || id == NewID() {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "00", strings.ToUpper(ID{0xab}.String()), id.String() + "0", strings.Repeat("g", 32)} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q passes", s)
		}
	}
}
