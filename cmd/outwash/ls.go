package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/replicate"
)

var lsVerb = &verb{
	name:  "ls",
	args:  "URL|DB",
	brief: "list what can be restored from a replica",
	help: `DB is the path of a database that a configuration file lists.

Lists the transactions (TXIDs) that can be restored: the range in which each can,
and before that the ends of page segments and snapshots; then the snapshots, and
the newest 20 sessions: who wrote the replica, and since when. The writer is the
newest of them: a session says when it begins, not when it ends. It takes a
request for each 1000 objects, a small one for each snapshot, session and page
segment (of the newest 200; two if it is large), and six more. With -l all of
these and one line for each log segment, which takes a small request for each.

Examples:
  outwash ls s3://my-bucket/app
  outwash ls -l file:///var/backups/app
  outwash ls -json s3://my-bucket/app
  outwash ls -config /etc/outwash.yml /var/lib/app.db
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f lsFlags
		f.declare(fs)
		fs.BoolVar(&f.long, "l", false, "list the log segments, too")
		fs.BoolVar(&f.json, "json", false, "print JSON")
		return f.run
	},
}

type lsFlags struct {
	replicaFlags
	long, json bool
}

func (f *lsFlags) run(ctx context.Context, u *ui, args []string) error {
	raw, err := oneArg("ls", "the replica's URL", args)
	if err != nil {
		return err
	}
	store, err := f.open(ctx, raw)
	if err != nil {
		return err
	}
	h, err := replicate.ReadHistory(ctx, store)
	if err != nil {
		return err
	}
	var broken []error
	if f.long {
		if err := h.ReadSessions(ctx); err != nil {
			return err
		}
		if err := h.ReadPageSegments(ctx); err != nil {
			return err
		}
		if broken, err = readDetails(ctx, u, h, f.json); err != nil {
			return err
		}
	}
	if f.json {
		err = u.json(h)
	} else {
		printHistory(u, h, f.long)
	}
	if n := len(h.Damaged); err == nil && n > 0 {
		err = fmt.Errorf("%s damaged; the first: %w", plural(n, "snapshot or page segment is", "snapshots and page segments are"), h.Damaged[0])
	}
	if n := len(broken); n > 0 {
		lost := fmt.Errorf("%s missing or broken; the first: %w", plural(n, "log segment is", "log segments are"), broken[0])
		if err != nil {
			lost = fmt.Errorf("%w; %w", err, lost)
		}
		err = lost
	}
	return err
}

// readDetails completes h.Segments. Segments that are corrupt are no reason not
// to list the others; they are returned.
func readDetails(ctx context.Context, u *ui, h *replicate.History, quiet bool) (broken []error, err error) {
	bar := u.progress("reading headers", quiet)
	defer bar.done()
	errs := make([]error, len(h.Segments))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range h.Segments {
		g.Go(func() error {
			info, err := h.Details(ctx, i)
			switch {
			case err == nil:
				h.Segments[i] = info
			case codeOf(err) == codeCorrupt || codeOf(err) == codeVersion:
				errs[i] = err
			default:
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, err := range errs {
		if err == nil && i > 0 {
			err = missing(h, h.Segments[i-1], h.Segments[i])
		}
		if err != nil {
			broken = append(broken, err)
		}
	}
	return broken, nil
}

// missing reports a hole between two log segments. Below what can be restored
// there are holes where retention has been; claims are kept.
func missing(h *replicate.History, prev, next replicate.SegmentInfo) error {
	if prev.MaxTXID == 0 || next.MinTXID == prev.MaxTXID+1 {
		return nil
	}
	for _, r := range h.Ranges {
		if r.From <= prev.MaxTXID && next.MinTXID <= r.To {
			return fmt.Errorf("%w: there is no log segment for TXID %d to %d", replicate.ErrCorrupt, prev.MaxTXID+1, next.MinTXID-1)
		}
	}
	return nil
}

func printHistory(u *ui, h *replicate.History, long bool) {
	newest := "nothing yet"
	if h.TXID > 0 {
		newest = fmt.Sprintf("TXID %d, committed %s, %s (%s of %d bytes)", h.TXID, moment(h.Time),
			size(int64(h.Pages)*int64(h.PageSize)), plural(h.Pages, "page", "pages"), h.PageSize)
	}
	u.fields("",
		"replica", h.Replica,
		"database", h.Database+", since "+moment(h.Created),
		"newest", newest,
		"writer", writer(h.Writer),
		"stored", fmt.Sprintf("%s in %s", size(h.Bytes), plural(h.Objects, "object", "objects")))

	if len(h.Ranges) == 0 {
		u.printf("\nNothing can be restored yet.\n")
	} else {
		printRanges(u, h, long)
	}
	if len(h.Snapshots) > 0 {
		u.printf("\nSnapshots:\n")
		var rows [][]string
		for _, s := range h.Snapshots {
			rows = append(rows, []string{fmt.Sprint(s.TXID), moment(s.Time), size(s.Bytes), count(s.Pages), s.Key, useless(s.Void, s.Damaged)})
		}
		u.table("  ", []string{">TXID", "committed", ">stored", ">pages", "object", ""}, rows)
	}
	printPageSegments(u, h, long)
	if len(h.Sessions) > 0 {
		u.printf("\nSessions:\n")
		var rows [][]string
		for _, s := range h.Sessions {
			rows = append(rows, []string{fmt.Sprint(s.TXID), moment(s.Time), short(s.Session), owner(s.Owner)})
		}
		u.table("  ", []string{">from TXID", "opened", "session", "by"}, rows)
		if h.OlderSessions > 0 {
			u.printf("  and %s before them: see -l\n", count(h.OlderSessions))
		}
	}
	if long {
		printSegments(u, h)
	}
	if len(h.Foreign) > 0 {
		u.printf("\nNot Outwash's, left alone:\n")
		for _, line := range foreign(h.Foreign) {
			u.printf("  %s\n", line)
		}
	}
}

// printRanges lists the TXIDs that can be restored: ranges, and single ones before.
func printRanges(u *ui, h *replicate.History, long bool) {
	const most = 20
	var ranges, points [][]string
	for i, r := range h.Ranges {
		if r.From == r.To && i+1 < len(h.Ranges) {
			points = append(points, []string{fmt.Sprint(r.From), moment(r.FromTime)})
		} else {
			ranges = append(ranges, []string{fmt.Sprint(r.From), fmt.Sprint(r.To), moment(r.FromTime), moment(r.ToTime)})
		}
	}
	u.printf("\nCan be restored:\n")
	u.table("  ", []string{">from TXID", ">to TXID", "from", "to"}, ranges)
	if len(points) == 0 {
		return
	}
	u.printf("\nBefore that only, because the log of that time is gone:\n")
	hidden := 0
	if n := len(points) - most; n > 0 && !long {
		points, hidden = points[n:], n
	}
	u.table("  ", []string{">TXID", "committed"}, points)
	if hidden > 0 {
		u.printf("  and %s before them: see -l\n", count(hidden))
	}
}

func printPageSegments(u *ui, h *replicate.History, long bool) {
	if len(h.PageSegments) == 0 {
		return
	}
	if !long {
		total := int64(0)
		for _, s := range h.PageSegments {
			total += s.Bytes
		}
		u.printf("\nPage segments: %s, %s (see -l)\n", count(len(h.PageSegments)), size(total))
		return
	}
	u.printf("\nPage segments:\n")
	var rows [][]string
	for _, s := range h.PageSegments {
		rows = append(rows, []string{fmt.Sprint(s.MinTXID), fmt.Sprint(s.TXID), moment(s.Time), size(s.Bytes), s.Key, useless(s.Void, s.Damaged)})
	}
	u.table("  ", []string{">from TXID", ">to TXID", "committed", ">stored", "object", ""}, rows)
}

// useless says why nothing can be restored from an object.
func useless(void, damaged bool) string {
	switch {
	case damaged:
		return "can't be read"
	case void:
		return "its data object is missing"
	}
	return ""
}

// foreign lists keys, or the folders that they are in if there are many: those of
// another program's replica, for instance.
func foreign(keys []string) []string {
	const most = 10
	var lines, folders []string
	in := map[string]int{}
	for _, key := range keys {
		lines = append(lines, printable(key))
		folder := key
		if dir, _, ok := strings.Cut(key, "/"); ok {
			folder = dir + "/"
		}
		if in[folder]++; in[folder] == 1 {
			folders = append(folders, folder)
		}
	}
	if len(lines) <= most {
		return lines
	}
	lines = nil
	for _, f := range folders {
		if in[f] == 1 {
			lines = append(lines, printable(f))
		} else {
			lines = append(lines, fmt.Sprintf("%s (%s)", printable(f), plural(in[f], "object", "objects")))
		}
		if len(lines) > most {
			return append(lines[:most], fmt.Sprintf("and others, %s in all: see -json", plural(len(keys), "object", "objects")))
		}
	}
	return lines
}

func printSegments(u *ui, h *replicate.History) {
	u.printf("\nLog segments:\n")
	var rows [][]string
	for _, s := range h.Segments {
		row := []string{s.Key, fmt.Sprint(s.MinTXID), "?", "?", size(s.Bytes), "", "", "can't be read"}
		if s.MaxTXID != 0 {
			what := short(s.Session)
			if s.Claim {
				what += " claim"
			}
			row = []string{s.Key, fmt.Sprint(s.MinTXID), fmt.Sprint(s.MaxTXID), fmt.Sprint(s.Entries),
				size(s.Bytes), moment(s.From), moment(s.To), what}
		}
		rows = append(rows, row)
	}
	u.table("  ", []string{"object", ">from TXID", ">to TXID", ">entries", ">stored", "from", "to", "session"}, rows)
}

// writer says who writes now, as far as a replica can know.
func writer(s *replicate.SessionInfo) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s, session %s from TXID %d", owner(s.Owner), short(s.Session), s.TXID)
}

func owner(o *replicate.Owner) string {
	if o == nil {
		return "unknown"
	}
	return o.String()
}

// short is enough of an ID to tell it from others.
func short(id string) string { return id[:min(8, len(id))] }

// printable keeps control characters of foreign names off the terminal.
func printable(s string) string {
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}
