package config_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
	"github.com/outwash/outwash/s3store"
)

// env is the environment of these tests.
func env(name string) (string, bool) {
	v, ok := map[string]string{
		"MINIO_ACCESS_KEY": "planted-id", "MINIO_SECRET_KEY": "planted-secret: {#'\"",
		"BUCKET": "from-env", "EMPTY": "", "REGION": "eu-west-1", "YAML": "x\nregion: y",
	}[name]
	return v, ok
}

// show is a database in a form that tests compare.
func show(d *config.Database) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s", d.Path, d.URL)
	for _, k := range slices.Sorted(maps.Keys(d.Settings)) {
		fmt.Fprintf(&b, " %s=%s", k, d.Settings[k])
	}
	if p := d.Params(); len(p) > 0 {
		fmt.Fprintf(&b, " %s", strings.Join(p, " "))
	}
	return b.String()
}

// TestGuide reads every file of the guide.
func TestGuide(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	// Where the objects are in the end.
	places := map[string]string{
		"url":                 "BUCKETNAME PATHNAME us-east-1 s3.us-east-1.amazonaws.com",
		"fields":              "BUCKETNAME PATHNAME us-east-1 s3.us-east-1.amazonaws.com",
		"per-replica":         "BUCKETNAME PATHNAME us-east-1 s3.us-east-1.amazonaws.com",
		"access-point":        "arn:aws:s3:us-east-2:123456789012:accesspoint/my-access-point backups/prod us-east-2 my-access-point-123456789012.s3-accesspoint.us-east-2.amazonaws.com",
		"access-point-region": "arn:aws:s3:us-east-2:123456789012:accesspoint/my-access-point backups us-east-2 my-access-point-123456789012.s3-accesspoint.us-east-2.amazonaws.com",
		"minio":               "mybucket mydb us-east-1 minio.example.com:9000",
	}
	for name, want := range map[string]string{
		"url":                 "/path/to/local/db -> s3://BUCKETNAME/PATHNAME access-key-id=AKIAxxxxxxxxxxxxxxxx secret-access-key=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/xxxxxxxxx",
		"fields":              "/path/to/local/db -> s3://BUCKETNAME/PATHNAME region=us-east-1",
		"per-replica":         "/path/to/local/db -> s3://BUCKETNAME/PATHNAME access-key-id=AKIAxxxxxxxxxxxxxxxx secret-access-key=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/xxxxxxxxx",
		"access-point":        "/path/to/db -> s3://arn:aws:s3:us-east-2:123456789012:accesspoint/my-access-point/backups/prod",
		"access-point-region": "/path/to/db -> s3://arn:aws:s3:us-east-2:123456789012:accesspoint/my-access-point/backups region=us-east-2",
		"minio":               "/path/to/local/db -> s3://mybucket/mydb access-key-id=planted-id endpoint=https://minio.example.com:9000 region=us-east-1 secret-access-key=planted-secret: {#'\"",
	} {
		file := filepath.Join("testdata", "guide", name+".yml")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range []string{string(data), strings.ReplaceAll(string(data), "\n", "\r\n"), "\ufeff" + string(data), "---\n" + string(data)} {
			c, err := config.Parse(file, []byte(data), env)
			if err != nil {
				t.Errorf("%v", err)
				continue
			}
			if len(c.Databases) != 1 || show(c.Databases[0]) != want {
				t.Errorf("%s: %s\nexpected %s", name, show(c.Databases[0]), want)
			}
			target, err := s3store.Locate(context.Background(), c.Databases[0].URL, c.Databases[0].Settings)
			if at := fmt.Sprint(target.Bucket, " ", target.Prefix, " ", target.Region, " ", target.Host); err != nil || at != places[name] {
				t.Errorf("%s: resolved to %s, %v", name, at, err)
			}
			if w := c.Warnings(); len(w) > 0 {
				t.Errorf("%s: %q", name, w)
			}
			if _, err := c.Store("/path/to/elsewhere"); err == nil || !strings.Contains(err.Error(), c.Databases[0].Path) {
				t.Errorf("%s: another database: %v", name, err)
			}
		}
	}
}

func TestLitestreamFile(t *testing.T) {
	c, err := config.Load("testdata/all-honoured-or-ignored.yml")
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/var/lib/one.db -> s3://bucket/one region=eu-central-1 replica_max_lag=30s replica_restore=auto replica_keep_log=1d replica_keep_pages=1d replica_keep_snapshots=1d replica_snapshot_every=1h",
		"/var/lib/two.db -> s3://bucket/two force-path-style=true region=eu-central-1 replica_max_lag=5s replica_keep_snapshots=7d replica_snapshot_every=1d",
		wd + "/three.db -> file://" + wd + "/backup/three replica_max_lag=5s replica_keep_snapshots=7d replica_snapshot_every=1d",
		"/var/lib/four.db -> file:///backup/four replica_max_lag=5s replica_keep_snapshots=7d replica_snapshot_every=1d",
	}
	var got []string
	for _, d := range c.Databases {
		got = append(got, show(d))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	w := c.Warnings()
	if len(w) != 1 {
		t.Fatalf("warnings: %q", w)
	}
	for _, key := range []string{"mcp-addr (line 3)", "levels", "l0-retention",
		"meta-path", "monitor-interval", "checkpoint-interval", "busy-timeout", "min-checkpoint-page-count", "name", "validation-interval (line 29)"} {
		if !strings.Contains(w[0], key) {
			t.Errorf("%q doesn't name %s", w[0], key)
		}
	}
}

// TestForms reads what people write beside the guide's forms.
func TestForms(t *testing.T) {
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ yaml, want string }{
		"home":             {"dbs: [{path: ~/a.db, replica: {path: ~/r}}]", home + "/a.db -> file://" + home + "/r"},
		"space":            {"dbs: [{path: /a.db, replica: {type: file, path: '/r 1?x'}}]", "/a.db -> file:///r%201%3Fx"},
		"file-wide bucket": {"bucket: b\nregion: r1\ndbs: [{path: /a, replica: {type: s3, path: p}}]", "/a -> s3://b/p region=r1"},
		"top of a bucket":  {"dbs: [{path: /a, replica: {type: s3, bucket: b}}]", "/a -> s3://b"},
		"arn as bucket":    {"dbs: [{path: /a, replica: {type: s3, bucket: 'arn:aws:s3:eu-1:1:accesspoint/x', path: p}}]", "/a -> s3://arn:aws:s3:eu-1:1:accesspoint/x/p"},
		"digits as bucket": {"dbs: [{path: /a, replica: {type: s3, bucket: 0123, path: 1e3}}]", "/a -> s3://0123/1e3"},
		"replica's region": {"region: r1\ndbs: [{path: /a, replica: {url: s3://b/p, region: r2}}]", "/a -> s3://b/p region=r2"},
		"url's region":     {"region: r1\ndbs: [{path: /a, replica: {url: 's3://b/p?region=r2'}}]", "/a -> s3://b/p?region=r2"},
		"same region":      {"dbs: [{path: /a, replica: {url: 's3://b/p?region=r2', region: r2}}]", "/a -> s3://b/p?region=r2 region=r2"},
		"own credentials": {"access-key-id: id1\nsecret-access-key: s1\ndbs: [{path: /a, replica: {url: s3://b/p, access-key-id: id2, secret-access-key: s2}}]",
			"/a -> s3://b/p access-key-id=id2 secret-access-key=s2"},
		"shared credentials": {"access-key-id: id1\nsecret-access-key: s1\ndbs: [{path: /a, replica: {url: s3://b/p}}]",
			"/a -> s3://b/p access-key-id=id1 secret-access-key=s1"},
		"own profile": {"access-key-id: id1\nsecret-access-key: s1\ndbs: [{path: /a, replica: {url: s3://b/p, profile: other}}]",
			"/a -> s3://b/p profile=other"},
		"a store's own settings": {"dbs: [{path: /a, replica: {url: s3://b/p, part-size: 5MB, snapshot-storage-class: GLACIER_IR, sse: aws:kms, dualstack: yes}}]",
			"/a -> s3://b/p dualstack=true part-size=5MB snapshot-storage-class=GLACIER_IR sse=aws:kms"},
		"file-wide settings and a directory": {"access-key-id: id1\nsecret-access-key: s1\ndbs: [{path: /a, replica: {path: /r}}]", "/a -> file:///r"},
		"variables":                          {"dbs: [{path: /a, replica: {type: s3, bucket: $BUCKET, path: 'x-${BUCKET}/$BUCKET', region: \"${REGION}\"}}]", "/a -> s3://from-env/x-from-env/from-env region=eu-west-1"},
		"variable with YAML":                 {"dbs: [{path: /a, replica: {url: s3://b/p, region: $YAML}}]", "/a -> s3://b/p region=x\nregion: y"},
		"empty variable":                     {"dbs: [{path: /a, replica: {url: s3://b/p, region: $EMPTY}}]", "/a -> s3://b/p"},
		"missing variable in what may be":    {"dbs: [{path: /a, replica: {url: s3://b/p, region: $NOWHERE}}]", "/a -> s3://b/p"},
		"variable in a comment":              {"dbs: [{path: /a, replica: {url: s3://b/p}}] # ${NOWHERE", "/a -> s3://b/p"},
		"variable in what is ignored":        {"mcp-addr: ${NOWHERE\ndbs: [{path: /a, replica: {url: s3://b/p}}]", "/a -> s3://b/p"},
		"dollar": {"dbs: [{path: /a, replica: {url: s3://b/p, access-key-id: id, secret-access-key: 'a$1$$ b$'}}]",
			"/a -> s3://b/p access-key-id=id secret-access-key=a$1$$ b$"},
		"yes":                     {"dbs: [{path: /a, replica: {url: s3://b/p, force-path-style: yes}}]", "/a -> s3://b/p force-path-style=true"},
		"off":                     {"dbs: [{path: /a, replica: {url: s3://b/p, force-path-style: Off}}]", "/a -> s3://b/p force-path-style=false"},
		"null":                    {"region: r1\ndbs: [{path: /a, replica: {url: s3://b/p, region: ~}}]", "/a -> s3://b/p region=r1"},
		"case of url":             {"dbs: [{path: /a, replica: {url: S3://b/P}}]", "/a -> s3://b/P"},
		"anchor":                  {"x: &r {region: r1}\ndbs: [{path: /a, replica: {<<: *r, url: s3://b/p}}]", "/a -> s3://b/p region=r1"},
		"anchor of no mapping":    {"x: &r r1\ndbs: [{path: /a, replica: {url: s3://b/p, region: *r}}]", ""},
		"anchor with a wrong key": {"x: &r {regoin: r1}\ndbs: [{path: /a, replica: {<<: *r, url: s3://b/p}}]", ""},
		"merge":                   {"dbs:\n- path: /a\n  replica: &r\n    url: s3://b/p\n    region: r1\n- path: /b\n  replica:\n    <<: *r\n    url: s3://b/q", "/a -> s3://b/p region=r1; /b -> s3://b/q region=r1"},
		"folded":                  {"dbs:\n- path: >-\n    /a\n  replica:\n    url: |-\n      s3://b/p", "/a -> s3://b/p"},
	} {
		c, err := config.Parse("f", []byte(tt.yaml), env)
		switch {
		case tt.want == "":
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			var all []string
			for _, d := range c.Databases {
				all = append(all, show(d))
			}
			if got := strings.Join(all, "; "); got != tt.want {
				t.Errorf("%s: %s\nexpected %s", name, got, tt.want)
			}
		}
	}
	c, err := config.Parse("f", []byte("dbs: [{path: /a, replica: {url: s3://b/p, access-key-id: id, secret-access-key: '$a${b}'}}]"), nil)
	if err != nil || c.Databases[0].Settings["secret-access-key"] != "$a${b}" {
		t.Errorf("without variables: %v", err)
	}
}

func TestIntervals(t *testing.T) {
	c, err := config.Parse("f", []byte("sync-interval: 1m\ndbs: [{path: /a, replica: {url: s3://b/p}}]"), env)
	if err != nil || c.Databases[0].MaxLag != time.Minute || c.Databases[0].Restore {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestHistory: history's own words and Litestream's, and which wins.
func TestHistory(t *testing.T) {
	const h = time.Hour
	for name, tt := range map[string]struct {
		yaml string // db is the entry's further keys, after path and replica
		want replicate.Keep
	}{
		"nothing":          {"dbs: [{path: /a, replica: {url: s3://b/p}}]", replicate.Keep{}},
		"empty":            {"history:\nsnapshot: {interval: }\nretention: {enabled: yes}\ndbs: [{path: /a, history: {keep-log: }, replica: {url: s3://b/p, retention: }}]", replicate.Keep{}},
		"all":              {"dbs: [{path: /a, history: {keep-log: 36h, keep-pages: 2w, keep-snapshots: forever, pages-every: 30m, snapshot-every: never}, replica: {url: s3://b/p}}]", replicate.Keep{Log: 36 * h, Pages: 14 * 24 * h, Snapshots: replicate.Forever, PagesEvery: h / 2, SnapshotEvery: replicate.Forever}},
		"file-wide":        {"history: {keep-log: 3d, keep-pages: 5d}\ndbs: [{path: /a, history: {keep-pages: 9d}, replica: {url: s3://b/p}}]", replicate.Keep{Log: 72 * h, Pages: 9 * 24 * h}},
		"snapshot":         {"snapshot: {interval: 1h, retention: 168h}\ndbs: [{path: /a, snapshot: {interval: 2h}, replica: {url: s3://b/p}}]", replicate.Keep{SnapshotEvery: 2 * h, Snapshots: 168 * h}},
		"v0.3":             {"dbs: [{path: /a, replica: {url: s3://b/p, retention: 72h, snapshot-interval: 4h}}]", replicate.Keep{Log: 72 * h, Pages: 72 * h, Snapshots: 72 * h, SnapshotEvery: 4 * h}},
		"nothing deleted":  {"retention: {enabled: false}\ndbs: [{path: /a, replica: {url: s3://b/p}}]", replicate.Keep{Log: replicate.Forever, Pages: replicate.Forever, Snapshots: replicate.Forever}},
		"own words win":    {"retention: {enabled: false}\nsnapshot: {interval: 1h}\nhistory: {keep-log: 1d, snapshot-every: 6h}\ndbs: [{path: /a, snapshot: {interval: 2h}, replica: {url: s3://b/p}}]", replicate.Keep{Log: 24 * h, Pages: replicate.Forever, Snapshots: replicate.Forever, SnapshotEvery: 6 * h}},
		"from a variable":  {"history: {keep-log: \"${KEEP}\"}\ndbs: [{path: /a, replica: {url: s3://b/p}}]", replicate.Keep{}},
		"the replica's is": {"snapshot: {retention: 9h}\ndbs: [{path: /a, replica: {url: s3://b/p, retention: 10h}}]", replicate.Keep{Log: 10 * h, Pages: 10 * h, Snapshots: 10 * h}},
	} {
		c, err := config.Parse("f", []byte(tt.yaml), env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := c.Databases[0]
		if d.Keep != tt.want || len(c.Ignored) > 0 {
			t.Errorf("%s: %+v, expected %+v; ignored %v", name, d.Keep, tt.want, c.Ignored)
		}
		// What is handed to programs means the same there.
		for _, p := range d.Params() {
			key, v, _ := strings.Cut(p, "=")
			parse := replicate.ParseKeepDuration
			if strings.HasSuffix(key, "_every") {
				parse = replicate.ParseEveryDuration
			}
			if d, err := parse(v); err != nil || d == 0 {
				t.Errorf("%s: %s: %v, %v", name, p, d, err)
			}
		}
	}
}

// TestSecretsStaySecret prints what can be printed.
func TestSecretsStaySecret(t *testing.T) {
	c, err := config.Parse("f", []byte("access-key-id: planted1\nsecret-access-key: planted2\ndbs: [{path: /a, replica: {url: s3://b/p}}]"), env)
	if err != nil {
		t.Fatal(err)
	}
	d := c.Databases[0]
	out := ""
	for _, v := range []any{c, d, *d, d.Settings, d.Sources} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			out += fmt.Sprintf(verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		out += string(b) + "\n"
	}
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, "planted") || strings.Contains(line, fmt.Sprintf("%x", "planted")) {
			t.Errorf("shown: %s", line)
		}
	}
	if !strings.Contains(out, "secret-access-key") {
		t.Error("nothing says which settings there are")
	}
}
