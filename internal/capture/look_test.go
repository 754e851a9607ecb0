package capture

import (
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
)

// TestLookBeforeFirstCommit: the log of a database that has just come to WAL mode
// has frames of its first transaction, which is not committed. The database is
// what the file has, and what is committed then follows it.
func TestLookBeforeFirstCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	c, err := sqlite3.Open("file:" + path)
	must(t, err)
	defer c.Close()
	must(t, c.Exec("CREATE TABLE t(a); PRAGMA journal_mode=wal; PRAGMA cache_size=5"))
	dir, err := local.Open(path)
	must(t, err)
	defer dir.Close()
	d, err := Open(Options{Path: path, Dir: dir})
	must(t, err)
	defer d.Close()
	must(t, c.Exec("BEGIN; WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<100) INSERT INTO t SELECT randomblob(3000) FROM n"))

	p, err := d.openPin()
	must(t, err)
	defer p.close()
	must(t, p.begin())
	v, err := d.look()
	must(t, err)
	defer v.close()
	h, err := d.readHeader()
	must(t, err)
	if !v.onlyFile || v.mark.frame != 0 || v.mark.salt != h.Salt || v.size != 2 {
		t.Errorf("the view is %+v", v)
	}
	must(t, c.Exec("COMMIT"))
	w, err := walk(v.wal, v.pageSize, v.mark, 1<<30, &buffers{})
	must(t, err)
	if len(w.commits) != 1 || w.end.frame < 100 {
		t.Errorf("the first commit after the view: %+v", w.end)
	}
	p.end()
}
