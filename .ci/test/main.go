// Command test runs all tests of Outwash:
//
//	go run ./.ci/test             # everything
//	go run ./.ci/test -list       # the steps
//	go run ./.ci/test -step race  # one of them
//
// It needs Go, a C compiler (for the race detector and SQLite) and the Go module
// proxy, from which the tests build the S3 servers and the program with stock SQLite
// that they run against. It fails if a test fails, if one is skipped that is not in
// the list of this file, if one that must run did not, or if a package ran nothing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const module = "github.com/outwash/outwash/"

// step is one run of go test.
type step struct {
	name       string
	about      string
	args       []string
	dir        string // of another module
	onlyDriver bool   // of the packages only those that depend on the SQLite driver
	must       tests  // that have to pass
}

var native = []string{"-modfile=go35.mod", "-tags=driver35"}

var steps = []step{
	{
		name: "all", about: "everything, with driver v0.32 (SQLite run by wazero)",
		args: []string{"-timeout=9m", "./vfs", "./..."}, // the longest first, beside the others
		must: mustAll,
	},
	lives("schedules", 1000, 4500),
	lives("schedules2", 5500, 4500),
	{
		name: "driver35", about: "what depends on the driver, with v0.35 (SQLite translated to Go)",
		args: append(slices.Clone(native), "-timeout=9m", skip(notDriver35)), onlyDriver: true,
		must: mustDriver35,
	},
	{
		name: "race", about: "what is concurrent, under the race detector, with fewer rounds (-short)",
		args: []string{"-race", "-short", "-timeout=9m", skip(notRace), "./vfs", "./replicate", "./s3store", "./internal/capture", "./internal/local", "./internal/objstore/...", "./internal/segment"},
		must: mustRace,
	},
	{name: "bench", about: "the benchmarks' own tests", args: []string{"-timeout=5m", "./..."}, dir: "bench"},
}

// lives is a part of the ten thousand lives of a database. The steps of both drivers
// live the first thousand; the rest is with the one that costs less, and more side
// by side keep both cores busy. A process lives no more of them, because v0.35 of the
// driver keeps the memory map of every connection that could not be opened, and the
// system allows 65530 in all.
func lives(name string, seed, n int) step {
	return step{
		name: name, about: fmt.Sprintf("lives of a database, with crashes and losses of power, from %d on", seed),
		args: append(slices.Clone(native), "-timeout=9m", "-run=^TestSchedules$", "./vfs", fmt.Sprint("-seed=", seed), fmt.Sprint("-lives=", n), "-at-a-time=16"),
		must: tests{"vfs": "TestSchedules"},
	}
}

// allowed are the skips that are all right. The test must say why.
var allowed = []struct{ pkg, test, says, because string }{
	{"replicate", "TestReadOnlyDirectory", "root writes everywhere", "needs a user other than root"},
	{"internal/sidecar", "TestPython.*", "no python3 with sqlite3 here", "TestProgram is the same with the program that the tests build"},
}

// untested are packages without tests of their own: others test them.
var untested = map[string]string{
	"internal/testserver":         "versitygw and rclone are run by it",
	"internal/mirror":             "part of the tests of vfs",
	"internal/objstore/storetest": "is a test: objstore and s3store run it",
}

func main() {
	list := flag.Bool("list", false, "list the steps")
	only := flag.String("step", "", "run the `STEP`s named, separated by commas")
	verbose := flag.Bool("v", false, "print what tests log")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "test: unexpected argument", flag.Arg(0))
		os.Exit(2)
	}
	run := steps
	if *only != "" {
		run = nil
		for name := range strings.SplitSeq(*only, ",") {
			i := slices.IndexFunc(steps, func(s step) bool { return s.name == name })
			if i < 0 {
				fmt.Fprintf(os.Stderr, "test: no step %q: see -list\n", name)
				os.Exit(2)
			}
			run = append(run, steps[i])
		}
	}
	if *list {
		for _, s := range run {
			fmt.Printf("%-9s %s\n          go test %s\n", s.name, s.about, strings.Join(s.args, " "))
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		os.Exit(1)
	}
	var all []*result
	ok := true
	for _, s := range run {
		r := s.run(ctx, *verbose)
		all = append(all, r)
		ok = ok && len(r.problems) == 0
	}
	summary(all)
	if !ok {
		fmt.Println("\nFAILED")
		os.Exit(1)
	}
	fmt.Println("\nPASSED")
}

// root goes to the top of the repository.
func root(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	dir := filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(dir, "vfs", "api.go")); err != nil {
		return errors.New("run this inside the repository: go run ./.ci/test")
	}
	return os.Chdir(dir)
}

// event is a line of go test -json.
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
	Elapsed                                                float64
}

type result struct {
	step                    step
	packages                int
	passed, failed, skipped int
	took                    time.Duration
	problems                []string // why the step failed
	skips                   []string
}

func (r *result) problem(format string, a ...any) {
	p := fmt.Sprintf(format, a...)
	r.problems = append(r.problems, p)
	fmt.Println("   !!", p)
}

func (s step) run(ctx context.Context, verbose bool) *result {
	r := &result{step: s}
	begin := time.Now()
	defer func() { r.took = time.Since(begin) }()
	args := s.args
	if s.onlyDriver {
		pkgs, err := driverPackages(ctx)
		if err != nil {
			r.problem("%v", err)
			return r
		}
		args = append(append(slices.Clone(args), module+"vfs"), pkgs...) // the longest first
	}
	args = append([]string{"test", "-json", "-count=1"}, args...)
	fmt.Printf("\n== %s: %s\n   go %s\n", s.name, s.about, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.problem("%v", err)
		return r
	}
	c := &collector{r: r, verbose: verbose, logs: map[string][]string{}, ran: map[string]int{}, passed: map[string]bool{}}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Print("   ", line)
			continue
		}
		c.event(e)
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		r.problem("interrupted")
	case err != nil && len(r.problems) == 0:
		r.problem("go test: %v", err)
	case r.passed == 0:
		r.problem("no test ran")
	}
	for _, pkg := range slices.Sorted(maps.Keys(s.must)) {
		for test := range strings.FieldsSeq(s.must[pkg]) {
			if !c.passed[pkg+" "+test] {
				r.problem("%s %s has to pass in this step, and did not run or pass", pkg, test)
			}
		}
	}
	return r
}

// collector follows the events of a step.
type collector struct {
	r       *result
	verbose bool
	logs    map[string][]string // PACKAGE TEST: what it printed
	ran     map[string]int      // by package
	passed  map[string]bool     // PACKAGE TEST
}

func (c *collector) event(e event) {
	r, pkg := c.r, strings.TrimPrefix(e.Package, module)
	key := pkg + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print("   ", e.Output)
	case "output":
		c.logs[key] = append(c.logs[key], e.Output)
		if c.verbose {
			fmt.Print("   ", e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.packageEnds(pkg, e)
			return
		}
		log := strings.Join(c.logs[key], "")
		delete(c.logs, key)
		c.ran[pkg]++
		switch e.Action {
		case "pass":
			r.passed++
			c.passed[key] = true
		case "fail":
			r.failed++
			if !c.verbose {
				fmt.Print(indent(log))
			}
			r.problem("%s failed", key)
		case "skip":
			r.skipped++
			why, ok := allowedSkip(pkg, e.Test, log)
			r.skips = append(r.skips, fmt.Sprintf("%s: %s", key, why))
			if !ok {
				r.problem("%s was skipped, which .ci/test doesn't allow: %s", key, strings.Join(strings.Fields(log), " "))
			}
		}
	}
}

func (c *collector) packageEnds(pkg string, e event) {
	r := c.r
	_, known := untested[pkg]
	switch {
	case e.Action == "skip": // no test files
		if !known {
			r.problem("%s has no tests", pkg)
		}
		return
	case e.Action == "fail":
		// What no test claims: a panic, the time limit, a failed build.
		log := strings.Join(c.logs[pkg+" "], "")
		for key, l := range c.logs {
			if strings.HasPrefix(key, pkg+" ") && key != pkg+" " {
				log += "=== unfinished: " + key + "\n" + strings.Join(l, "")
			}
		}
		fmt.Print(indent(log))
		r.problem("package %s failed", pkg)
	case known:
		r.problem("%s has tests: take it out of the list of those that have none", pkg)
	case c.ran[pkg] == 0:
		r.problem("%s ran no test", pkg)
	}
	r.packages++
	fmt.Printf("   %-4s %-32s %5d tests %7.1f s\n", map[string]string{"pass": "ok", "fail": "FAIL"}[e.Action], pkg, c.ran[pkg], e.Elapsed)
}

func allowedSkip(pkg, test, log string) (because string, ok bool) {
	for _, a := range allowed {
		if a.pkg == pkg && regexp.MustCompile("^(?:"+a.test+")$").MatchString(test) && strings.Contains(log, a.says) {
			return a.says + " (allowed: " + a.because + ")", true
		}
	}
	return "NOT ALLOWED", false
}

// driverPackages are the packages whose tests depend on the SQLite driver.
func driverPackages(ctx context.Context) ([]string, error) {
	args := append([]string{"list", "-test", "-f", `{{if .ForTest}}{{.ForTest}}{{range .Deps}} {{.}}{{end}}{{end}}`}, native...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./...")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var pkgs []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) > 0 && slices.Contains(f, "github.com/ncruces/go-sqlite3") && !slices.Contains(pkgs, f[0]) {
			pkgs = append(pkgs, f[0])
		}
	}
	if len(pkgs) == 0 {
		return nil, errors.New("go list: no package depends on the driver")
	}
	slices.Sort(pkgs)
	return pkgs, nil
}

// indent shows what a test printed; of very much (race reports) the beginning and
// the end.
func indent(log string) string {
	const most = 80
	if log == "" {
		return ""
	}
	lines := strings.SplitAfter(log, "\n")
	if n := len(lines) - most; n > 0 {
		cut := fmt.Sprintf("… %d lines more: see -v\n", n)
		lines = slices.Concat(lines[:most/2], []string{cut}, lines[len(lines)-most/2:])
	}
	log = strings.Join(lines, "")
	return "   | " + strings.ReplaceAll(strings.TrimRight(log, "\n"), "\n", "\n   | ") + "\n"
}

func summary(all []*result) {
	fmt.Printf("\n%-10s %8s %8s %8s %8s %8s\n", "step", "packages", "passed", "failed", "skipped", "seconds")
	var total result
	for _, r := range all {
		fmt.Printf("%-10s %8d %8d %8d %8d %8.0f\n", r.step.name, r.packages, r.passed, r.failed, r.skipped, r.took.Seconds())
		total.packages += r.packages
		total.passed += r.passed
		total.failed += r.failed
		total.skipped += r.skipped
		total.took += r.took
	}
	fmt.Printf("%-10s %8d %8d %8d %8d %8.0f\n", "total", total.packages, total.passed, total.failed, total.skipped, total.took.Seconds())
	for _, title := range []string{"skipped", "problems"} {
		for _, r := range all {
			lines := r.skips
			if title == "problems" {
				lines = r.problems
			}
			for _, l := range lines {
				fmt.Printf("%s: [%s] %s\n", title, r.step.name, l)
			}
		}
	}
}
