package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outwash/outwash/replicate"
)

// full is a status in which everything is set, so that every metric has a value.
func full(path string) replicate.Status {
	at := time.Unix(1_700_000_000, 500_000_000)
	s := replicate.Status{
		Database: path, Replica: "s3://bucket/app", State: replicate.StateReplicating, StateSince: at,
		TXID: 40, Captured: 42, Backlog: 2, BacklogBytes: 700, Spooled: 1, LagSeconds: 1.5, LastUpload: at,
		History: replicate.HistoryStatus{Snapshot: &replicate.ExportStatus{TXID: 30, Time: at}, Error: "no"},
	}
	s.Figures = replicate.Figures{
		Commits: 39, Entries: replicate.EntryFigures{Transactions: 30, Merges: 3, Repairs: 1, Adopts: 1, Claims: 2},
		Retries: 4, Restores: 1, Fences: 1, Snapshots: 1, PageSegments: 5, Deleted: 7, DeletedBytes: 7000,
	}
	s.Figures.Store.Create = replicate.OperationFigures{Count: 3, Errors: 1, Sent: 900, Seconds: 0.25}
	s.Figures.Store.Create.Latency[0] = 2
	s.Figures.Store.Create.Latency[5] = 1
	s.Figures.Store.Get = replicate.OperationFigures{Count: 1, Received: 5, Seconds: 90}
	s.Figures.Store.Get.Latency[13] = 1
	return s
}

func gather(t *testing.T, c prometheus.Collector) (text string) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "database" && l.GetName() != "replica" && l.GetName() != "goversion" && l.GetName() != "version" {
					labels = append(labels, l.GetValue())
				}
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			fmt.Fprintf(&b, "%s %s %v", f.GetName(), strings.Join(labels, ","), v)
			if h := m.GetHistogram(); h != nil {
				fmt.Fprintf(&b, " %d in %v s:", h.GetSampleCount(), h.GetSampleSum())
				for _, k := range h.GetBucket() {
					fmt.Fprintf(&b, " %d", k.GetCumulativeCount())
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestCollector(t *testing.T) {
	c := NewCollector(func() []replicate.Status { return []replicate.Status{full("/app.db")} })
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	text := gather(t, c)
	for _, want := range []string{
		"outwash_lag_seconds  1.5", "outwash_acknowledged_txid  40", "outwash_captured_txid  42", "outwash_backlog_entries  2",
		"outwash_backlog_bytes  700", "outwash_spooled_entries  1", "outwash_last_upload_timestamp_seconds  1.7000000005e+09",
		"outwash_state replicating 1", "outwash_state fenced 0", "outwash_state denied 0", "outwash_history_error  1", "outwash_retention_error  0",
		"outwash_commits_total  39", "outwash_entries_total repair 1", "outwash_exports_total pages 5",
		"outwash_store_operations_total create 3", "outwash_store_errors_total create 1", "outwash_store_sent_bytes_total create 900",
		"outwash_store_received_bytes_total get 5", "outwash_databases  1", "outwash_build_info  1",
		"outwash_store_operation_duration_seconds create 0 3 in 0.25 s: 2 2 2 2 2 3 3 3 3 3 3 3 3",
		"outwash_store_operation_duration_seconds get 0 1 in 90 s: 0 0 0 0 0 0 0 0 0 0 0 0 0",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	// What Describe promises is all there.
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	for d := range ch {
		name := strings.Split(d.String(), `"`)[1]
		if !strings.Contains(text, name+" ") {
			t.Errorf("%s has no value", name)
		}
	}
}

// A database that has done nothing yet has gauges, and no times that were never.
func TestCollectorNew(t *testing.T) {
	c := NewCollector(func() []replicate.Status { return []replicate.Status{{Database: "/app.db", State: "resting"}} })
	text := gather(t, c)
	if strings.Contains(text, "timestamp") || strings.Contains(text, "store_") {
		t.Error(text)
	}
	if !strings.Contains(text, "outwash_state resting 1\n") || !strings.Contains(text, "outwash_state opening 0\n") {
		t.Error("an unknown state is not told:", text)
	}
}

// A scrape doesn't fail whatever the paths are, and whatever the list has twice.
// What isn't known is missing: 0 would mean that everything is stored.
func TestCollectorUnknown(t *testing.T) {
	for _, c := range []struct {
		s                    replicate.Status
		hasLag, acknowledged bool
	}{
		{replicate.Status{State: replicate.StateUnreachable, AtLeast: true}, false, false},
		{replicate.Status{State: replicate.StateUnreachable, AtLeast: true, TXID: 4, Captured: 4}, false, true},
		{replicate.Status{State: replicate.StateUnreachable, AtLeast: true, TXID: 4, Captured: 6, LagSeconds: 3}, true, true},
		{replicate.Status{State: replicate.StateUnreachable, TXID: 4}, true, true},
		{replicate.Status{State: replicate.StateReplicating}, true, true},
	} {
		c.s.Database = "/app.db"
		got := gather(t, NewCollector(func() []replicate.Status { return []replicate.Status{c.s} }))
		if strings.Contains(got, "outwash_lag_seconds") != c.hasLag || strings.Contains(got, "outwash_acknowledged_txid") != c.acknowledged ||
			strings.Contains(got, "outwash_captured_txid") != c.acknowledged {
			t.Errorf("%+v:\n%s", c.s, got)
		}
	}
}

func TestCollectorOdd(t *testing.T) {
	list := []replicate.Status{full("/\xff.db"), full("/a\"b\\c\n.db"), full("/app.db"), full("/app.db")}
	list[3].TXID = 99
	c := NewCollector(func() []replicate.Status { return list })
	if text := gather(t, c); !strings.Contains(text, "outwash_acknowledged_txid  99\n") || !strings.Contains(text, "outwash_databases  3\n") {
		t.Error(text)
	}
	if text := gather(t, NewCollector(func() []replicate.Status { return nil })); !strings.Contains(text, "outwash_databases  0\n") {
		t.Error(text)
	}
}

// The histogram, which is of all databases, never falls: not when one goes, nor when
// one begins anew.
func TestLatenciesOnlyGrow(t *testing.T) {
	var list []replicate.Status
	c := NewCollector(func() []replicate.Status { return list })
	count := func() (n int) {
		t.Helper()
		for line := range strings.Lines(gather(t, c)) {
			if rest, ok := strings.CutPrefix(line, "outwash_store_operation_duration_seconds create 0 "); ok {
				if _, err := fmt.Sscan(rest, &n); err != nil {
					t.Fatal(err)
				}
			}
		}
		return n
	}
	s := func(path string, n uint64) (s replicate.Status) {
		s.Database = path
		s.Figures.Store.Create = replicate.OperationFigures{Count: n, Seconds: float64(n) / 8}
		s.Figures.Store.Create.Latency[3] = n
		return s
	}
	for i, step := range []struct {
		list []replicate.Status
		want int
	}{
		{[]replicate.Status{s("a", 10)}, 10},
		{[]replicate.Status{s("a", 10), s("b", 5)}, 15},
		{[]replicate.Status{s("a", 12), s("b", 5)}, 17},
		{[]replicate.Status{s("b", 6)}, 18},            // a is gone
		{[]replicate.Status{s("a", 3), s("b", 6)}, 21}, // … and begins anew
		{[]replicate.Status{s("a", 3), s("b", 1)}, 22}, // b was opened anew
		{nil, 22},
	} {
		list = slices.Clone(step.list)
		if n := count(); n != step.want {
			t.Errorf("step %d: %d, not %d", i, n, step.want)
		}
	}
}
