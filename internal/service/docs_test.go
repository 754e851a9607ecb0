package service

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// metricsThereAre returns the names of all metrics that the server has, for a database
// in which everything has happened.
func metricsThereAre(t *testing.T) map[string]bool {
	t.Helper()
	at := time.Unix(1_700_000_000, 0)
	s := replicate.Status{Database: "/app.db", Replica: "s3://b/app", State: replicate.StateReplicating, StateSince: at, LastUpload: at}
	s.History.Snapshot = &replicate.ExportStatus{TXID: 1, Time: at}
	for _, op := range s.Figures.Store.Operations() {
		*op = replicate.OperationFigures{Count: 1, Errors: 1, Sent: 1, Received: 1, Seconds: 1}
	}
	service := &Service{o: Options{List: func() []replicate.Status { return []replicate.Status{s} }}}
	rec := httptest.NewRecorder()
	service.handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	names := map[string]bool{}
	for line := range strings.Lines(rec.Body.String()) {
		if name := regexp.MustCompile(`^[a-z_]+`).FindString(line); name != "" {
			names[name] = true
			names[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] = true
		}
	}
	if len(names) < 40 {
		t.Fatalf("%d metrics: %s", len(names), rec.Body)
	}
	return names
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	metricName = regexp.MustCompile(`\b(outwash|process|go)_[a-z_]+`)
	stateLabel = regexp.MustCompile(`state=~?"([a-z|]+)"`)
	kindLabel  = regexp.MustCompile(`kind="([a-z]+)"`)
)

// checkQuery compares a query with the metrics and labels that there are.
func checkQuery(t *testing.T, query string, names map[string]bool) {
	t.Helper()
	found := metricName.FindAllString(query, -1)
	if len(found) == 0 {
		t.Errorf("%s asks for nothing", query)
	}
	for _, name := range found {
		if !names[name] {
			t.Errorf("%s: there is no metric %s", query, name)
		}
	}
	for _, m := range stateLabel.FindAllStringSubmatch(query, -1) {
		for state := range strings.SplitSeq(m[1], "|") {
			if !slices.Contains(replicate.States(), replicate.State(state)) {
				t.Errorf("%s: there is no state %s", query, state)
			}
		}
	}
	for _, m := range kindLabel.FindAllStringSubmatch(query, -1) {
		if !slices.Contains([]string{"transaction", "merge", "repair", "adopt", "claim", "snapshot", "pages"}, m[1]) {
			t.Errorf("%s: there is no kind %s", query, m[1])
		}
	}
}

// docs/alerts.yml asks for metrics that there are, and its runbooks exist.
func TestAlertRules(t *testing.T) {
	names := metricsThereAre(t)
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert       string
				Expr        string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "alerts.yml")), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	anchors := anchors(read(t, "operations.md"))
	seen := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			checkQuery(t, r.Expr, names)
			if seen[r.Alert] || !strings.HasPrefix(r.Alert, "Outwash") {
				t.Errorf("alert %q", r.Alert)
			}
			seen[r.Alert] = true
			if r.For != "" {
				if _, err := time.ParseDuration(strings.Replace(r.For, "1d", "24h", 1)); err != nil {
					t.Errorf("%s: %v", r.Alert, err)
				}
			}
			if r.Annotations["summary"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: %+v", r.Alert, r)
			}
			page, anchor, _ := strings.Cut(r.Annotations["runbook"], "#")
			if page != "docs/operations.md" || !anchors[anchor] {
				t.Errorf("%s: there is no runbook %q", r.Alert, r.Annotations["runbook"])
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d rules", len(seen))
	}
}

// anchors are those that headings of Markdown have on GitHub.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(page) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			title = regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			found[strings.ReplaceAll(title, " ", "-")] = true
		}
	}
	return found
}

// docs/grafana.json asks for metrics that there are.
func TestDashboard(t *testing.T) {
	names := metricsThereAre(t)
	var d struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Name  string
				Query any
			}
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %+v", p)
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			checkQuery(t, q.Expr, names)
			if !strings.Contains(q.Expr, "$job") {
				t.Errorf("%s is of all jobs", q.Expr)
			}
		}
	}
	for _, v := range d.Templating.List {
		if q, ok := v.Query.(map[string]any); ok {
			checkQuery(t, q["query"].(string), names)
		}
	}
	if len(ids) < 10 {
		t.Errorf("%d panels", len(ids))
	}
}

// docs/operations.md has every metric, and none that there isn't.
func TestMetricsDoc(t *testing.T) {
	page, names := read(t, "operations.md"), metricsThereAre(t)
	documented := map[string]bool{}
	for _, name := range metricName.FindAllString(page, -1) {
		documented[name] = true
		if !names[name] {
			t.Errorf("there is no metric %s", name)
		}
	}
	for name := range names {
		if strings.HasPrefix(name, "outwash_") && !documented[name] && !strings.HasPrefix(name, "outwash_store_operation_duration_seconds_") {
			t.Errorf("%s is not documented", name)
		}
	}
	for _, err := range []error{
		replicate.ErrDiverged, replicate.ErrRepair, replicate.ErrMissing, replicate.ErrForeign, replicate.ErrNoBucket, replicate.ErrConfig,
		replicate.ErrUnsupported, replicate.ErrCorrupt, replicate.ErrDenied, local.ErrDamaged,
	} {
		if !strings.Contains(page, "`"+err.Error()+"`") {
			t.Errorf("the error %q is not documented", err)
		}
	}
	for _, s := range replicate.States() {
		if !strings.Contains(page, "`"+string(s)+"`") {
			t.Errorf("the state %s is not documented", s)
		}
	}
}
