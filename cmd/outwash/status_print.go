package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/shell"
	"github.com/outwash/outwash/replicate"
)

// print writes a line for each database, then what is to be said about some.
func (r *statusReport) print(u *ui) {
	rows := make([][]string, 0, len(r.Databases))
	for _, e := range r.Databases {
		rows = append(rows, e.row(r.Time))
	}
	u.table("", []string{"database", "state", ">TXID", ">lag", ">behind", ">waiting", "last upload", "by"}, rows)
	for _, e := range r.Databases {
		pairs, any := e.details(), false
		for i := 1; i < len(pairs); i += 2 {
			pairs[i] = clean(pairs[i])
			any = any || pairs[i] != ""
		}
		if !any {
			continue
		}
		u.printf("\n%s\n", clean(e.name()))
		u.fields("  ", pairs...)
	}
}

func (e *statusEntry) name() string { return cmp.Or(e.Database, e.Replica) }

// row is what the table has of a database.
func (e *statusEntry) row(now time.Time) []string {
	row := []string{clean(e.name()), clean(e.State), "", "", "", "", "", ""}
	switch s, l := e.Status, e.Local; {
	case s != nil:
		n := max(s.Captured, s.TXID) - s.TXID
		row[2], row[3], row[4] = fmt.Sprint(s.TXID), lag(s.LagSeconds, !s.AtLeast), behind(n, !s.AtLeast)
		if s.AtLeast && s.TXID == 0 {
			row[2] = "?"
		}
		row[5], row[6], row[7] = size(max(0, s.BacklogBytes)), ago(s.LastUpload, now), clean(process(e.Process.Owner))
		return row
	case e.Bucket != nil && e.Bucket.TXID > 0:
		row[2], row[6] = fmt.Sprint(e.Bucket.TXID), ago(e.Bucket.Time, now)
		if e.Bucket.Owner != nil {
			row[7] = clean(process(*e.Bucket.Owner))
		}
	case l != nil && l.TXID > 0:
		row[2] = fmt.Sprint(l.TXID)
	}
	if l := e.Local; l != nil && e.State != stateMissing {
		n := l.Spooled + uint64(l.Logged)
		row[3], row[4], row[5] = lag(l.LagSeconds, l.Complete), behind(n, l.Complete), size(l.SpooledBytes)
	}
	return row
}

// details are what is wrong, and what is known without a process.
func (e *statusEntry) details() []string {
	pairs := []string{"error", e.Error, "remedy", e.Remedy}
	if s := e.Status; s != nil {
		if s.FencedBy != nil {
			pairs = append(pairs, "fenced by", owner(s.FencedBy.Owner))
		}
		return append(pairs, "warning", s.Warning, "snapshots", s.History.Error)
	}
	if l := e.Local; l != nil && e.State != stateMissing {
		if e.State == stateSilent {
			pairs = append(pairs, "process", "one replicates it, and doesn't tell: vfs.Options.StatusSocket makes it")
		}
		if !errors.Is(e.err, errBehind) { // which has it
			pairs = append(pairs, "waiting", l.waiting())
		}
	}
	if b := e.Bucket; b != nil && b.TXID > 0 {
		pairs = append(pairs, "stored", fmt.Sprintf("up to TXID %d, committed %s", b.TXID, moment(b.Time)), "written by", owner(b.Owner),
			"snapshot", export(b.Snapshot), "page segment", export(b.PageSegment))
	} else if b != nil {
		pairs = append(pairs, "stored", "nothing yet")
	} else if l := e.Local; l != nil && l.TXID > 0 && e.Replica != "" {
		text := fmt.Sprintf("up to TXID %d, as far as this machine knows", l.TXID)
		if e.err == nil || errors.Is(e.err, errBehind) { // else it was asked, and the error is of that
			text += fmt.Sprintf(": \"outwash status %s\" asks the replica", shell.Quote(e.Replica))
		}
		pairs = append(pairs, "stored", text)
	}
	return pairs
}

// waiting says what is on this machine alone.
func (l *statusLocal) waiting() string {
	var parts []string
	if l.Spooled > 0 {
		parts = append(parts, plural(l.Spooled, "transaction", "transactions")+" in the spool")
	}
	if l.Logged > 0 {
		parts = append(parts, plural(l.Logged, "transaction", "transactions")+" in the write-ahead log")
	}
	text := strings.Join(parts, " and ")
	switch {
	case text == "" && !l.Complete && l.Why == "": // it wasn't looked
		return ""
	case l.Complete && text == "":
		return "nothing"
	case l.Complete:
		return text
	case text == "":
		return "not known: " + l.Why
	}
	return text + ", or more: " + l.Why
}

func export(x *replicate.ExportStatus) string {
	if x == nil {
		return ""
	}
	return fmt.Sprintf("up to TXID %d, written %s", x.TXID, moment(x.Time))
}

// process names who replicates, briefly.
func process(o replicate.Owner) string {
	return fmt.Sprintf("%s (pid %d on %s)", o.Program, o.PID, o.Host)
}

// lag formats how long something has been waiting; without all it may be longer.
func lag(s float64, all bool) string {
	switch {
	case s == 0 && !all:
		return "?"
	case s == 0:
		return "0 s"
	case !all:
		return seconds(s) + "+"
	}
	return seconds(s)
}

// behind counts what waits; without all there may be more.
func behind(n uint64, all bool) string {
	switch {
	case all:
		return count(n)
	case n == 0:
		return "?"
	}
	return count(n) + "+"
}

// ago formats a moment of the past by how long ago it was.
func ago(t, now time.Time) string {
	d := now.Sub(t).Round(time.Second)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	case d < 48*time.Hour:
		return d.String() + " ago"
	}
	return t.UTC().Format(time.DateOnly)
}

// clean keeps what other processes say to one line of some length, and off the
// terminal's controls.
func clean(s string) string {
	const most = 2000
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return oneLine(s)
}
