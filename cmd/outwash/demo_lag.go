package main

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/outwash/outwash/vfs"
)

// lagMeter measures how long commits wait to be acknowledged. With one writer
// and one session each commit has the TXID after the one before.
type lagMeter struct {
	mu      sync.Mutex
	known   bool
	acked   uint64 // TXID
	waiting []time.Time
	lags    []float64
}

// begin says that nothing waits at txid.
func (m *lagMeter) begin(txid uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known, m.acked, m.waiting = true, txid, nil
}

func (m *lagMeter) committed(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = append(m.waiting, at)
}

// acknowledged says that the store has all up to txid.
func (m *lagMeter) acknowledged(txid uint64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known || txid <= m.acked {
		return
	}
	// The commit that is being noted may be acknowledged already; it then
	// counts with the next ones.
	n := min(txid-m.acked, uint64(len(m.waiting)))
	for _, t := range m.waiting[:n] {
		m.lags = append(m.lags, at.Sub(t).Seconds())
	}
	m.waiting = slices.Delete(m.waiting, 0, int(n))
	m.acked += n
}

// take returns what was measured since the last call.
func (m *lagMeter) take() []float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	lags := m.lags
	m.lags = nil
	return lags
}

// watch looks every few milliseconds how far the store is.
func (w *demoWriter) watch(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if st, err := vfs.Stat(w.db); err == nil {
				w.lag.acknowledged(st.TXID, now)
			}
		}
	}
}

// percentile returns the value that p percent of the sorted values don't exceed.
func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
