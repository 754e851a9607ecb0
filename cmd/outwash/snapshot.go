package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"syscall"

	"github.com/outwash/outwash/replicate"
)

var snapshotVerb = &verb{
	name:  "snapshot",
	args:  "URL|DB",
	brief: "write a snapshot of a replica's newest state",
	help: `A program that replicates writes snapshots itself, once a day unless it is told
otherwise (replica_snapshot_every). This is for replicas whose program doesn't run,
or was told never to: a restore then begins with the snapshot and needs no log
before it, and "outwash prune" can remove what is too old.

It needs nothing but the replica: the newest state is read, rebuilt in a temporary
directory that nobody else can enter, and written. It takes what a restore takes,
and an upload of the compressed database. A program may go on writing meanwhile.
DB is the path of a database that a configuration file lists; the database itself
is not looked at.

If there is a snapshot of the newest state already, nothing is written, and that is
no failure. It can't be forced: the name of a snapshot says which state it is, so
there can be only one of each.

Examples:
  outwash snapshot s3://my-bucket/app
  outwash snapshot -temp-dir /var/tmp s3://my-bucket/app
  outwash snapshot -json -config /etc/outwash.yml /var/lib/app.db
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f snapshotFlags
		f.declare(fs)
		fs.StringVar(&f.tempDir, "temp-dir", "", "`DIR` where the database is rebuilt, which takes its size\n(default $TMPDIR, then the system's)")
		fs.IntVar(&f.parallelism, "parallelism", 0, "how many requests run at once: `N` from 1 to 64 (default 8, or 64 where objects are small)")
		fs.BoolVar(&f.json, "json", false, "print the result as JSON")
		return f.run
	},
}

type snapshotFlags struct {
	replicaFlags
	tempDir     string
	parallelism int
	json        bool
}

func (f *snapshotFlags) run(ctx context.Context, u *ui, args []string) error {
	arg, err := oneArg("snapshot", "the replica's URL", args)
	if err != nil {
		return err
	}
	if f.parallelism < 0 || f.parallelism > 64 {
		return usagef("-parallelism %d: expected 1 to 64", f.parallelism)
	}
	temp := cmp.Or(f.tempDir, os.TempDir())
	if st, err := os.Stat(temp); err != nil || !st.IsDir() {
		return usagef("-temp-dir: %s is no directory", temp)
	}
	store, err := f.open(ctx, arg)
	if err != nil {
		return err
	}
	bar, wrote := u.progress("reading", f.json), false
	defer func() { bar.done() }()
	res, err := replicate.WriteSnapshot(ctx, replicate.SnapshotOptions{
		Store: store, TempDir: temp, Parallelism: f.parallelism,
		Progress: func(writing bool, done, total int64) {
			if writing && !wrote {
				wrote = true
				bar.done()
				bar = u.progress("writing", f.json)
			}
			bar.set(done, total, "")
		},
	})
	bar.done()
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w (the database is rebuilt in %s; -temp-dir names another place)", err, temp)
	}
	if err != nil {
		return err
	}
	if f.json {
		return u.json(res)
	}
	printSnapshot(u, &res)
	return nil
}

func printSnapshot(u *ui, r *replicate.SnapshotResult) {
	switch {
	case r.Key == "":
		u.printf("nothing written: %s has no content yet\n", r.Replica)
		return
	case r.Written:
		u.printf("snapshot of TXID %d, the newest, of %s\n", r.TXID, r.Replica)
	default:
		u.printf("nothing written: there is a snapshot of TXID %d, and nothing new since, in %s\n", r.TXID, r.Replica)
	}
	wrote := ""
	if r.Written {
		wrote = fmt.Sprintf("%s, %s read, %s", size(r.Uploaded), size(r.Fetched), seconds(r.Duration))
	}
	u.fields("  ",
		"object", r.Key,
		"committed", moment(r.Time),
		"database", fmt.Sprintf("%s, %s of %d bytes, checksum %s", size(r.Bytes), plural(r.Pages, "page", "pages"), r.PageSize, r.Checksum),
		"written", wrote)
}
