//go:build unix

package sidecar

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestDirScan lists a directory that has everything in it.
func TestDirScan(t *testing.T) {
	d := t.TempDir()
	outside := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(d, name) }
	for _, name := range []string{"a.db", "a.db-wal", "a.db-replicated/clean.db", "sub/b.db", "sub/deep/c.db", "sub/b.sqlite", "odd ?#%.db", "new\nline.db"} {
		write(in(name), empty+"…")
	}
	write(in("empty.db"), "")
	write(in("short.db"), "SQLite")
	write(in("text.db"), "this is no database at all")
	write(filepath.Join(outside, "far.db"), empty)
	must(syscall.Mkfifo(in("pipe.db"), 0o600)) // opening it would wait for a writer
	must(os.Mkdir(in("dir.db"), 0o755))
	must(os.Symlink("a.db", in("also-a.db")))
	must(os.Symlink(filepath.Join(outside, "far.db"), in("far.db")))
	must(os.Symlink("nowhere", in("dangling.db")))
	must(os.Symlink(d, in("sub/loop")))
	must(os.Link(in("sub/b.db"), in("sub/hard.db")))

	for _, c := range []struct {
		recursive bool
		want      []string
	}{
		{false, []string{"a.db", "far.db", "new\nline.db", "odd ?#%.db"}},
		{true, []string{"a.db", "far.db", "new\nline.db", "odd ?#%.db", "sub/b.db", "sub/deep/c.db"}},
	} {
		var entered []string
		dir := Dir{Path: d, Pattern: "*.db", Recursive: c.recursive}
		files, err := scan(dir, nil, func(dir string) error {
			entered = append(entered, dir)
			return nil
		})
		must(err)
		found, _ := choose(files, nil)
		var got []string
		for _, f := range found {
			got = append(got, f.Rel)
			if want := in(f.Rel); f.Path != want && f.Rel != "far.db" {
				t.Errorf("%s is at %s", f.Rel, f.Path)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("recursive %v: found %q, want %q", c.recursive, got, c.want)
		}
		if want := 1; !c.recursive && len(entered) != want {
			t.Errorf("entered %q", entered)
		}
	}
}
