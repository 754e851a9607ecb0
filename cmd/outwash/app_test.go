package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/outwash/outwash/vfs"
)

// appMain is an application for the scripts: it runs SQL on a replicated
// database, and waits until the replica has it.
//
//	app [-restore] [-socket PATH] [-ready FILE] [-impatient] DB URL SQL…
//
// With -impatient its time is over as soon as replication says that something is
// wrong. When it gives up it says how replication stands.
//
// With -ready it then makes FILE, and goes on until it is interrupted or FILE is
// removed, when it runs the last SQL once more.
func appMain() {
	if err := app(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func app(args []string) (err error) {
	fs := flag.NewFlagSet("app", flag.ContinueOnError)
	restore := fs.Bool("restore", false, "")
	socket := fs.String("socket", "", "")
	ready := fs.String("ready", "", "")
	impatient := fs.Bool("impatient", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	db, url, sql := fs.Arg(0), fs.Arg(1), fs.Args()[2:]
	params := []string{"replica_max_lag=0"}
	if *restore {
		params = append(params, "replica_restore=auto")
	}
	vfs.Register(vfs.Name, vfs.Options{StatusSocket: *socket})
	setupDriver()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := sqlite3.Open(vfs.DSN(db, url, params...))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); err == nil {
			err = cerr
		}
		ctx, cancel := context.WithTimeout(context.Background(), longest)
		defer cancel()
		if *impatient && err != nil {
			cancel()
		}
		if serr := vfs.Shutdown(ctx); err == nil {
			err = serr
		}
	}()
	run := func(sql ...string) error {
		for _, s := range sql {
			if err := c.Exec(s); err != nil {
				return err
			}
		}
		ctx := &deadline{context.Background(), make(chan struct{})}
		if *impatient {
			go ctx.await(func() bool { s, err := vfs.Stat(db); return err == nil && s.Error != "" })
		}
		_, err := vfs.Sync(ctx, db)
		if s, serr := vfs.Stat(db); err != nil && serr == nil {
			fmt.Fprintln(os.Stderr, "app: status:", s.State, s.Error)
		}
		return err
	}
	if err := run(sql...); err != nil || *ready == "" {
		return err
	}
	if err := os.WriteFile(*ready, nil, 0o600); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if _, err := os.Stat(*ready); err != nil {
			return run(sql[len(sql)-1])
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// longest is how long tests wait for what must happen: more than any machine takes.
const longest = 2 * time.Minute

// deadline is a context whose time is over when something has happened, however long
// that takes.
type deadline struct {
	context.Context
	over chan struct{}
}

func (d *deadline) Done() <-chan struct{} { return d.over }

func (d *deadline) Err() error {
	select {
	case <-d.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func (d *deadline) await(happened func() bool) {
	for !happened() {
		time.Sleep(time.Millisecond)
	}
	close(d.over)
}

// cmdAwait waits until a file exists.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "await FILE")
	for end := time.Now().Add(longest); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s doesn't appear", args[0])
		}
	}
}

// cmdHost puts this machine's name into a variable, as a regular expression.
func cmdHost(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "host VARIABLE")
	host, err := os.Hostname()
	ts.Check(err)
	ts.Setenv(args[0], strings.ReplaceAll(host, ".", `\.`))
}

// cmdCollated makes a database of 20 MB that needs its application's collation.
func cmdCollated(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "collated FILE")
	db, err := sqlite3.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	ts.Check(db.CreateCollation("custom", bytes.Compare))
	ts.Check(db.Exec(`PRAGMA journal_mode=delete; CREATE TABLE t(a TEXT COLLATE custom, b); CREATE INDEX i ON t(a);
		WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<200) INSERT INTO t SELECT x, randomblob(100000) FROM c`))
}
