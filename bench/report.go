package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one figure.
type row struct {
	Case   string
	What   string
	Value  float64 // NaN: unknown
	Unit   string
	Goal   *goal
	Runs   []float64 // what Value is the median of
	Detail []string
	Load   [2]float64 // load average before and after
}

func (r row) MarshalJSON() ([]byte, error) {
	var value *float64
	if !math.IsNaN(r.Value) {
		value = &r.Value
	}
	return json.Marshal(struct {
		Case    string     `json:"case"`
		What    string     `json:"what"`
		Value   *float64   `json:"value"`
		Unit    string     `json:"unit"`
		Goal    *goal      `json:"goal,omitempty"`
		Verdict string     `json:"verdict,omitempty"`
		Runs    []float64  `json:"runs,omitempty"`
		Detail  []string   `json:"detail,omitempty"`
		Load    [2]float64 `json:"load"`
	}{r.Case, r.What, value, r.Unit, r.Goal, r.Goal.verdict(r.Value), r.Runs, r.Detail, r.Load})
}

// add notes a figure: the median of runs.
func (b *bench) add(r row) {
	if r.Runs != nil {
		r.Value = median(r.Runs)
	}
	if s := spread(r.Runs, r.Unit); s != "" {
		r.Detail = append([]string{s}, r.Detail...)
	}
	b.rows = append(b.rows, r)
}

// peaks are peak memories of processes that did the same with and without
// replication.
type peaks struct {
	what        string
	plain, with []float64 // bytes
}

// memoryGoal is how much more memory a process may need.
const memoryGoal = 64 << 20

func (b *bench) memory() {
	for _, p := range b.peaks {
		r := row{Case: "memory", What: p.what, Unit: "B", Goal: atMost(memoryGoal), Value: math.NaN()}
		plain, with := median(p.plain), median(p.with)
		if plain > 0 && with > 0 {
			r.Value = with - plain
			r.Detail = []string{fmt.Sprintf("peak %s, without replication %s", figure(with, "B"), figure(plain, "B"))}
		}
		r.Load = [2]float64{loadAverage(), loadAverage()}
		b.rows = append(b.rows, r)
	}
}

// result is all that a run found.
type result struct {
	Machine facts     `json:"machine"`
	Quick   bool      `json:"quick"`
	Runs    int       `json:"runs"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Rows    []row     `json:"rows"`
}

func (r result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r result) writeTable(w io.Writer) error {
	fmt.Fprintln(w, r.Machine)
	fmt.Fprintf(w, "%s, %s", r.Started.UTC().Format("2006-01-02 15:04 MST"), time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
	if r.Quick {
		fmt.Fprint(w, "; -quick: the figures mean little")
	}
	fmt.Fprint(w, "\n\n")
	// Two passes: tabwriter sees the figures alone, what explains them stands below.
	var lines strings.Builder
	t := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', 0)
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", row.What, row.Goal.text(row.Unit), figure(row.Value, row.Unit), row.Goal.verdict(row.Value))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	i, last := 0, ""
	for line := range strings.Lines(lines.String()) {
		row := r.Rows[i]
		i++
		if row.Case != last {
			fmt.Fprintf(w, "%s (load average %.1f, then %.1f)\n", row.Case, row.Load[0], row.Load[1])
			last = row.Case
		}
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(line, " \n"))
		for _, d := range row.Detail {
			fmt.Fprintf(w, "      %s\n", d)
		}
	}
	return nil
}

func (g *goal) text(unit string) string {
	switch {
	case g == nil:
		return "no goal"
	case g.AtLeast:
		return "goal ≥ " + figure(g.Value, unit)
	}
	return "goal ≤ " + figure(g.Value, unit)
}

// figure writes a value with its unit: "×" is a ratio, "s" and "B" choose their
// prefix, anything else stands behind the number.
func figure(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "unknown"
	case unit == "×":
		return fmt.Sprintf("%.2f", v)
	case unit == "B":
		return size(v)
	case unit == "s":
		return seconds(v)
	}
	return thousands(v) + " " + unit
}

func size(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1<<30:
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	case a >= 10<<20:
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	case a >= 1<<20:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case a >= 10<<10:
		return fmt.Sprintf("%.0f KiB", v/(1<<10))
	}
	return fmt.Sprintf("%.0f B", v)
}

func seconds(v float64) string {
	switch {
	case v >= 10:
		return fmt.Sprintf("%.1f s", v)
	case v >= 1:
		return fmt.Sprintf("%.2f s", v)
	case v >= 0.01:
		return fmt.Sprintf("%.0f ms", v*1e3)
	case v >= 0.001:
		return fmt.Sprintf("%.1f ms", v*1e3)
	}
	return fmt.Sprintf("%.0f µs", v*1e6)
}

// thousands groups digits.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		return "-" + s
	}
	return s
}
