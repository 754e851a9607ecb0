package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

var statusVerb = &verb{
	name:  "status",
	args:  "[DB|URL...]",
	brief: "how databases and their replicas are doing",
	help: `Asks the processes of this machine that replicate ("outwash replicate", and programs
with vfs.Options.StatusSocket) how their databases do: the newest transaction that is
stored, how far behind it is, in seconds and transactions, what waits, who does it,
what is wrong and what to do. Without arguments these are all databases that the
processes have, and those of the configuration file, if there is one.

Of a database that no process tells of it says what can be known without opening it:
what is stored and who wrote it, from the replica (some nine small requests; with
-local none), and what waits on this machine, as "3+" where there may be more.

It exits with 0 only if all is well: if nothing waits for longer than -max-lag.

Examples:
  outwash status
  outwash status /var/lib/app.db
  outwash status -json -max-lag 30s
  outwash status -config /etc/outwash.yml
  outwash status -local app.db
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeBehind, codeRefused, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f statusFlags
		f.declare(fs)
		fs.StringVar(&f.socket, "socket", "", "ask the process at this `PATH` only")
		fs.BoolVar(&f.local, "local", false, "ask no server")
		fs.DurationVar(&f.maxLag, "max-lag", 5*time.Minute, "how long commits may wait: `DURATION`; 0: for ever")
		fs.BoolVar(&f.json, "json", false, "print JSON")
		return f.run
	},
}

type statusFlags struct {
	replicaFlags
	socket string
	local  bool
	json   bool
	maxLag time.Duration

	unusable error // why the configuration file is done without
}

// statusReport is the document of -json; docs/status.md has it.
type statusReport struct {
	Version   int            `json:"version"`
	Time      time.Time      `json:"time"`
	Databases []*statusEntry `json:"databases"`
}

// statusEntry is one database: what its process says of it, or what can be found out
// without.
type statusEntry struct {
	Database string `json:"database,omitempty"`
	Replica  string `json:"replica,omitempty"`
	State    string `json:"state"`
	Verdict  string `json:"verdict"`
	Error    string `json:"error,omitempty"`
	Remedy   string `json:"remedy,omitempty"`

	Process *statusProcess    `json:"process,omitempty"`
	Status  *replicate.Status `json:"status,omitempty"`

	Local  *statusLocal   `json:"local,omitempty"`
	Bucket *replicate.End `json:"bucket,omitempty"`

	err error // what the verdict is about
}

// statusProcess is who answered.
type statusProcess struct {
	replicate.Owner
	Outwash string `json:"outwash"`
	Socket  string `json:"socket"`
}

// The states of databases of which no process tells; the others are the engine's.
const (
	stateStopped = "stopped" // no process replicates it
	stateSilent  = "silent"  // one does, and has no status socket
	stateMissing = "missing" // there is no database file
	stateReplica = "replica" // a replica, whose database isn't known
	stateUnknown = "unknown" // this user may not look
)

func (f *statusFlags) run(ctx context.Context, u *ui, args []string) error {
	if f.maxLag < 0 {
		return usagef("-max-lag is a duration like 30s, or 0")
	}
	targets, err := f.targets(ctx, args)
	if err != nil {
		return err
	}
	running, unanswered, err := f.ask(ctx, u, targets)
	if err != nil {
		return err
	}
	if f.unusable != nil {
		unanswered = append(unanswered, f.unusable)
	}
	r := statusReport{Version: status.Version, Time: time.Now().UTC(), Databases: []*statusEntry{}}
	if len(args) == 0 {
		r.Databases = append(r.Databases, running...)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, t := range targets {
		found := t.among(running)
		if len(found) == 0 {
			if t.path != "" {
				t.path = realPath(t.path) // that is where its log and what is remembered of it lie
			}
			e := &statusEntry{Database: t.path}
			found = append(found, e)
			g.Go(func() error { f.look(gctx, e, t); return nil })
		} else if len(args) == 0 {
			continue // it is there already
		}
		r.Databases = append(r.Databases, found...)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	slices.SortStableFunc(r.Databases, func(a, b *statusEntry) int { return cmp.Compare(a.Database, b.Database) })
	r.Databases = slices.Compact(r.Databases) // the same by two names
	if len(r.Databases) == 0 && len(unanswered) > 0 {
		return unanswered[0]
	}
	if len(r.Databases) == 0 {
		return fmt.Errorf("%w (looked in %s); to ask about a database without its process, name it, or a configuration file", errNoProcess, f.where())
	}
	if f.unusable != nil {
		u.note("outwash: status: done without the configuration file: %s", plainMessage(f.unusable))
	}
	for _, e := range r.Databases {
		e.judge(r.Time, f.maxLag)
	}
	if f.json {
		err = u.json(r)
	} else {
		r.print(u)
	}
	if worst := r.worst(unanswered); err == nil && worst != nil {
		err = &reported{worst}
	}
	return err
}

// judge says what is wrong, if something is: err, and in words.
func (e *statusEntry) judge(now time.Time, maxLag time.Duration) {
	if e.Status != nil {
		e.err = verdictOf(e.Status, now, maxLag)
		e.Error, e.Remedy = e.Status.Error, e.Status.Remedy
	} else if l := e.Local; e.err == nil && l != nil {
		switch {
		case late(l.LagSeconds, maxLag):
			e.err = fmt.Errorf("%w: commits have been waiting for %s at least", errBehind, seconds(l.LagSeconds))
		case !l.Complete && !l.InUse && l.Spooled+uint64(l.Logged) > 0:
			e.err = fmt.Errorf("%w: %s", errBehind, l.waiting())
		case !l.Complete && !l.InUse:
			e.err = fmt.Errorf("%w, perhaps: %s", errBehind, l.Why)
		}
	}
	if errors.Is(e.err, errBehind) && e.Status == nil {
		e.Remedy = "start the process that replicates it: that uploads what is left"
	}
	if e.err != nil && e.Error == "" {
		e.Error = plainMessage(e.err)
		e.Remedy = cmp.Or(e.Remedy, hintFor(e.err))
	}
	e.Verdict = map[int]string{
		codeOK: "ok", codeBehind: "behind", codeRefused: "not replicated", codeAccess: "no access", codeNothing: "nothing there",
	}[codeOf(e.err)]
	if e.Verdict == "" {
		e.Verdict = "failed"
	}
}

func late(lag float64, most time.Duration) bool { return most > 0 && lag > most.Seconds() }

// verdictOf is what is wrong with a database by what its process says; nil: nothing.
func verdictOf(s *replicate.Status, now time.Time, maxLag time.Duration) error {
	switch s.State {
	case replicate.StateFenced, replicate.StateFailed:
		return fmt.Errorf("%w: %s", errRefused, s.State)
	case replicate.StateDenied:
		return replicate.ErrDenied
	case replicate.StateUnreachable:
		return replicate.ErrUnreachable
	}
	if late(s.LagSeconds, maxLag) {
		return fmt.Errorf("%w: commits have been waiting for %s", errBehind, seconds(s.LagSeconds))
	}
	since := now.Sub(s.StateSince).Seconds()
	if begins := s.State == replicate.StateOpening || s.State == replicate.StateExporting; begins && !s.StateSince.IsZero() && late(since, maxLag) {
		return fmt.Errorf("%w: %s for %s", errBehind, s.State, seconds(since))
	}
	return nil
}

// worst is the error for the exit code: of several, what somebody has to see to first.
// others are those of processes.
func (r *statusReport) worst(others []error) error {
	order := []int{codeRefused, codeCorrupt, codeAccess, codeVersion, codeUsage, codeFailed, codeBehind, codeNothing}
	var worst error
	at := len(order)
	errs := slices.Clone(others)
	for _, e := range r.Databases {
		errs = append(errs, e.err)
	}
	for _, err := range errs {
		if i := slices.Index(order, codeOf(err)); err != nil && i < at {
			worst, at = err, max(i, 0)
		}
	}
	return worst
}

// statusError is an error about one database, for people.
func statusError(err error, format string, a ...any) error {
	return fmt.Errorf("%w: %s", err, fmt.Sprintf(format, a...))
}
