package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/replicate"
)

var verifyVerb = &verb{
	name:  "verify",
	args:  "URL|DB",
	brief: "check that everything a replica promises can be restored",
	help: `DB is the path of a database that a configuration file lists.

Lists the replica, and reads its root, every log segment, every snapshot's and page
segment's index. Checked are: every object's own check values, its key and its
database; the chain from log segment to log segment; snapshots and page segments
against the log around them; that data objects are there and as long as they should
be; that the page hashes make each state's checksum; and that a restore to each
transaction of the log and to the end of each snapshot and page segment finds all
that it needs. All findings are reported, each with its object, what it costs, and
what to do. The replica may be written meanwhile, also by prune.

-read-data reads the blocks of data objects, too. Each must have the SHA-256 that
its index says; those of snapshots and page segments are decoded, and each page
must have its hash. (The bytes of the log's patches are proven, and a restore
decodes them.) It costs as much as downloading the replica. -read-data-subset reads
a part: 2/7 the second of seven, which together are all; 5% at random.

-against DB compares the replica with a database, which may be in use: it is read in
a read transaction, and nothing is written to it. It says which TXID the database
equals, or how many pages differ. Encrypted databases can't be compared.

What can't be found out from a bucket: that the newest log segment was deleted, or
a snapshot or page segment on which nothing that is left builds.

Of the log that is older than retention keeps it, a part may be left: -keep-log and
-keep-pages say how long that is, if neither the defaults (1d, 7d) nor the
configuration file do.

Exit code 0: whole; 5: damaged; 10: whole, and not what -against has. Leftovers that
take up space (orphan, stray) and what was never finished (void) change nothing.

Examples:
  outwash verify s3://my-bucket/app
  outwash verify -read-data s3://my-bucket/app
  outwash verify -read-data-subset 3/30 -json s3://my-bucket/app
  outwash verify -against app.db s3://my-bucket/app
  outwash verify -config /etc/outwash.yml /var/lib/app.db
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeDiffers, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f verifyFlags
		f.declare(fs)
		fs.BoolVar(&f.readData, "read-data", false, "read the blocks of data objects, too")
		fs.Var(&f.subset, "read-data-subset", "read a `PART` of them: N/T, the Nth of T, or X%, at random")
		fs.StringVar(&f.against, "against", "", "compare the replica with the database in `PATH`")
		fs.Var(&f.log, "keep-log", "every transaction is kept for `TIME`: 36h, 7d, 2w, forever")
		fs.Var(&f.pages, "keep-pages", "the ends of page segments are kept for `TIME`")
		fs.IntVar(&f.parallelism, "parallelism", 8, "how many requests run at once: `N` from 1 to 64")
		fs.BoolVar(&f.json, "json", false, "print the result as JSON")
		return f.run
	},
}

type verifyFlags struct {
	replicaFlags
	readData, json bool
	subset         subsetValue
	against        string
	log, pages     keepValue
	parallelism    int
}

// subsetValue is the value of -read-data-subset.
type subsetValue struct {
	replicate.DataSubset
	text string
}

func (v *subsetValue) String() string { return v.text }

func (v *subsetValue) Set(s string) (err error) {
	if v.DataSubset, err = replicate.ParseDataSubset(s); err != nil {
		return fmt.Errorf("expected N/T, with N from 1 to T, or X%%, above 0 and up to 100")
	}
	v.text = s
	return nil
}

// verifyResult is what -json prints.
type verifyResult struct {
	OK bool `json:"ok"`
	replicate.VerifyResult
	ReadData bool   `json:"read_data"`
	Subset   string `json:"read_data_subset,omitempty"`
}

func (f *verifyFlags) run(ctx context.Context, u *ui, args []string) error {
	arg, err := oneArg("verify", "the replica's URL", args)
	if err != nil {
		return err
	}
	if f.parallelism < 1 || f.parallelism > 64 {
		return usagef("-parallelism %d: expected 1 to 64", f.parallelism)
	}
	store, err := f.open(ctx, arg)
	if err != nil {
		return err
	}
	keep := replicate.Keep{}
	if f.database != nil {
		keep = f.database.Keep
	}
	if f.log.Duration != 0 {
		keep.Log = f.log.Duration
	}
	if f.pages.Duration != 0 {
		keep.Pages = f.pages.Duration
	}
	bar := u.progress("reading", f.json)
	defer bar.done()
	opts := replicate.VerifyOptions{
		Store: store, ReadData: f.readData || f.subset.text != "", Subset: f.subset.DataSubset, Keep: keep, Parallelism: f.parallelism,
		Progress: func(p replicate.Progress) { bar.set(p.Fetched, p.Total, "") },
	}
	if f.against != "" {
		done, err := f.compareWith(&opts)
		if err != nil {
			return err
		}
		defer done()
	}
	res, err := replicate.Verify(ctx, opts)
	bar.done()
	if err != nil {
		return err
	}
	verdict := res.Err()
	if errors.Is(verdict, replicate.ErrDiverged) {
		verdict = fmt.Errorf("%w: %w", errDiffers, verdict)
	}
	out := verifyResult{OK: verdict == nil, VerifyResult: res, ReadData: opts.ReadData, Subset: f.subset.text}
	if f.json {
		err = u.json(out)
	} else {
		out.print(u)
	}
	if verdict != nil && err == nil {
		err = &reported{verdict}
	}
	return err
}

// compareWith has the replica compared with the database of -against. done removes
// what reading it may leave beside it.
func (f *verifyFlags) compareWith(opts *replicate.VerifyOptions) (done func(), err error) {
	fi, err := os.Stat(f.against)
	switch {
	case os.IsNotExist(err) || err == nil && fi.Size() == 0:
		return nil, fmt.Errorf("%s: %w", f.against, errNoDatabase)
	case err != nil:
		return nil, err
	case fi.IsDir():
		return nil, usagef("-against %s is a directory: give the name of the database file", f.against)
	}
	opts.Against = func(ctx context.Context) (*replicate.DatabaseState, error) {
		pageSize, hashes, err := capture.PageHashes(ctx, f.against)
		if err != nil {
			return nil, err
		}
		return &replicate.DatabaseState{PageSize: pageSize, Hashes: hashes}, nil
	}
	clean := !exists(f.against + "-wal")
	return func() {
		if clean {
			tidy(f.against)
		}
	}, nil
}

func (r *verifyResult) print(u *ui) {
	var ranges []string
	for _, x := range r.Restorable {
		ranges = append(ranges, strings.TrimPrefix(x.String(), "TXID "))
	}
	const most = 8
	if n := len(ranges) - most; n > 0 {
		ranges = append(ranges[:most], fmt.Sprintf("and %d further ranges", n))
	}
	restorable := "nothing yet"
	if len(ranges) > 0 {
		restorable = "TXID " + strings.Join(ranges, ", ")
	}
	newest := "nothing yet"
	if r.TXID != 0 {
		newest = fmt.Sprintf("TXID %d, committed %s, %s of %d bytes, checksum %s", r.TXID, moment(r.Time), plural(r.Pages, "page", "pages"), r.PageSize, r.Checksum)
	}
	data := fmt.Sprintf("not read: -read-data reads the blocks of %s", plural(r.DataObjects, "data object", "data objects"))
	switch {
	case r.DataObjects == 0:
		data = ""
	case r.ReadData:
		data = fmt.Sprintf("%s of %s blocks read", count(r.BlocksRead), count(r.Blocks))
	}
	against := ""
	if r.Against != nil {
		against = r.Against.What
		if len(r.Against.First) > 0 {
			against += fmt.Sprintf("; pages %s", strings.Trim(fmt.Sprint(r.Against.First), "[]"))
			if int(r.Against.Differing) > len(r.Against.First) {
				against += " …"
			}
		}
	}
	u.fields("",
		"replica", r.Replica,
		"database", r.Database,
		"newest", newest,
		"restorable", restorable,
		"objects", fmt.Sprintf("%s, %s, %s, %s: %s", plural(r.LogSegments, "log segment", "log segments"), plural(r.PageSegments, "page segment", "page segments"),
			plural(r.Snapshots, "snapshot", "snapshots"), plural(r.DataObjects, "data object", "data objects"), size(r.Bytes)),
		"data", data,
		"against", against,
		"read", fmt.Sprintf("%s in %s", size(r.Fetched), time.Duration(r.Duration*float64(time.Second)).Round(time.Millisecond)))
	u.printf("\n")
	mark := u.marks()
	for _, f := range r.Findings {
		m := mark["failed"]
		if !f.Damage() {
			m = mark["warning"]
		}
		bytes := ""
		if f.Bytes > 0 {
			bytes = fmt.Sprintf(" (%s)", size(f.Bytes))
		}
		u.printf("%s %s: %s%s\n", m, f.Kind, printable(f.Key), bytes)
		u.fields("     ", "what", oneLine(f.What), "cost", oneLine(f.Cost), "do", oneLine(f.Do))
	}
	if len(r.Findings) > 0 {
		u.printf("\n")
	}
	switch n := r.Damaged(); {
	case n > 0:
		u.printf("Verdict: DAMAGED: %s.\n", plural(n, "finding", "findings"))
	case r.Against != nil && r.Against.State == replicate.AgainstDiffers:
		u.printf("Verdict: whole, and not what the database has.\n")
	case !r.OK:
		u.printf("Verdict: NOT VERIFIED: a newer outwash wrote some of it.\n")
	default:
		u.printf("Verdict: whole.\n")
	}
}
