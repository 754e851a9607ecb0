package replicate

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter reports progress, at most ten times a second.
type meter struct {
	report func(Progress)
	store  *readingStore
	im     *image
	total  atomic.Int64
	pages  atomic.Uint64

	mu     sync.Mutex
	last   time.Time
	txid   uint64
	target uint64
}

// at notes the position reached.
func (m *meter) at(txid, target uint64) {
	m.pages.Store(m.im.written)
	m.mu.Lock()
	m.txid, m.target = txid, target
	m.mu.Unlock()
}

// tick reports, unless it did a moment ago.
func (m *meter) tick() {
	if m.report == nil || !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.last) >= 100*time.Millisecond {
		m.last = now
		m.report(Progress{TXID: m.txid, TargetTXID: m.target, Fetched: m.store.fetched.Load(), Total: m.total.Load(), Pages: m.pages.Load()})
	}
}
