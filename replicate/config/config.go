// Package config reads configuration files: which databases there are, and where
// their replicas lie. An application and the outwash command can use the same one,
// and Litestream's are understood as they are.
//
//	cfg, err := config.Load("/etc/outwash.yml")
//	…
//	vfs.Register("replicated", vfs.Options{Store: cfg.Store})
//	db, err := sql.Open("sqlite3", vfs.DSN("/var/lib/app.db", ""))
//
// # The file
//
//	access-key-id: …           # for all replicas in S3; every setting may stand here
//	secret-access-key: …
//	dbs:
//	  - path: /var/lib/app.db
//	    replica:
//	      url: s3://BUCKET/PATH
//	      region: eu-central-1 # a replica's setting wins over the file's
//	  - path: /var/lib/other.db
//	    restore-if-db-not-exists: true
//	    replica:
//	      type: s3             # the same in fields
//	      bucket: BUCKET
//	      path: PATH
//	      endpoint: https://minio.example.com:9000
//	      access-key-id: ${MINIO_ACCESS_KEY}
//	      secret-access-key: ${MINIO_SECRET_KEY}
//	      sync-interval: 10s
//	    history:
//	      keep-log: 3d         # how long every transaction stays restorable
//	  - path: ~/notes.db
//	    replica:
//	      path: /backup/notes  # a directory; also type: file, or url: file:///…
//	  - dir: /var/lib/tenants  # all databases in it: a.db's replica is in tenants/a.db
//	    pattern: '*.db'
//	    replica:
//	      url: s3://BUCKET/tenants
//
// Which settings a replica in S3 has is in package s3store, which the program must
// import. They are its URL's parameters, and credentials. A parameter in the URL
// wins over the file's settings; one that contradicts the replica's own is an
// error. Credentials belong together: a replica with any of its own inherits none.
// Where the file has none they come from the environment.
//
// The older replicas: with one element is accepted. sync-interval is replica_max_lag
// of the DSN, restore-if-db-not-exists is replica_restore=auto, and history: (of a
// database, or at the top for all) has keep-log, keep-pages, keep-snapshots,
// pages-every and snapshot-every: see [replicate.Keep]. All of that counts in programs
// whose vfs.Options have Store: cfg.Store, unless the DSN says otherwise. Paths may
// begin with ~/, and are otherwise relative to the working directory.
//
// Keys of Litestream's that mean nothing here are ignored, with one warning
// ([Config.Warnings]); docs/config.md lists them. Keys that would change where data
// goes, or what protects it, are refused: other kinds of replicas, age encryption. So
// are unknown ones. Those of [Service] are for outwash replicate alone. Objects of Litestream's under a replica's path are left
// alone.
//
// # Variables
//
// $NAME and ${NAME} are replaced in values, after the file has been taken apart:
// what a variable holds is never read as YAML. (So inside {…} a ${NAME} needs
// quotes.) A $ that no name follows stays. A
// variable that is not set is an error in credentials, and in what says where data
// goes (url, bucket, path, endpoint, type); elsewhere it is empty, which is as if the
// key were not there. A password with a $ before a letter goes into a variable, or
// the file is read without replacing any ([LoadEnv] with nil, -no-expand-env).
//
// No error, no warning, and no formatting of a Config shows a secret.
package config

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
)

// DefaultPath is where the outwash command looks for a file, and Env the variable
// that names another one. Load asks for neither.
const (
	DefaultPath = "/etc/outwash.yml"
	Env         = "OUTWASH_CONFIG"
)

// Config is what a configuration file says.
type Config struct {
	Name        string // of the file, for messages
	Databases   []*Database
	Directories []*Directory // of databases
	Service     Service
	Ignored     []Ignored // keys that mean nothing here, in the file's order

	secrets bool // stand in the file itself
	open    bool // others may read it, too
}

// Ignored is a key of Litestream's that means nothing here.
type Ignored struct {
	Key          string
	Line, Column int
	Why          string
}

// Database is one of the file's databases, with its replica.
type Database struct {
	Path     string             // absolute
	URL      string             // of the replica, without secrets
	Settings replicate.Settings // of the replica, secrets among them
	MaxLag   time.Duration      // sync-interval; 0: not given
	Restore  bool               // restore-if-db-not-exists
	Keep     replicate.Keep     // history, and Litestream's words for it; zero fields: not given
	Sources  []Source           // where URL and settings stand, in the file's order

	file string // for messages
	path string // of the file; "": it was none
}

// Source is where a setting stands.
type Source struct {
	Name         string // "url": what says where the replica is
	Line, Column int
	Shared       bool     // at the file's top, for all replicas
	Variables    []string // that are in it
	Secret       bool
}

// Load reads the file at path. Errors are of type [*Error], or several joined, and
// wrap [replicate.ErrConfig].
func Load(path string) (*Config, error) { return LoadEnv(path, os.LookupEnv) }

// LoadEnv is Load with env in the place of the environment; with nil nothing is
// replaced.
func LoadEnv(path string, env func(name string) (string, bool)) (*Config, error) {
	path, err := expandHome(path)
	if err != nil {
		return nil, &Error{File: path, Msg: err.Error()}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{File: path, Msg: "can't be read", Err: bare(err)}
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, &Error{File: path, Msg: "can't be read", Err: bare(err)}
	}
	data, err := readAll(f)
	if err != nil {
		return nil, &Error{File: path, Msg: "can't be read", Err: bare(err)}
	}
	c, err := Parse(path, data, env)
	if err != nil {
		return nil, err
	}
	if full, err := filepath.Abs(path); err == nil {
		for _, d := range c.Databases {
			d.path = full
		}
		for _, d := range c.Directories {
			d.all.path = full
		}
	}
	c.open = runtime.GOOS != "windows" && fi.Mode().IsRegular() && fi.Mode().Perm()&0o004 != 0
	return c, nil
}

// Parse reads what is in a file; name is for messages, env as in LoadEnv.
func Parse(name string, data []byte, env func(name string) (string, bool)) (*Config, error) {
	root, problem := parseYAML(data)
	if problem != nil {
		problem.File = name
		return nil, problem
	}
	r := reader{c: &Config{Name: name}, env: env}
	r.file(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	return r.c, nil
}

// Warnings are remarks for people: that keys were ignored, that others can read
// secrets.
func (c *Config) Warnings() []string {
	var list []string
	if len(c.Ignored) > 0 {
		var keys []string
		for _, k := range c.Ignored {
			keys = append(keys, fmt.Sprintf("%s (line %d)", k.Key, k.Line))
		}
		list = append(list, fmt.Sprintf("%s: ignored, since they mean nothing here: %s", c.Name, strings.Join(keys, ", ")))
	}
	if c.secrets && c.open {
		list = append(list, fmt.Sprintf("%s has secrets in it, and everybody on this machine may read it: chmod o-r it, or take them from the environment with ${NAME}", c.Name))
	}
	return list
}

// Database returns the database with this path, however it is written: relative,
// or by another name of the same directory or file. The error names those that the
// file has, and wraps [replicate.ErrConfig].
func (c *Config) Database(path string) (*Database, error) {
	full, err := absolute(path)
	if err != nil {
		return nil, &Error{File: c.Name, Msg: err.Error()}
	}
	for _, d := range c.Databases {
		if d.Path == full {
			return d, nil
		}
	}
	real := resolve(full)
	var paths []string
	for _, d := range c.Databases {
		if resolve(d.Path) == real {
			return d, nil
		}
		paths = append(paths, d.Path)
	}
	for _, d := range c.Directories {
		if d.Has(full) {
			return d.Database(full)
		}
		paths = append(paths, d.String())
	}
	return nil, &Error{File: c.Name, Msg: fmt.Sprintf("has no database %s; it has %s", full, strings.Join(paths, ", "))}
}

// Replica returns the database whose replica has this URL. Parameters need not be
// the same, if there is only one at that place; nil if there is none.
func (c *Config) Replica(url string) *Database {
	var found *Database
	base := func(url string) string {
		url, _, _ = strings.Cut(url, "?")
		return strings.TrimRight(url, "/")
	}
	for _, d := range c.Databases {
		if d.URL == url {
			return d
		}
		if base(d.URL) != base(url) {
			continue
		}
		if found != nil {
			return nil
		}
		found = d
	}
	for _, d := range c.Directories {
		if found == nil {
			found = d.replica(base(url))
		}
	}
	return found
}

// Store opens the replica of the database with this path. It fits the field Store
// of vfs.Options: what the file says of the database beside its replica counts, too,
// where the DSN says nothing else.
func (c *Config) Store(path string) (replicate.Store, error) {
	d, err := c.Database(path)
	if err != nil {
		return nil, err
	}
	return d.Open(context.Background())
}

// Open opens the database's replica. Errors are those of [replicate.OpenStoreWith],
// with the place in the file where the cause stands.
func (d *Database) Open(ctx context.Context) (replicate.Store, error) {
	s, err := replicate.OpenStoreWith(ctx, d.URL, maps.Clone(d.Settings))
	if err != nil {
		return nil, d.Explain(err)
	}
	return &store{s, d.path, d.Params()}, nil
}

// store is a replica's, that says where it is listed, and what else is there.
type store struct {
	replicate.Store
	file   string
	params []string
}

// ListedIn implements objstore.Listed.
func (s *store) ListedIn() string { return s.file }

// Params implements objstore.Configured.
func (s *store) Params() []string { return s.params }

// SweepUploads implements objstore.Sweeper, if the store does.
func (s *store) SweepUploads(ctx context.Context, prefix string, age time.Duration, ours func(key string) bool) (int, error) {
	if sweeper, ok := s.Store.(objstore.Sweeper); ok {
		return sweeper.SweepUploads(ctx, prefix, age, ours)
	}
	return 0, objstore.ErrUnsupported
}

// Params are what the file says of the database beside its replica, as parameters
// for vfs.DSN. Programs that open it with Config.Store need not pass them on.
func (d *Database) Params() []string {
	var list []string
	if d.MaxLag > 0 {
		list = append(list, "replica_max_lag="+d.MaxLag.String())
	}
	if d.Restore {
		list = append(list, "replica_restore=auto")
	}
	for _, f := range historyKeys {
		if v := *f.field(&d.Keep); v != 0 {
			list = append(list, f.param+"="+f.format(v))
		}
	}
	return list
}

// Format shows where the database and its replica are, and the names of the
// settings, whatever the verb.
func (d Database) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "%s -> %s %v", d.Path, d.URL, d.Settings)
}

// source returns where a setting stands.
func (d *Database) source(name string) (Source, bool) {
	i := slices.IndexFunc(d.Sources, func(s Source) bool { return s.Name == name })
	if i < 0 {
		return Source{}, false
	}
	return d.Sources[i], true
}

// resolve follows links; the file itself may be missing.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}

// absolute is the path of a database as Litestream reads it.
func absolute(path string) (string, error) {
	for _, prefix := range []string{"sqlite3://", "sqlite://"} {
		path = strings.TrimPrefix(path, prefix)
	}
	path, err := expandHome(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// bare is err without the path, which the message has already.
func bare(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

func expandHome(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~"+string(filepath.Separator)) && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path, fmt.Errorf("~ can't be expanded: %w", err)
	}
	return filepath.Join(home, path[1:]), nil
}
