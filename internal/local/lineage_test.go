package local

import (
	"os"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/segment"
)

func TestLineage(t *testing.T) {
	d := openDir(t)
	l, err := d.Lineage()
	must(t, err)
	if !l.Database.IsZero() {
		t.Error("a lineage out of nothing")
	}
	id := segment.NewID()
	l = Lineage{Database: segment.NewID(), Sessions: []segment.ID{id}, File: "f", TXID: 7, Checksum: 1 << 63, Session: id,
		Durable: Position{TXID: 9, Checksum: 3, Session: id, File: "f"}}
	must(t, d.SaveLineage(l))
	noted := Position{TXID: 8, Checksum: 4, Session: id, File: "f", Boot: "b"}
	must(t, d.NotePosition(noted))
	ahead := noted
	ahead.TXID++
	must(t, d.NoteAhead(ahead))
	got, err := d.Lineage()
	must(t, err)
	if got.Database != l.Database || !got.Known(id) || got.Known(segment.NewID()) || got.TXID != 7 || got.Checksum != 1<<63 ||
		got.Durable != l.Durable || got.Noted != noted || got.Ahead != ahead || got.File != "f" {
		t.Errorf("%+v", got)
	}
	b, err := os.ReadFile(d.file("lineage"))
	must(t, err)
	for n := range b { // torn by a loss of power: it proves nothing
		must(t, os.WriteFile(d.file("lineage"), b[:n], 0o600))
		if got, err := d.Lineage(); err != nil || !got.Database.IsZero() || got.Noted != (Position{}) {
			t.Fatalf("%d bytes: %+v %v", n, got, err)
		}
	}
}

// Whatever a loss of power leaves of the position, sessions and what was durable
// are still known.
func TestTornPositionLosesNoSession(t *testing.T) {
	d := openDir(t)
	id := segment.NewID()
	l := Lineage{Database: segment.NewID(), Sessions: []segment.ID{id}, Durable: Position{TXID: 9, Session: id, File: "f"}}
	must(t, d.SaveLineage(l))
	must(t, d.NotePosition(Position{TXID: 12, Session: id, File: "f", Boot: "b"}))
	b, err := os.ReadFile(d.file("position"))
	must(t, err)
	zeros := make([]byte, len(b))
	for n := range b {
		for _, torn := range [][]byte{b[:n], append(append([]byte{}, b[:n]...), zeros[n:]...)} {
			must(t, os.WriteFile(d.file("position"), torn, 0o600))
			got, err := d.Lineage()
			if err != nil || !got.Known(id) || got.Durable.TXID != 9 || got.Noted != (Position{}) {
				t.Fatalf("%d bytes: %+v %v", n, got, err)
			}
		}
	}
}

// A position of an earlier lineage, of another replica perhaps, says nothing.
func TestPositionOfUnknownSession(t *testing.T) {
	d := openDir(t)
	must(t, d.SaveLineage(Lineage{Database: segment.NewID(), Sessions: []segment.ID{segment.NewID()}}))
	must(t, d.NotePosition(Position{TXID: 12, Session: segment.NewID()}))
	if l, err := d.Lineage(); err != nil || l.Noted != (Position{}) || l.Acknowledged().TXID != 0 {
		t.Errorf("%+v %v", l, err)
	}
}

// What earlier versions wrote, one file without identity and boot, is read, and
// proves only what was acknowledged.
func TestLineageOfEarlierVersion(t *testing.T) {
	d := openDir(t)
	zeros := strings.TrimSuffix(strings.Repeat("0,", 15), ",")
	old := `{"database":[7,` + zeros + `],"sessions":[[8,` + zeros + `]],"txid":5,"checksum":77,"session":[8,` + zeros + `]}`
	must(t, os.WriteFile(d.file("lineage"), []byte(old), 0o600))
	l, err := d.Lineage()
	must(t, err)
	tail := Tail{TXID: 5, Checksum: 77, Database: segment.ID{7}, Session: segment.ID{8}}
	if a := l.Acknowledged(); a.TXID != 5 || a.Checksum != 77 || !l.Known(segment.ID{8}) {
		t.Errorf("%+v", l)
	}
	if l.Reached(tail, "f", BootID()) || l.KnowsFile("f") || l.OtherFile("f") {
		t.Error("it proves too much")
	}
}

func TestReached(t *testing.T) {
	a, b, c, x := segment.ID{1}, segment.ID{2}, segment.ID{3}, segment.ID{9}
	db := segment.ID{7}
	tail := func(txid uint64, by segment.ID) Tail {
		return Tail{TXID: txid, Checksum: txid, Database: db, Session: by}
	}
	at := func(txid uint64, by segment.ID) Position {
		return Position{TXID: txid, Checksum: txid, Session: by, File: "f", Boot: "boot"}
	}
	for _, r := range []struct {
		name string
		p    Position
		t    Tail
		file string
		want bool
	}{
		{"the tail itself", at(5, b), tail(5, b), "f", true},
		{"beyond it, the same session", at(6, b), tail(5, b), "f", true},
		{"beyond it, a later session", at(6, c), tail(5, b), "f", true},
		{"before it", at(4, b), tail(5, b), "f", false},
		{"before it, a later session", at(4, c), tail(5, b), "f", false},
		{"the same number by a later session", at(5, c), tail(5, b), "f", false},
		{"the same number, another state", Position{TXID: 5, Checksum: 1, Session: b, File: "f", Boot: "boot"}, tail(5, b), "f", false},
		{"an earlier session", at(9, a), tail(5, b), "f", false},
		{"the tail is a stranger's", at(9, c), tail(5, x), "f", false},
		{"another file", at(5, b), tail(5, b), "g", false},
		{"a file without identity", at(5, b), tail(5, b), "", false},
		{"a position without file", Position{TXID: 5, Checksum: 5, Session: b, Boot: "boot"}, tail(5, b), "", false},
		{"another replica", at(5, b), Tail{TXID: 5, Checksum: 5, Database: segment.ID{8}, Session: b}, "f", false},
	} {
		l := Lineage{Database: db, Sessions: []segment.ID{a, b, c}, Durable: r.p}
		if got := l.Reached(r.t, r.file, "another"); got != r.want {
			t.Errorf("durable, %s: %v", r.name, got)
		}
		l.Durable, l.Noted = Position{}, r.p
		if got := l.Reached(r.t, r.file, "boot"); got != r.want {
			t.Errorf("noted, %s: %v", r.name, got)
		}
		if l.Reached(r.t, r.file, "another") || l.Reached(r.t, r.file, "") || l.DurablyReached(r.t, r.file) {
			t.Errorf("noted under another boot, %s", r.name)
		}
		l.Noted, l.Ahead = Position{}, r.p
		if got := l.Reached(r.t, r.file, "boot"); got != r.want || l.Acknowledged().TXID != 0 {
			t.Errorf("ahead, %s: %v", r.name, got)
		}
		l.Noted, l.Ahead = r.p, Position{}
		l.Noted.Boot = ""
		if l.Reached(r.t, r.file, "") {
			t.Errorf("noted without boot ID, %s", r.name)
		}
	}
}

// What was acknowledged is told by the newest position, and a durable one that is
// ahead of the replica doesn't count.
func TestAcknowledged(t *testing.T) {
	a, b := segment.ID{1}, segment.ID{2}
	l := Lineage{Sessions: []segment.ID{a, b}, TXID: 5, Session: a, Durable: Position{TXID: 9, Session: b}}
	if got := l.Acknowledged().TXID; got != 5 {
		t.Error(got)
	}
	l.Noted = Position{TXID: 6, Session: a}
	if got := l.Acknowledged().TXID; got != 6 {
		t.Error(got)
	}
	l.Noted = Position{TXID: 4, Session: a}
	if got := l.Acknowledged().TXID; got != 5 {
		t.Error(got)
	}
	l.Noted = Position{TXID: 4, Session: b} // after an agreement to go on without
	if got := l.Acknowledged().TXID; got != 4 {
		t.Error(got)
	}
}
