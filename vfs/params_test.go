package vfs

import (
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
	_ "github.com/outwash/outwash/s3store"
)

// A replica's URL that was not escaped leaves its parameters in the DSN, whichever
// settings s3 has; a secret among them is not shown.
func TestStrayParameters(t *testing.T) {
	settings := objstore.SettingsOf("s3")
	if len(settings) < 10 {
		t.Fatalf("%d settings", len(settings))
	}
	for _, s := range settings {
		_, err := parseParams(url.Values{"replica": {"s3://b/p"}, s.Name: {"hunter2"}}, Options{})
		want := "must be escaped"
		if s.Secret {
			want = "is a secret"
		}
		if err == nil || !strings.Contains(err.Error(), s.Name) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want: %s", s.Name, err, want)
		}
	}
	if _, err := parseParams(url.Values{"replica": {"s3://b/p"}, "textkey": {"x"}, "_pragma": {"y"}}, Options{}); err != nil {
		t.Errorf("parameters of others: %v", err)
	}
}

// What the DSN says of history wins over the options, field by field; errors name
// the key and what is allowed.
func TestKeepParameters(t *testing.T) {
	const day = 24 * time.Hour
	o := Options{Keep: replicate.Keep{Log: 2 * day, SnapshotEvery: day}}
	for query, want := range map[string]replicate.Keep{
		"":                     o.Keep,
		"replica_keep_log=36h": {Log: 36 * time.Hour, SnapshotEvery: day},
		"replica_keep_log=forever&replica_keep_pages=2w": {Log: replicate.Forever, Pages: 14 * day, SnapshotEvery: day},
		"replica_keep_snapshots=90d&replica_pages_every=30m&replica_snapshot_every=never": {
			Log: 2 * day, Snapshots: 90 * day, PagesEvery: 30 * time.Minute, SnapshotEvery: replicate.Forever},
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := parseParams(q, o); err != nil || p.keep != want {
			t.Errorf("%q: %+v, %v; expected %+v", query, p.keep, err, want)
		}
	}
	for query, want := range map[string][]string{
		"replica_keep_log=x":           {"replica_keep_log", `"x" is not a duration such as 36h`, "forever"},
		"replica_keep_pages=0":         {"replica_keep_pages", "forever"},
		"replica_keep_snapshots=never": {"replica_keep_snapshots", "forever"},
		"replica_pages_every=forever":  {"replica_pages_every", "never"},
		"replica_snapshot_every=-1h":   {"replica_snapshot_every", "never"},
		"replica_keep_log=1m":          {"replica_keep_log", "10m"},
		"replica_keep=1d":              {"unknown parameter replica_keep:", "replica_keep_log, replica_keep_pages, replica_keep_snapshots, replica_pages_every, replica_snapshot_every"},
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parseParams(q, o)
		for _, word := range want {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%q: %v; expected %q", query, err, word)
			}
		}
	}
	if _, err := parseParams(nil, Options{Keep: replicate.Keep{Log: time.Second}}); !errors.Is(err, replicate.ErrConfig) {
		t.Errorf("options: %v", err)
	}
}

// What a configuration file says of a database beside its replica counts in programs
// that do no more than documentation shows, above all how long history is kept: over
// Options, under the DSN.
func TestConfigurationReachesDatabases(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "t.db")
	cfg, err := config.Parse("t.yml", []byte(`
retention: {enabled: false}
dbs:
  - path: `+path+`
    restore-if-db-not-exists: true
    replica: {path: `+dir+`/replica, sync-interval: 20s}
    history: {pages-every: 2h}
`), nil)
	must(t, err)
	Register("file", Options{Store: cfg.Store, MaxLag: time.Minute, Keep: replicate.Keep{Log: time.Hour, SnapshotEvery: 3 * time.Hour}})
	c, err := sqlite3.Open(DSN(path, "", "vfs=file", "replica_keep_pages=5d"))
	must(t, err)
	registry.Lock()
	v := registry.byName["file"]
	registry.Unlock()
	p := v.databases.running(path).p
	want := replicate.Keep{Log: replicate.Forever, Pages: 5 * 24 * time.Hour, Snapshots: replicate.Forever, PagesEvery: 2 * time.Hour, SnapshotEvery: 3 * time.Hour}
	if p.keep != want || p.maxLag != 20*time.Second || p.restore != RestoreAuto {
		t.Errorf("%+v, %v, %s; expected %+v", p.keep, p.maxLag, p.restore, want)
	}
	must(t, c.Close())
	must(t, v.databases.running(path).shutdown(t.Context())) // alone: what other tests killed is not all uploaded

	Register("file_encrypted", Options{Base: "adiantum", Store: cfg.Store})
	c, err = sqlite3.Open(DSN(path, "", "vfs=file_encrypted", "hexkey="+testKey))
	if err == nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "writes a plain database") {
		t.Errorf("restored over a VFS that encrypts: %v", err)
	}
}
