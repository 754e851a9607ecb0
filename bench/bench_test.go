package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

// TestMain lets the test's own program be the child, too.
func TestMain(m *testing.M) {
	setupDriver()
	if os.Getenv(childEnv) != "" {
		if err := serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{nil, math.NaN()},
	} {
		if got := median(c.in); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
	in := []float64{2, 1}
	median(in)
	if in[0] != 2 {
		t.Error("median reorders what it is given")
	}
}

func TestPercentile(t *testing.T) {
	var v []int
	for i := range 100 {
		v = append(v, 100-i)
	}
	for p, want := range map[float64]int{0: 1, 1: 1, 50: 50, 99: 99, 99.5: 100, 100: 100} {
		if got := percentile(v, p); got != want {
			t.Errorf("percentile %v is %d, want %d", p, got, want)
		}
	}
	if got := percentile[float64](nil, 50); got != 0 {
		t.Errorf("percentile of nothing is %v", got)
	}
	if got := percentile([]float64{7}, 99); got != 7 {
		t.Errorf("p99 of one value is %v", got)
	}
}

// A ratio is the median of the pairs' ratios, not the ratio of medians: a pair
// that ran while the machine was busy counts as one pair.
func TestRatioOfPairs(t *testing.T) {
	plain, with := []float64{100, 10, 100}, []float64{90, 9, 40}
	if got := median(ratios(with, plain)); got != 0.9 {
		t.Errorf("ratio %v, want 0.9", got)
	}
	if got := len(ratios(with[:1], plain)); got != 1 {
		t.Errorf("%d ratios of one pair", got)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		goal *goal
		v    float64
		want string
	}{
		{atLeast(0.85), 0.85, "meets"},
		{atLeast(0.85), 0.8499, "misses"},
		{atMost(250), 250, "meets"},
		{atMost(250), 251, "misses"},
		{atMost(250), math.NaN(), ""},
		{nil, 1, ""},
	} {
		if got := c.goal.verdict(c.v); got != c.want {
			t.Errorf("%v against %v: %q, want %q", c.v, c.goal, got, c.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.854, "×", "0.85"},
		{181.7, "B", "182 B"},
		{64 << 20, "B", "64 MiB"},
		{-3 << 20, "B", "-3.0 MiB"},
		{1.5, "s", "1.50 s"},
		{0.0123, "s", "12 ms"},
		{0.000042, "s", "42 µs"},
		{1234567, "a second", "1,234,567 a second"},
		{math.NaN(), "B", "unknown"},
	} {
		if got := figure(c.v, c.unit); got != c.want {
			t.Errorf("figure(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	b := &bench{}
	b.add(row{Case: "commits", What: "NORMAL", Unit: "×", Goal: atLeast(0.85), Runs: []float64{0.7, 0.9, 0.8}, Detail: []string{"why"}})
	b.add(row{Case: "lag", What: "median", Unit: "s", Value: 0.5})
	b.peaks = []peaks{{"commits", []float64{30 << 20}, []float64{100 << 20}}, {"elsewhere", []float64{0}, []float64{0}}}
	b.memory()
	r := result{Machine: facts{OS: "linux/amd64", Cores: 2}, Rows: b.rows}
	var table bytes.Buffer
	if err := r.writeTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"NORMAL     goal ≥ 0.85    0.80     misses\n      0.70 to 0.90 in 3 pairs\n      why\n",
		"median     no goal        500 ms\n",
		"commits    goal ≤ 64 MiB  70 MiB   misses\n      peak 100 MiB, without replication 30 MiB\n",
		"elsewhere  goal ≤ 64 MiB  unknown\n",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	var out bytes.Buffer
	if err := r.writeJSON(&out); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Rows []struct {
			Value   *float64
			Verdict string
			Runs    []float64
		}
	}
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if v := back.Rows[0]; *v.Value != 0.8 || v.Verdict != "misses" || len(v.Runs) != 3 {
		t.Errorf("JSON has %+v", v)
	}
	if back.Rows[3].Value != nil {
		t.Error("an unknown figure has a value")
	}
}

func TestLags(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	s := &timedStore{acks: []ack{{10, at(100), 1, 0}, {12, at(200), 2, 0}, {15, at(300), 4, 0}}}
	// TXIDs 11 to 15: 11 is in the first upload, 12 to 14 in the second.
	lags, uploads, n, err := s.lags(10, []time.Time{at(90), at(110), at(120), at(190), at(210)})
	if err != nil {
		t.Fatal(err)
	}
	want := []float64{0.010, 0.090, 0.080, 0.010, 0.090}
	for i := range want {
		if math.Abs(lags[i]-want[i]) > 1e-9 {
			t.Errorf("transaction %d: lag %v, want %v", i, lags[i], want[i])
		}
	}
	if uploads != 3 || n != 7 {
		t.Errorf("%d uploads, %d bytes", uploads, n)
	}
	if _, _, _, err := s.lags(5, []time.Time{at(0)}); err == nil {
		t.Error("an upload is missing and nobody says so")
	}
}

func TestWorkloadIsTheSameEachTime(t *testing.T) {
	a, b := newText(1), newText(1)
	names := map[string]bool{}
	for i := range 2000 {
		n := a.name(i)
		if n != b.name(i) || a.summary() != b.summary() || a.updated() != b.updated() {
			t.Fatal("rows differ")
		}
		if names[n] {
			t.Fatalf("name %s comes twice", n)
		}
		names[n] = true
	}
}

func TestOnly(t *testing.T) {
	want, err := parseOnly("lag,memory")
	if err != nil {
		t.Fatal(err)
	}
	if !want("lag") || !want("memory") || want("bytes") {
		t.Error("not what was asked for")
	}
	if _, err := parseOnly("lags"); err == nil {
		t.Error("an unknown name is taken")
	}
	if err := run(t.Context(), []string{"-only", "x"}, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
		t.Error("an unknown name is taken")
	}
}

// Everything runs once, on very little. What comes out is checked for being
// there and right, not for being fast.
func TestAllMeasurements(t *testing.T) {
	dir := t.TempDir()
	b := &bench{
		sizes: sizes{
			warm: time.Millisecond, measure: 20 * time.Millisecond, rows: 2000, transactions: 60, rate: 500,
			lagFor: 200 * time.Millisecond, lagRate: 50, database: 2 << 20,
			behind: 50, small: 20, history: time.Second, huge: 4 << 20,
		},
		dir: dir, runs: 1, profile: filepath.Join(dir, "profile"),
		say: func(string, ...any) {},
	}
	if err := os.Mkdir(b.profile, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range measurements {
		if m.name == "sidecar" { // builds Litestream, which takes minutes: see TestSidecarLag
			continue
		}
		n := len(b.rows)
		if err := m.run(t.Context(), b); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		if len(b.rows) == n {
			t.Errorf("%s has no figures", m.name)
		}
	}
	b.memory()
	for _, r := range b.rows {
		// A lag is negative where the store has a commit before its program hears of it.
		if r.Case != "memory" && !(r.Value > 0) && !(r.Case == "lag" && r.Value < 0) {
			t.Errorf("%s, %s: %v", r.Case, r.What, r.Value)
		}
		for _, d := range r.Detail {
			if strings.HasPrefix(d, "the replica has") {
				t.Errorf("%s: %s", r.What, d)
			}
		}
	}
	if n, err := filepath.Glob(filepath.Join(b.profile, "*-cpu.pprof")); err != nil || len(n) == 0 {
		t.Error("no profiles", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "run-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestSidecarLag: our side of the measurement that has Litestream beside it.
func TestSidecarLag(t *testing.T) {
	dir := t.TempDir()
	b := &bench{dir: dir, runs: 1, say: func(string, ...any) {}}
	got, err := sidecarLagTask(t.Context(), b, sidecarLagArgs{
		Database: filepath.Join(dir, "a.db"), Replica: b.replica("file", dir, "lag"), MaxLag: replicate.AsFast, For: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	// How long they are is nothing to test: on a busy machine the object is there before
	// the program hears of its commit.
	if n := len(got.Result.Lags); n != sidecarRate || slices.Contains(got.Result.Lags, 0) || len(got.Result.Uploads) == 0 {
		t.Errorf("%d commits: %v", n, got.Result)
	}
}

func TestChildErrors(t *testing.T) {
	b := &bench{sizes: quick, dir: t.TempDir(), runs: 1, say: func(string, ...any) {}}
	if _, err := commitsTask(t.Context(), b, commitsArgs{target: target{Database: filepath.Join(b.dir, "no", "such.db")}}); err == nil {
		t.Error("a child's failure goes unnoticed")
	}
	if err := serve(t.Context(), strings.NewReader(`{"task":"unknown"}`), &bytes.Buffer{}); err == nil {
		t.Error("an unknown task is taken")
	}
}
