package vfs

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/replicate"
)

// TestRestoredThenChanged: a database is restored to go on from it, and a program
// without Outwash changes it before it is opened with its replica.
func TestRestoredThenChanged(t *testing.T) {
	w := newWorld(t, Options{})
	must(t, os.Chmod(filepath.Dir(w.path), 0o755))
	c := w.open("_pragma=journal_mode(wal)")
	must(t, c.Exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)"))
	w.sync()
	must(t, c.Close())
	w.shutdown()
	must(t, os.Remove(w.path))
	must(t, os.RemoveAll(w.path+"-replicated"))
	_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: w.store, Output: w.path, Database: w.path})
	must(t, err)
	c, err = sqlite3.Open("file:" + w.path)
	must(t, err)
	must(t, c.Exec("INSERT INTO t VALUES(2)"))
	must(t, c.Close())
	c = w.open()
	must(t, c.Exec("INSERT INTO t VALUES(3)"))
	w.sync()
	must(t, c.Close())
	w.shutdown()
	w.same()
}
