// Command outwash replicates SQLite databases, restores, lists and inspects their
// replicas, and shows in a minute what replication is: outwash demo.
//
// Exit codes are in the help and in codes.go.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/outwash/outwash/internal/suggest"
	_ "github.com/outwash/outwash/s3store" // s3:// URLs
)

func main() {
	// The second signal ends the process the hard way.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// A verb is one command of the command line, in a file of its own.
type verb struct {
	name  string
	args  string // what follows the flags
	brief string // one line
	help  string // the rest, with examples
	codes []int  // exit codes worth mentioning
	// flags declares the verb's flags and returns what runs it.
	flags      func(fs *flag.FlagSet) runner
	hidden     bool // for outwash itself
	ownSignals bool // what signals mean is the verb's to say: the context doesn't count
}

type runner func(ctx context.Context, u *ui, args []string) error

// verbs lists every verb in the order of the help. It is a function because the
// help verb needs it.
func verbs() []*verb {
	return []*verb{replicateVerb, restoreVerb, adoptVerb, lsVerb, statusVerb, verifyVerb, inspectVerb, snapshotVerb, pruneVerb, configVerb, doctorVerb, policyVerb, demoVerb, versionVerb, helpVerb(), demoWriterVerb}
}

// run is the whole program but for the process around it. A signal ends ctx.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	u := newUI(in, out, errOut)
	if len(args) == 0 {
		u.note("%s", overview())
		return codeUsage
	}
	switch args[0] {
	case "-h", "-help", "--help":
		args = append([]string{"help"}, args[1:]...)
	case "-version", "--version":
		args[0] = "version"
	}
	v, err := findVerb(args[0])
	if err != nil {
		return u.fail("", err, false)
	}

	fs := flag.NewFlagSet(v.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	do := v.flags(fs)
	pos, err := parseFlags(fs, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		u.print(verbHelp(v))
		return codeOK
	}
	file := configOf(fs)
	file.note = u.note
	asJSON := boolFlag(fs, "json")
	if err != nil {
		return u.fail(v.name, err, asJSON)
	}

	setupDriver()

	err = do(ctx, u, pos)
	if err != nil && file.explain != nil {
		err = file.explain(err)
	}
	if err != nil && ctx.Err() != nil && !v.ownSignals && !errors.Is(err, errInterrupted) {
		err = errInterrupted
	}
	if err == nil {
		err = u.err()
	}
	if err != nil {
		return u.fail(v.name, err, asJSON)
	}
	return codeOK
}

// elsewhere are the commands that Litestream and others have for what is asked of
// another one here.
var elsewhere = map[string]string{
	"databases": "config", "generations": "ls", "snapshots": "ls", "ltx": "ls", "wal": "ls", "list": "ls",
	"info": "status", "sync": "replicate -once", "backup": "replicate -once", "check": "verify",
}

func findVerb(name string) (*verb, error) {
	var names []string
	for _, v := range verbs() {
		if v.name == name {
			return v, nil
		}
		if !v.hidden {
			names = append(names, v.name)
		}
	}
	if here := elsewhere[name]; here != "" {
		return nil, usagef("unknown command %q: here it is \"outwash %s\"", name, here)
	}
	if n := suggest.Nearest(name, names); n != "" {
		return nil, usagef("unknown command %q: did you mean %q?", name, n)
	}
	return nil, usagef("unknown command %q: see \"outwash help\"", name)
}
