package vfs

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
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

// TestSameReplicaTwice: one connection takes the replica from the environment,
// the next names it.
func TestSameReplicaTwice(t *testing.T) {
	t.Setenv(Env, "mem://twice")
	path := filepath.Join(t.TempDir(), "t.db")
	open := func(dsn string) (*sqlite3.Conn, error) { return sqlite3.Open(dsn) }
	a, err := open(DSN(path, ""))
	must(t, err)
	b, err := open(DSN(path, "mem://twice"))
	must(t, err)
	if c, err := open(DSN(path, "mem://other")); err == nil {
		c.Close()
		t.Error("one database on two replicas")
	} else {
		t.Log(err)
	}
	must(t, a.Close())
	must(t, b.Close())
}

func TestDSN(t *testing.T) {
	const wal = "&_pragma=journal_mode(wal)"
	for _, tt := range []struct {
		path, replica string
		params        []string
		want          string
	}{
		{"app.db", "", nil, "file:app.db?vfs=replicated&_pragma=busy_timeout(60000)" + wal},
		{"/a b/c?.db", "s3://b/p?region=x", nil, "file:/a%20b/c%3F.db?vfs=replicated&replica=s3%3A%2F%2Fb%2Fp%3Fregion%3Dx&_pragma=busy_timeout(60000)" + wal},
		{"app.db", "off", []string{"replica_max_lag=0", "_pragma=busy_timeout(5)", "_pragma=synchronous(full)"},
			"file:app.db?vfs=replicated&replica=off&_pragma=busy_timeout(5)" + wal + "&replica_max_lag=0&_pragma=synchronous(full)"},
		{"app.db", "s3://b/p", []string{"textkey=correct horse+staple", "vfs=secure"},
			"file:app.db?vfs=secure&replica=s3%3A%2F%2Fb%2Fp&_pragma=busy_timeout(60000)" + wal + "&textkey=correct%20horse%2Bstaple"},
	} {
		if got := DSN(tt.path, tt.replica, tt.params...); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	c, err := sqlite3.Open(DSN(filepath.Join(t.TempDir(), "a b?.db"), "mem://dsn"))
	must(t, err)
	defer c.Close()
	if got := text(t, c, "PRAGMA busy_timeout") + text(t, c, "PRAGMA journal_mode"); got != "60000wal" {
		t.Error(got)
	}
}
