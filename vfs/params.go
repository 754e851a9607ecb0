package vfs

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
)

// params is what a DSN says about replication.
type params struct {
	replica      string // "": nothing
	restore      RestoreMode
	maxLag       time.Duration
	openTimeout  time.Duration
	closeTimeout time.Duration
	keep         replicate.Keep
	base         url.Values // what is the base VFS's, keys among it: never to be shown
	dsn          url.Values // all there is: never to be shown
}

// mentions reports whether a name speaks of replication at all: ATTACH and
// VACUUM INTO name files that don't.
func mentions(q url.Values) bool {
	for k := range q {
		if k == "vfs" || k == "replica" || strings.HasPrefix(k, "replica_") {
			return true
		}
	}
	return false
}

// stray refuses what are parameters of replica URLs: in a DSN they come from a URL
// that was not escaped. Only the program knows whether it has s3 replicas, by
// importing s3store.
func stray(k string) error {
	i := slices.IndexFunc(objstore.SettingsOf("s3"), func(s objstore.Setting) bool { return s.Name == k })
	switch {
	case i < 0:
		return nil
	case objstore.SettingsOf("s3")[i].Secret:
		return fmt.Errorf("vfs: parameter %s is a secret, which belongs neither into a DSN nor into a URL: use the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a profile", k)
	}
	return fmt.Errorf("vfs: parameter %s belongs to the replica's URL, which must be escaped inside a DSN: use vfs.DSN, or url.QueryEscape", k)
}

// parseParams reads the DSN's keys over the options.
func parseParams(q url.Values, o Options) (params, error) {
	p := params{
		restore: o.Restore, maxLag: o.MaxLag,
		openTimeout: o.OpenTimeout, closeTimeout: o.CloseTimeout, keep: o.Keep,
		base: baseParams(q), dsn: q,
	}
	if p.restore == "" {
		p.restore = RestoreNever
	}
	keeps := map[string]*time.Duration{
		"replica_keep_log": &p.keep.Log, "replica_keep_pages": &p.keep.Pages, "replica_keep_snapshots": &p.keep.Snapshots,
	}
	everys := map[string]*time.Duration{
		"replica_pages_every": &p.keep.PagesEvery, "replica_snapshot_every": &p.keep.SnapshotEvery,
	}
	for k, values := range q {
		v := values[len(values)-1]
		var err error
		switch {
		case k == "replica":
			p.replica = v
		case k == "replica_restore":
			p.restore = RestoreMode(v)
		case k == "replica_max_lag":
			if p.maxLag, err = duration(v); p.maxLag == 0 {
				p.maxLag = replicate.AsFast
			}
		case k == "replica_open_timeout":
			p.openTimeout, err = duration(v)
		case k == "replica_close_timeout":
			if p.closeTimeout, err = duration(v); p.closeTimeout == 0 {
				p.closeTimeout = -1
			}
		case keeps[k] != nil:
			*keeps[k], err = replicate.ParseKeepDuration(v)
		case everys[k] != nil:
			*everys[k], err = replicate.ParseEveryDuration(v)
		case strings.HasPrefix(k, "replica_"):
			return p, fmt.Errorf("vfs: unknown parameter %s: known are replica, replica_restore, replica_max_lag, replica_open_timeout, replica_close_timeout, %s, %s",
				k, strings.Join(slices.Sorted(maps.Keys(keeps)), ", "), strings.Join(slices.Sorted(maps.Keys(everys)), ", "))
		default:
			if err := stray(k); err != nil {
				return p, err
			}
		}
		if err != nil {
			return p, fmt.Errorf("vfs: parameter %s: %w", k, err)
		}
	}
	if p.restore != RestoreNever && p.restore != RestoreAuto {
		return p, fmt.Errorf("vfs: replica_restore=%s: must be never or auto", p.restore)
	}
	if err := p.keep.Check(); err != nil {
		return p, fmt.Errorf("vfs: replica_keep_log (or Options.Keep): %w", err)
	}
	if p.openTimeout <= 0 {
		p.openTimeout = 5 * time.Second
	}
	if p.closeTimeout == 0 {
		p.closeTimeout = 5 * time.Second
	}
	return p, nil
}

// over returns what the DSN says over what a configuration file does: that over the
// options.
func (p params) over(file []string, o Options) (params, error) {
	q := url.Values{}
	for _, param := range file {
		k, v, _ := strings.Cut(param, "=")
		q.Set(k, v)
	}
	maps.Copy(q, p.dsn)
	return parseParams(q, o)
}

func duration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration such as 500ms, 1s or 0", s)
	}
	return d, nil
}
