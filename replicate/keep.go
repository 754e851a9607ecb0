package replicate

import (
	"fmt"
	"time"
)

// Keep says how a replica's history is condensed, and how long what of it can be
// restored. Zero fields are the defaults.
//
// Every SnapshotEvery, while there are commits, the whole database is written as a
// snapshot; every PagesEvery (or sooner, if much has changed) the pages that changed
// since the last of both, as a page segment. So a restore reads a snapshot, a few
// page segments and a piece of the log, however old the replica is.
type Keep struct {
	// Log is how long every transaction stays restorable. Default: DefaultKeepLog.
	Log time.Duration
	// Pages is how long the ends of page segments stay restorable. Default:
	// DefaultKeepPages.
	Pages time.Duration
	// Snapshots is how long snapshots stay restorable; the newest always does.
	// Default: DefaultKeepSnapshots.
	Snapshots time.Duration
	// PagesEvery is how often page segments are written. Default: DefaultPagesEvery.
	PagesEvery time.Duration
	// SnapshotEvery is how often snapshots are written. Default:
	// DefaultSnapshotEvery.
	SnapshotEvery time.Duration
}

// Defaults of [Keep], and its special value.
const (
	DefaultKeepLog       = 24 * time.Hour
	DefaultKeepPages     = 7 * 24 * time.Hour
	DefaultKeepSnapshots = 30 * 24 * time.Hour
	DefaultPagesEvery    = time.Hour
	DefaultSnapshotEvery = 24 * time.Hour
	// Forever, for what is kept, keeps all of it; for what is written from time to
	// time: never.
	Forever time.Duration = -1
)

// Check returns an [ErrConfig] if the fields don't go together.
func (k Keep) Check() error {
	k = k.withDefaults()
	if k.Log != Forever && k.Log < minKeepLog {
		return fmt.Errorf("replicate: the log is to be kept for %v: %v at least, so that restores under way find it: %w", k.Log, minKeepLog, ErrConfig)
	}
	return nil
}

// minKeepLog leaves restores, and sessions that begin, the time to read what they
// have listed.
const minKeepLog = 10 * time.Minute

// withDefaults fills in what is zero; anything negative is Forever.
func (k Keep) withDefaults() Keep {
	for _, f := range []struct {
		d       *time.Duration
		missing time.Duration
	}{
		{&k.Log, DefaultKeepLog}, {&k.Pages, DefaultKeepPages}, {&k.Snapshots, DefaultKeepSnapshots},
		{&k.PagesEvery, DefaultPagesEvery}, {&k.SnapshotEvery, DefaultSnapshotEvery},
	} {
		switch {
		case *f.d == 0:
			*f.d = f.missing
		case *f.d < 0:
			*f.d = Forever
		}
	}
	return k
}
