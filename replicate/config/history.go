package config

import (
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/suggest"
	"github.com/outwash/outwash/replicate"
)

// historyKeys are the keys of history:, and what they are called in a DSN.
var historyKeys = []struct {
	name, param string
	field       func(*replicate.Keep) *time.Duration
	parse       func(string) (time.Duration, error)
	format      func(time.Duration) string
}{
	{"keep-log", "replica_keep_log", func(k *replicate.Keep) *time.Duration { return &k.Log }, replicate.ParseKeepDuration, replicate.FormatKeepDuration},
	{"keep-pages", "replica_keep_pages", func(k *replicate.Keep) *time.Duration { return &k.Pages }, replicate.ParseKeepDuration, replicate.FormatKeepDuration},
	{"keep-snapshots", "replica_keep_snapshots", func(k *replicate.Keep) *time.Duration { return &k.Snapshots }, replicate.ParseKeepDuration, replicate.FormatKeepDuration},
	{"pages-every", "replica_pages_every", func(k *replicate.Keep) *time.Duration { return &k.PagesEvery }, replicate.ParseEveryDuration, replicate.FormatEveryDuration},
	{"snapshot-every", "replica_snapshot_every", func(k *replicate.Keep) *time.Duration { return &k.SnapshotEvery }, replicate.ParseEveryDuration, replicate.FormatEveryDuration},
}

// history reads what the file says of a database's history. What stands nearer to
// the database wins over the file's, and history: over Litestream's words:
//
//   - snapshot: interval is snapshot-every, retention is keep-snapshots: in both
//     programs, how often they are written and how long they are kept, the newest
//     always (Litestream v0.5.18, Compactor.EnforceSnapshotRetention);
//   - retention: enabled: false, at the top, deletes nothing (v0.5.18,
//     Store.RetentionEnabled);
//   - snapshot-interval of a replica is snapshot-every; retention there is how long
//     snapshots and the whole log behind them are kept (v0.3.13), so all three.
func (r *reader) history(d *Database, db, replica *node) bool {
	before := len(r.problems)
	k := &d.Keep
	if v, in, ok := r.inner(r.root, "retention", "enabled"); ok && v.text != "" {
		if on, ok := boolean(v.text); !ok {
			r.problem(v.pos, "%s: true or false is expected", in)
		} else if !on {
			k.Log, k.Pages, k.Snapshots = replicate.Forever, replicate.Forever, replicate.Forever
		}
	}
	for _, at := range []*node{r.root, db} {
		r.only(at, "snapshot", "interval", "retention")
		if v, in, ok := r.inner(at, "snapshot", "interval"); ok {
			r.duration(&k.SnapshotEvery, in, v, replicate.ParseEveryDuration)
		}
		if v, in, ok := r.inner(at, "snapshot", "retention"); ok {
			r.duration(&k.Snapshots, in, v, replicate.ParseKeepDuration)
		}
	}
	if v, ok := r.text(replica, "retention", false); ok && r.duration(&k.Log, "retention", v, replicate.ParseKeepDuration) && v.text != "" {
		k.Pages, k.Snapshots = k.Log, k.Log
	}
	if v, ok := r.text(replica, "snapshot-interval", false); ok {
		r.duration(&k.SnapshotEvery, "snapshot-interval", v, replicate.ParseEveryDuration)
	}
	var names []string
	for _, f := range historyKeys {
		names = append(names, f.name)
	}
	for _, at := range []*node{r.root, db} {
		r.only(at, "history", names...)
		for _, f := range historyKeys {
			if v, in, ok := r.inner(at, "history", f.name); ok {
				r.duration(f.field(k), in, v, f.parse)
			}
		}
	}
	if len(r.problems) == before {
		if err := k.Check(); err != nil {
			r.problem(r.keepLogAt(db, replica), "keep-log: %v", err)
		}
	}
	return len(r.problems) == before
}

// keepLogAt is where it stands how long the log is kept.
func (r *reader) keepLogAt(db, replica *node) pos {
	for _, at := range []*node{db, r.root} {
		if h := at.get("history"); h != nil && h.get("keep-log") != nil {
			return h.get("keep-log").pos
		}
	}
	if v := replica.get("retention"); v != nil {
		return v.pos
	}
	return db.pos
}

// only refuses unknown keys of a mapping.
func (r *reader) only(at *node, name string, known ...string) {
	n := at.get(name)
	if n == nil || n.kind != mapping {
		return // inner says what is wrong
	}
	for _, e := range n.entries {
		if slices.Contains(known, e.key) {
			continue
		}
		msg := "it has " + strings.Join(known, ", ")
		if s := suggest.Nearest(strings.ReplaceAll(strings.ToLower(e.key), "_", "-"), known); s != "" {
			msg = "did you mean " + s + "?"
		}
		r.problem(e.pos, "unknown key in %s: %s", name, msg)
	}
}

// inner returns the text of a key inside a mapping, and what to call it.
func (r *reader) inner(at *node, name, key string) (v value, in string, ok bool) {
	n := at.get(name)
	if n == nil {
		return value{}, "", false
	}
	if n.kind != mapping {
		r.problem(n.pos, "%s: a mapping is expected, and this is %s", name, n.kind)
		return value{}, "", false
	}
	v, ok = r.text(n, key, false)
	return v, name + ": " + key, ok
}

// duration reads one of Keep's; an empty one is none.
func (r *reader) duration(d *time.Duration, key string, v value, parse func(string) (time.Duration, error)) bool {
	if v.text == "" {
		return true
	}
	parsed, err := parse(v.text)
	if err != nil { // which shows the value
		word := "forever"
		if _, err := parse(word); err != nil {
			word = "never"
		}
		r.problem(v.pos, "%s: a duration like 36h, 7d or 2w is expected, or %s", key, word)
		return false
	}
	*d = parsed
	return true
}
