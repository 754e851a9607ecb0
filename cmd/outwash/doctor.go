package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/outwash/outwash/internal/doctor"
)

var doctorVerb = &verb{
	name:  "doctor",
	args:  "URL|DB",
	brief: "check whether a store can be used, and say what to do if not",
	help: `DB is the path of a database that a configuration file lists.

Looks for the server and the bucket, the credentials and the clock, and tries
each permission that replication takes: list, create, read, upload in parts,
delete. What fails is explained, with its cause and what to do. It takes some
twenty small requests, and writes objects of a few bytes below PATH/doctor/,
which it removes whatever happens (in a bucket with versions they stay as old
versions); a replica at the path is left alone, and may be written meanwhile.
With -read-only it writes nothing and asks only for what a restore takes.

The last line is the verdict. Exit code 0: good for replication, or with
-read-only for restores; 6: not, also if reads work and writes are denied; 5 and
7: what is at the path is in a replica's way. Warnings don't change the code.

Examples:
  outwash doctor s3://my-bucket/app
  outwash doctor -read-only s3://my-bucket/app
  outwash doctor 's3://my-bucket/app?endpoint=https://minio.example.com&force-path-style=true'
  outwash doctor -config outwash.yml app.db
  outwash doctor -json file:///var/backups/app
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeCorrupt, codeAccess, codeVersion, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f doctorFlags
		f.declare(fs)
		fs.BoolVar(&f.readOnly, "read-only", false, "check only what a restore takes; write nothing")
		fs.BoolVar(&f.json, "json", false, "print JSON")
		return f.run
	},
}

type doctorFlags struct {
	replicaFlags
	readOnly, json bool
}

// doctorSteps is about how many steps a whole examination has.
const doctorSteps = 17

func (f *doctorFlags) run(ctx context.Context, u *ui, args []string) error {
	raw, err := oneArg("doctor", "the replica's URL", args)
	if err != nil {
		return err
	}
	store, err := f.open(ctx, raw)
	if err != nil {
		return err
	}
	bar := u.progress("examining", f.json)
	n := int64(0)
	facts := doctor.Examine(ctx, store, doctor.Options{ReadOnly: f.readOnly, Name: f.named(raw), Step: func(what string) {
		bar.set(n, doctorSteps, what)
		n++
	}})
	bar.done()
	report := doctor.Judge(facts, time.Now())
	if f.json {
		if err := u.json(report); err != nil {
			return err
		}
	} else {
		printReport(u, report)
	}
	switch {
	case report.Verdict == doctor.Ready:
		return nil
	case report.Err != nil:
		return &reported{report.Err}
	}
	return &reported{fmt.Errorf("%w: %s", errUnfit, report.Text)}
}

// named are the arguments by which other commands name the same replica, if its URL
// alone doesn't do: a configuration file may have its credentials.
func (f *doctorFlags) named(arg string) []string {
	switch {
	case f.database == nil:
		return nil
	case f.file.path == "":
		return []string{arg}
	}
	return []string{"-config", f.file.path, arg}
}

// reported is an error that the output has already said all of.
type reported struct{ error }

func (r *reported) Unwrap() error { return r.error }

func printReport(u *ui, r *doctor.Report) {
	pairs := []string{"replica", r.Replica}
	for _, p := range r.Target {
		pairs = append(pairs, p.Name, p.Value)
	}
	u.fields("", pairs...)
	u.printf("\n")
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Check))
	}
	mark := u.marks()
	indent := strings.Repeat(" ", utf8.RuneCountInString(mark["ok"])+width+3)
	for _, c := range r.Checks {
		u.printf("%s %-*s  %s\n", mark[string(c.State)], width, c.Check, oneLine(c.Text))
		if c.State == doctor.OK {
			continue
		}
		if c.Remedy != "" {
			u.printf("%sdo:   %s\n", indent, oneLine(c.Remedy))
		}
		if c.Said != "" {
			u.printf("%ssaid: %s\n", indent, oneLine(plainMessage(errors.New(c.Said))))
		}
	}
	state := doctor.Failed
	switch {
	case r.Verdict == doctor.Ready && r.Warnings == 0:
		state = doctor.OK
	case r.Verdict == doctor.Ready, r.Verdict == doctor.ReadOnly:
		state = doctor.Warning
	}
	u.printf("\n%s %s\n", mark[string(state)], r.Text)
	u.printf("  next: %s\n", r.Next)
}

// oneLine keeps control characters of servers' messages off the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
