package sidecar

import (
	"slices"
	"strings"
	"testing"
)

func TestDirTakes(t *testing.T) {
	for _, c := range []struct {
		pattern, name   string
		takes, concerns bool
	}{
		{"*.db", "a.db", true, true},
		{"*.db", "a.sqlite", false, false},
		{"*.db", "a.db-wal", false, true},
		{"*.db", "a.db-shm", false, true},
		{"*.db", "a.db-journal", false, true},
		{"*.db", "A.DB", false, false},
		{"*", "a", true, true},
		{"*", "a-wal", false, true},
		{"*", "a-shm", false, true},
		{"*", "a-journal", false, true},
		{"*", ".a.db.restoring-0123456789abcdef", false, false},
		{"*", ".hidden", true, true},
		{"tenant-?.db", "tenant-1.db", true, true},
		{"tenant-?.db", "tenant-12.db", false, false},
		{"[ab]*", "b", true, true},
		{"*", "\xff\xfe", true, true},
		{"*", "a\nb", true, true},
	} {
		d := Dir{Path: "/d", Pattern: c.pattern}
		if got := d.takes(c.name); got != c.takes {
			t.Errorf("%q takes %q: %v", c.pattern, c.name, got)
		}
		if got := d.concerns(c.name); got != c.concerns {
			t.Errorf("%q is concerned by %q: %v", c.pattern, c.name, got)
		}
	}
	if d := (Dir{Pattern: "*", Recursive: true}); d.enters("a.db-replicated") || !d.enters("a") {
		t.Error("local state is searched for databases, or a subdirectory isn't")
	}
	if (Dir{Pattern: "*"}).enters("a") {
		t.Error("subdirectories are entered that nobody asked for")
	}
	for pattern, ok := range map[string]bool{"*.db": true, "[": false, "": false, "a/*.db": false} {
		if err := (Dir{Path: "/d", Pattern: pattern}).Check(); (err == nil) != ok {
			t.Errorf("pattern %q: %v", pattern, err)
		}
	}
}

// TestDirChoose: each file once, by the name that stays the same.
func TestDirChoose(t *testing.T) {
	file := func(rel, identity string) Found { return Found{Path: "/d/" + rel, Rel: rel, identity: identity} }
	link := func(rel, to, identity string) Found {
		return Found{Path: "/d/" + to, Rel: rel, identity: identity, link: true}
	}
	for _, c := range []struct {
		name  string
		files []Found
		taken []string
		want  string
		skips string
	}{
		{"none", nil, nil, "", ""},
		{"by name", []Found{file("b", "2"), file("a", "1")}, nil, "a b", ""},
		{"a link to another one", []Found{link("a", "b", "2"), file("b", "2")}, nil, "b", "a=b"},
		{"a link to one elsewhere", []Found{link("a", "../x", "3"), file("b", "2")}, nil, "a b", ""},
		{"two links to one elsewhere", []Found{link("b", "../x", "3"), link("a", "../x", "3")}, nil, "a", "b=a"},
		{"a hard link", []Found{file("a", "1"), file("b", "1")}, nil, "a", "b=a"},
		{"what is taken stays", []Found{file("a", "1"), file("b", "1")}, []string{"b"}, "b", "a=b"},
		{"identities that aren't known", []Found{file("a", ""), file("b", "")}, nil, "a b", ""},
	} {
		taken := map[string]Found{}
		for _, rel := range c.taken {
			taken[rel] = Found{}
		}
		found, skips := choose(c.files, taken)
		var got, left []string
		for _, f := range found {
			got = append(got, f.Rel)
		}
		for _, s := range skips {
			left = append(left, s.rel+"="+s.same)
		}
		if strings.Join(got, " ") != c.want || strings.Join(left, " ") != c.skips {
			t.Errorf("%s: took %q, left out %q; want %q and %q", c.name, got, left, c.want, c.skips)
		}
	}
}

func TestDirDiffer(t *testing.T) {
	f := func(rel, path string) Found { return Found{Rel: rel, Path: path} }
	before := map[string]Found{"a": f("a", "/d/a"), "b": f("b", "/x"), "c": f("c", "/d/c")}
	come, gone := differ(before, []Found{f("a", "/d/a"), f("b", "/y"), f("d", "/d/d")})
	if want := []Found{f("b", "/y"), f("d", "/d/d")}; !slices.Equal(come, want) {
		t.Errorf("come: %v, want %v", come, want)
	}
	if want := []Found{f("b", "/x"), f("c", "/d/c")}; !slices.Equal(gone, want) {
		t.Errorf("gone: %v, want %v", gone, want)
	}
}
