package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/vfs"
)

// TestAdoptDeletesNothing: how long a replica's history is kept its program knows.
// outwash adopt, which doesn't, condenses and deletes nothing, however much it
// uploads and however old what is there.
func TestAdoptDeletesNothing(t *testing.T) {
	dir := t.TempDir()
	replica, first, other := filepath.Join(dir, "replica"), filepath.Join(dir, "first.db"), filepath.Join(dir, "other.db")
	write := func(dsn, sql string) {
		t.Helper()
		c, err := sqlite3.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Exec(sql); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(vfs.DSN(first, "file://"+replica), "CREATE TABLE t(x); INSERT INTO t VALUES (1)")
	if err := vfs.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := cli("snapshot", "file://"+replica); code != 0 {
		t.Fatal(stderr)
	}
	old := time.Now().Add(-100 * 24 * time.Hour)
	var before []string
	err := filepath.WalkDir(replica, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		before = append(before, path)
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	// As much as a session that asks at once what page segments and snapshots there are.
	write(other, "CREATE TABLE u(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<18) INSERT INTO u SELECT zeroblob(1<<20) FROM n")
	if code, _, stderr := cli("adopt", "-yes", other, "file://"+replica); code != 0 {
		t.Fatal(stderr)
	}
	for _, path := range before {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s is gone", path)
		}
	}
	for _, prefix := range []string{"pages", "snapshot"} {
		now, _ := os.ReadDir(filepath.Join(replica, prefix))
		n := 0
		for _, path := range before {
			if strings.HasPrefix(path, filepath.Join(replica, prefix)) {
				n++
			}
		}
		if len(now) != n {
			t.Errorf("%s: %d objects were %d", prefix, len(now), n)
		}
	}
}
