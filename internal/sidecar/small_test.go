package sidecar

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// smallDatabases makes copies of a database that is in WAL mode.
func smallDatabases(t *testing.T, n int) (dir string) {
	t.Helper()
	noError := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir = t.TempDir()
	template := filepath.Join(t.TempDir(), "t.db")
	c, err := sqlite3.Open("file:" + template + "?_pragma=journal_mode(wal)")
	noError(err)
	noError(c.Exec(`CREATE TABLE t(a, b); CREATE INDEX i ON t(a);
		WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x < 1000)
		INSERT INTO t SELECT x, hex(x * 7919 % 1009) FROM c`))
	noError(c.Close())
	content, err := os.ReadFile(template)
	noError(err)
	for i := range n {
		noError(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.db", i)), content, 0o644))
	}
	return dir
}
