package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// everything is all that replication and the command line can do with a bucket.
func (w *s3World) everything() {
	w.t.Helper()
	w.small()
	w.large()
	w.broken()
	w.twoWriters()
	w.weak()
	for _, path := range []string{"small", "large"} { // from the replica alone; the second in parts
		w.cli(codeOK, "snapshot", w.url(path))
	}
	w.reading()
	for path := range w.has {
		w.cli(codeOK, "prune", "-yes", w.url(path))
	}
	w.cli(codeOK, "doctor", w.url("small"))
	w.cli(codeOK, "doctor", w.url("nothing yet"))
}

// small: a new database, a restart, and one that was changed in between.
func (w *s3World) small() {
	w.t.Helper()
	w.replicate("small", "small.db", nil, "CREATE TABLE t(n, b); INSERT INTO t VALUES(1, 'a')", "INSERT INTO t VALUES(2, 'b')")
	w.replicate("small", "small.db", nil, "INSERT INTO t VALUES(3, 'c')", "PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES(4, 'd')")
	w.plain("small.db", "INSERT INTO t VALUES(5, 'without Outwash')")
	w.replicate("small", "small.db", nil, "INSERT INTO t VALUES(6, 'e')")
}

// large: a database with content, taken over by a multipart upload.
func (w *s3World) large() {
	w.t.Helper()
	w.plain("large.db", "PRAGMA journal_mode=wal; CREATE TABLE t(n, b); INSERT INTO t SELECT value, randomblob(1000000) FROM generate_series(1, 12)")
	w.replicate("large", "large.db", nil, "INSERT INTO t VALUES(13, '')")
	w.replicate("large", "large.db", nil, "UPDATE t SET b = randomblob(1000000)")
}

// broken: a large upload that fails at its end, is cleaned up after, and succeeds
// later.
func (w *s3World) broken() {
	w.t.Helper()
	w.plain("broken.db", "PRAGMA journal_mode=wal; CREATE TABLE t(n, b); INSERT INTO t SELECT value, randomblob(1000000) FROM generate_series(1, 12)")
	w.set(func(c s3proxy.Call) *s3proxy.Answer {
		if c.Operation == "CompleteMultipartUpload" {
			return &s3proxy.Answer{Status: 400, Code: "InvalidPart", Message: "One or more of the specified parts could not be found."}
		}
		return nil
	})
	c := w.open("broken", "broken.db")
	w.exec(c, "INSERT INTO t VALUES(14, '')")
	if _, err := vfs.Sync(w.t.Context(), w.file("broken.db")); err == nil || !strings.Contains(err.Error(), "InvalidPart") {
		w.t.Errorf("an upload whose parts are gone: %v", err)
	}
	w.close(c, true)
	w.set(nil)
	w.replicate("broken", "broken.db", nil, "INSERT INTO t VALUES(15, '')")
}

// twoWriters: the second of two is fenced, then adopted; a third machine goes on
// where the newest state is.
func (w *s3World) twoWriters() {
	w.t.Helper()
	a, b := w.open("two", "a.db"), w.open("two", "b.db")
	w.exec(a, "CREATE TABLE t(n, b); INSERT INTO t VALUES(1, 'a')")
	if _, err := vfs.Sync(w.t.Context(), w.file("a.db")); err != nil {
		w.t.Fatal(err)
	}
	if err := b.Exec("CREATE TABLE t(n, b); INSERT INTO t VALUES(2, 'b')"); err != nil {
		w.t.Log(err) // it may have heard by now
	}
	var fenced *replicate.FencedError
	if _, err := vfs.Sync(w.t.Context(), w.file("b.db")); !errors.As(err, &fenced) {
		w.t.Errorf("the second writer isn't fenced: %v", err)
	}
	if err := errors.Join(a.Close(), b.Close(), vfs.Shutdown(w.t.Context())); err != nil && strings.Contains(err.Error(), "a.db: ") {
		w.t.Error(err) // b has something left, of course
	}
	w.plain("b.db", "CREATE TABLE IF NOT EXISTS t(n, b); INSERT INTO t VALUES(3, 'adopted')")
	w.cli(codeOK, "adopt", "-yes", w.file("b.db"), w.url("two"))
	w.replicate("two", "c.db", []string{"replica_restore=auto"}, "INSERT INTO t VALUES(4, 'c')")
}

// weak: a server that refuses conditional writes, as Backblaze B2 does.
func (w *s3World) weak() {
	w.t.Helper()
	w.set(func(c s3proxy.Call) *s3proxy.Answer {
		if c.Header.Get("If-None-Match") != "" {
			return &s3proxy.Answer{Status: 501, Code: "NotImplemented", Message: "A header you provided implies functionality that is not implemented."}
		}
		return nil
	})
	w.replicate("weak", "weak.db", nil, "CREATE TABLE t(n, b); INSERT INTO t VALUES(1, 'a')")
	w.replicate("weak", "weak.db", nil, "INSERT INTO t VALUES(2, 'a')")
	w.set(nil)
}

// reading is everything that reads.
func (w *s3World) reading() {
	w.t.Helper()
	for path, has := range w.has {
		w.cli(codeOK, "ls", w.url(path))
		w.cli(codeOK, "ls", "-l", "-json", w.url(path))
		w.cli(codeOK, "prune", "-l", w.url(path))
		states := [][]string{nil}
		if path == "small" {
			states = [][]string{{"-timestamp", moment(time.Now())}, {"-txid", fmt.Sprint(has.txid)}}
		}
		for _, which := range states {
			out := w.file(path + ".restored")
			w.cli(codeOK, append([]string{"restore", "-force", "-o", out, w.url(path)}, which...)...)
			if got := w.content(out); got != has.content {
				w.t.Errorf("%s: restored %s, expected %s", path, got, has.content)
			}
		}
		w.cli(codeOK, "restore", "-dry-run", w.url(path))
		objects := 0
		for o, err := range w.root.List(w.t.Context(), "app/"+path+"/", "") {
			if err != nil {
				w.t.Fatal(err)
			}
			objects++
			w.cli(codeOK, "inspect", strings.Replace(w.url(path), "/app/"+path, "/"+o.Key, 1))
		}
		if objects < 3 {
			w.t.Errorf("%s has %d objects", path, objects)
		}
	}
	w.cli(codeOK, "snapshot", w.url("small")) // there is one: nothing is written
	w.cli(codeOK, "doctor", "-read-only", w.url("small"))
	for _, args := range [][]string{{"ls"}, {"restore", "-o", w.file("nowhere.db")}, {"inspect"}} {
		path := "nowhere"
		if args[0] == "inspect" {
			path = "small/log/00000000ffffffff"
		}
		w.cli(codeNothing, append(args, w.url(path))...)
	}
}

// readOnlyRefused: replication with read-only credentials names what is missing.
func (w *s3World) readOnlyRefused() {
	w.t.Helper()
	w.cli(codeAccess, "snapshot", w.url("two"))
	c := w.open("small", "small.db", "replica_close_timeout=0")
	w.exec(c, "INSERT INTO t VALUES(7, 'f')")
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	for end := time.Now().Add(longest); ; time.Sleep(time.Millisecond) {
		s, err := vfs.Stat(w.file("small.db"))
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.Contains(s.Error, "s3:PutObject") && strings.Contains(s.Error, "access denied") {
			break
		}
		if time.Now().After(end) {
			w.t.Fatalf("writing with read-only credentials: %+v", s)
		}
	}
	cancel() // nothing can be uploaded
	if err := c.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := vfs.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "not uploaded") {
		w.t.Errorf("shutdown: %v", err)
	}
}

func (w *s3World) open(path, db string, params ...string) *sqlite3.Conn {
	w.t.Helper()
	c, err := sqlite3.Open(vfs.DSN(w.file(db), w.url(path), append(params, "replica_max_lag=0")...))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *s3World) exec(c *sqlite3.Conn, sql ...string) {
	w.t.Helper()
	for _, s := range sql {
		if err := c.Exec(s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

// close ends replication; with left something may be left undone.
func (w *s3World) close(c *sqlite3.Conn, left bool) {
	w.t.Helper()
	err := errors.Join(c.Close(), vfs.Shutdown(w.t.Context()))
	if err != nil && !left {
		w.t.Fatal(err)
	}
}

// replicate runs SQL on a database, each statement uploaded before the next, and
// notes what the replica then has.
func (w *s3World) replicate(path, db string, params []string, sql ...string) {
	w.t.Helper()
	var has content
	c := w.open(path, db, params...)
	for _, s := range sql {
		w.exec(c, s)
		var err error
		if has.txid, err = vfs.Sync(w.t.Context(), w.file(db)); err != nil {
			w.t.Fatalf("%s: %v", path, err)
		}
	}
	if s, err := vfs.Stat(w.file(db)); err != nil || s.Error != "" || s.Warning != "" && path != "weak" {
		w.t.Errorf("%s: %+v, %v", path, s, err)
	}
	w.close(c, false)
	has.content = w.content(w.file(db))
	w.has[path] = has
}

// plain changes a database that nothing replicates.
func (w *s3World) plain(db, sql string) {
	w.t.Helper()
	c, err := sqlite3.Open(w.file(db))
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	w.exec(c, strings.ReplaceAll(sql, "FROM generate_series(1, 12)", "FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM c WHERE value<12) SELECT value FROM c)"))
}

func (w *s3World) content(file string) string {
	w.t.Helper()
	c, err := sqlite3.Open(file)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	text, err := queryText(c, "SELECT count(*) || ' ' || sum(n) || ' ' || group_concat(hex(substr(b, 1, 8))) FROM (SELECT * FROM t ORDER BY n)")
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *s3World) cli(want int, args ...string) {
	w.t.Helper()
	if code, out, text := cli(args...); code != want {
		w.t.Errorf("outwash %v: exit code %d, expected %d\n%s%s", args, code, want, text, out)
	}
}

// lockedText is text from several goroutines.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(s)
}

func (l *lockedText) Write(b []byte) (int, error) { l.add(string(b)); return len(b), nil }

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// take returns the text and empties it.
func (l *lockedText) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.text.String()
	l.text.Reset()
	return s
}

// captureLog has the default logger's warnings and errors for the time of the test.
func captureLog(t *testing.T) *lockedText {
	l := new(lockedText)
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn})))
	t.Cleanup(func() { slog.SetDefault(old) })
	return l
}
