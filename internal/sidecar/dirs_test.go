package sidecar

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// empty is a database without pages beyond its header, which suffices here.
var empty = header + strings.Repeat("\x00", headerSize-len(header))

func (d testDir) write(name, content string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.in(name)), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.in(name), []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

type testDir struct {
	t    *testing.T
	path string
}

func (d testDir) in(name string) string { return filepath.Join(d.path, name) }

// TestWatchDir: databases come and go, and are taken up and let go.
func TestWatchDir(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	d := testDir{t, t.TempDir()}
	d.write("a.db", empty)
	n, err := m.AddDir(DirOptions{
		Dir: Dir{Path: d.path, Pattern: "*.db", Recursive: true}, Watch: true,
		Database: func(f Found) (Options, error) { return Options{MaxLag: 1}, nil },
	})
	if n != 1 || err != nil {
		t.Fatalf("AddDir: %d, %v", n, err)
	}
	a.await(t, "a.db")
	d.write("b.db", empty)
	a.await(t, "a.db", "b.db")

	// One that is made slowly: the file is there before it is a database.
	f, err := os.Create(d.in("c.db"))
	if err != nil {
		t.Fatal(err)
	}
	d.write("other.db", "no database")
	d.write("d.db", empty)
	a.await(t, "a.db", "b.db", "d.db")
	if _, err := f.WriteString(empty[:50]); err != nil {
		t.Fatal(err)
	}
	d.write("d2.db", empty)
	a.await(t, "a.db", "b.db", "d.db", "d2.db")
	if err := os.Remove(d.in("d2.db")); err != nil {
		t.Fatal(err)
	}
	a.await(t, "a.db", "b.db", "d.db")
	if _, err := f.WriteString(empty[50:]); err != nil {
		t.Fatal(err)
	}
	a.await(t, "a.db", "b.db", "c.db", "d.db")
	f.Close()

	// In a directory that is new, and one that is moved here.
	d.write("sub/deep/e.db", empty)
	a.await(t, "a.db", "b.db", "c.db", "d.db", "e.db")
	away := t.TempDir()
	if err := os.MkdirAll(filepath.Join(away, "moved"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(away, "moved/f.db"), []byte(empty), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(away, "moved"), d.in("moved")); err != nil {
		t.Fatal(err)
	}
	a.await(t, "a.db", "b.db", "c.db", "d.db", "e.db", "f.db")

	for _, name := range []string{"a.db", "sub"} {
		if err := os.RemoveAll(d.in(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(d.in("b.db"), d.in("g.db")); err != nil {
		t.Fatal(err)
	}
	a.await(t, "c.db", "d.db", "f.db", "g.db")
	d.write("sub/deep/h.db", empty) // in a directory that comes back
	a.await(t, "c.db", "d.db", "f.db", "g.db", "h.db")
	d.write("a.db", empty)
	a.await(t, "a.db", "c.db", "d.db", "f.db", "g.db", "h.db")
}

// TestDirOfListed: a database that is listed by itself, too, is replicated as it says
// there, and stays when the directory would let it go.
func TestDirOfListed(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	d := testDir{t, t.TempDir()}
	d.write("a.db", empty)
	d.write("b.db", empty)
	if err := m.Add(Options{Path: d.in("a.db"), MaxLag: 7}); err != nil {
		t.Fatal(err)
	}
	a.await(t, "a.db")
	if n, err := m.AddDir(DirOptions{
		Dir: Dir{Path: d.path, Pattern: "*.db"}, Watch: true,
		Database: func(f Found) (Options, error) { return Options{MaxLag: 1}, nil },
	}); n != 2 || err != nil {
		t.Fatalf("AddDir: %d, %v", n, err)
	}
	a.await(t, "a.db", "b.db")
	if lag := a.open[d.in("a.db")].o.MaxLag; lag != 7 {
		t.Errorf("MaxLag of the listed database is %v", lag)
	}
	for _, name := range []string{"a.db", "b.db"} {
		if err := os.Remove(d.in(name)); err != nil {
			t.Fatal(err)
		}
	}
	a.await(t, "a.db")
}

// TestDirsShare: a database that two directories have, or that has another name now,
// is taken up by the other when one lets it go.
func TestDirsShare(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	links, files := testDir{t, t.TempDir()}, testDir{t, t.TempDir()}
	files.write("x.db", empty)
	if err := os.Symlink(files.in("x.db"), links.in("l.db")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []testDir{links, files} {
		if n, err := m.AddDir(DirOptions{
			Dir: Dir{Path: d.path, Pattern: "*.db"}, Watch: true,
			Database: func(f Found) (Options, error) { return Options{MaxLag: time.Duration(len(f.Rel))}, nil },
		}); n != 1 || err != nil {
			t.Fatalf("AddDir: %d, %v", n, err)
		}
	}
	as := func(name string) {
		t.Helper()
		for limit := time.After(2 * time.Minute); ; {
			a.mu.Lock()
			f := a.open[files.in("x.db")]
			ok := f != nil && f.o.MaxLag == time.Duration(len(name))
			a.mu.Unlock()
			if ok {
				return
			}
			select {
			case <-a.changed:
			case <-limit:
				t.Fatalf("x.db is not replicated as %s", name)
			}
		}
	}
	as("l.db")
	if err := os.Rename(links.in("l.db"), links.in("longer.db")); err != nil {
		t.Fatal(err)
	}
	as("longer.db")
	if err := os.Rename(links.in("longer.db"), links.in("gone")); err != nil {
		t.Fatal(err)
	}
	as("x.db")
}

func TestAddDirRefusals(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	d := testDir{t, t.TempDir()}
	d.write("file", "")
	none := func(Found) (Options, error) { return Options{}, nil }
	for _, c := range []struct {
		dir  Dir
		want string
	}{
		{Dir{Path: d.path}, "no pattern"},
		{Dir{Path: d.path, Pattern: "["}, "syntax error"},
		{Dir{Path: d.in("missing"), Pattern: "*"}, "no such file"},
		{Dir{Path: d.in("file"), Pattern: "*"}, "is no directory"},
	} {
		if _, err := m.AddDir(DirOptions{Dir: c.dir, Database: none}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.dir, err, c.want)
		}
	}
	d.write("a.db", empty)
	failure := errors.New("no such bucket")
	if n, err := m.AddDir(DirOptions{
		Dir: Dir{Path: d.path, Pattern: "*.db"}, Database: func(Found) (Options, error) { return Options{}, failure },
	}); n != 0 || !errors.Is(err, failure) {
		t.Errorf("AddDir: %d, %v", n, err)
	}
}

// TestDirHalfCopied: a database that is being copied here is one when it is whole.
func TestDirHalfCopied(t *testing.T) {
	d := testDir{t, smallDatabases(t, 1)}
	content, err := os.ReadFile(d.in("000.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size int
		want bool
	}{{0, false}, {50, false}, {100, false}, {4096, false}, {len(content) - 1, false}, {len(content), true}} {
		d.write("000.db", string(content[:c.size]))
		found, err := scan(Dir{Path: d.path, Pattern: "*"}, nil, func(string) error { return nil })
		if err != nil || (len(found) == 1) != c.want {
			t.Errorf("%d of %d bytes: %v, %v", c.size, len(content), found, err)
		}
	}
	content[92]++ // what wrote it last left the size as it was
	if !isDatabase(content, headerSize) {
		t.Error("a header whose size doesn't count is none")
	}
}
