package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/segment"
)

func TestRestoredProves(t *testing.T) {
	db, by := segment.ID{7}, segment.ID{1}
	end := Tail{TXID: 5, Checksum: 50, Database: db, Session: by}
	r := Restored{Database: db, Position: Position{TXID: 5, Checksum: 50, Session: by, File: "f"}}
	for _, c := range []struct {
		name   string
		change func(t *Tail)
		file   string
		want   bool
	}{
		{"the same end", func(*Tail) {}, "f", true},
		{"another file", func(*Tail) {}, "g", false},
		{"a file without identity", func(*Tail) {}, "", false},
		{"the line has gone on", func(t *Tail) { t.TXID++ }, "f", false},
		{"by a claim, of whom it may be", func(t *Tail) { t.TXID, t.Session = 6, segment.ID{2} }, "f", false},
		{"the line was shorter", func(t *Tail) { t.TXID-- }, "f", false},
		{"another state", func(t *Tail) { t.Checksum++ }, "f", false},
		{"written by another session", func(t *Tail) { t.Session = segment.ID{2} }, "f", false},
		{"another replica", func(t *Tail) { t.Database = segment.ID{8} }, "f", false},
		{"no replica", func(t *Tail) { t.Database = segment.ID{} }, "f", false},
	} {
		tail := end
		c.change(&tail)
		l := Lineage{Restored: r}
		if l.Reached(tail, c.file, "boot") != c.want || l.DurablyReached(tail, c.file) != c.want {
			t.Errorf("%s: expected %t", c.name, c.want)
		}
		if l.Known(by) || l.KnowsFile("f") || l.Made("f") || l.Acknowledged().TXID != 0 {
			t.Errorf("%s: it says more", c.name)
		}
	}
	if (&Lineage{}).Reached(Tail{}, "", "") {
		t.Error("nothing proves something")
	}
}

func TestNoteRestored(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	db, temp := filepath.Join(dir, "db"), filepath.Join(dir, "temp")
	must(t, os.WriteFile(temp, []byte("x"), 0o600))
	r := Restored{Database: segment.NewID(), Position: Position{TXID: 3, Session: segment.NewID()}}
	undo, err := NoteRestored(db, temp, r)
	must(t, err)
	must(t, os.Link(temp, db))
	must(t, os.Remove(temp))
	if got := ReadOnly(db).Restored(); !got.Of(Identity(db)) || got.Database != r.Database || got.TXID != 3 || got.Session != r.Session {
		t.Fatalf("%+v", got)
	}
	undo()
	if _, err := os.Stat(db + Suffix); !os.IsNotExist(err) {
		t.Fatal(err)
	}

	// Beside what is there already, and back again.
	d := openDir(t)
	d.Close()
	path := d.path[:len(d.path)-len(Suffix)]
	must(t, os.WriteFile(path, nil, 0o600))
	_, err = NoteRestored(path, path, r)
	must(t, err)
	first := d.Restored()
	r.TXID = 4
	undo, err = NoteRestored(path, db, r)
	must(t, err)
	if got := d.Restored(); got.TXID != 4 || got.Of(Identity(path)) {
		t.Fatalf("%+v", got)
	}
	undo()
	if got := d.Restored(); got != first {
		t.Fatalf("%+v", got)
	}
	b, err := d.ReadFile(restoredName)
	must(t, err)
	for n := range b { // torn by a loss of power: it proves nothing
		must(t, os.WriteFile(d.file(restoredName), b[:n], 0o600))
		if l, err := d.Lineage(); err != nil || l.Restored != (Restored{}) {
			t.Fatalf("%d bytes: %+v %v", n, l.Restored, err)
		}
	}
}

// Whose the directory is that root makes.
func TestInherit(t *testing.T) {
	for _, c := range []struct {
		name           string
		euid, uid, gid int
		mode           fs.FileMode
		made           bool
		toUID, toGID   int
		ok             bool
	}{
		{"not root", 1000, 0, 0, 0o777, true, -1, -1, true},
		{"root, in its own directory", 0, 0, 0, 0o755, true, -1, -1, true},
		{"root, in its group's", 0, 0, 0, 0o775, true, -1, -1, true},
		{"root, in another's", 0, 1000, 1001, 0o755, true, 1000, 1001, true},
		{"root, where a group may write", 0, 0, 1000, 0o2775, true, -1, -1, false},
		{"root, where all may write", 0, 0, 0, 0o1777, true, -1, -1, false},
		{"root, beside what is there", 0, 0, 1000, 0o770, false, -1, -1, true},
		{"root, beside another's", 0, 1000, 1000, 0o700, false, 1000, 1000, true},
	} {
		uid, gid, ok := inherit(c.euid, c.uid, c.gid, c.mode, c.made)
		if uid != c.toUID || gid != c.toGID || ok != c.ok {
			t.Errorf("%s: %d, %d, %t", c.name, uid, gid, ok)
		}
	}
}

func TestMakeParents(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "db")
	made, err := MakeParents(path)
	must(t, err)
	if len(made) != 2 || made[0] != filepath.Join(dir, "a") || made[1] != filepath.Join(dir, "a", "b") {
		t.Fatal(made)
	}
	if made, err := MakeParents(path); err != nil || len(made) != 0 {
		t.Fatal(made, err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := MakeParents(filepath.Join(path, "c", "d")); err == nil {
		t.Fatal("below a file")
	}
}
