package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/replicate"
)

var demoVerb = &verb{
	name:  "demo",
	brief: "see replication at work, in under a minute",
	help: `Loads the source of the Go installation (or -source) into a new database, in
thousands of transactions, with an index and full-text search, while others read.
Kills the program that writes, hard, in the middle, and lets it go on. Then
restores the newest state and an earlier one from the replica, compares both with
the originals page by page, and has SQLite check them.

Everything is in a temporary directory, which is removed at the end, unless -dir
or -keep is given. A replica named by -replica is left where it is.

Examples:
  outwash demo
  outwash demo -dir /tmp/demo
  outwash demo -replica s3://my-bucket/demo
  outwash demo -replica 's3://my-bucket/demo?endpoint=http://127.0.0.1:7070&region=us-east-1&force-path-style=true'
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeExists, codeAccess, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var d demo
		fs.StringVar(&d.replica, "replica", "", "`URL` of the replica, which must be empty; by default a directory")
		fs.StringVar(&d.dir, "dir", "", "work in `DIR`, which must be empty or absent, and keep everything")
		fs.StringVar(&d.source, "source", "", "load the text files below `DIR`")
		fs.BoolVar(&d.keep, "keep", false, "keep the temporary directory")
		fs.BoolVar(&d.json, "json", false, "print the result as JSON")
		return d.run
	},
}

// The demo's time, on slow machines. What isn't loaded by then stays out.
const (
	demoBeforeKill = 14 * time.Second
	demoAfterKill  = 14 * time.Second
	demoPatience   = 90 * time.Second // without any word from the writer
)

type demo struct {
	replica, dir, source string
	keep, json           bool

	u     *ui
	store replicate.Store
	files []sourceFile
	lags  []float64
	r     demoResult
}

func (d *demo) run(ctx context.Context, u *ui, args []string) (err error) {
	if err := noArgs(args); err != nil {
		return err
	}
	d.u = u
	start := time.Now()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	remove := d.dir == "" && !d.keep
	dir := d.r.Dir
	defer func() {
		if !remove {
			return
		}
		if err != nil && ctx.Err() == nil {
			u.note("outwash: demo: what there is to look at is left in %s", dir)
			return
		}
		if rerr := os.RemoveAll(dir); rerr != nil && err == nil {
			err = rerr
		}
	}()

	if err := d.write(ctx); err != nil {
		return err
	}
	if err := d.verify(ctx); err != nil {
		return err
	}
	d.r.Seconds = time.Since(start).Seconds()
	d.r.Kept = !remove
	if d.json {
		err = u.json(d.r)
	} else {
		d.r.print(u)
	}
	if err == nil && !d.r.OK {
		err = errors.New("the verdict is negative: please report this, with what is said above")
	}
	return err
}

func (d *demo) say(format string, a ...any) {
	if !d.json {
		d.u.printf(format+"\n", a...)
	}
}

// prepare finds out where everything is, and that nothing is in the way.
func (d *demo) prepare(ctx context.Context) (err error) {
	if d.source == "" {
		if d.source, err = goSource(ctx); err != nil {
			return err
		}
	}
	if d.source, err = filepath.Abs(d.source); err != nil {
		return err
	}
	if d.files, err = walkSource(d.source); err != nil {
		return err
	}
	if d.replica != "" {
		// Before anything is written anywhere.
		if err := d.openStore(ctx); err != nil {
			return err
		}
	}
	if d.dir == "" {
		d.r.Dir, err = os.MkdirTemp("", "outwash-demo-")
	} else {
		d.r.Dir, err = filepath.Abs(d.dir)
		if err == nil {
			err = os.MkdirAll(d.r.Dir, 0o755)
		}
		var list []os.DirEntry
		if err == nil {
			list, err = os.ReadDir(d.r.Dir)
		}
		if err == nil && len(list) > 0 {
			return fmt.Errorf("-dir %s is %w: it has %s; choose another one", d.dir, errNotEmpty, printable(list[0].Name()))
		}
	}
	if err != nil {
		return err
	}
	if d.replica == "" {
		d.replica = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(d.r.Dir, "replica"))}).String()
		if err := d.openStore(ctx); err != nil {
			return err
		}
	} else {
		d.r.OwnReplica = true
	}
	d.r.Database, d.r.Source = filepath.Join(d.r.Dir, "demo.db"), d.source
	return nil
}

func (d *demo) openStore(ctx context.Context) (err error) {
	if d.store, err = replicate.OpenStore(ctx, d.replica); err != nil {
		return err
	}
	d.r.Replica = d.store.String()
	for obj, err := range d.store.List(ctx, "", "") {
		if err != nil {
			return err
		}
		return fmt.Errorf("the replica's path is %w: %s has an object %s; the demo needs a path of its own", errNotEmpty, d.r.Replica, printable(obj.Key))
	}
	return nil
}

// write has the database written by two processes, of which the first is killed.
func (d *demo) write(ctx context.Context) error {
	total := int64(0)
	for _, f := range d.files {
		total += f.size
	}
	d.say("Loading up to %s (%s) of %s into %s,", plural(len(d.files), "file", "files"), size(total), d.source, d.r.Database)
	d.say("replicated to %s", d.r.Replica)

	earlier := filepath.Join(d.r.Dir, "earlier-original.db")
	half := len(d.files) / 2
	begin := time.Now()
	// The first writer never ends by itself: whatever the machine's speed, the
	// kill hits it while it writes.
	last, err := d.writer(ctx, func(e *event) bool {
		return d.r.Earlier.TXID != 0 && (e.Files > half || time.Since(begin) > demoBeforeKill)
	}, "-endless", "-copy", earlier, "-copy-at", strconv.Itoa(max(1, len(d.files)/10)))
	if err != nil {
		return err
	}
	d.r.Killed = last.Transactions
	d.r.Earlier.original = earlier
	d.say("Killed the writer after some %s; starting it again.", plural(last.Transactions, "transaction", "transactions"))

	last2, err := d.writer(ctx, nil, "-budget", demoAfterKill.String())
	if err != nil {
		return err
	}
	if last2.Done == nil {
		return errors.New("the writer ended without a word")
	}
	d.r.Newest.TXID, d.r.Newest.original = last2.Done.TXID, d.r.Database
	d.r.Transactions, d.r.Resumed = last2.Done.Total, last2.Done.Total-last2.Transactions
	d.r.Files, d.r.Text = last2.Files, last.Bytes+last2.Bytes
	d.r.Reads, d.r.Early = last.Reads+last2.Reads, last2.Done.Early
	slices.Sort(d.lags)
	d.r.LagP50, d.r.LagP99, d.r.LagSamples = percentile(d.lags, 50), percentile(d.lags, 99), len(d.lags)
	d.say("Loaded, and shut down in order. Restoring.")
	return nil
}

// writer runs a writer until it ends, or until kill says so. It returns the last
// thing that the writer said.
func (d *demo) writer(ctx context.Context, kill func(*event) bool, args ...string) (*event, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Without a word for long, something hangs.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(demoPatience, func() { cancel(errors.New("the writer has hung up")) })
	defer silence.Stop()

	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, self, append([]string{demoWriterVerb.name, "-db", d.r.Database, "-replica", d.replica, "-source", d.source}, args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	bar := d.u.progress("loading", d.json)
	defer bar.done()
	last, killed := &event{}, false
	dec := json.NewDecoder(out)
	for {
		e := &event{}
		if dec.Decode(e) != nil {
			break // it ended, or was killed
		}
		silence.Reset(demoPatience)
		last = e
		d.lags = append(d.lags, e.Lags...)
		if e.Mark != nil {
			d.r.Earlier.TXID = e.Mark.TXID
		}
		bar.set(e.Bytes, 0, plural(e.Transactions, "transaction", "transactions"))
		if kill != nil && !killed && kill(e) {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				return nil, err
			}
		}
	}
	err = cmd.Wait()
	switch {
	case killed:
		return last, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("the writer failed: %s", lastWords(stderr.String()))
	case kill != nil:
		return nil, errors.New("the writer ended before it was killed")
	}
	return last, nil
}

// lastWords is what a writer said when it failed, without the log before.
func lastWords(stderr string) string {
	stderr = strings.TrimSpace(stderr)
	prefix := "outwash: " + demoWriterVerb.name + ": "
	if i := strings.LastIndex(stderr, prefix); i >= 0 {
		return stderr[i+len(prefix):]
	}
	return stderr
}

// checkpoint brings the whole database into its file, without Outwash.
func checkpoint(path string) error {
	db, err := sqlite3.Open(path)
	if err != nil {
		return err
	}
	_, err = queryText(db, `PRAGMA wal_checkpoint(TRUNCATE)`)
	return errors.Join(err, db.Close())
}
