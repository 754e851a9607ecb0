package config

import (
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// reader makes a Config from a tree, and collects what is wrong with it.
type reader struct {
	c        *Config
	env      lookup
	problems []*Error
	root     *node
}

func (r *reader) file(root *node) {
	r.root = root
	if root.kind != mapping && root.kind != null {
		r.problem(root.pos, "a mapping is expected, beginning with dbs:, and this is %s", root.kind)
		return
	}
	r.keys(root, inFile, settingNames(objstore.Schemes()...))
	r.service()
	dbs := root.get("dbs")
	switch {
	case dbs == nil || dbs.kind == list && len(dbs.items) == 0:
		r.problem(root.pos, "there are no databases: dbs: is missing or empty")
		return
	case dbs.kind != list:
		r.problem(dbs.pos, "dbs: a list is expected, each database beginning with - path:, and this is %s", dbs.kind)
		return
	}
	var at, dirs []pos
	for _, n := range dbs.items {
		switch db, dir := r.database(n); {
		case dir != nil:
			r.c.Directories, dirs = append(r.c.Directories, dir), append(dirs, n.pos)
		case db != nil:
			r.c.Databases, at = append(r.c.Databases, db), append(at, n.pos)
		}
	}
	r.conflicts(at)
	r.overlaps(dirs)
}

// keys goes through the keys of a mapping: those that are ignored are noted, those
// that must not be there are problems. settings are names that stores know.
func (r *reader) keys(n *node, at level, settings []string) {
	for _, e := range n.entries {
		if r.full() {
			return
		}
		k := findKey(e.key, at)
		switch {
		case slices.Contains(settings, e.key):
		case k == nil && at == inFile && e.model:
			// What replicas have in common, said once: it counts where it is referred to.
		case k == nil:
			r.problem(e.pos, "%s", unknownKey(e.key, at, settings))
		case k.class == ignored:
			r.c.Ignored = append(r.c.Ignored, Ignored{e.key, e.line, e.column, k.note})
		case k.class == refused:
			r.problem(e.pos, "%s: %s", e.key, k.note)
		case k.class == setting && len(settings) > 0:
			// It would not do what somebody counts on.
			r.problem(e.pos, "%s is not supported yet: remove it, if replicas may be without", e.key)
		case k.class == setting && at == inReplica:
			r.problem(e.pos, "%s means nothing to a replica that is not in S3: remove it, or write type: s3", e.key)
		}
	}
}

// settingNames are the settings of these kinds of stores.
func settingNames(schemes ...string) []string {
	var names []string
	for _, scheme := range schemes {
		for _, s := range objstore.SettingsOf(scheme) {
			names = append(names, s.Name)
		}
	}
	return names
}

// database reads an element of dbs: a database, or all those of a directory.
func (r *reader) database(n *node) (*Database, *Directory) {
	if n.kind != mapping {
		r.problem(n.pos, "a database is expected, beginning with path:, and this is %s", n.kind)
		return nil, nil
	}
	r.keys(n, inDB, nil)
	d := &Database{file: r.c.Name}
	var dir *Directory
	var ok bool
	if n.get("dir") != nil {
		if path := n.get("path"); path != nil {
			r.problem(path.pos, "path: and dir: exclude each other: write an entry for each")
			return nil, nil
		}
		dir, ok = r.directory(n, d)
	} else {
		ok = r.path(n, d)
	}
	if !r.beside(n, d) || !ok {
		return nil, nil
	}
	return d, dir
}

// path reads where a database is.
func (r *reader) path(n *node, d *Database) bool {
	for _, key := range []string{"pattern", "recursive", "watch"} {
		if v := n.get(key); v != nil {
			r.problem(v.pos, "%s: is for directories: write dir: in the place of path:", key)
		}
	}
	p, ok := r.text(n, "path", true)
	switch {
	case !ok:
	case p.text == "":
		r.problem(n.pos, "path: is missing: the database's file; or dir: for all databases of a directory")
	default:
		var err error
		if d.Path, err = absolute(p.text); err != nil {
			r.problem(p.pos, "path: %v", err)
		}
	}
	return d.Path != ""
}

// beside reads what the file says of a database beside its path.
func (r *reader) beside(n *node, d *Database) bool {
	before := len(r.problems)
	if b, ok := r.text(n, "restore-if-db-not-exists", false); ok && b.text != "" {
		if d.Restore, ok = boolean(b.text); !ok {
			r.problem(b.pos, "restore-if-db-not-exists: true or false is expected")
		}
	}
	one, many := n.get("replica"), n.get("replicas")
	switch {
	case one != nil && many != nil:
		r.problem(many.pos, "replica: and replicas: exclude each other: write replica: alone")
		return false
	case many != nil && many.kind != list:
		r.problem(many.pos, "replicas: a list of one replica is expected, and this is %s", many.kind)
		return false
	case many != nil && len(many.items) > 1:
		r.problem(many.items[1].pos, "a database has one replica: keep one of these %d, as replica:, and let the bucket be replicated (S3 replication) for a second copy", len(many.items))
		return false
	case many != nil && len(many.items) == 1:
		one = many.items[0]
	}
	if one == nil || one.kind == null {
		r.problem(n.pos, "the database has no replica: write replica: with a url:")
		return false
	}
	if one.kind != mapping {
		r.problem(one.pos, "replica: url:, or type: with its fields, is expected, and this is %s", one.kind)
		return false
	}
	ok := r.replica(d, one)
	return r.history(d, n, one) && ok && len(r.problems) == before
}

// value is the text of a key, and what is behind it.
type value struct {
	pos
	text  string
	plain bool
	vars  []string
}

// text returns a key's value with variables replaced, "" if there is none; false
// if it is no value. If it is needed, its variables must be set.
func (r *reader) text(n *node, key string, needed bool) (value, bool) {
	v := n.get(key)
	if v == nil {
		return value{pos: n.pos}, true
	}
	if v.kind != scalar {
		r.problem(v.pos, "%s: a value is expected, and this is %s", key, v.kind)
		return value{}, false
	}
	x, err := expand(v.text, r.env)
	if err != nil {
		r.problem(v.pos, "%s: %v", key, err)
		return value{}, false
	}
	if needed && x.missing != "" {
		r.problem(v.pos, "%s: the environment has no %s", key, x.missing)
		return value{}, false
	}
	return value{v.pos, x.text, v.plain, x.used}, true
}

// boolean takes what YAML has called true and false over the years.
func boolean(s string) (b, ok bool) {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "y":
		return true, true
	case "false", "no", "off", "n":
		return false, true
	}
	return false, false
}

// interval reads a duration that is longer than nothing.
func interval(s string) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

// conflicts finds databases that are listed twice, and replicas that would lie on
// or in one another. at are the databases' places.
func (r *reader) conflicts(at []pos) {
	paths, places := map[string]pos{}, map[place]*Database{}
	for i, d := range r.c.Databases {
		if first, ok := paths[d.Path]; ok {
			r.problem(at[i], "the database %s is listed in line %d already", d.Path, first.line)
			continue
		}
		paths[d.Path] = at[i]
		if other := places[d.place()]; other != nil {
			r.collision(d, other, "two databases would share one replica")
			continue
		}
		places[d.place()] = d
	}
	for _, d := range r.c.Databases {
		if above := d.place().owner(places); above != nil {
			r.collision(d, above, "this replica would lie where another one has its own objects")
		}
	}
}

func (r *reader) collision(d, other *Database, how string) {
	here, _ := d.source("url")
	there, _ := other.source("url")
	r.problem(pos{here.Line, here.Column}, "%s (of line %d): give each a path of its own", how, there.Line)
}
