package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outwash/outwash/replicate"
)

// latencies add up what all databases say of their stores. They only grow, also when a
// database goes, or begins anew: counters that fall look like a restart, and Prometheus
// would take all that is left for new.
type latencies struct {
	last map[identity]replicate.StoreFigures // as of the last scrape
	sum  replicate.StoreFigures
}

// add adds what was new since the last time.
func (l *latencies) add(found map[identity]replicate.Status) {
	for id, s := range found {
		before := l.last[id]
		for name, now := range s.Figures.Store.Operations() {
			addSince(operation(&l.sum, name), operation(&before, name), now)
		}
		l.last[id] = s.Figures.Store
	}
	for id := range l.last {
		if _, ok := found[id]; !ok {
			delete(l.last, id)
		}
	}
}

func operation(f *replicate.StoreFigures, name string) *replicate.OperationFigures {
	for n, op := range f.Operations() {
		if n == name {
			return op
		}
	}
	panic("metrics: no operation " + name) // the names are those of the same type
}

func addSince(sum, before, now *replicate.OperationFigures) {
	if now.Count < before.Count || now.Seconds < before.Seconds { // began anew
		before = new(replicate.OperationFigures)
	}
	sum.Count += now.Count - before.Count
	sum.Seconds += now.Seconds - before.Seconds
	for i := range now.Latency {
		// Each is read at a moment of its own, but none falls.
		sum.Latency[i] += now.Latency[i] - min(before.Latency[i], now.Latency[i])
	}
}

func (l *latencies) collect(ch chan<- prometheus.Metric) {
	bounds := replicate.LatencyBounds()
	for name, op := range l.sum.Operations() {
		if op.Count == 0 {
			continue
		}
		buckets := make(map[float64]uint64, len(bounds))
		var below uint64
		for i, b := range bounds {
			below += op.Latency[i]
			buckets[b.Seconds()] = below
		}
		// The buckets' sum, which may be one more or less than Count.
		ch <- prometheus.MustNewConstHistogram(duration, below+op.Latency[len(bounds)], op.Seconds, buckets, name)
	}
}
