package capture

import "sync/atomic"

type stats struct{ captures, repairs, excess, passes atomic.Int64 }

// Stats counts what happened since Open.
type Stats struct {
	Captures int64 // looks at the log
	Repairs  int64 // times that something was lost sight of
	Excess   int64 // commits found at a gate that no checkpoint of this process preceded
	Passes   int64 // times that all of the database was read
}

// Stats returns the counters.
func (d *DB) Stats() Stats {
	return Stats{d.stats.captures.Load(), d.stats.repairs.Load(), d.stats.excess.Load(), d.stats.passes.Load()}
}
