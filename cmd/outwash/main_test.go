package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/outwash/outwash/internal/versitygw"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"outwash": main, "app": appMain, "talk": talkMain, "stock": stockMain})
}

// TestScript runs the command line as people do. Besides outwash the scripts in
// testdata/script have:
//
//	replica DIR [VARIANT]    make the replica of replicaBuilder in DIR
//	sql FILE STATEMENT       run SQL with the plain driver, print the rows
//	set FILE OFFSET BYTE…    change bytes (hex); a negative offset counts from the end
//	cut FILE SIZE            truncate a file
//	age DIR DURATION         make the files in a directory older
//	exits CODE ARG…          run outwash; it must exit with CODE
//	exec app …               see appMain
//	exec stock DB SQL…       see stockMain
//	await FILE               wait until it exists
//	collated FILE            make a large database with a collation of its application
//	host VARIABLE            this machine's name
func TestScript(t *testing.T) { runScripts(t, "testdata/script", stock(t)) }

// TestS3 does the same with a replica in S3; the scripts find its URL, and those
// of objects and of what doesn't exist, in their environment.
func TestS3(t *testing.T) {
	server := versitygw.Start(t)
	runScripts(t, "testdata/s3", append(server.Env(), stock(t),
		"URL="+server.URL("demo")+"&region=us-east-1&force-path-style=true",
		"LOG1="+server.URL("demo/log/0000000000000001"),
		"LOG0="+server.URL("demo/log/0000000000ffffff"),
		"NOWHERE="+server.URL("nowhere"),
		"BUCKET="+server.Bucket, "ENDPOINT="+server.Endpoint,
		"SIDECAR="+server.URL("sidecar/three")+"&region=us-east-1&force-path-style=true",
		"CONFIGURED="+server.URL("configured")+"&region=us-east-1&force-path-style=true",
		"NOBUCKET=s3://nobucket/demo?endpoint="+server.Endpoint,
	)...)
}

func runScripts(t *testing.T, dir string, env ...string) {
	cache := filepath.Join(t.TempDir(), "cache")
	setupDriver()
	// SQLite is compiled once for all, and before: a slow machine may take as long for it
	// as replicate gives what is left at its end.
	place{env: []string{"XDG_CACHE_HOME=" + cache}}.must(t, "app", filepath.Join(t.TempDir(), "app.db"), "file://"+filepath.Join(t.TempDir(), "r"), "CREATE TABLE t(n)")
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "XDG_CACHE_HOME="+cache, "AWS_EC2_METADATA_DISABLED=true")
			e.Vars = append(e.Vars, "OUTWASH_SOCKET_DIR="+filepath.Join(e.WorkDir, "run")) // not this machine's
			e.Vars = append(e.Vars, env...)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"replica":  cmdReplica,
			"sql":      cmdSQL,
			"set":      cmdSet,
			"cut":      cmdCut,
			"exits":    cmdExits,
			"await":    cmdAwait,
			"collated": cmdCollated,
			"host":     cmdHost,
			"age":      cmdAge,
		},
	})
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdReplica(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 1 || len(args) == 2), "replica DIR [VARIANT]")
	ts.Check(buildReplica(ts.MkAbs(args[0]), append(args, "")[1]))
}

func cmdSQL(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "sql FILE STATEMENT")
	db, err := sqlite3.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	out, err := queryText(db, args[1])
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), out)
}

func cmdSet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 3, "set FILE OFFSET BYTE…")
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	off, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	if off < 0 {
		st, err := f.Stat()
		ts.Check(err)
		off += st.Size()
	}
	for i, hex := range args[2:] {
		v, err := strconv.ParseUint(hex, 16, 8)
		ts.Check(err)
		_, err = f.WriteAt([]byte{byte(v)}, off+int64(i))
		ts.Check(err)
	}
}

func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "cut FILE SIZE")
	n, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// cmdAge makes all files in a directory older.
func cmdAge(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "age DIR DURATION")
	d, err := time.ParseDuration(args[1])
	ts.Check(err)
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		then := info.ModTime().Add(-d)
		return os.Chtimes(path, then, then)
	}))
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 1, "exits CODE ARG…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("outwash", args[1:]...)
	got := 0
	if err != nil {
		exit, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("outwash %s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("outwash %s: exit code %d, expected %d", strings.Join(args[1:], " "), got, want)
	}
	// A program of -exec has codes of its own.
	if v, err := findVerb(append(args[1:], "")[0]); err == nil && got != codeOK && !slices.Contains(v.codes, got) && !slices.Contains(args, "-exec") {
		ts.Fatalf("outwash %s: exit code %d is not in \"outwash help %s\"", strings.Join(args[1:], " "), got, v.name)
	}
}

// TestHelpIsComplete asserts that the help names every verb, flag and exit code.
func TestHelpIsComplete(t *testing.T) {
	all := overview()
	for _, v := range verbs() {
		if v.hidden {
			if strings.Contains(all, v.name) {
				t.Errorf("the help names %s, which is hidden", v.name)
			}
			continue
		}
		if !strings.Contains(all, "\n  "+v.name+" ") {
			t.Errorf("the help doesn't list %s", v.name)
		}
		help := verbHelp(v)
		if !strings.Contains(help, "Examples:\n  outwash "+v.name) {
			t.Errorf("the help of %s has no example", v.name)
		}
		for _, line := range strings.Split(help, "\n") {
			if len(line) > 118 {
				t.Errorf("the help of %s has a line of %d bytes: %s", v.name, len(line), line)
			}
		}
		for _, code := range v.codes {
			if !strings.Contains(help, fmt.Sprintf("\n  %3d  ", code)) {
				t.Errorf("the help of %s doesn't list exit code %d", v.name, code)
			}
		}
	}
	seen := map[int]bool{}
	for _, c := range exitCodes {
		if seen[c.code] {
			t.Errorf("exit code %d twice", c.code)
		}
		seen[c.code] = true
		if !strings.Contains(all, fmt.Sprintf("\n  %3d  %s\n", c.code, c.meaning)) {
			t.Errorf("the help doesn't list exit code %d", c.code)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range exitCodes {
		for _, err := range c.errs {
			if got := codeOf(fmt.Errorf("wrapped: %w", err)); got != c.code {
				t.Errorf("%v: exit code %d, expected %d", err, got, c.code)
			}
		}
	}
	// An object is missing that others say exists.
	missing := fmt.Errorf("%w: %w", exitCodes[5].errs[0], os.ErrNotExist)
	if got := codeOf(missing); got != codeCorrupt {
		t.Errorf("%v: exit code %d", missing, got)
	}
	if got := codeOf(context.DeadlineExceeded); got != codeAccess {
		t.Errorf("deadline: exit code %d", got)
	}
}

func TestFormatting(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 12345: "12 kB", 999_600: "1.0 MB", 5_400_000_000: "5.4 GB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, expected %q", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, expected %q", n, got, want)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	var back timeValue
	if err := back.Set(moment(at)); err != nil || !back.Equal(at) {
		t.Errorf("%s is read as %v, %v", moment(at), back, err)
	}
}

func TestTXIDFlag(t *testing.T) {
	for in, want := range map[string]uint64{"1": 1, "4711": 4711, "0x1f4": 500, "0X00000000000001F4": 500, "0": 0, "-1": 0, "00000000000001f4": 0, "0000000000000010": 0, "9223372036854775808": 0, "": 0} {
		var v txidValue
		if err := v.Set(in); (err == nil) != (want != 0) || uint64(v) != want {
			t.Errorf("-txid %q is %d, %v; expected %d", in, v, err, want)
		}
	}
}

func TestSplitObjectURL(t *testing.T) {
	for in, want := range map[string][2]string{
		"s3://b/app/log/00000000000001f4?region=x":          {"s3://b/app?region=x", "log/00000000000001f4"},
		"s3://b/log/00000000000001f4":                       {"s3://b", "log/00000000000001f4"},
		"s3://b/app/outwash":                                {"s3://b/app", "outwash"},
		"s3://arn:aws:s3:eu-1:1:accesspoint/ap/app/outwash": {"s3://arn:aws:s3:eu-1:1:accesspoint/ap/app", "outwash"},
		"file:///outwash":                                   {"file:///", "outwash"},
		"file:///r/other/thing":                             {"file:///r/other", "thing"},
		"s3://b":                                            {},
		"s3://b/":                                           {},
	} {
		store, key, err := splitObjectURL(in)
		if (err == nil) != (want[0] != "") || store != want[0] || key != want[1] {
			t.Errorf("%s: %q, %q, %v; expected %q", in, store, key, err, want)
		}
	}
}
