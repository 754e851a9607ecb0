package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
	_ "github.com/outwash/outwash/s3store"
)

// TestKeysAreComplete holds the table against every key that Litestream v0.3.13 and
// v0.5.18 read.
func TestKeysAreComplete(t *testing.T) {
	for at, names := range map[level]string{
		inFile: `addr socket levels snapshot validation l0-retention l0-retention-check-interval verify-compaction retention
			heartbeat-url heartbeat-interval dbs exec logging mcp-addr shutdown-timeout shutdown-sync-timeout shutdown-sync-interval`,
		inDB: `path dir pattern recursive watch snapshot meta-path meta-dir monitor-interval checkpoint-interval busy-timeout
			min-checkpoint-page-count max-checkpoint-page-count truncate-page-n max-sync-wal-bytes restore-if-db-not-exists replica replicas`,
		inReplica: `type name path url retention retention-check-interval snapshot-interval`,
		everywhere: `sync-interval validation-interval max-sync-ltx-files auto-recover
			access-key-id secret-access-key region bucket endpoint force-path-style sign-payload sign-accept-encoding
			require-content-md5 put-object-content-md5 skip-verify storage-class part-size concurrency
			sse-customer-algorithm sse-customer-key sse-customer-key-path sse-kms-key-id
			account-name account-key sas-token host user password key-path concurrent-writes host-key
			webdav-url webdav-username webdav-password
			jwt seed creds nkey username token tls root-cas client-cert client-key max-reconnects reconnect-wait timeout age`,
	} {
		for _, name := range strings.Fields(names) {
			for _, one := range []level{inFile, inDB, inReplica} {
				if at&one != 0 && findKey(name, one) == nil {
					t.Errorf("%s is not known in %s", name, one)
				}
			}
		}
	}
}

func TestKeysAreConsistent(t *testing.T) {
	stores := settingNames(objstore.Schemes()...)
	seen := map[string]level{}
	for _, k := range keys {
		if seen[k.name]&k.in != 0 {
			t.Errorf("%s is there twice", k.name)
		}
		seen[k.name] |= k.in
		if (k.note == "") != (k.class == honoured || k.class == setting) {
			t.Errorf("%s: a key that is ignored says why, one that is refused what to write; note %q", k.name, k.note)
		}
		if k.class == setting && !slices.Contains(stores, k.name) {
			t.Errorf("no store has the setting %s", k.name)
		}
		if k.class != setting && slices.Contains(stores, k.name) {
			t.Errorf("%s is a store's setting", k.name)
		}
	}
	for _, g := range groups {
		for _, name := range g {
			if !slices.Contains(stores, name) {
				t.Errorf("no store has the setting %s", name)
			}
		}
	}
}

// TestDocumentedKeys holds docs/config.md against the table.
func TestDocumentedKeys(t *testing.T) {
	doc, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]class{}
	for _, k := range keys {
		if k.class == ignored || k.class == refused {
			want[k.name] = k.class
		}
	}
	for heading, c := range map[string]class{"## Ignored": ignored, "## Refused": refused} {
		_, rest, ok := strings.Cut(string(doc), heading)
		if !ok {
			t.Fatalf("there is no %q", heading)
		}
		section, _, _ := strings.Cut(rest, "\n## ")
		for _, m := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(section, -1) {
			for _, name := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(m[1], -1) {
				if got, ok := want[name[1]]; !ok || got != c {
					t.Errorf("%s is documented under %q", name[1], heading)
				}
				delete(want, name[1])
			}
		}
	}
	for name := range want {
		t.Errorf("%s is not documented", name)
	}
}

// TestDocumentedHistory holds what is written of history's settings against the code.
func TestDocumentedHistory(t *testing.T) {
	defaults := replicate.Keep{
		Log: replicate.DefaultKeepLog, Pages: replicate.DefaultKeepPages, Snapshots: replicate.DefaultKeepSnapshots,
		PagesEvery: replicate.DefaultPagesEvery, SnapshotEvery: replicate.DefaultSnapshotEvery,
	}
	for file, row := range map[string]string{
		"../../docs/history.md": "| `PARAM` | `NAME` | `",
		"../../docs/config.md":  "| `NAME` | `PARAM` | `",
		"../../README.md":       "(?m)^\\| `PARAM` \\|.*\\| `(.*?)` \\|$",
	} {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(row, "(?m)") {
			row = regexp.QuoteMeta(row) + "(.*?)` \\|"
		}
		for _, f := range historyKeys {
			m := regexp.MustCompile(strings.NewReplacer("PARAM", f.param, "NAME", f.name).Replace(row)).FindSubmatch(doc)
			if m == nil {
				t.Errorf("%s has no row for %s", file, f.name)
				continue
			}
			if d, err := f.parse(string(m[1])); err != nil || d != *f.field(&defaults) {
				t.Errorf("%s: the default of %s is said to be %s (%v)", file, f.name, m[1], err)
			}
		}
	}
}
