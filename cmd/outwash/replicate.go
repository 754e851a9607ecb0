package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/service"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
)

// drainTime is how long the end may take where nothing else is said. It is
// Litestream's (v0.5.18, DefaultShutdownSyncTimeout).
const drainTime = 30 * time.Second

var replicateVerb = &verb{
	name:  "replicate",
	args:  "[DB URL]",
	brief: "replicate databases that any program writes, as long as it runs",
	help: `For programs in any language, with the SQLite that they have: this process runs
beside them and uploads each commit moments later. The database goes into WAL mode if
it isn't; no table is added, and the program's own checkpoints go on. A Go program
needs no second process: it opens its database through package vfs. One of both, for
each database. On Linux alone.

Without arguments the databases are those of the configuration file, whole directories
among them. Litestream's file will do as it is. One DB alone is one of the file's.

SIGTERM and SIGINT end it in order: what is committed is uploaded first, for as long as
-shutdown-timeout says; a second signal ends that at once. What is left then waits on
this machine for the next start, as it does after a crash. The configuration is read
when it starts: SIGHUP doesn't have it read again.

-exec runs a program meanwhile, once it is known of each database how it relates to its
replica (and it is restored, where -restore-if-db-not-exists asks for that); if one is
refused, the program isn't started. Signals are passed on to it. When it has ended, the
rest is uploaded, and its exit code is ours: 128 and the signal's number, if one ended
it. CMD is taken apart as a shell does it, but nothing is replaced in it: sh -c '...'
has a real one.

-once uploads what is committed, waits until all of it is stored, and ends: for a
database that nobody writes just now, or from time to time.

A database that its replica refuses doesn't stop the others; it is tried again until
it is accepted. The log says so, and the exit code at the end. Of Litestream's flags
"outwash snapshot" is -force-snapshot, and "outwash prune" -enforce-retention.

Examples:
  outwash replicate /var/lib/app.db s3://my-bucket/app
  outwash replicate -config /etc/litestream.yml
  outwash replicate -restore-if-db-not-exists -exec "gunicorn app:app" app.db s3://my-bucket/app
  outwash replicate -once app.db s3://my-bucket/app
`,
	codes:      []int{codeOK, codeFailed, codeUsage, codeNothing, codeBehind, codeRefused, codeInterrupted},
	ownSignals: true,
	flags: func(fs *flag.FlagSet) runner {
		f := &replicateFlags{}
		f.flags(fs)
		return f.run
	},
}

type replicateFlags struct {
	replicaFlags
	exec          string
	once, restore bool
	drain         drainValue
	logLevel      levelValue
	logFormat     choiceValue
	addr, socket  string
	maxLag        time.Duration
}

// flags declares them.
func (f *replicateFlags) flags(fs *flag.FlagSet) {
	f.drain = -1
	f.declare(fs)
	f.logFormat = choiceValue{"", []string{"text", "json"}}
	fs.Var((*commandValue)(&f.exec), "exec", "run the program `CMD`, and end with it")
	fs.BoolVar(&f.once, "once", false, "upload what is committed, and end")
	fs.BoolVar(&f.restore, "restore-if-db-not-exists", false, "restore databases whose file is missing, if their replica has something")
	fs.Var(&f.drain, "shutdown-timeout", "how long the end may take for what is not uploaded: `DURATION`\n(default the file's shutdown-sync-timeout, then 30s)")
	fs.StringVar(&f.addr, "addr", "", "serve metrics, health and status at `HOST:PORT`: /metrics, /healthz,\n/readyz, /status")
	fs.DurationVar(&f.maxLag, "max-lag", service.DefaultMaxLag, "how far replication may be behind before /healthz fails and\nheartbeats stop: `DURATION`")
	fs.StringVar(&f.socket, "socket", "", "the `PATH` at which \"outwash status\" asks; auto: one of its own, where status looks;\n"+noSocket+": none (default the file's, then auto)")
	fs.Var(&f.logLevel, "log-level", "`LEVEL` from which on things are logged: debug, info, warn, error\n(default the file's, then info, or warn for more than ten databases)")
	fs.Var(&f.logFormat, "log-format", "`HOW` the log is written to stderr: text, json (default the file's, then text)")
}

// noSocket is the value of -socket for none.
const noSocket = "off"

// commandValue is a command; given, it isn't empty: a script's variable that is not
// set must not have everything run but the program.
type commandValue string

func (v *commandValue) String() string { return string(*v) }

func (v *commandValue) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("the command is empty")
	}
	*v = commandValue(s)
	return nil
}

// drainValue is a duration from 0; below it is not given.
type drainValue time.Duration

func (v *drainValue) String() string {
	if *v < 0 {
		return ""
	}
	return time.Duration(*v).String()
}

func (v *drainValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return fmt.Errorf("a duration like 30s or 2m is expected")
	}
	*v = drainValue(d)
	return nil
}

// levelValue is a level of the log.
type levelValue struct {
	level slog.Level
	given bool
}

func (v *levelValue) String() string { return "" }

func (v *levelValue) Set(s string) (err error) {
	var ok bool
	if v.level, ok = config.LogLevel(s); !ok {
		return fmt.Errorf("expected debug, info, warn, error")
	}
	v.given = true
	return nil
}

// replicatePlan is what there is to do, from the flags and the file.
type replicatePlan struct {
	databases   []target
	directories []*config.Directory
	config      *config.Config // nil: there are no directories
	service     config.Service
	drain       time.Duration
	level       slog.Level
	restore     bool          // of all
	maxLag      time.Duration // of health
}

// target is a database to replicate.
type target struct {
	path    string // as SQLite will have it
	replica string // its URL, without secrets
	open    func(context.Context) (replicate.Store, error)
	maxLag  time.Duration
	keep    replicate.Keep
	restore bool
}

// targetOf is a database of the file.
func (p *replicatePlan) targetOf(d *config.Database) target {
	return target{
		path: realPath(d.Path), replica: d.URL, open: d.Open,
		maxLag: d.MaxLag, keep: d.Keep, restore: d.Restore || p.restore,
	}
}

// plan finds out what there is to do; nothing has begun then, and no server is asked.
func (f *replicateFlags) plan(ctx context.Context, args []string) (*replicatePlan, error) {
	p := &replicatePlan{restore: f.restore, level: slog.LevelInfo}
	switch {
	case len(args) > 2:
		return nil, usagef("one database and one URL expected, and there is also %q: for several databases write a configuration file", args[2])
	case slices.Contains(args, ""):
		return nil, usagef("an argument is empty: see \"outwash help replicate\"")
	case len(args) > 0 && isURL(args[0]):
		return nil, usagef("the database comes first: outwash replicate DB URL")
	case f.maxLag <= 0:
		return nil, usagef("-max-lag %s: a duration like 30s or 5m is expected", f.maxLag)
	case f.once && f.exec != "":
		return nil, usagef("-once and -exec exclude each other")
	}
	var err error
	if len(args) == 2 {
		err = f.planOne(p, args[0], args[1])
	} else {
		err = f.planFile(p, args)
	}
	if err != nil {
		return nil, err
	}
	for _, t := range p.databases { // which checks the settings, and asks no server
		if _, err := t.open(ctx); err != nil {
			return nil, err
		}
	}
	for _, d := range p.directories {
		if _, err := d.Each().Open(ctx); err != nil {
			return nil, err
		}
	}
	f.over(p)
	return p, nil
}

// planOne is for a database and a URL.
func (f *replicateFlags) planOne(p *replicatePlan, db, arg string) error {
	url, settings, err := f.locate(arg)
	if err != nil {
		return err
	}
	full, err := filepath.Abs(db)
	if err != nil {
		return err
	}
	t := target{path: realPath(full), replica: url, restore: f.restore}
	t.open = func(ctx context.Context) (replicate.Store, error) { return replicate.OpenStoreWith(ctx, url, settings) }
	if f.config != nil {
		p.service = f.config.Service
	}
	if d := f.database; d != nil {
		of := p.targetOf(d)
		t.maxLag, t.keep, t.restore = of.maxLag, of.keep, of.restore
		t.open = func(ctx context.Context) (replicate.Store, error) {
			s, err := replicate.OpenStoreWith(ctx, url, settings)
			return s, d.Explain(err)
		}
	}
	p.databases = []target{t}
	return nil
}

// planFile is for the databases of the configuration file, or the one of args.
func (f *replicateFlags) planFile(p *replicatePlan, args []string) error {
	path := f.configPath()
	switch {
	case path == "" && len(args) == 1:
		return usagef("the replica's URL is missing: outwash replicate DB URL; or list the database in a configuration file: -config FILE, or %s", config.DefaultPath)
	case path == "":
		return usagef("there is nothing to replicate: name a database and a URL, or a configuration file: -config FILE, or %s", config.DefaultPath)
	}
	c, err := f.load(path)
	if err != nil {
		return err
	}
	p.service = c.Service
	if len(args) == 1 {
		if f.database, err = c.Database(args[0]); err != nil {
			return err
		}
		p.databases = []target{p.targetOf(f.database)}
		return nil
	}
	for _, d := range c.Databases {
		p.databases = append(p.databases, p.targetOf(d))
	}
	p.config, p.directories = c, c.Directories
	return nil
}

// over lets flags win over the file.
func (f *replicateFlags) over(p *replicatePlan) {
	s := &p.service
	s.Exec = cmp.Or(f.exec, s.Exec)
	s.Addr = cmp.Or(f.addr, s.Addr)
	s.Socket.Path = cmp.Or(f.socket, s.Socket.Path)
	p.maxLag = f.maxLag
	if f.once {
		s.Exec = ""
	}
	p.drain = drainTime
	if s.ShutdownTimeout != nil {
		p.drain = *s.ShutdownTimeout
	}
	if f.drain >= 0 {
		p.drain = time.Duration(f.drain)
	}
	s.Logging.Format = cmp.Or(f.logFormat.value, s.Logging.Format, "text")
	if p.many() {
		p.level = slog.LevelWarn
	}
	if l, ok := config.LogLevel(s.Logging.Level); ok {
		p.level = l
	}
	if f.logLevel.given {
		p.level = f.logLevel.level
	}
}

// many: a line for each database would be a flood.
func (p *replicatePlan) many() bool { return len(p.databases) > mostLines || len(p.directories) > 0 }

// mostLines is up to how many databases have a line each.
const mostLines = 10
