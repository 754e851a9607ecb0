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
//	app [-restore] [-socket PATH] [-ready FILE] [-within DURATION] DB URL SQL…
//
// It gives up after the duration of -within, and then says how replication stands.
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
	within := fs.Duration("within", time.Hour, "")
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
		ctx, cancel := context.WithTimeout(context.Background(), min(*within, 20*time.Second))
		defer cancel()
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
		ctx, cancel := context.WithTimeout(context.Background(), *within)
		defer cancel()
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

// cmdAwait waits until a file exists.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "await FILE")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
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
