// Package metrics has a Prometheus collector for replicated databases. Only programs
// that import it compile Prometheus' client:
//
//	prometheus.MustRegister(metrics.NewCollector(list))
//
// where list returns the status of each database: [vfs.Stat] of those that the program
// has. outwash replicate serves the same metrics under -addr.
//
// Every metric of a database has the labels database (path of the file) and replica
// (URL without secrets). Counters are [replicate.Figures]. How long operations of the
// store take is counted for all databases of the process together: a histogram each
// would be hundreds of series for a database. docs/operations.md has all metrics, with
// alert rules and a dashboard.
//
// [vfs.Stat]: https://pkg.go.dev/github.com/outwash/outwash/vfs#Stat
package metrics

import (
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outwash/outwash/replicate"
)

// NewCollector returns a collector of what list returns at each scrape. list must not
// block for long. Of statuses with the same database and replica the last one counts.
func NewCollector(list func() []replicate.Status) prometheus.Collector {
	return &collector{list: list, latencies: latencies{last: map[identity]replicate.StoreFigures{}}}
}

type collector struct {
	list func() []replicate.Status

	mu        sync.Mutex // scrapes can overlap
	latencies latencies
}

// identity is what tells databases apart.
type identity struct{ database, replica string }

var of = []string{"database", "replica"}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("outwash_"+name, help, labels, nil)
}

func per(name, help string, labels ...string) *prometheus.Desc {
	return desc(name, help, append(of[:2:2], labels...)...)
}

var (
	buildInfo = desc("build_info", "Always 1; which Outwash and Go the program was built with.", "version", "goversion")
	databases = desc("databases", "Databases of this process.")
	duration  = desc("store_operation_duration_seconds",
		"How long operations of the store took, of all databases together: reads and listings until the answer began, others until their end.", "operation")

	state         = per("state", "1 for the state that the database's replication is in, 0 for the others.", "state")
	stateSince    = per("state_since_timestamp_seconds", "When the state became what it is.")
	lag           = per("lag_seconds", "Age of the oldest commit that the store has not acknowledged; 0 if there is none; missing while that isn't known.")
	acknowledged  = per("acknowledged_txid", "Newest transaction that the store has acknowledged; missing while none is known.")
	captured      = per("captured_txid", "Newest transaction that was captured; missing while none is known.")
	backlog       = per("backlog_entries", "Entries captured and not acknowledged.")
	backlogBytes  = per("backlog_bytes", "Stored bytes of the entries captured and not acknowledged.")
	spooled       = per("spooled_entries", "Entries of the backlog that are in the spool on disk.")
	lastUpload    = per("last_upload_timestamp_seconds", "When the store last acknowledged something; missing until it does.")
	snapshot      = per("snapshot_timestamp_seconds", "When the newest snapshot was written; missing until that is known.")
	historyError  = per("history_error", "1 if the last page segment or snapshot could not be written, else 0.")
	retainError   = per("retention_error", "1 if what the history needs no more could not be deleted, else 0.")
	warning       = per("warning", "1 if something weakens the replica although replication goes on, such as a store without conditional writes; else 0.")
	commits       = per("commits_total", "Commits of the application that the store has acknowledged.")
	entries       = per("entries_total", "Entries of the log that the store has acknowledged, by kind: a repair is what differed when database and replica were compared.", "kind")
	exports       = per("exports_total", "Snapshots and page segments written, by kind.", "kind")
	retries       = per("retries_total", "Attempts that failed and were repeated.")
	restores      = per("restores_total", "How often the database was made from the replica.")
	fences        = per("fences_total", "How often another session was found to have extended the replica.")
	deleted       = per("deleted_objects_total", "Objects that retention has deleted.")
	deletedBytes  = per("deleted_bytes_total", "Bytes of the objects that retention has deleted.")
	operations    = per("store_operations_total", "Operations of the store.", "operation")
	storeErrors   = per("store_errors_total", "Operations of the store that failed.", "operation")
	sentBytes     = per("store_sent_bytes_total", "Bytes of objects written to the store.", "operation")
	receivedBytes = per("store_received_bytes_total", "Bytes of objects read from the store.", "operation")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, databases, duration, state, stateSince, lag, acknowledged, captured, backlog, backlogBytes, spooled,
		lastUpload, snapshot, historyError, retainError, warning, commits, entries, exports, retries, restores, fences,
		deleted, deletedBytes, operations, storeErrors, sentBytes, receivedBytes,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	found := map[identity]replicate.Status{}
	for _, s := range c.list() {
		found[identity{valid(s.Database), valid(s.Replica)}] = s
	}
	ch <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, version(), runtime.Version())
	ch <- prometheus.MustNewConstMetric(databases, prometheus.GaugeValue, float64(len(found)))
	for id, s := range found {
		collect(database{ch, id}, &s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latencies.add(found)
	c.latencies.collect(ch)
}

// valid makes a label of a path, which may have any bytes.
func valid(path string) string { return strings.ToValidUTF8(path, "\uFFFD") }

// database collects the metrics of one database.
type database struct {
	ch chan<- prometheus.Metric
	identity
}

func (d database) metric(desc *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	d.ch <- prometheus.MustNewConstMetric(desc, t, v, append([]string{d.database, d.replica}, labels...)...)
}

func (d database) gauge(desc *prometheus.Desc, v float64, labels ...string) {
	d.metric(desc, prometheus.GaugeValue, v, labels...)
}

func (d database) counter(desc *prometheus.Desc, v uint64, labels ...string) {
	d.metric(desc, prometheus.CounterValue, float64(v), labels...)
}

// time leaves out what has not happened.
func (d database) time(desc *prometheus.Desc, t time.Time) {
	if !t.IsZero() {
		d.gauge(desc, float64(t.UnixMilli())/1000)
	}
}

func (d database) flag(desc *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	d.gauge(desc, v, labels...)
}

func collect(d database, s *replicate.Status) {
	known := false
	for _, st := range replicate.States() {
		d.flag(state, st == s.State, string(st))
		known = known || st == s.State
	}
	if !known {
		d.flag(state, true, valid(string(s.State)))
	}
	d.time(stateSince, s.StateSince)
	if !s.AtLeast || s.LagSeconds > 0 { // 0 would be a promise
		d.gauge(lag, s.LagSeconds)
	}
	if !s.AtLeast || s.TXID > 0 {
		d.gauge(acknowledged, float64(s.TXID))
		d.gauge(captured, float64(s.Captured))
	}
	d.gauge(backlog, float64(s.Backlog))
	d.gauge(backlogBytes, float64(s.BacklogBytes))
	d.gauge(spooled, float64(s.Spooled))
	d.time(lastUpload, s.LastUpload)
	if s.History.Snapshot != nil {
		d.time(snapshot, s.History.Snapshot.Time)
	}
	d.flag(historyError, s.History.Error != "")
	d.flag(retainError, s.Retention.Error != "")
	d.flag(warning, s.Warning != "")

	f := &s.Figures
	d.counter(commits, f.Commits)
	d.counter(entries, f.Entries.Transactions, "transaction")
	d.counter(entries, f.Entries.Merges, "merge")
	d.counter(entries, f.Entries.Repairs, "repair")
	d.counter(entries, f.Entries.Adopts, "adopt")
	d.counter(entries, f.Entries.Claims, "claim")
	d.counter(exports, f.Snapshots, "snapshot")
	d.counter(exports, f.PageSegments, "pages")
	d.counter(retries, f.Retries)
	d.counter(restores, f.Restores)
	d.counter(fences, f.Fences)
	d.counter(deleted, f.Deleted)
	d.counter(deletedBytes, f.DeletedBytes)
	for name, op := range f.Store.Operations() {
		if op.Count == 0 { // a series less
			continue
		}
		d.counter(operations, op.Count, name)
		d.counter(storeErrors, op.Errors, name)
		if op.Sent > 0 {
			d.counter(sentBytes, op.Sent, name)
		}
		if op.Received > 0 {
			d.counter(receivedBytes, op.Received, name)
		}
	}
}

// version is that of Outwash in this program.
var version = sync.OnceValue(func() string {
	const module = "github.com/outwash/outwash"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Path == module && info.Main.Version != "" {
		return info.Main.Version
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return "unknown"
})
