package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// TestStatusVerdicts: what scripts are told about each state.
func TestStatusVerdicts(t *testing.T) {
	const maxLag = time.Minute
	now := time.Now()
	for state, want := range map[replicate.State]int{
		replicate.StateOpening: codeOK, replicate.StateExporting: codeOK, replicate.StateReplicating: codeOK, replicate.StateClosed: codeOK,
		replicate.StateUnreachable: codeAccess, replicate.StateDenied: codeAccess,
		replicate.StateFenced: codeRefused, replicate.StateFailed: codeRefused,
		"of a later version": codeOK,
	} {
		for _, lag := range []float64{0, 59, 61} {
			e := &statusEntry{Status: &replicate.Status{State: state, LagSeconds: lag}}
			e.judge(now, maxLag)
			code := want
			if want == codeOK && lag > 60 {
				code = codeBehind
			}
			if got := codeOf(e.err); got != code || (e.Verdict == "ok") != (code == codeOK) {
				t.Errorf("%s, %v s: code %d, %q; expected %d", state, lag, got, e.Verdict, code)
			}
			if e.judge(now, 0); lag > 60 && want == codeOK && e.err != nil {
				t.Errorf("%s without a limit: %v", state, e.err)
			}
		}
	}
	for since, want := range map[time.Duration]int{59 * time.Second: codeOK, 61 * time.Second: codeBehind} {
		for state, begins := range map[replicate.State]bool{replicate.StateOpening: true, replicate.StateExporting: true, replicate.StateReplicating: false} {
			e := &statusEntry{Status: &replicate.Status{State: state, StateSince: now.Add(-since)}}
			if e.judge(now, maxLag); begins && codeOf(e.err) != want || !begins && e.err != nil {
				t.Errorf("%s for %s: %v", state, since, e.err)
			}
		}
	}
	for name, tt := range map[string]struct {
		local statusLocal
		code  int
	}{
		"stored":           {statusLocal{Complete: true}, codeOK},
		"waits shortly":    {statusLocal{Complete: true, Logged: 1, LagSeconds: 3}, codeOK},
		"waits":            {statusLocal{Complete: true, Logged: 1, LagSeconds: 61}, codeBehind},
		"not known":        {statusLocal{Why: "w"}, codeBehind},
		"not all known":    {statusLocal{Why: "w", Spooled: 3}, codeBehind},
		"in use":           {statusLocal{Why: "w", InUse: true}, codeOK},
		"in use, and late": {statusLocal{Why: "w", InUse: true, LagSeconds: 61}, codeBehind},
	} {
		e := &statusEntry{Local: &tt.local}
		if e.judge(now, maxLag); codeOf(e.err) != tt.code {
			t.Errorf("%s: %v", name, e.err)
		}
	}
	// What has to be seen to first decides the exit code.
	var r statusReport
	for _, err := range []error{nil, errNoDatabase, errBehind, replicate.ErrDenied, errRefused, errBehind} {
		r.Databases = append(r.Databases, &statusEntry{err: err})
	}
	for _, want := range []error{errRefused, replicate.ErrDenied, errBehind, errNoDatabase, nil} {
		if got := r.worst(nil); got != want {
			t.Errorf("%v, expected %v", got, want)
		}
		r.Databases = slices.DeleteFunc(r.Databases, func(e *statusEntry) bool { return e.err != nil && e.err == want })
	}
}

// TestStatusOtherLines: what a start would refuse is said, what it would compare is not
// called stored.
func TestStatusOtherLines(t *testing.T) {
	mine, theirs, database := segment.ID{1}, segment.ID{2}, segment.ID{9}
	lineage := func(change func(*local.Lineage)) *local.Lineage {
		l := &local.Lineage{Database: database, Sessions: []segment.ID{mine}, File: "f", Noted: local.Position{TXID: 7, Session: mine, File: "f"}}
		change(l)
		return l
	}
	end := func(txid uint64, session segment.ID) *replicate.End {
		return &replicate.End{TXID: txid, Tail: replicate.Tail{TXID: txid, Session: session, Database: database}}
	}
	same := func(*local.Lineage) {}
	for name, tt := range map[string]struct {
		l       *local.Lineage
		end     *replicate.End
		file    string
		unknown bool
		refused string
	}{
		"ours":           {lineage(same), end(7, mine), "f", false, ""},
		"ours, further":  {lineage(same), end(9, mine), "f", false, ""},
		"other writer":   {lineage(same), end(8, theirs), "f", false, "another writer"},
		"objects gone":   {lineage(same), end(6, mine), "f", false, "objects were deleted"},
		"other replica":  {lineage(func(l *local.Lineage) { l.Database = segment.ID{8} }), end(7, mine), "f", false, "another replica"},
		"never":          {&local.Lineage{}, end(7, theirs), "f", true, ""},
		"other file":     {lineage(same), end(8, theirs), "g", true, ""},
		"restored":       {lineage(func(l *local.Lineage) { l.File = "g" }), end(8, theirs), "g", true, ""},
		"identity: none": {lineage(same), end(7, mine), "", false, ""},
	} {
		unknown, err := sameLine(tt.l, tt.end, tt.file)
		if (unknown != "") != tt.unknown || (err != nil) != (tt.refused != "") || err != nil && (!errors.Is(err, errRefused) || !strings.Contains(err.Error(), tt.refused)) {
			t.Errorf("%s: %q, %v", name, unknown, err)
		}
	}
}

func TestStatusWaiting(t *testing.T) {
	now := time.Unix(1000, 0)
	var l statusLocal
	l.tell(capture.Peeked{
		Spooled: []local.Record{
			{Entry: &segment.Entry{Count: 1, FirstRaw: 900e6, Blocks: []segment.Block{{Stored: 10}, {Stored: 5}}}},
			{Entry: &segment.Entry{Count: 3, FirstRaw: 950e6}},
		},
		Commits: 2, Logged: time.Unix(990, 0), Why: "of the moon",
	}, now)
	if l.Spooled != 4 || l.SpooledBytes != 15 || l.Logged != 2 || l.LagSeconds != 100 {
		t.Errorf("%+v", l)
	}
	if got := l.waiting(); got != "4 transactions in the spool and 2 transactions in the write-ahead log, or more: of the moon" {
		t.Error(got)
	}
}

// A process that lies can't write to the terminal, nor be taken for nothing.
func TestStatusHostileProcess(t *testing.T) {
	t.Setenv(status.Env, filepath.Join(t.TempDir(), "sockets"))
	t.Setenv("OUTWASH_CONFIG", "")
	dir := status.Dir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	answer := func(name, text string) {
		l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte(text))
				c.Close()
			}
		}()
	}
	evil := "\x1b[31m" + strings.Repeat("evil", 10_000) + "\nsecond line"
	doc, err := json.Marshal(status.Report{Version: status.Version, Owner: replicate.Owner{Program: evil, Host: evil}, Databases: []replicate.Status{
		{Database: evil, Replica: evil, State: replicate.State(evil), Error: evil, Remedy: evil, Warning: evil, TXID: 7, Captured: 3, BacklogBytes: -1,
			LagSeconds: 1e300, FencedBy: &replicate.Fencer{}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	answer("evil", string(doc))
	answer("other", "SSH-2.0\r\n")
	code, out, errOut := cli("status")
	if code != codeFailed || strings.ContainsAny(out+errOut, "\x1b\r") || strings.Contains(out, "\nsecond") || !strings.Contains(errOut, "not a status report") {
		t.Errorf("%d\n%.3000s\n%s", code, out, errOut)
	}
	for line := range strings.Lines(out) {
		if len(line) > 20_000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	code, out, _ = cli("status", "-json")
	var r statusReport
	if err := json.Unmarshal([]byte(out), &r); code != codeFailed || err != nil || len(r.Databases) != 1 {
		t.Errorf("%d, %v", code, err)
	}
}

func TestStatusPrint(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := statusReport{Time: now, Databases: []*statusEntry{
		{Database: "/a", State: "fenced", Error: "e1", Remedy: "r1", Process: &statusProcess{Owner: replicate.Owner{Host: "h", PID: 7, Program: "p"}},
			Status: &replicate.Status{TXID: 10, Captured: 13, LagSeconds: 61, BacklogBytes: 2048, LastUpload: now.Add(-time.Hour)}},
		{Database: "/b", State: stateStopped, Local: &statusLocal{Logged: 2, LagSeconds: 2, TXID: 4, Why: "w"}, err: fmt.Errorf("x: %w", errBehind)},
	}}
	var out bytes.Buffer
	r.print(&ui{out: &out})
	want := `database  state    TXID      lag  behind  waiting  last upload  by
/a        fenced     10     1m1s       3   2.0 kB  1h0m0s ago   p (pid 7 on h)
/b        stopped     4  2.00 s+      2+      0 B

/a
  error   e1
  remedy  r1
`
	if out.String() != want {
		t.Errorf("printed is\n%s", out.String())
	}
}

// TestStatusPrintUnknown: after a restart in an outage nothing is said to be stored of
// which that isn't known.
func TestStatusPrintUnknown(t *testing.T) {
	row := func(s replicate.Status) string {
		e := statusEntry{Database: "/a", State: string(s.State), Process: &statusProcess{}, Status: &s}
		return strings.Join(e.row(time.Time{})[2:5], " ")
	}
	for _, c := range []struct {
		s    replicate.Status
		want string
	}{
		{replicate.Status{AtLeast: true}, "? ? ?"},
		{replicate.Status{AtLeast: true, TXID: 7, Captured: 7}, "7 ? ?"},
		{replicate.Status{AtLeast: true, TXID: 7, Captured: 9, LagSeconds: 61}, "7 1m1s+ 2+"},
		{replicate.Status{TXID: 7, Captured: 9, LagSeconds: 61}, "7 1m1s 2"},
		{replicate.Status{}, "0 0 s 0"},
	} {
		if got := row(c.s); got != c.want {
			t.Errorf("%+v: %q, expected %q", c.s, got, c.want)
		}
	}
}

// TestStatusForeign: what another user replicates is not said to be stopped.
func TestStatusForeign(t *testing.T) {
	e := &statusEntry{State: stateStopped}
	err := e.notSeen(fmt.Errorf("local: lock: %w", fs.ErrPermission))
	if e.State != stateUnknown || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "as root") {
		t.Errorf("%s: %v", e.State, err)
	}
}
