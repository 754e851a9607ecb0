package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"os"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
)

// replicaFlags are the flags by which a verb's argument names a replica: by its URL,
// or by a database that a configuration file has.
type replicaFlags struct {
	file     configFile
	noExpand bool
	config   *config.Config   // once it is loaded
	database *config.Database // that the argument named; nil: a URL without -config
}

// configFile is the value of -config. It leads from the flags to the messages: run
// gives it note, and asks it to explain errors.
type configFile struct {
	path    string
	note    func(format string, a ...any)
	explain func(error) error
}

func (f *configFile) String() string     { return f.path }
func (f *configFile) Set(s string) error { f.path = s; return nil }

// configOf returns the -config of a verb that has one.
func configOf(fs *flag.FlagSet) *configFile {
	if f := fs.Lookup("config"); f != nil {
		if v, ok := f.Value.(*configFile); ok {
			return v
		}
	}
	return &configFile{}
}

// declare adds the flags to a verb's.
func (f *replicaFlags) declare(fs *flag.FlagSet) {
	fs.Var(&f.file, "config", "the configuration `FILE` that has the database\n(default $"+config.Env+", then "+config.DefaultPath+")")
	fs.BoolVar(&f.noExpand, "no-expand-env", false, "leave $NAME and ${NAME} in the configuration file as they are")
	f.file.explain = func(err error) error {
		if s := (*replicate.SettingError)(nil); f.database == nil || !errors.As(err, &s) {
			return err
		}
		return f.database.Explain(err)
	}
}

// isURL tells URLs of replicas from paths of databases.
func isURL(arg string) bool {
	scheme, _, ok := strings.Cut(arg, "://")
	return ok && scheme != "sqlite" && scheme != "sqlite3"
}

// configPath is the file to read, "" if there is none.
func (f *replicaFlags) configPath() string {
	if path := cmp.Or(f.file.path, os.Getenv(config.Env)); path != "" {
		return path
	}
	if _, err := os.Stat(config.DefaultPath); err == nil {
		return config.DefaultPath
	}
	return ""
}

// load reads the configuration file, and tells its warnings, once.
func (f *replicaFlags) load(path string) (*config.Config, error) {
	if f.config != nil {
		return f.config, nil
	}
	env := os.LookupEnv
	if f.noExpand {
		env = nil
	}
	c, err := config.LoadEnv(path, env)
	if err != nil {
		return nil, err
	}
	for _, w := range c.Warnings() {
		if f.file.note != nil {
			f.file.note("outwash: warning: %s", w)
		}
	}
	f.config = c
	return c, nil
}

// locate returns the URL and the settings of the replica that arg names. A URL
// without -config stands for itself: no file is read.
func (f *replicaFlags) locate(arg string) (url string, settings replicate.Settings, err error) {
	if isURL(arg) && f.file.path == "" {
		return arg, nil, nil
	}
	path := f.configPath()
	if path == "" {
		return "", nil, usagef("%q is not a replica URL: expected s3://BUCKET/PATH or file:///DIRECTORY; "+
			"to name a database by its path, list it in a configuration file: -config FILE, or %s", objstore.Redact(arg), config.DefaultPath)
	}
	c, err := f.load(path)
	if err != nil {
		return "", nil, err
	}
	if !isURL(arg) {
		if f.database, err = c.Database(arg); err != nil {
			return "", nil, err
		}
		return f.database.URL, f.database.Settings, nil
	}
	if f.database = c.Replica(arg); f.database == nil {
		var urls []string
		for _, d := range c.Databases {
			urls = append(urls, objstore.Redact(d.URL))
		}
		for _, d := range c.Directories {
			urls = append(urls, "those below "+objstore.Redact(d.URL()))
		}
		return "", nil, usagef("%s: no database has the replica %s; there are %s", path, objstore.Redact(arg), strings.Join(urls, ", "))
	}
	if !strings.Contains(arg, "?") {
		arg = f.database.URL
	}
	return arg, f.database.Settings, nil
}

// open opens the replica that arg names.
func (f *replicaFlags) open(ctx context.Context, arg string) (replicate.Store, error) {
	url, settings, err := f.locate(arg)
	if err != nil {
		return nil, err
	}
	store, err := replicate.OpenStoreWith(ctx, url, settings)
	if err != nil && f.database != nil {
		err = f.database.Explain(err)
	}
	if err != nil {
		return nil, err
	}
	return store, nil
}
