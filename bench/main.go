// Command bench measures what replication costs an application, as ratios to the
// plain driver (or to plain copying) in the same run. README.md says how to read
// what it prints.
//
//	go -C bench run . [-quick] [-only NAME] [-runs N] [-s3[=URL]] [-json]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	_ "github.com/outwash/outwash/s3store"
)

func main() {
	setupDriver()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(childEnv) != "" {
		if err := serve(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// sizes is how much is measured.
type sizes struct {
	warm, measure time.Duration // commits: before, and while counting
	rows          int           // bytes: rows of the table
	transactions  int           // bytes: how many
	rate          int           // bytes: of them a second when paced; snapshot: the writer's
	lagFor        time.Duration // lag: how long
	lagRate       int           // lag: transactions a second
	database      int64         // snapshot, restore: bytes
	behind        int           // restore: transactions after the snapshot
	small         int           // restore: log segments of one transaction each
	history       time.Duration // restore: how long is written before a time in it is asked for
	huge          int64         // huge: bytes of the database
	many          int           // sidecar: databases
	idleFor       time.Duration // sidecar: how long they are watched
	lagRound      time.Duration // sidecar: how long is committed in a round
}

var (
	full = sizes{
		warm: 500 * time.Millisecond, measure: 3 * time.Second,
		rows: 150_000, transactions: 3000, rate: 500,
		lagFor: 20 * time.Second, lagRate: 50, database: 500e6,
		behind: 10_000, small: 3600, history: 2 * time.Minute, huge: 10e9,
		many: 1000, idleFor: time.Minute, lagRound: 10 * time.Second,
	}
	quick = sizes{
		warm: 50 * time.Millisecond, measure: 300 * time.Millisecond,
		rows: 15_000, transactions: 300, rate: 500,
		lagFor: 2 * time.Second, lagRate: 50, database: 50e6,
		behind: 1000, small: 360, history: 10 * time.Second, huge: 1e9,
		many: 100, idleFor: 5 * time.Second, lagRound: 2 * time.Second,
	}
)

// bench is one run of the program.
type bench struct {
	sizes
	dir     string // temporary
	profile string
	runs    int
	s3      string // replica URL to put paths behind; "": not measured
	env     []string
	say     func(format string, args ...any)

	rows     []row
	peaks    []peaks
	tiny     string // template databases, once they are made
	large    string
	restores []row // of the snapshot that is being measured
}

// measurements are what -only names, in this order.
var measurements = []struct {
	name   string
	run    func(context.Context, *bench) error
	memory bool // it says how much memory was used, too
	alone  bool // only if it is named
}{
	{"commits", commits, true, false},
	{"bytes", transactionBytes, true, false},
	{"lag", lag, false, false},
	{"snapshot", snapshot, true, false},
	{"restore", restores, false, false},
	{"huge", huge, false, true},
	{"sidecar", sidecarCase, false, true},
}

func run(ctx context.Context, args []string, out, diag io.Writer) (err error) {
	b := &bench{sizes: full}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(diag)
	small := fs.Bool("quick", false, "a tenth of the sizes, to see that it works; the figures mean little")
	only := fs.String("only", "", "one of commits, bytes, lag, snapshot, restore, huge, sidecar, memory; several with commas")
	runs := fs.Int("runs", 0, "pairs of runs per figure (5; with -quick 1)")
	asJSON := fs.Bool("json", false, "JSON instead of a table")
	dir := fs.String("dir", "", "directory for databases and replicas (a temporary one)")
	profile := fs.String("profile", "", "directory for CPU and allocation profiles of every process measured")
	var s3 optional
	fs.Var(&s3, "s3", "measure lag, snapshot and restore over S3, too, and restores beside Litestream's: alone with a server that is built and started, -s3=URL with that")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if b.runs = 5; *small {
		b.sizes, b.runs = quick, 1
	}
	if *runs > 0 {
		b.runs = *runs
	}
	want, err := parseOnly(*only)
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(*dir, "outwash-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if *profile != "" {
		if b.profile, err = filepath.Abs(*profile); err != nil {
			return err
		}
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
	}
	b.say = func(format string, args ...any) { fmt.Fprintf(diag, format+"\n", args...) }
	if s3.set {
		stop, err := b.useS3(s3.value)
		if err != nil {
			return err
		}
		defer stop()
	}
	r := result{Machine: machine(b.dir), Quick: *small, Runs: b.runs, Started: time.Now()}
	// The first process compiles SQLite into the cache, which is not to be measured.
	if _, err := warmUp(ctx, b, struct{}{}); err != nil {
		return err
	}
	for _, m := range measurements {
		if m.alone && *only == "" || !want(m.name) && (!m.memory || !want("memory")) {
			continue
		}
		before := loadAverage()
		b.say("%s …", m.name)
		n := len(b.rows)
		if err := m.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		for i := range b.rows[n:] {
			b.rows[n+i].Load = [2]float64{before, loadAverage()}
		}
		if !want(m.name) {
			b.rows = b.rows[:n]
		}
	}
	b.memory()
	r.Rows, r.Seconds = b.rows, time.Since(r.Started).Seconds()
	if *asJSON {
		return r.writeJSON(out)
	}
	return r.writeTable(out)
}

func parseOnly(s string) (want func(string) bool, err error) {
	if s == "" {
		return func(string) bool { return true }, nil
	}
	names := strings.Split(s, ",")
	for _, n := range names {
		known := n == "memory"
		for _, m := range measurements {
			known = known || m.name == n
		}
		if !known {
			return nil, fmt.Errorf("-only %s: there are commits, bytes, lag, snapshot, restore, huge, sidecar and memory", n)
		}
	}
	return func(name string) bool { return slices.Contains(names, name) }, nil
}

// optional is a flag that may stand alone or have a value.
type optional struct {
	set   bool
	value string
}

func (o *optional) String() string   { return o.value }
func (o *optional) IsBoolFlag() bool { return true }

func (o *optional) Set(s string) error {
	switch o.set = true; s {
	case "true":
	case "false":
		o.set = false
	default:
		o.value = s
	}
	return nil
}

// scratch makes an empty directory for one process; remove it afterwards.
func (b *bench) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(b.dir, "run-")
	return dir, func() { os.RemoveAll(dir) }, err
}
