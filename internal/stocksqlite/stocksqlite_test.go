package stocksqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/embed"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?%41.db")
	p, q := Start(t, path), Start(t, path)
	t.Log("SQLite", p.Text("SELECT sqlite_version()"))
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a, b); INSERT INTO t VALUES('x', 1)")
	p.Must("INSERT INTO t VALUES(?, ?)", "ÿ\n", int64(1)<<62)
	p.Must("INSERT INTO t VALUES(?, ?)", nil, 1.5)
	rows, err := q.Query("SELECT a, b, typeof(b) FROM t ORDER BY rowid")
	must(t, err)
	want := [][]string{{"x", "1", "integer"}, {"ÿ\n", "4611686018427387904", "integer"}, {"", "1.5", "real"}}
	for i := range want {
		for j := range want[i] {
			if len(rows) != 3 || rows[i][j] != want[i][j] {
				t.Fatalf("%q, want %q", rows, want)
			}
		}
	}
	q.Must("PRAGMA busy_timeout=0")
	p.Must("BEGIN IMMEDIATE; DELETE FROM t")
	var e *Error
	if err := q.Exec("DELETE FROM t"); !errors.As(err, &e) || e.Code != 5 {
		t.Errorf("a second writer: %v", err)
	}
	two := q.Connection(1) // reads what is committed meanwhile
	if n := two.Text("SELECT count(*) FROM t"); n != "3" {
		t.Errorf("%s rows in a transaction of another", n)
	}
	must(t, two.CloseConn())
	p.Must("ROLLBACK")
	ck, err := q.Checkpoint("TRUNCATE")
	must(t, err)
	if ck.Busy != 0 || ck.Log != 0 || ck.Done != 0 {
		t.Errorf("TRUNCATE returned %+v", ck)
	}
	p.Must("BEGIN; DELETE FROM t") // never committed
	p.Kill()
	if err := p.Exec("SELECT 1"); err == nil {
		t.Error("a killed process answers")
	}
	if n := q.Text("SELECT count(*) FROM t"); n != "3" {
		t.Errorf("%s rows after a kill", n)
	}
	must(t, q.Close())
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last close left a log: %v", err)
	}
}

// A worker does what it is asked for; the database is what it says it is.
func TestWorker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	began := time.Now()
	w := StartWork(t, Work{Path: path, Commits: 40, Rate: 200, Truncate: 20 * time.Millisecond})
	must(t, w.Wait())
	r := w.Report()
	if r.Commits != 40 || r.Highest != 40 || len(r.Checkpoints) == 0 || time.Since(began) < 190*time.Millisecond {
		t.Errorf("%+v in %v", r, time.Since(began))
	}
	for _, c := range r.Checkpoints {
		if c.Busy != 0 {
			t.Errorf("alone, and busy: %+v", c)
		}
	}
	w = StartWork(t, Work{Path: path, Rate: 200, Truncate: time.Millisecond}) // again and again
	w.WaitDone(2, 3)
	must(t, w.Stop())
	w = StartWork(t, Work{Path: path, Seed: 1, Connections: 3, Random: true, CacheSize: 10, AutoCheckpoint: 20, Busy: 5 * time.Second})
	w.Ready()
	w.WaitCommits(40)
	must(t, w.Stop())
	r = w.Report()
	w = StartWork(t, Work{Path: path, Seed: 2, Connections: 3, Random: true, CacheSize: 10})
	w.WaitCommits(20)
	w.Kill()
	if k := w.Report(); k.Commits < 20 {
		t.Errorf("killed early: %+v", k)
	} else {
		r = k
	}
	p := Start(t, path)
	_, err := p.Checkpoint("TRUNCATE")
	must(t, err)
	must(t, p.Close())
	image, err := os.ReadFile(path)
	must(t, err)
	s, err := Check(image, -1)
	must(t, err)
	if s.Counter < r.Highest || s.Counter > r.Highest+3 { // a commit each that it could not tell of
		t.Errorf("%d in the database, %d told", s.Counter, r.Highest)
	}
	then, err := Check(image, 40)
	must(t, err)
	if then == s || then.Counter != s.Counter {
		t.Errorf("%+v and %+v", then, s)
	}
}
