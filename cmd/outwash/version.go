package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/segment"
)

var versionVerb = &verb{
	name:  "version",
	brief: "tell which outwash this is, and with which SQLite",
	help: `Examples:
  outwash version
  outwash version -json
`,
	codes: []int{codeOK, codeFailed, codeUsage},
	flags: func(fs *flag.FlagSet) runner {
		asJSON := fs.Bool("json", false, "print JSON")
		return func(_ context.Context, u *ui, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			v, err := readVersion()
			if err != nil {
				return err
			}
			if *asJSON {
				return u.json(v)
			}
			u.printf("outwash %s\n", v.Version)
			u.fields("  ", "revision", v.revision(), "format", fmt.Sprint(v.Format), "sqlite", v.SQLite,
				"driver", v.Driver, "go", v.Go+" "+v.Platform)
			return nil
		}
	},
}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision
	Modified bool   `json:"modified,omitempty"`
	Format   int    `json:"format"` // of replicas
	SQLite   string `json:"sqlite"`
	Driver   string `json:"driver"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (v *versionInfo) revision() string {
	if v.Revision == "" {
		return ""
	}
	s := v.Revision + ", " + v.Time
	if v.Modified {
		s += ", modified"
	}
	return s
}

func readVersion() (*versionInfo, error) {
	const driver = "github.com/ncruces/go-sqlite3"
	v := &versionInfo{
		Version: "(devel)", Format: segment.Version, Driver: driver,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.time":
				v.Time = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
		for _, d := range info.Deps {
			if d.Path == driver {
				if d.Replace != nil {
					d = d.Replace
				}
				v.Driver = driver + " " + d.Version
			}
		}
	}
	db, err := sqlite3.Open(":memory:")
	if err != nil {
		return nil, fmt.Errorf("start SQLite: %w", err)
	}
	defer db.Close()
	v.SQLite, err = queryText(db, `SELECT sqlite_version()`)
	return v, err
}
