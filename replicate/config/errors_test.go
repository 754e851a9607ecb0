package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
)

// replica is a file with one replica, that begins in line 4, column 5.
func replica(fields ...string) string {
	return "dbs:\n- path: /a\n  replica:\n    " + strings.Join(fields, "\n    ") + "\n"
}

// TestErrors: each with its place, and what to write. Everything that is a secret
// in these files begins with planted.
func TestErrors(t *testing.T) {
	const s3 = "url: s3://b/p"
	for _, tt := range []struct{ yaml, want string }{
		// What is no configuration.
		{"", "f:1:1: there are no databases"},
		{"dbs:", "f:1:1: there are no databases"},
		{"dbs: []", "there are no databases"},
		{"planted", "f:1:1: a mapping is expected, beginning with dbs:, and this is a value"},
		{"- planted", "this is a list"},
		{"dbs: planted", "f:1:6: dbs: a list is expected"},
		{"dbs: {path: planted}", "dbs: a list is expected"},
		{"dbs: [planted]", "f:1:7: a database is expected, beginning with path:, and this is a value"},
		{"dbs: [~]", "a database is expected, beginning with path:, and this is nothing"},
		{"secret-access-key: \"planted\ndbs: []", "is not valid YAML"},
		{"secret-access-key: planted: x", "is not valid YAML"},
		{"\tdbs: planted", "is not valid YAML"},
		{"a: 1\n---\nb: 2", "f:3: a second document begins here"},
		{"dbs: []\ndbs: []", "f:2:1: dbs is given twice, first in line 1"},
		{"planted0: a\nplanted0: b", "f:2:1: a key that is no name is given twice"},
		{"dbs: *planted", "refers to an anchor"},
		{"? [planted]\n: x", "is not valid YAML"},
		{strings.Repeat("[", 600), "f:1: is nested too deeply"},

		// Keys.
		{replica(s3, "reigon: planted"), "f:5:5: unknown key reigon: did you mean region?"},
		{replica(s3, "access_key_id: planted"), "f:5:5: unknown key access_key_id: did you mean access-key-id?"},
		{replica(s3, "AccessKeyID: planted"), "f:5:5: unknown key AccessKeyID"},
		{replica(s3, "planted7: x"), "f:5:5: unknown key"},
		{replica(s3, "secret-access-key:planted7"), "is not valid YAML"},
		{"db: []\n" + replica(s3), "f:1:1: unknown key db: did you mean dbs?"},
		{"path: /a\n" + replica(s3), "f:1:1: path is no key of the file: it belongs to an entry of dbs or a replica"},
		{"dbs:\n- path: /a\n  url: s3://b\n  replica: {url: s3://b}", "f:3:3: url is no key of a database: it belongs to a replica"},
		{"dbs:\n- path: /a\n  dir: /x", "f:2:9: path: and dir: exclude each other"},
		{replica(s3, "age: {identities: [planted]}"), "f:5:5: age: age encryption is not supported"},
		{"age: {identities: [planted]}\n" + replica(s3), "f:1:1: age:"},
		{replica(s3, "password: planted"), "f:5:5: password: SFTP is not supported"},
		{replica("path: /r", "region: x"), "f:5:5: region means nothing to a replica that is not in S3"},

		// History.
		{"history: planted\n" + replica(s3), "f:1:10: history: a mapping is expected, and this is a value"},
		{"history: {keep-log: planted}\n" + replica(s3), "f:1:21: history: keep-log: a duration like 36h, 7d or 2w is expected, or forever"},
		{"history: {keep-log: 0}\n" + replica(s3), "f:1:21: history: keep-log: a duration"},
		{"history: {keep-log: -1h}\n" + replica(s3), "f:1:21: history: keep-log: a duration"},
		{"history: {keep-log: 5m}\n" + replica(s3), "f:1:21: keep-log: "},
		{"history: {keep_log: 1d}\n" + replica(s3), "f:1:11: unknown key in history: did you mean keep-log?"},
		{"history: {planted: 1d}\n" + replica(s3), "f:1:11: unknown key in history: it has keep-log, keep-pages, keep-snapshots, pages-every, snapshot-every"},
		{"snapshot: {intervall: 1d}\n" + replica(s3), "f:1:12: unknown key in snapshot: did you mean interval?"},
		{"snapshot: [1d]\n" + replica(s3), "f:1:11: snapshot: a mapping is expected, and this is a list"},
		{"retention: {enabled: planted}\n" + replica(s3), "f:1:22: retention: enabled: true or false is expected"},
		{replica(s3, "retention: 5m"), "f:5:16: keep-log: "},
		{replica(s3, "snapshot-interval: planted"), "f:5:24: snapshot-interval: a duration like 36h, 7d or 2w is expected, or never"},

		// Directories.
		{"dbs:\n- dir: /x\n  replica: {url: s3://b}", "f:2:3: pattern: is missing: which files are databases, as in '*.db'"},
		{"dbs:\n- dir: /x\n  pattern: a/*.db\n  replica: {url: s3://b}", "f:3:12: pattern: names of files are expected"},
		{"dbs:\n- dir: /x\n  pattern: '[planted'\n  replica: {url: s3://b}", "f:3:12: pattern: names of files are expected"},
		{"dbs:\n- dir: /x\n  pattern: '*'\n  watch: planted\n  replica: {url: s3://b}", "f:4:10: watch: true or false is expected"},
		{"dbs:\n- dir: /x\n  pattern: '*'", "f:2:3: the database has no replica"},
		{"dbs:\n- path: /x\n  watch: true\n  replica: {url: s3://b}", "f:3:10: watch: is for directories"},
		{"dbs:\n- dir: /x\n  pattern: '*'\n  replica: {path: /x}", "f:4:19: path: the replica is a directory, and can't be where the database is"},
		{"dbs:\n- {dir: /x, pattern: '*', replica: {url: s3://b/p}}\n- {dir: /x/, pattern: '*', replica: {url: s3://b/q}}", "f:3:4: the directory /x/* is listed in line 2 already"},
		{"dbs:\n- {dir: /x, pattern: '*', replica: {url: s3://b/p}}\n- {dir: /y, pattern: '*', replica: {url: s3://b/p/}}", "f:3:42: the databases of two directories would share their replicas' place (of line 2)"},
		{"dbs:\n- {dir: /x, pattern: '*', replica: {url: s3://b/p}}\n- {path: /y, replica: {url: s3://b/p}}", "f:2:42: replicas of a directory's databases would lie where another one has its own objects (of line 3)"},
		{"dbs:\n- {dir: /x, pattern: '*', replica: {url: s3://b/p/log}}\n- {path: /y, replica: {url: s3://b/p}}", "replicas of a directory's databases would lie where another one has its own objects (of line 3)"},
		{"dbs:\n- {dir: /x, pattern: '*.db', replica: {url: s3://b/p}}\n- {path: /y, replica: {url: s3://b/p/y.db}}", "f:3:29: this replica would lie where a directory's databases have theirs (of line 2)"},

		// The service.
		{"addr: planted\n" + replica(s3), "f:1:7: addr: an address like :9090 or 127.0.0.1:9090 is expected"},
		{"logging: {level: planted}\n" + replica(s3), "f:1:18: logging: level: debug, info, warn or error is expected"},
		{"logging: {type: planted}\n" + replica(s3), "logging: type: text or json is expected"},
		{"logging: {levl: info}\n" + replica(s3), "f:1:11: unknown key in logging: did you mean level?"},
		{"logging: planted\n" + replica(s3), "logging: a mapping is expected, and this is a value"},
		{"socket: {permissions: 600}\n" + replica(s3), "f:1:23: socket: permissions: a mode like 0600 or 0660 is expected"},
		{"socket: {path: run/planted}\n" + replica(s3), "f:1:16: socket: path: an absolute path is expected"},
		{"heartbeat-url: planted\n" + replica(s3), "f:1:16: heartbeat-url: a URL that begins with http:// or https:// is expected"},
		{"heartbeat-url: 'http://planted planted@x/'\n" + replica(s3), "heartbeat-url: a URL that begins with"},
		{"heartbeat-interval: 10s\n" + replica(s3), "f:1:21: heartbeat-interval: a duration of at least 1m is expected"},
		{"shutdown-sync-timeout: planted\n" + replica(s3), "f:1:24: shutdown-sync-timeout: a duration like 30s is expected"},
		{"exec: app $NOWHERE\n" + replica(s3), "f:1:7: exec: the environment has no"},

		// Databases.
		{"dbs: [{replica: {url: s3://b}}]", "f:1:8: path: is missing"},
		{"dbs: [{path: /a}]", "f:1:8: the database has no replica"},
		{"dbs: [{path: /a, replica: }]", "the database has no replica"},
		{"dbs: [{path: /a, replicas: []}]", "the database has no replica"},
		{"dbs: [{path: /a, replica: planted}]", "replica: url:, or type: with its fields, is expected, and this is a value"},
		{"dbs: [{path: /a, replica: [{url: s3://b}]}]", "and this is a list"},
		{"dbs: [{path: /a, replicas: {url: s3://b}}]", "replicas: a list of one replica is expected"},
		{"dbs: [{path: /a, replica: {url: s3://b}, replicas: [{url: s3://c}]}]", "exclude each other: write replica: alone"},
		{"dbs:\n- path: /a\n  replicas:\n  - url: s3://b\n  - url: s3://c", "f:5:5: a database has one replica: keep one of these 2, as replica:"},
		{"dbs:\n- {path: /a, replica: {url: s3://b}}\n- {path: /x/../a, replica: {url: s3://c}}", "f:3:4: the database /a is listed in line 2 already"},
		{"dbs:\n- {path: /a, replica: {url: s3://b/p}}\n- {path: /b, replica: {type: s3, bucket: b, path: p/}}", "f:3:42: two databases would share one replica (of line 2)"},
		{"dbs:\n- {path: /a, replica: {url: s3://b.s3.us-west-004.backblazeb2.com/p}}\n- {path: /b, replica: {type: s3, bucket: b, path: p, endpoint: 'https://S3.us-west-004.backblazeb2.com/'}}", "two databases would share one replica"},
		{"dbs:\n- {path: /a, replica: {url: 's3://arn:aws:s3:::b/p'}}\n- {path: /b, replica: {url: s3://b/p}}", "two databases would share one replica"},
		{"dbs:\n- {path: /a, replica: {path: /r}}\n- {path: /b, replica: {url: file:///r/}}", "f:3:29: two databases would share one replica"},
		{"dbs:\n- {path: /a, replica: {url: s3://b/p}}\n- {path: /b, replica: {url: s3://b/p/log}}", "f:3:29: this replica would lie where another one has its own objects (of line 2)"},
		{"dbs:\n- {path: /a, replica: {url: s3://b/p/data/x}}\n- {path: /b, replica: {url: s3://b/p}}", "f:2:29: this replica would lie where another one has its own objects (of line 3)"},
		{"dbs: [{path: [planted], replica: {url: s3://b}}]", "path: a value is expected, and this is a list"},
		{"dbs: [{path: $NOWHERE, replica: {url: s3://b}}]", "path: the environment has no $NOWHERE"},
		{"dbs: [{path: /a, restore-if-db-not-exists: planted, replica: {url: s3://b}}]", "true or false is expected"},
		{replica(s3, "sync-interval: planted"), "f:5:20: sync-interval: a duration like 500ms or 10s is expected"},
		{replica(s3, "sync-interval: 0s"), "sync-interval: a duration"},

		// Where replicas are.
		{replica("region: x"), "the replica has no place: write url:"},
		{replica("type: file"), "the replica has no place"},
		{replica("url: /planted"), "f:4:10: url: s3://BUCKET/PATH or file:///DIRECTORY is expected"},
		{replica("url: https://planted.example.com/b"), "unknown kind of replica"},
		{replica("url: s3://planted:planted@b/p"), "f:4:10: url: it contains a user name or password: write access-key-id:"},
		{replica("url: s3://b/p?secret-access-key=planted"), "f:4:10: url: secret-access-key must not be in it"},
		{replica("url: s3://b/p?secretAccessKey=planted"), "f:4:10: url: secret-access-key must not be in it, since URLs are shown"},
		{replica("path: s3://planted/p"), "path: it is a URL: write it as url:"},
		{replica("type: s3", "bucket: b", "path: s3://planted/p"), "f:6:11: path: it is a URL"},
		{replica("type: s3", "path: p"), "f:4:5: bucket: is missing"},
		{replica("type: s3", "bucket: s3://planted"), "f:5:13: bucket: a bucket's name or an access point's ARN is expected"},
		{replica("type: s3", "bucket: b", "path: p?planted"), "f:6:11: path: it must not contain"},
		{replica("bucket: b", "path: p"), "f:4:13: bucket: write type: s3, too"},
		{replica("type: file", "bucket: b", "path: p"), "bucket: a replica of type: file has none"},
		{replica("type: planted"), "f:4:11: type: s3 or file is expected"},
		{replica("type: file", s3), "f:4:11: type: it contradicts the url:"},
		{replica(s3, "bucket: c"), "f:5:13: bucket: and url: exclude each other"},
		{replica(s3, "path: c"), "f:5:11: path: and url: exclude each other"},
		{replica("path: /a"), "f:4:11: path: the replica is a directory, and can't be where the database is"},
		{replica("type: gs", "bucket: b"), "f:4:11: type: Google Cloud Storage is reached by its S3 protocol, with HMAC keys: write type: s3 and endpoint: https://storage.googleapis.com"},
		{replica("url: gs://b/p"), "f:4:10: url: Google Cloud Storage"},
		{replica("type: abs", "account-key: planted"), "f:4:11: type: Azure"},
		{replica("url: abs://planted@b/p"), "url: Azure"},
		{replica("url: sftp://u:planted@h/p"), "url: SFTP is not supported"},
		{replica("type: webdav"), "type: WebDAV is not supported"},
		{replica("url: nats://h/b", "username: u", "password: planted"), "url: NATS is not supported"},
		{replica("type: oss"), "type: Alibaba OSS"},

		// Settings.
		{replica(s3, "access-key-id: planted"), "f:5:20: access-key-id: secret-access-key is missing beside it"},
		{"access-key-id: planted\n" + replica(s3), "f:1:16: access-key-id: secret-access-key is missing"},
		{"access-key-id: planted\nsecret-access-key: planted\n" + replica(s3, "secret-access-key: planted"), "f:7:24: secret-access-key: access-key-id is missing beside it; a replica with credentials of its own inherits none"},
		{replica(s3, "access-key-id: planted", "secret-access-key: ${NOWHERE}"), "f:6:24: secret-access-key: the environment has no ${NOWHERE}"},
		{replica(s3, "access-key-id: $NOWHERE", "secret-access-key: planted"), "f:5:20: access-key-id: the environment has no $NOWHERE"},
		{replica(s3, "access-key-id: planted", "secret-access-key: $planted"), "secret-access-key: the environment has no what follows the $"},
		{replica(s3, "access-key-id: planted", "secret-access-key: x$PLANTED"), "f:6:24: secret-access-key: the environment has no what follows the $"},
		{replica(s3, "access-key-id: planted", "secret-access-key: ${planted:-x}"), "f:6:24: secret-access-key: ${ is not followed by"},
		{replica(s3, "access-key-id: planted", "secret-access-key: $EMPTY"), "f:6:24: secret-access-key: it is empty (the environment's EMPTY)"},
		{replica(s3, "access-key-id: planted", "secret-access-key: ''"), "secret-access-key: it is empty: remove it"},
		{replica(s3, "access-key-id: planted", "secret-access-key: [planted]"), "secret-access-key: a value is expected"},
		{replica("type: s3", "bucket: $NOWHERE"), "f:5:13: bucket: the environment has no $NOWHERE"},
		{replica("url: s3://$NOWHERE/p"), "f:4:10: url: the environment has no"},
		{replica(s3, "endpoint: ${NOWHERE}"), "endpoint: the environment has no ${NOWHERE}"},
		{replica("url: s3://b/p?region=x", "region: y"), "f:5:13: region: it contradicts the parameter of the same name in url:"},
	} {
		_, err := config.Parse("f", []byte(tt.yaml), env)
		if err == nil {
			t.Errorf("%s\nis accepted, expected %q", tt.yaml, tt.want)
			continue
		}
		if !errors.Is(err, replicate.ErrConfig) {
			t.Errorf("%v: is no ErrConfig", err)
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\n%v\ndoes not say %q", tt.yaml, err, tt.want)
		}
		if strings.Contains(strings.ToLower(err.Error()), "planted") {
			t.Errorf("%s\n%v\nshows a secret", tt.yaml, err)
		}
		if lines := strings.Split(err.Error(), "\n"); len(lines) > 2 {
			t.Errorf("%s\nhas %d problems:\n%v", tt.yaml, len(lines), err)
		}
	}
}

// TestAllProblems: they are told together, in the file's order.
func TestAllProblems(t *testing.T) {
	_, err := config.Parse("f", []byte("foo: 1\ndbs:\n- path: /a\n  replica: {url: s3://b/p, bar: 2}\n- replica: {type: s3}\nbaz: 3"), env)
	var lines []string
	if err != nil {
		for _, l := range strings.Split(err.Error(), "\n") {
			lines = append(lines, strings.Join(strings.SplitN(l, ":", 4)[:3], ":"))
		}
	}
	if got := strings.Join(lines, " "); got != "f:1:1 f:4:28 f:5:3 f:5:13 f:6:1" {
		t.Errorf("%s\n%v", got, err)
	}
}

// TestSettingErrors: what stores find wrong gets its place, too.
func TestSettingErrors(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{replica("url: s3://b/p", "force-path-style: perhaps"), "f:5:23: "},
		{"region: no region\n" + replica("url: s3://b/p"), "f:1:9: "},
		{replica("type: s3", "bucket: b/../c"), "f:5:13: "},
		{replica("url: s3://b/p?colour=red"), "f:4:10: "},
		{replica("url: s3://b/p", "endpoint: https://planted:planted@example.com"), "f:5:15: "},
		{replica("url: s3://b/p", "sse-customer-key: planted"), "f:5:23: "},
		{replica("url: s3://b/p", "part-size: 1KB"), "f:5:16: "},
		{replica("url: s3://b/p", "concurrency: many"), "f:5:18: "},
	} {
		c, err := config.Parse("f", []byte(tt.yaml), env)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		_, err = c.Store("/a")
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || !errors.Is(err, replicate.ErrConfig) {
			t.Errorf("%s\n%v, expected %s", tt.yaml, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s\n%v\nshows a secret", tt.yaml, err)
		}
	}
}
