package config_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate/config"
)

// TestDirectories: which databases an entry stands for, and where each one's replica
// is.
func TestDirectories(t *testing.T) {
	c, err := config.Parse("f", []byte(`
sync-interval: 5s
dbs:
  - dir: /var/lib/tenants
    pattern: "*.db"
    recursive: yes
    watch: true
    meta-dir: /var/lib/meta
    restore-if-db-not-exists: true
    replica: {url: "s3://bucket/tenants?region=r1", part-size: 5MB}
  - path: /var/lib/tenants/own.db
    replica: {url: s3://bucket/own}
  - dir: /flat
    pattern: "[a-c]?.sqlite"
    replica: {path: /backup/flat}
`), env)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Databases) != 1 || len(c.Directories) != 2 {
		t.Fatalf("%d databases, %d directories", len(c.Databases), len(c.Directories))
	}
	d, flat := c.Directories[0], c.Directories[1]
	if d.Path != "/var/lib/tenants" || d.Pattern != "*.db" || !d.Recursive || !d.Watch || d.URL() != "s3://bucket/tenants?region=r1" || flat.Recursive || flat.Watch {
		t.Errorf("%+v, %+v", d, flat)
	}
	for path, want := range map[string]string{
		"/var/lib/tenants/a.db":         "/var/lib/tenants/a.db -> s3://bucket/tenants/a.db?region=r1 part-size=5MB replica_max_lag=5s replica_restore=auto",
		"/var/lib/tenants/x/../y/%b.db": "/var/lib/tenants/y/%b.db -> s3://bucket/tenants/y/%25b.db?region=r1 part-size=5MB replica_max_lag=5s replica_restore=auto",
		"/var/lib/tenants/own.db":       "/var/lib/tenants/own.db -> s3://bucket/own replica_max_lag=5s",
		"/var/lib/tenants/a.db-wal":     "",
		"/var/lib/tenants.db":           "",
		"/var/lib/tenants/../a.db":      "",
		"/flat/a1.sqlite":               "/flat/a1.sqlite -> file:///backup/flat/a1.sqlite replica_max_lag=5s",
		"/flat/b?.sqlite":               "/flat/b?.sqlite -> file:///backup/flat/b%3F.sqlite replica_max_lag=5s",
		"/flat/d1.sqlite":               "",
		"/flat/x/a1.sqlite":             "",
		"/var/lib/tenants/a ?@\xff.db":  "/var/lib/tenants/a ?@\xff.db -> s3://bucket/tenants/a %3F%40%FF.db?region=r1 part-size=5MB replica_max_lag=5s replica_restore=auto",
	} {
		got, err := c.Database(path)
		switch {
		case want == "":
			if err == nil || !strings.Contains(err.Error(), "it has /var/lib/tenants/own.db, /var/lib/tenants/**/*.db, /flat/[a-c]?.sqlite") {
				t.Errorf("%s: %v, %v", path, got, err)
			}
		case err != nil || show(got) != want:
			t.Errorf("%s: %s, %v\nexpected %s", path, show(got), err, want)
		}
	}
	for url, want := range map[string]string{
		"s3://bucket/tenants/y/b.db":                 "/var/lib/tenants/y/b.db",
		"s3://bucket/tenants/y/%25b.db":              "/var/lib/tenants/y/%b.db",
		"s3://bucket/own":                            "/var/lib/tenants/own.db",
		"file:///backup/flat/b%3F.sqlite":            "/flat/b?.sqlite",
		"s3://bucket/tenants":                        "",
		"s3://bucket/tenants/own.db":                 "",
		"s3://bucket/tenants/../../../../etc/a.db":   "",
		"file:///backup/flat/%2e%2e%2fa1.sqlite":     "",
		"file:///backup/flat/x%2fa1.sqlite":          "",
		"s3://bucket/tenantsx/a.db":                  "",
		"s3://bucket/tenants/a.db/?region=elsewhere": "/var/lib/tenants/a.db",
	} {
		got := ""
		if d := c.Replica(url); d != nil {
			got = d.Path
		}
		if got != want {
			t.Errorf("%s: %q, expected %q", url, got, want)
		}
	}
}

// TestDirectoryByAnotherName: a link to a directory is that directory.
func TestDirectoryByAnotherName(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("f", fmt.Appendf(nil, "dbs: [{dir: %s/link, pattern: '*.db', replica: {path: %s/r}}]", dir, dir), env)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Database(filepath.Join(dir, "real", "a.db"))
	if err != nil || d.Path != filepath.Join(dir, "link", "a.db") || !strings.HasSuffix(d.URL, "/r/a.db") {
		t.Errorf("%v, %v", d, err)
	}
}

// TestDirectoryBesideDatabases: a database whose name is that of another replica's
// objects has no replica among these.
func TestDirectoryBesideDatabases(t *testing.T) {
	c, err := config.Parse("f", []byte("dbs:\n- {dir: /x, pattern: '*.db', recursive: true, replica: {url: s3://b/p}}\n- {path: /y, replica: {url: s3://b/p/sub}}"), env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Database("/x/sub/log/a.db"); err == nil || !strings.Contains(err.Error(), "the replica of /x/sub/log/a.db would lie where that of /y has its own objects") {
		t.Errorf("%v", err)
	}
	if d, err := c.Database("/x/sub/a.db"); err != nil || d.URL != "s3://b/p/sub/a.db" {
		t.Errorf("%v, %v", d, err)
	}
}

// TestService reads what is outwash replicate's alone, and shows no value of it.
func TestService(t *testing.T) {
	c, err := config.Parse("f", []byte(`
exec: app -token ${MINIO_ACCESS_KEY}
addr: ":9090"
socket: {enabled: true, path: /run/outwash.sock, permissions: 0660}
logging: {level: WARN, type: json, stderr: false, source: yes}
heartbeat-url: https://example.com/planted
shutdown-sync-timeout: 1m30s
shutdown-sync-interval: 500ms
dbs: [{path: /a, replica: {url: s3://b/p}}]
`), env)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Service
	if s.Exec != "app -token planted-id" || s.Addr != ":9090" || s.Socket.Enabled == nil || !*s.Socket.Enabled || s.Socket.Path != "/run/outwash.sock" ||
		s.Socket.Permissions != fs.FileMode(0o660) || s.Logging != (config.Logging{Level: "warn", Format: "json", Source: true}) ||
		s.Heartbeat.URL != "https://example.com/planted" || s.Heartbeat.Interval != 5*time.Minute || s.ShutdownTimeout == nil || *s.ShutdownTimeout != 90*time.Second {
		t.Errorf("%#v", s)
	}
	if len(c.Ignored) != 1 || c.Ignored[0].Key != "shutdown-sync-interval" {
		t.Errorf("ignored: %v", c.Ignored)
	}
	if said := fmt.Sprintf("%v %+v %#v", *c, s, s.Heartbeat); strings.Contains(said, "planted") || !strings.Contains(said, "heartbeat-url") {
		t.Error(said)
	}
	if len(s.Sources) != 11 || s.Sources[0].Name != "exec" || s.Sources[0].Line != 2 || len(s.Sources[0].Variables) != 1 {
		t.Errorf("%+v", s.Sources)
	}
}
