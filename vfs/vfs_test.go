package vfs

import (
	"fmt"
	"testing"
)

func TestFirstSteps(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	for i := range 50 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d, hex(randomblob(100)))", i))
	}
	txid := w.sync()
	t.Log("txid", txid, w.mirror, text(t, c, "PRAGMA replicated_status"))
	exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
	exec(t, c, "UPDATE t SET b = 'x'")
	must(t, c.Close())
	w.shutdown()
	w.same()
	// Again, from the clean-close record.
	c = w.open()
	exec(t, c, "INSERT INTO t VALUES(1000, 'again')")
	w.sync()
	must(t, c.Close())
	w.shutdown()
	w.same()
}
