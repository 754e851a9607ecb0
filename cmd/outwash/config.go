package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate/config"
)

var configVerb = &verb{
	name:  "config",
	brief: "check a configuration file, and show how it is understood",
	help: `Prints the databases of a configuration file, where their replicas are, and in
which line of the file each setting stands. Secrets are shown as "set". It asks no
server: "outwash doctor" does.

Litestream's files are understood. Keys that mean nothing here are listed with the
reason; keys that would change where data goes, or what protects it, are errors.

Examples:
  outwash config
  outwash config -config /etc/litestream.yml
  outwash config -json -config outwash.yml
`,
	codes: []int{codeOK, codeFailed, codeUsage},
	flags: func(fs *flag.FlagSet) runner {
		var f configFlags
		f.declare(fs)
		fs.BoolVar(&f.json, "json", false, "print JSON")
		return f.run
	},
}

type configFlags struct {
	replicaFlags
	json bool
}

type configReport struct {
	File        string            `json:"file"`
	Databases   []configDatabase  `json:"databases"`
	Directories []configDirectory `json:"directories"`
	Service     []configSetting   `json:"service"` // what outwash replicate alone uses
	Ignored     []configIgnored   `json:"ignored"`
}

type configDirectory struct {
	configDatabase        // what counts for each database in it
	Pattern        string `json:"pattern"`
	Recursive      bool   `json:"recursive"`
	Watch          bool   `json:"watch"`
}

type configDatabase struct {
	Path     string          `json:"path"`
	Replica  string          `json:"replica"`
	Settings []configSetting `json:"settings"`
	Params   []string        `json:"dsn_params"` // for vfs.DSN
}

type configSetting struct {
	Name      string   `json:"name"`
	Value     string   `json:"value"` // of a secret: set
	Line      int      `json:"line"`
	Column    int      `json:"column"`
	Shared    bool     `json:"file_wide"`
	Variables []string `json:"variables"`
}

type configIgnored struct {
	Key    string `json:"key"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Why    string `json:"why"`
}

func (f *configFlags) run(ctx context.Context, u *ui, args []string) error {
	if err := noArgs(args); err != nil {
		return err
	}
	path := f.configPath()
	if path == "" {
		return usagef("there is no %s: name a file with -config FILE", config.DefaultPath)
	}
	c, err := f.load(path)
	if err != nil {
		return err
	}
	r := configReport{File: c.Name, Databases: []configDatabase{}, Directories: []configDirectory{}, Service: []configSetting{}, Ignored: []configIgnored{}}
	var problems []error
	for _, d := range c.Databases {
		if _, err := d.Open(ctx); err != nil { // which checks the settings, and asks no server
			problems = append(problems, err)
		}
		r.Databases = append(r.Databases, understood(d))
	}
	for _, d := range c.Directories {
		each := d.Each()
		if _, err := each.Open(ctx); err != nil {
			problems = append(problems, err)
		}
		r.Directories = append(r.Directories, configDirectory{understood(each), d.Pattern, d.Recursive, d.Watch})
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	for _, s := range c.Service.Sources {
		r.Service = append(r.Service, configSetting{s.Name, c.Service.Value(s.Name), s.Line, s.Column, true, append([]string{}, s.Variables...)})
	}
	for _, k := range c.Ignored {
		r.Ignored = append(r.Ignored, configIgnored(k))
	}
	if f.json {
		return u.json(r)
	}
	r.print(u)
	return nil
}

// understood is a database as it is shown.
func understood(d *config.Database) configDatabase {
	out := configDatabase{Path: d.Path, Replica: d.URL, Settings: []configSetting{}, Params: append([]string{}, d.Params()...)}
	for _, s := range d.Sources {
		value := d.Settings[s.Name]
		switch {
		case s.Name == "url":
			value = d.URL
		case s.Secret:
			value = "set"
		case objstore.HasUserinfo("s3://x?" + s.Name + "=" + value):
			value = "…"
		}
		out.Settings = append(out.Settings, configSetting{s.Name, value, s.Line, s.Column, s.Shared, append([]string{}, s.Variables...)})
	}
	return out
}

func (r *configReport) print(u *ui) {
	u.printf("%s: %s", printable(r.File), plural(len(r.Databases), "database", "databases"))
	if n := len(r.Directories); n > 0 {
		u.printf(", %s of databases", plural(n, "directory", "directories"))
	}
	u.printf("\n")
	for _, d := range r.Databases {
		u.printf("\n%s\n", printable(d.Path))
		d.print(u, nil)
	}
	for _, d := range r.Directories {
		u.printf("\n%s\n", printable(d.Path))
		which := "in this directory"
		if d.Recursive {
			which += " and those below"
		}
		if d.Watch {
			which += "; those that come later, too"
		}
		d.print(u, [][]string{{"databases", printable(d.Pattern), which}, {"replicas", printable(d.Replica), "and below it, each database's path in the directory"}})
	}
	if len(r.Service) > 0 {
		u.printf("\noutwash replicate\n")
		var rows [][]string
		for _, s := range r.Service {
			rows = append(rows, []string{s.Name, printable(s.Value), s.from()})
		}
		u.table("  ", []string{"setting", "value", "from"}, rows)
	}
	if len(r.Ignored) > 0 {
		u.printf("\nIgnored:\n")
		var rows [][]string
		for _, k := range r.Ignored {
			rows = append(rows, []string{k.Key, fmt.Sprint(k.Line), k.Why})
		}
		u.table("  ", []string{"key", ">line", "why"}, rows)
	}
}

// print shows a database's settings, below rows of the caller's.
func (d *configDatabase) print(u *ui, rows [][]string) {
	for _, s := range d.Settings {
		rows = append(rows, []string{s.Name, printable(s.Value), s.from()})
	}
	given := func(name string) bool {
		return slices.ContainsFunc(d.Settings, func(s configSetting) bool { return s.Name == name })
	}
	if strings.HasPrefix(d.Replica, "s3://") && !given("access-key-id") && !given("profile") {
		rows = append(rows, []string{"credentials", "not in the file", "environment, AWS's own files, or the machine's role"})
	}
	for _, p := range d.Params {
		name, value, _ := strings.Cut(p, "=")
		rows = append(rows, []string{name, value, "for programs; what their DSN says wins"})
	}
	u.table("  ", []string{"setting", "value", "from"}, rows)
}

func (s *configSetting) from() string {
	from := fmt.Sprintf("line %d", s.Line)
	if s.Shared {
		from += ", file-wide"
	}
	if len(s.Variables) > 0 {
		from += ", with $" + strings.Join(s.Variables, " and $")
	}
	return from
}
