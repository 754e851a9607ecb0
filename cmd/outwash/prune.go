package main

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/replicate"
)

var pruneVerb = &verb{
	name:  "prune",
	args:  "URL|DB",
	brief: "show what of a replica's history is older than it has to be, and delete it",
	help: `Programs that replicate do this themselves as they write; this is for replicas
whose program doesn't run any more, may not delete, or was told to keep more. It
says what goes, and what stays and why. Nothing is deleted unless -yes is given.

What stays restorable: every transaction for the time of -keep-log, the ends of
page segments for -keep-pages, snapshots for -keep-snapshots, and the newest
snapshot in any case. Everything that these need stays, and nothing that is
younger than an hour goes, nor what isn't Outwash's. Ages count up to the newest
transaction, by the store's clock: a replica that nobody writes to loses nothing.

Without these flags the times are those that the configuration file has for DB,
else 1d, 7d and 30d. A program that is told to keep more than these says so only
to itself: give the same times here.

It may run while programs write, and while others restore. It needs a request for
each 1000 objects, a small one for each snapshot and page segment, and one for
each 1000 objects that go.

Examples:
  outwash prune s3://my-bucket/app
  outwash prune -yes -keep-log 36h -keep-snapshots 2w s3://my-bucket/app
  outwash prune -l -keep-pages forever file:///var/backups/app
  outwash prune -yes -json -config /etc/outwash.yml /var/lib/app.db
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f pruneFlags
		f.declare(fs)
		fs.BoolVar(&f.yes, "yes", false, "delete; else only what would be deleted is shown")
		fs.Var(&f.log, "keep-log", "keep every transaction restorable for `TIME`: 36h, 7d, 2w, forever")
		fs.Var(&f.pages, "keep-pages", "keep the ends of page segments restorable for `TIME`")
		fs.Var(&f.snapshots, "keep-snapshots", "keep snapshots for `TIME`")
		fs.BoolVar(&f.long, "l", false, "list each object")
		fs.BoolVar(&f.json, "json", false, "print the result, with each object, as JSON")
		return f.run
	},
}

type pruneFlags struct {
	replicaFlags
	yes, long, json       bool
	log, pages, snapshots keepValue
}

// keepValue is a flag with how long something is kept.
type keepValue struct{ time.Duration }

func (v *keepValue) String() string {
	if v.Duration == 0 {
		return ""
	}
	return replicate.FormatKeepDuration(v.Duration)
}

func (v *keepValue) Set(s string) error {
	d, err := replicate.ParseKeepDuration(s)
	if err != nil {
		return fmt.Errorf("expected a time such as 36h, 7d, 2w, or forever")
	}
	v.Duration = d
	return nil
}

// pruneResult is what -json prints.
type pruneResult struct {
	*replicate.PruneResult
	Keep keepTimes `json:"keep"`
}

type keepTimes struct {
	Log       string `json:"log"`
	Pages     string `json:"pages"`
	Snapshots string `json:"snapshots"`
}

func (f *pruneFlags) run(ctx context.Context, u *ui, args []string) error {
	arg, err := oneArg("prune", "the replica's URL", args)
	if err != nil {
		return err
	}
	store, err := f.open(ctx, arg)
	if err != nil {
		return err
	}
	keep := replicate.Keep{Log: replicate.DefaultKeepLog, Pages: replicate.DefaultKeepPages, Snapshots: replicate.DefaultKeepSnapshots}
	var listed replicate.Keep
	if f.database != nil {
		listed = f.database.Keep
	}
	for _, k := range []struct {
		to   *time.Duration
		from []time.Duration // later ones win
	}{
		{&keep.Log, []time.Duration{listed.Log, f.log.Duration}},
		{&keep.Pages, []time.Duration{listed.Pages, f.pages.Duration}},
		{&keep.Snapshots, []time.Duration{listed.Snapshots, f.snapshots.Duration}},
	} {
		for _, d := range k.from {
			if d != 0 {
				*k.to = d
			}
		}
	}
	bar := u.progress("deleting", f.json)
	defer bar.done()
	res, err := replicate.Prune(ctx, replicate.PruneOptions{
		Store: store, Keep: keep, DryRun: !f.yes,
		Progress: func(objects int) { bar.stage(fmt.Sprintf("%s deleted", plural(objects, "object", "objects"))) },
	})
	bar.done()
	if res == nil {
		return err
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errInterrupted
		}
		if res.Deleted > 0 {
			err = fmt.Errorf("%w (%s, %s, were deleted before)", err, plural(res.Deleted, "object", "objects"), size(res.DeletedBytes))
		}
		return err
	}
	times := keepTimes{
		replicate.FormatKeepDuration(res.Keep.Log), replicate.FormatKeepDuration(res.Keep.Pages), replicate.FormatKeepDuration(res.Keep.Snapshots),
	}
	if f.json {
		return u.json(pruneResult{res, times})
	}
	printPrune(u, res, times, f.long)
	return nil
}

func printPrune(u *ui, res *replicate.PruneResult, times keepTimes, long bool) {
	now := "nothing was replicated yet"
	if !res.Now.IsZero() {
		now = moment(res.Now)
	}
	u.fields("",
		"replica", res.Replica,
		"database", res.Database,
		"keeps", strings.ReplaceAll(fmt.Sprintf("every transaction for %s, ends of page segments for %s, snapshots for %s", times.Log, times.Pages, times.Snapshots), "for forever", "forever"),
		"until", now)
	var objects [2]int
	var bytes [2]int64
	for _, o := range res.Objects {
		i := 0
		if !o.Goes {
			i = 1
		}
		objects[i]++
		bytes[i] += o.Bytes
	}
	what := []string{"Goes", "Stays"}
	if !res.DryRun {
		what = []string{"Gone", "Stays"}
	}
	for i, goes := range []bool{true, false} {
		rows := pruneRows(res.Objects, goes, long)
		if len(rows) == 0 {
			continue
		}
		u.printf("\n%s: %s, %s\n", what[i], plural(objects[i], "object", "objects"), size(bytes[i]))
		u.table("  ", []string{">objects", ">stored", "of", "why"}, rows)
	}
	switch {
	case objects[0] == 0:
		u.printf("\nNothing is older than it has to be.\n")
	case res.DryRun:
		u.printf("\nNothing was deleted: -yes does that.\n")
	}
}

// pruneRows sums up objects of one kind and fate, or lists each.
func pruneRows(objects []replicate.PrunedObject, goes, long bool) (rows [][]string) {
	type group struct{ of, why string }
	type sum struct {
		group
		objects int
		bytes   int64
	}
	var sums []sum
	at := map[group]int{}
	for _, o := range objects {
		if o.Goes != goes {
			continue
		}
		g := group{o.Key, o.Why}
		if !long {
			folder, _, _ := strings.Cut(o.Key, "/")
			g.of = folder + "/"
			g.why = objectKey.ReplaceAllString(o.Why, "$1/…")
		}
		i, ok := at[g]
		if !ok {
			i = len(sums)
			at[g] = i
			sums = append(sums, sum{group: g})
		}
		sums[i].objects++
		sums[i].bytes += o.Bytes
	}
	slices.SortStableFunc(sums, func(a, b sum) int { return strings.Compare(a.of, b.of) })
	for _, s := range sums {
		rows = append(rows, []string{count(s.objects), size(s.bytes), s.of, s.why})
	}
	return rows
}

// objectKey is the key of an object in a reason.
var objectKey = regexp.MustCompile(`\b(log|pages|snapshot|data)/[0-9a-f-]+`)
