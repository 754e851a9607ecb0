package sidecar

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/local"
)

// A Dir says which databases of a directory are replicated: those whose file name
// matches Pattern, in subdirectories, too, if Recursive is set. Directories that are
// symbolic links are not entered.
type Dir struct {
	Path      string // of the directory
	Pattern   string // as path.Match takes it; * is every file
	Recursive bool
}

// Check says what is wrong with the pattern.
func (d Dir) Check() error {
	switch _, err := path.Match(d.Pattern, ""); {
	case err != nil:
		return fmt.Errorf("sidecar: pattern %q of directory %s: %w", d.Pattern, d.Path, err)
	case d.Pattern == "":
		return fmt.Errorf("sidecar: directory %s: no pattern says which files are databases, such as *.db", d.Path)
	case strings.Contains(d.Pattern, "/"):
		return fmt.Errorf("sidecar: pattern %q of directory %s is for the names of files, which have no slash", d.Pattern, d.Path)
	}
	return nil
}

// companions are what SQLite appends to a database's name for files beside it
// (https://sqlite.org/tempfiles.html).
var companions = []string{"-wal", "-shm", "-journal"}

// takes reports whether a file of this name may be a database.
func (d Dir) takes(name string) bool {
	for _, suffix := range companions {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	if strings.HasPrefix(name, ".") && strings.Contains(name, ".restoring-") { // half restored
		return false
	}
	ok, _ := path.Match(d.Pattern, name)
	return ok
}

// enters reports whether a subdirectory of this name may have databases.
func (d Dir) enters(name string) bool {
	return d.Recursive && !strings.HasSuffix(name, local.Suffix)
}

// concerns reports whether something happening to a file of this name can change
// which databases there are. A database that is being made gets its content while
// its companions come and go.
func (d Dir) concerns(name string) bool {
	return d.takes(stem(name))
}

// stem is a database's name, also of its companions'.
func stem(name string) string {
	for _, suffix := range companions {
		if s, ok := strings.CutSuffix(name, suffix); ok {
			return s
		}
	}
	return name
}

// A Found is a database of a directory.
type Found struct {
	// Path is the file's. Of a symbolic link it is that of the file it leads to,
	// since that is where SQLite keeps the log
	// (https://sqlite.org/howtocorrupt.html, "Multiple links to the same file").
	Path string
	// Rel is the name below the directory, with slashes.
	Rel string

	identity string // of the file
	link     bool
	others   bool // it is replicated for another reason
}

// A skipped is a file that would be a database if it weren't another name of one.
type skipped struct{ rel, same string }

// choose sees to it that each file is taken once: by the name that is no link, and
// is first. What is taken already stays.
func choose(files []Found, taken map[string]Found) (found []Found, skips []skipped) {
	files = slices.Clone(files)
	was := func(f Found) int {
		if _, ok := taken[f.Rel]; ok {
			return 0
		}
		return 1
	}
	isLink := func(f Found) int {
		if f.link {
			return 1
		}
		return 0
	}
	slices.SortFunc(files, func(a, b Found) int {
		return cmp.Or(was(a)-was(b), isLink(a)-isLink(b), strings.Compare(a.Rel, b.Rel))
	})
	first := map[string]string{}
	for _, f := range files {
		if same, ok := first[f.identity]; ok && f.identity != "" {
			skips = append(skips, skipped{f.Rel, same})
			continue
		}
		first[f.identity] = f.Rel
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b Found) int { return strings.Compare(a.Rel, b.Rel) })
	return found, skips
}

// differ says what has come and what has gone, by Rel. A link that leads elsewhere
// now has gone, and come.
func differ(before map[string]Found, now []Found) (come, gone []Found) {
	left := map[string]bool{}
	for _, f := range now {
		old, ok := before[f.Rel]
		if ok && old.Path == f.Path {
			left[f.Rel] = true
			continue
		}
		come = append(come, f)
	}
	for rel, f := range before {
		if !left[rel] {
			gone = append(gone, f)
		}
	}
	slices.SortFunc(gone, func(a, b Found) int { return strings.Compare(a.Rel, b.Rel) })
	return come, gone
}
