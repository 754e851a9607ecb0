package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

var adoptVerb = &verb{
	name:  "adopt",
	args:  "DB [URL]",
	brief: "make a database that its replica refuses the replica's next state",
	help: `A replica refuses a database that does not continue it: another one, a stale or
diverged copy, an earlier state. This makes the database's present state the next
entry of the replica all the same. It says before what the replica has, what the
database is, why it is refused and what is overridden, and asks. Without a
terminal it needs -yes, and else changes nothing.

Nothing is overwritten: what the replica had stays restorable by its TXIDs, as long
as its log is kept. SQLite checks the database before; a corrupt one is refused. A
database that continues the replica needs nothing of this, and nothing is done.

Without a URL the replica is the one that the configuration file names for DB.

No other process may replicate the database meanwhile. To take the replica's
state instead: outwash restore -force -o DB URL.

Examples:
  outwash adopt app.db s3://my-bucket/app
  outwash adopt -yes app.db file:///var/backups/app
  outwash adopt -yes -json app.db s3://my-bucket/app
  outwash adopt -config /etc/outwash.yml /var/lib/app.db
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeUnconfirmed, codeBusy, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var a adoption
		a.declare(fs)
		fs.BoolVar(&a.yes, "yes", false, "don't ask")
		fs.BoolVar(&a.json, "json", false, "print the result as JSON")
		return a.run
	},
}

// errContinues ends an adoption that there is no need of.
var errContinues = errors.New("the database continues the replica")

type adoption struct {
	replicaFlags
	yes, json bool

	u      *ui
	store  *consentStore
	r      adoptResult
	before *replicate.History // what the replica had
}

// adoptResult is what -json prints.
type adoptResult struct {
	Adopted  bool          `json:"adopted"`
	Replica  string        `json:"replica"`
	TXID     uint64        `json:"txid"`              // the replica's newest now
	Refused  string        `json:"refused,omitempty"` // why the replica refused the database
	Database adoptDatabase `json:"database"`
	// Overridden is the replica's newest state before; it stays restorable.
	Overridden *adoptOverridden `json:"overridden,omitempty"`
}

type adoptDatabase struct {
	Path      string    `json:"path"`
	Bytes     int64     `json:"bytes"`
	Modified  time.Time `json:"modified"`
	Check     string    `json:"integrity_check"`
	Unchecked string    `json:"unchecked,omitempty"`
}

type adoptOverridden struct {
	TXID   uint64                 `json:"txid"`
	Time   time.Time              `json:"time"`
	Writer *replicate.SessionInfo `json:"writer,omitempty"`
}

func (a *adoption) run(ctx context.Context, u *ui, args []string) error {
	switch {
	case len(args) == 0 || slices.Contains(args, "") || len(args) == 1 && a.configPath() == "":
		return usagef("the database and the replica's URL are expected: see \"outwash help adopt\"")
	case len(args) > 2:
		return usagef("one database and one URL expected, and there is also %q", args[2])
	}
	a.u = u
	path, err := a.find(args[0])
	if err != nil {
		return err
	}
	store, err := a.open(ctx, args[len(args)-1])
	if err != nil {
		return err
	}
	if a.before, err = replicate.ReadHistory(ctx, store); err != nil {
		return err
	}
	h := a.before
	a.r.Replica, a.r.TXID = h.Replica, h.TXID
	if h.Pages == 0 {
		return fmt.Errorf("%w: %s has no content yet, so there is nothing to override: the first program that opens %s with it begins it",
			replicate.ErrNotRestorable, h.Replica, path)
	}
	a.store = &consentStore{Store: store}
	if a.database != nil {
		if d, err := a.config.Database(path); err == nil && d == a.database {
			a.store.file = a.configPath()
		}
	}
	fresh, clean := !exists(path+local.Suffix), !exists(path+"-wal")
	dir, err := local.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer func() {
		if clean {
			tidy(path)
		}
		if fresh && !a.store.given.Load() {
			removeLocal(dir)
		}
		dir.Close()
		if fresh && !a.store.given.Load() {
			os.Remove(dir.Path()) // of what isn't empty it keeps off
		}
	}()
	if err := a.check(path); err != nil {
		return err
	}
	err = a.adopt(ctx, path, dir)
	switch {
	case errors.Is(err, errContinues):
		err = nil
	case errors.Is(err, errUnconfirmed) && a.json:
		return cmp.Or(a.u.json(a.r), err)
	}
	if err != nil {
		return err
	}
	return a.print()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// tidy lets SQLite remove the empty log that reading a database in WAL mode
// leaves, if nobody else uses it.
func tidy(path string) {
	if fi, err := os.Stat(path + "-wal"); err != nil || fi.Size() > 0 {
		return
	}
	if db, err := sqlite3.Open(path); err == nil {
		_, _ = queryText(db, "SELECT count(*) FROM sqlite_schema") // what was not read is not closed either
		db.Close()
	}
}

// removeLocal takes away what looking at a database has put beside it.
func removeLocal(dir *local.Dir) {
	files, err := os.ReadDir(dir.Path())
	if err != nil {
		return
	}
	for _, f := range files {
		os.Remove(filepath.Join(dir.Path(), f.Name()))
	}
}

// find returns the database's name as SQLite will have it.
func (a *adoption) find(name string) (string, error) {
	path, err := filepath.Abs(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	var fi fs.FileInfo
	if err == nil {
		fi, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s: %w", name, errNoDatabase)
	case err != nil:
		return "", err
	case fi.IsDir():
		return "", usagef("%s is a directory: give the name of the database file", name)
	case fi.Size() == 0:
		return "", fmt.Errorf("%s is empty: %w", name, errNoDatabase)
	}
	a.r.Database = adoptDatabase{Path: path, Bytes: fi.Size(), Modified: fi.ModTime().UTC()}
	return path, nil
}

// check lets SQLite look at the database: what is corrupt must not become a state
// that somebody restores.
func (a *adoption) check(path string) error {
	bar := a.u.progress("", a.json)
	defer bar.done()
	bar.stage("quick check")
	err := checkLive(path)
	a.r.Database.Check = checkQuick
	if errors.Is(err, errUncheckable) {
		a.r.Database.Check, a.r.Database.Unchecked = checkNone, plainMessage(err)
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w: nothing was changed", path, err)
	}
	return nil
}

// adopt runs an engine until the replica has the database's state.
func (a *adoption) adopt(ctx context.Context, path string, dir *local.Dir) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := slog.New(slog.DiscardHandler)
	capture.Companions(path)
	db, err := capture.Open(capture.Options{Path: path, Dir: dir, Logger: quiet})
	if err != nil {
		return err
	}
	settled := make(chan struct{}) // it is known whether it was asked
	var once sync.Once
	engine := replicate.Open(ctx, replicate.EngineOptions{
		Store: a.store, Source: db, Local: dir, Database: path, MaxLag: replicate.AsFast, Logger: quiet,
		// How long what stays restorable is the program's to say, which isn't here.
		Keep: replicate.Keep{Log: replicate.Forever, Pages: replicate.Forever, Snapshots: replicate.Forever, PagesEvery: replicate.Forever, SnapshotEvery: replicate.Forever},
		OnState: func(s replicate.Status) {
			switch s.State {
			case replicate.StateUnreachable, replicate.StateDenied:
				a.u.note("outwash: adopt: trying on: %s", s.Error)
			case replicate.StateOpening:
			default:
				once.Do(func() { close(settled) })
			}
		},
		Adopt: func(ctx context.Context, refusal error, tail replicate.Tail) error {
			return a.ask(ctx, path, refusal, tail)
		},
	})
	var running sync.WaitGroup
	running.Go(func() { db.Run(ctx) })
	defer func() {
		limit, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		if !a.store.given.Load() {
			stop() // nothing is to be uploaded
		}
		cerr := engine.Close(limit)
		cancel(nil)
		running.Wait()
		if !a.store.given.Load() {
			cerr = nil // what is not uploaded stays where it is
		}
		err = cmp.Or(err, cerr, db.Close())
	}()
	select {
	case <-settled:
	case <-engine.Done():
	}
	if !a.store.given.Load() {
		return cmp.Or(engine.Err(), context.Cause(ctx), errContinues)
	}
	go func() { // capture doesn't begin if the engine ends
		<-engine.Done()
		cancel(engine.Err())
	}()
	stop := a.watch(engine)
	defer stop()
	if err := db.Capture(ctx); err != nil {
		return cmp.Or(engine.Err(), err)
	}
	if a.r.TXID, err = engine.Sync(ctx); err != nil {
		return err
	}
	a.r.Adopted = true
	return nil
}

// ask shows what is at stake, and asks whether to go on.
func (a *adoption) ask(ctx context.Context, path string, refusal error, tail replicate.Tail) error {
	h := a.before
	a.r.Refused = plainMessage(refusal)
	a.r.Overridden = &adoptOverridden{TXID: tail.TXID, Time: time.UnixMicro(tail.LastTime).UTC(), Writer: h.Writer}
	if !a.json {
		a.u.fields("",
			"replica", h.Replica,
			"  newest", fmt.Sprintf("TXID %d, committed %s, %s (%s of %d bytes)", tail.TXID, moment(a.r.Overridden.Time),
				size(int64(tail.Commit)*int64(tail.PageSize)), plural(tail.Commit, "page", "pages"), tail.PageSize),
			"  writer", writer(h.Writer),
			"database", path,
			"  file", fmt.Sprintf("%s, modified %s", size(a.r.Database.Bytes), moment(a.r.Database.Modified)),
			"  check", cmp.Or(a.r.Database.Unchecked, a.r.Database.Check+" check by SQLite passed"),
			"refused", a.r.Refused)
		a.u.printf("\nThe database's present state would become the replica's newest, in the place of TXID %d.\n%s", tail.TXID, a.staying())
	}
	switch {
	case a.yes:
	case !a.u.interactive():
		return fmt.Errorf("%w: nothing was changed: add -yes to adopt the database", errUnconfirmed)
	default:
		ok, err := a.u.confirm(ctx, fmt.Sprintf("Override TXID %d of the replica with this database?", tail.TXID))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: nothing was changed", errUnconfirmed)
		}
	}
	a.store.given.Store(true)
	return nil
}

// staying says what can be restored afterwards, too.
func (a *adoption) staying() string {
	var b strings.Builder
	for _, r := range a.before.Ranges {
		fmt.Fprintf(&b, "TXID %d to %d (%s to %s) stay restorable: outwash restore -txid N.\n", r.From, r.To, moment(r.FromTime), moment(r.ToTime))
	}
	return b.String()
}

// watch shows how far the upload has come until stop is called.
func (a *adoption) watch(engine *replicate.Engine) (stop func()) {
	bar := a.u.progress("uploading", a.json)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				s := engine.Status()
				bar.set(s.Uploaded, s.Uploaded+s.BacklogBytes, "uploading")
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
		bar.done()
	}
}

func (a *adoption) print() error {
	if a.json {
		return a.u.json(a.r)
	}
	if !a.r.Adopted {
		a.u.printf("nothing to do: %s continues %s, which is at TXID %d; a program that opens it with the replica goes on by itself\n",
			a.r.Database.Path, a.r.Replica, a.r.TXID)
		return nil
	}
	a.u.printf("adopted: %s is the newest state of %s, TXID %d\n", a.r.Database.Path, a.r.Replica, a.r.TXID)
	return nil
}
