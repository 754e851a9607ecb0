package config

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
)

// Directory is an entry of dbs that stands for all databases in a directory. Each has
// a replica of its own: the database at Path/a/b.db has it at the entry's place, in
// a/b.db.
type Directory struct {
	Path      string // absolute
	Pattern   string // of files' names, see [filepath.Match]
	Recursive bool   // directories below it, too
	Watch     bool   // databases that come later, too

	all *Database // what the entry says of each; its URL is where the replicas are
	c   *Config
}

// Has reports whether the entry stands for a database with this path: whether it is
// below the directory, and its name fits. A database that the file lists by its own
// path is not the entry's.
func (d *Directory) Has(path string) bool {
	_, ok := d.below(path)
	return ok
}

// URL is the place below which the databases' replicas are, without secrets.
func (d *Directory) URL() string { return d.all.URL }

// Each is what the entry says of each database, as if the directory were one: Path is
// the directory's, and the replica the place below which the databases' are.
func (d *Directory) Each() *Database { return d.all }

// Database returns what the entry says of the database with this path. Errors are of
// type [*Error]: that it is none of the entry's, or that its replica can't be where
// it would have to.
func (d *Directory) Database(path string) (*Database, error) {
	rel, ok := d.below(path)
	at, _ := d.all.source("url")
	fail := func(format string, args ...any) (*Database, error) {
		return nil, &Error{File: d.c.Name, Line: at.Line, Column: at.Column, Msg: fmt.Sprintf(format, args...)}
	}
	if !ok {
		return fail("the database %s is none of %s", path, d)
	}
	db := *d.all
	db.Path = filepath.Join(d.Path, rel)
	db.Settings, db.Sources = maps.Clone(d.all.Settings), slices.Clone(d.all.Sources)
	db.URL = objstore.Below(d.all.URL, filepath.ToSlash(rel))
	places := map[place]*Database{}
	for _, other := range d.c.Databases {
		places[other.place()] = other
	}
	if other := places[db.place()]; other != nil {
		return fail("the databases %s and %s would share one replica: give each a path of its own", db.Path, other.Path)
	}
	if above := db.place().owner(places); above != nil {
		return fail("the replica of %s would lie where that of %s has its own objects: give each a path of its own", db.Path, above.Path)
	}
	return &db, nil
}

// String names the entry in messages.
func (d *Directory) String() string {
	if d.Recursive {
		return filepath.Join(d.Path, "**", d.Pattern)
	}
	return filepath.Join(d.Path, d.Pattern)
}

// below returns where in the directory a database of the entry is.
func (d *Directory) below(path string) (rel string, ok bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	if rel, ok = d.names(d.Path, path); !ok {
		if rel, ok = d.names(resolve(d.Path), resolve(path)); !ok {
			return "", false
		}
	}
	path = filepath.Join(d.Path, rel)
	return rel, !slices.ContainsFunc(d.c.Databases, func(db *Database) bool { return db.Path == path })
}

func (d *Directory) names(dir, path string) (rel string, ok bool) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsLocal(rel) || !d.Recursive && filepath.Dir(rel) != "." {
		return "", false
	}
	ok, err = filepath.Match(d.Pattern, filepath.Base(rel))
	return rel, ok && err == nil
}

// replica returns the database of the entry whose replica is at this place, which has
// no parameters; nil if there is none.
func (d *Directory) replica(base string) *Database {
	own, _, _ := strings.Cut(d.all.URL, "?")
	rel, ok := strings.CutPrefix(base, strings.TrimRight(own, "/")+"/")
	if rel, err := url.PathUnescape(rel); ok && err == nil && rel != "" {
		if db, err := d.Database(filepath.Join(d.Path, filepath.FromSlash(rel))); err == nil {
			return db
		}
	}
	return nil
}

// directory reads the keys of an element of dbs that has dir:.
func (r *reader) directory(n *node, all *Database) (*Directory, bool) {
	before := len(r.problems)
	d := &Directory{all: all, c: r.c}
	dir, ok := r.text(n, "dir", true)
	if ok && dir.text == "" {
		r.problem(dir.pos, "dir: it is empty: the databases' directory is expected")
	} else if ok {
		var err error
		if d.Path, err = absolute(dir.text); err != nil {
			r.problem(dir.pos, "dir: %v", err)
		}
	}
	pattern, ok := r.text(n, "pattern", true)
	switch _, err := filepath.Match(pattern.text, "x"); {
	case !ok:
	case pattern.text == "":
		r.problem(pattern.pos, "pattern: is missing: which files are databases, as in '*.db'")
	case err != nil || strings.ContainsRune(pattern.text, '/'):
		r.problem(pattern.pos, "pattern: names of files are expected, as in '*.db': * ? and [a-z] mean what they mean in shells, and there is no /")
	}
	d.Pattern = pattern.text
	for key, field := range map[string]*bool{"recursive": &d.Recursive, "watch": &d.Watch} {
		if b, ok := r.text(n, key, false); ok && b.text != "" {
			if *field, ok = boolean(b.text); !ok {
				r.problem(b.pos, "%s: true or false is expected", key)
			}
		}
	}
	all.Path = d.Path // until it is one database's: see inDirectory
	return d, len(r.problems) == before
}

// overlaps finds directories that are listed twice, and replicas of theirs that would
// lie on or in others. at are the directories' places.
func (r *reader) overlaps(at []pos) {
	databases, roots := map[place]*Database{}, map[place]*Directory{}
	for _, db := range r.c.Databases {
		databases[db.place()] = db
	}
	for i, d := range r.c.Directories {
		first := slices.IndexFunc(r.c.Directories, func(o *Directory) bool {
			return o.Path == d.Path && (o.Pattern == d.Pattern)
		})
		root := d.all.place()
		switch other := roots[root]; {
		case first < i:
			r.problem(at[i], "the directory %s is listed in line %d already", d, at[first].line)
			continue
		case other != nil:
			r.collision(d.all, other.all, "the databases of two directories would share their replicas' place")
			continue
		case databases[root] != nil:
			r.collision(d.all, databases[root], "replicas of a directory's databases would lie where another one has its own objects")
			continue
		}
		roots[root] = d
		if above := root.owner(databases); above != nil {
			r.collision(d.all, above, "replicas of a directory's databases would lie where another one has its own objects")
		}
		for _, db := range r.c.Databases {
			rel, ok := strings.CutPrefix(string(db.place()), string(root)+"/")
			if !ok || !d.Recursive && strings.Contains(rel, "/") {
				continue
			}
			if ok, _ := filepath.Match(d.Pattern, path.Base(rel)); ok && db.Path != filepath.Join(d.Path, filepath.FromSlash(rel)) {
				r.collision(db, d.all, "this replica would lie where a directory's databases have theirs")
			}
		}
	}
}
