package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

var restoreVerb = &verb{
	name:  "restore",
	args:  "URL|DB",
	brief: "rebuild a database from its replica, as it was at any transaction",
	help: `Restores the newest state, or the one that -txid or -timestamp select. DB is the
path of a database that a configuration file lists; it is restored there if -o
names no other place. Nothing is overwritten unless -force is given. Every
byte read is verified: each object, the chain from object to object, each page,
the checksum after each transaction. The output is complete or absent.

Every transaction can be restored as long as the log is kept (24 hours, unless the
writer was told otherwise), older states where a page segment or a snapshot ends:
"outwash ls" shows them. A -timestamp older than the log gives the newest of those
that isn't later, and a note says between which transactions the others are gone.
So does one within commits that were merged, as they are where too many wait.

-if-db-not-exists and -if-replica-exists make it a line of a start script: it does
nothing, and succeeds, if the database is there, or if there is no replica yet. What
it restores may be changed before replication begins, as may a database restored by
its configured path. A missing directory is made.

-integrity-check asks SQLite as well. A database with functions or collations
of its application can't be checked that way, which is noted and no failure.

Examples:
  outwash restore -o app.db s3://my-bucket/app
  outwash restore -o yesterday.db -timestamp 2026-01-31T18:30:00Z s3://my-bucket/app
  outwash restore -o then.db -txid 4711 s3://my-bucket/app
  outwash restore -dry-run s3://my-bucket/app
  outwash restore -if-db-not-exists -if-replica-exists -o app.db s3://my-bucket/app
  outwash restore -config /etc/outwash.yml /var/lib/app.db
  outwash restore -o app.db 's3://my-bucket/app?endpoint=https://s3.example.com&region=eu-1'
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeExists, codeCorrupt, codeAccess, codeVersion, codeBusy, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f restoreFlags
		f.declare(fs)
		f.check = choiceValue{checkQuick, []string{checkNone, checkQuick, checkFull}}
		fs.StringVar(&f.output, "o", "", "`PATH` of the database to make; needed with a URL, unless -dry-run is given")
		fs.Var(&f.txid, "txid", "restore the state after transaction `N`: decimal, or hexadecimal after 0x\nas in 0x00000000000001f4, the name of an object")
		fs.Var(&f.timestamp, "timestamp", "restore the state after the last commit at or before `TIME`:\nRFC 3339, with or without a fraction of a second")
		fs.BoolVar(&f.force, "force", false, "replace an existing database; no process may have it open")
		fs.BoolVar(&f.ifNoDB, "if-db-not-exists", false, "do nothing, successfully, if the database file is there")
		fs.BoolVar(&f.ifReplica, "if-replica-exists", false, "do nothing, successfully, if there is no replica, or nothing in it yet")
		fs.BoolVar(&f.dryRun, "dry-run", false, "find out what would be restored, and how much would be read; write nothing")
		fs.Var(&f.check, "integrity-check", "`HOW` SQLite checks the result before it gets its name: none, quick, full")
		fs.IntVar(&f.parallelism, "parallelism", 0, "how many requests run at once: `N` from 1 to 64 (default 8, or 64 where objects are small)")
		fs.BoolVar(&f.json, "json", false, "print the result as JSON")
		return f.run
	},
}

type restoreFlags struct {
	replicaFlags
	output              string
	txid                txidValue
	timestamp           timeValue
	force, dryRun, json bool
	ifNoDB, ifReplica   bool
	check               choiceValue
	parallelism         int
}

type restoreResult struct {
	replicate.RestoreResult
	DryRun         bool   `json:"dry_run"`
	IntegrityCheck string `json:"integrity_check"` // what was done, and passed
	Unchecked      string `json:"unchecked,omitempty"`
}

func (f *restoreFlags) run(ctx context.Context, u *ui, args []string) error {
	arg, err := oneArg("restore", "the replica's URL", args)
	if err != nil {
		return err
	}
	switch {
	case f.output == "" && !f.dryRun && isURL(arg):
		return usagef("-o PATH is missing: where the database should go")
	case f.txid != 0 && !f.timestamp.IsZero():
		return usagef("-txid and -timestamp exclude each other")
	case f.ifNoDB && f.force:
		return usagef("-if-db-not-exists and -force exclude each other")
	case f.ifNoDB && f.output == "" && isURL(arg):
		return usagef("-o PATH is missing: which database -if-db-not-exists looks for")
	case f.parallelism < 0 || f.parallelism > 64:
		return usagef("-parallelism %d: expected 1 to 64", f.parallelism)
	}
	store, err := f.open(ctx, arg)
	if err != nil {
		return err
	}
	if f.output == "" && (!f.dryRun || f.ifNoDB) {
		f.output = f.database.Path
	}
	if st, err := os.Stat(f.output); err == nil && st.IsDir() {
		return usagef("-o %s is a directory: give the name of the database file", f.output)
	} else if err == nil && f.ifNoDB {
		return f.skip(u, f.output+" exists")
	}

	bar := u.progress("reading", f.json)
	defer bar.done()
	unchecked := ""
	opts := replicate.RestoreOptions{
		Store: store, Output: f.output, Parents: true, Database: f.continued(), TXID: uint64(f.txid), Timestamp: f.timestamp.Time,
		Force: f.force, DryRun: f.dryRun, Parallelism: f.parallelism,
		Progress: func(p replicate.Progress) {
			what := ""
			if p.TargetTXID > 0 {
				what = fmt.Sprintf("TXID %d of %d", p.TXID, p.TargetTXID)
			}
			bar.set(p.Fetched, p.Total, what)
		},
	}
	if f.check.value != checkNone {
		opts.Check = func(path string) error {
			bar.stage(f.check.value + " check")
			err := checkDatabase(path, f.check.value)
			if errors.Is(err, errUncheckable) {
				unchecked = plainMessage(err)
				return nil
			}
			return err
		}
	}
	res, err := replicate.Restore(ctx, opts)
	bar.done()
	if f.ifReplica && (errors.Is(err, replicate.ErrNoReplica) || errors.Is(err, replicate.ErrEmpty)) {
		return f.skip(u, plainMessage(err))
	}
	if err != nil {
		return err
	}
	out := restoreResult{RestoreResult: res, DryRun: f.dryRun, IntegrityCheck: f.check.value, Unchecked: unchecked}
	if f.dryRun || unchecked != "" {
		out.IntegrityCheck = checkNone
	}
	if res.Directory != "" {
		u.note("outwash: restore: made the directory %s", res.Directory)
	}
	if unchecked != "" {
		u.note("outwash: restore: not done: %s check: %s", f.check.value, unchecked)
	}
	if f.json {
		return u.json(out)
	}
	out.print(u)
	return nil
}

// continued is the database that goes on from what is restored: not a copy to look at.
func (f *restoreFlags) continued() string {
	switch {
	case f.output == "":
		return ""
	case f.ifNoDB, f.force && exists(f.output+local.Suffix), f.database != nil && sameName(f.output, f.database.Path):
		return f.output
	}
	return ""
}

// sameName reports whether two paths are the same one.
func sameName(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// skip says that there is nothing to do.
func (f *restoreFlags) skip(u *ui, why string) error {
	if f.json {
		return u.json(struct {
			Skipped string `json:"skipped"`
		}{why})
	}
	u.printf("nothing restored: %s\n", why)
	return nil
}

func (r *restoreResult) print(u *ui) {
	which := ""
	if r.Latest {
		which = ", the newest,"
	}
	if r.DryRun {
		u.printf("would restore TXID %d%s of %s\n", r.TXID, which, r.Replica)
	} else {
		u.printf("restored TXID %d%s of %s to %s\n", r.TXID, which, r.Replica, r.Output)
	}
	from := "the beginning of the log"
	if r.Snapshot != 0 {
		from = fmt.Sprintf("the snapshot at TXID %d", r.Snapshot)
	}
	if r.PageSegments != 0 {
		from += fmt.Sprintf(", %s up to TXID %d", plural(r.PageSegments, "page segment", "page segments"), r.Base)
	}
	check := "every page's hash and the checksum after every transaction"
	if r.IntegrityCheck != checkNone {
		check += "; " + r.IntegrityCheck + " check by SQLite"
	}
	read, wouldRead := fmt.Sprintf("%s in %s, %s, %s", size(r.Fetched), plural(r.Objects, "object", "objects"), plural(r.Requests, "request", "requests"), seconds(r.Duration)), ""
	if r.DryRun {
		read, wouldRead, check = "", fmt.Sprintf("%s in %s, about %s", size(r.Fetched), plural(r.Objects, "object", "objects"), plural(r.Requests, "request", "requests")), ""
	}
	u.fields("  ",
		"committed", moment(r.Time),
		"database", fmt.Sprintf("%s, %s of %d bytes, checksum %s", size(r.Bytes), plural(r.Pages, "page", "pages"), r.PageSize, r.Checksum),
		"begun with", from,
		"read", read,
		"would read", wouldRead,
		"verified", check)
	if !r.DryRun && !r.Latest {
		u.fields("  ", "note", "earlier than the newest: the replica refuses a database that goes on from here, until \"outwash adopt\" makes it the next")
	}
	for _, note := range r.Notes {
		u.fields("  ", "note", note)
	}
}
