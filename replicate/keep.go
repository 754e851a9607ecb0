package replicate

import (
	"fmt"
	"math"
	"strconv"
	"strings"
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
	// Log is how long every transaction stays restorable, and with them the page
	// segments and snapshots of that time, if it is longer than theirs. Default:
	// DefaultKeepLog.
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
		return fmt.Errorf("replicate: the log is to be kept for %s: %s at least, so that restores under way find it: %w", FormatKeepDuration(k.Log), FormatKeepDuration(minKeepLog), ErrConfig)
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

// atLeast is k with everything kept for d or longer.
func (k Keep) atLeast(d time.Duration) Keep {
	for _, kept := range []*time.Duration{&k.Log, &k.Pages, &k.Snapshots} {
		if *kept != Forever {
			*kept = max(*kept, d)
		}
	}
	return k
}

// ParseKeepDuration reads a duration of [Keep] as settings and flags write it: 36h,
// 7d, 2w, 1w12h, or forever. A day has 24 hours. 0 is refused, since it would mean
// the default; so is what is below it.
func ParseKeepDuration(s string) (time.Duration, error) {
	if s == "forever" {
		return Forever, nil
	}
	d, ok := parseDays(s)
	if !ok {
		return 0, fmt.Errorf("replicate: %q is not a duration such as 36h, 7d, 2w or forever: %w", s, ErrConfig)
	}
	if d <= 0 {
		return 0, fmt.Errorf("replicate: %q: a duration above 0 is needed, or forever: %w", s, ErrConfig)
	}
	return d, nil
}

// parseDays is time.ParseDuration with weeks and days before the rest.
func parseDays(s string) (d time.Duration, ok bool) {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, rest, found := strings.Cut(s, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > uint64((math.MaxInt64-d)/u.unit) {
			return 0, false
		}
		if d, s = d+time.Duration(n)*u.unit, rest; s == "" {
			return d, true
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil || d > 0 && (rest < 0 || rest > math.MaxInt64-d) {
		return 0, false
	}
	return d + rest, true
}

// FormatKeepDuration writes d so that [ParseKeepDuration] reads it, days as days.
func FormatKeepDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "forever"
	case d < day:
		return trimDuration(d)
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return strconv.FormatInt(int64(d/day), 10) + "d" + trimDuration(d%day)
}

// trimDuration is d without units that say nothing: 36m, not 36m0s.
func trimDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ParseEveryDuration is [ParseKeepDuration] for PagesEvery and SnapshotEvery, which
// are Forever where it says never.
func ParseEveryDuration(s string) (time.Duration, error) {
	switch s {
	case "never":
		return Forever, nil
	case "forever":
		return 0, fmt.Errorf("replicate: %q is not a duration such as 30m, 36h, 7d or never: %w", s, ErrConfig)
	}
	d, err := ParseKeepDuration(s)
	if err != nil {
		return 0, fmt.Errorf("replicate: %q is not a duration above 0 such as 30m, 36h, 7d or never: %w", s, ErrConfig)
	}
	return d, nil
}

// FormatEveryDuration writes d so that [ParseEveryDuration] reads it.
func FormatEveryDuration(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	return FormatKeepDuration(d)
}
