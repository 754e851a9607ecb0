package segment

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// An adopt entry that needs a base stands alone: whoever looks for the base that
// a line needs finds it from the header and one entry.
func TestNeedsBaseStandsAlone(t *testing.T) {
	m := newModel(t, 1, 512)
	first := m.entry(Transaction)
	adopt := &Entry{Kind: Adopt, NeedsBase: true, Count: 1, Commit: 9, MinCommit: 9, Pre: first.Post, PreCommit: first.Commit, Post: 77,
		FirstMono: m.now, LastMono: m.now, FirstRaw: m.now, LastRaw: m.now}
	if _, _, err := Encode(m.header(2), []*Entry{first, adopt}); !errors.Is(err, ErrInvalid) {
		t.Errorf("behind another entry: %v", err)
	}
	h := m.header(3)
	b, _, err := Encode(h, []*Entry{adopt})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(b); err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	w := NewDataWriter(&data, DataHeader{Name: testData, Kind: KindLog, PageSize: 512, Database: testDB, Session: testSession})
	if err := w.EndEntry(adopt); err != nil {
		t.Fatal(err)
	}
	root, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := EncodeExternal(h, []*Entry{adopt}, root); !errors.Is(err, ErrInvalid) {
		t.Errorf("external: %v", err)
	}
}

// A note for people is never a reason to refuse a database.
func TestOwnerIsNoReasonToRefuse(t *testing.T) {
	for _, c := range []struct {
		value string
		host  string // "": no owner
	}{
		{`{"host":"a","pid":1,"program":"p","since":"2026-01-02T03:04:05Z"}`, "a"},
		{`{"host":"a\u001b[31m\u202eb","pid":1,"program":"p","since":"2026-01-02T03:04:05Z","more":[1]}`, "a[31mb"},
		{`{"host":"a","pid":"1"}`, ""},
		{`{"host":"a","pid":1,"program":"p","since":"yesterday"}`, ""},
		{"\xff", ""},
		{"", ""},
		{string(bytes.Repeat([]byte(" "), 600)) + `{"host":"a","pid":1,"program":"p","since":"2026-01-02T03:04:05Z"}`, ""},
	} {
		h := Header{Kind: KindLog, Claim: true, PageSize: 512, Database: testDB, Session: testSession, MinTXID: 1, MaxTXID: 1, Entries: 1}
		b, err := h.append(nil, -1)
		if err != nil {
			t.Fatal(err)
		}
		b = appendExtension(b[:headerFixed], extOwner, []byte(c.value))
		n := len(b) + 8
		b[16], b[17], b[18], b[19] = 0, 0, byte(n>>8), byte(n)
		got, err := ParseHeader(appendU64(b, xxh64(b)))
		if err != nil {
			t.Errorf("%q: %v", c.value, err)
			continue
		}
		if (got.Owner != nil) != (c.host != "") || got.Owner != nil && got.Owner.Host != c.host {
			t.Errorf("%q: %+v", c.value, got.Owner)
		}
	}
	// A clock that is off must not make a claim that can't be read.
	for _, year := range []int{-5, 1, 1969, 9999, 12000} {
		o := &Owner{Host: "h", PID: 1, Program: "p", Since: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)}
		b, _, err := EncodeClaim(Header{PageSize: 4096, Database: testDB, Session: testSession, MinTXID: 1, Owner: o, LastMono: testTime})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); err != nil {
			t.Errorf("year %d: %v", year, err)
		}
	}
}
