//go:build linux

package sidecar_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

var flagMinute = flag.Bool("minute", false, "TestProgram and TestPython for a minute, with TRUNCATE every 5 s; else a twelfth of both")

// programWork is how much a program writes, 50 transactions a second if the machine is
// fast enough, how often it truncates its log, and how many times at least.
func programWork() (commits int, truncate time.Duration, times int) {
	if *flagMinute {
		return 3000, 5 * time.Second, 9
	}
	return 250, 400 * time.Millisecond, 9
}

// TestProgram: a program writes 50 transactions a second, with TRUNCATE checkpoints of
// its own. All of these return 0; each commit has a TXID of its own; each of these is
// the database after that commit.
func TestProgram(t *testing.T) {
	h := newHost(t, nil)
	h.opts.MaxLag = replicate.DefaultMaxLag
	h.opts.EachItsEntry()
	commits, truncate, times := programWork()
	first := h.app()
	first.Must("PRAGMA journal_mode=wal")
	h.start()
	w := stocksqlite.StartWork(t, stocksqlite.Work{Path: h.path, Rate: 50, Truncate: truncate})
	w.WaitDone(commits, times)
	must(t, w.Stop())
	r := w.Report()
	var longest time.Duration
	for _, ck := range r.Checkpoints {
		longest = max(longest, ck.Took)
		if ck.Busy != 0 || ck.Log != 0 {
			t.Errorf("a checkpoint returned %+v", ck)
		}
	}
	must(t, first.Close())
	h.oneEach(r.Commits, "SELECT v FROM meta WHERE k='ctr'")
	t.Logf("%d commits; %d TRUNCATE checkpoints returned 0, after %v at most", r.Commits, len(r.Checkpoints), longest)
}

// oneEach ends the sidecar and checks that the log has an entry for each commit, by
// what a query answers: 1, 2 and so on. What is restored for some of these TXIDs is
// what the mirror had there.
func (h *host) oneEach(commits int, sql string) {
	h.t.Helper()
	states := map[uint64][32]byte{}
	last, newest := 0, uint64(0)
	h.each = func(e *segment.Entry, m *mirror.Mirror) error {
		image, _ := m.Image()
		if len(image) == 0 {
			return nil // a claim
		}
		n := 0
		err := mirror.Query(image, func(c *sqlite3.Conn) error {
			s, err := mirror.Text(c, sql)
			if err != nil && last == 0 {
				return nil // there was no table yet
			}
			_, scan := fmt.Sscan(s, &n)
			return errors.Join(err, scan)
		})
		if err != nil {
			return err
		}
		if last > 0 && (n != last+1 || e.Count != 1 || e.Kind != segment.Transaction) {
			return fmt.Errorf("a %s of %d from commit %d to %d", e.Kind, e.Count, last, n)
		}
		last, newest = n, e.MaxTXID
		states[e.MaxTXID] = sha256.Sum256(image)
		return nil
	}
	h.finish()
	if last != commits {
		h.t.Errorf("the log ends at commit %d of %d", last, commits)
	}
	for txid := newest; txid > 1; txid -= min(txid-1, max(1, newest/7)) {
		if want, ok := states[txid]; ok && sha256.Sum256(h.restore(txid)) != want {
			h.t.Errorf("TXID %d is restored as another state", txid)
		}
	}
}

// python runs a script with Python's SQLite and decodes what it prints. The version
// that it has is another one than the tests' own, often an old one.
func python(t *testing.T, script string, args ...string) (out struct {
	SQLite      string
	Commits     int
	Checkpoints [][3]int
	Odd         int
}) {
	t.Helper()
	bin, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(bin, "-c", "import sqlite3").Run()
	}
	if err != nil {
		t.Skipf("no python3 with sqlite3 here: %v", err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(bin, append([]string{"-c", script}, args...)...)
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	must(t, json.Unmarshal(b, &out))
	return out
}

// TestPython: a program in Python writes 50 transactions a second, with TRUNCATE
// checkpoints of its own.
func TestPython(t *testing.T) {
	h := newHost(t, nil)
	h.opts.MaxLag = replicate.DefaultMaxLag
	h.opts.EachItsEntry()
	h.start()
	commits, truncate, times := programWork()
	out := python(t, `
import json, sqlite3, sys, time
path, commits, every, times = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
db = sqlite3.connect(path, isolation_level=None, timeout=60)
db.execute("PRAGMA journal_mode=wal")
db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, text)")
n, checkpoints, began = 0, [], time.monotonic()
while True:
    now = time.monotonic() - began
    if now >= every * (len(checkpoints) + 1):
        checkpoints.append(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    if n >= commits and len(checkpoints) >= times:
        break
    if n >= now * 50:
        time.sleep(min(0.02, n / 50 - now + 0.0005))
        continue
    n += 1
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES(?, hex(randomblob(40)))", (n,))
    db.execute("UPDATE t SET text=hex(randomblob(20)) WHERE n=?", (n // 2,))
    db.execute("COMMIT")
db.close()
json.dump({"sqlite": sqlite3.sqlite_version, "commits": n, "checkpoints": checkpoints}, sys.stdout)
`, h.path, fmt.Sprint(commits), fmt.Sprint(truncate.Seconds()), fmt.Sprint(times))
	for _, ck := range out.Checkpoints {
		if ck != [3]int{} {
			t.Errorf("a checkpoint returned %v", ck)
		}
	}
	h.oneEach(out.Commits, "SELECT ifnull(max(n),0) FROM t")
	t.Logf("SQLite %s: %d commits; %d TRUNCATE checkpoints returned 0", out.SQLite, out.Commits, len(out.Checkpoints))
}

// TestPythonRolledBackSpill: transactions larger than the cache are rolled back to a
// savepoint. Versions of SQLite before 3.45 then commit frames that have neither salts
// nor checksums (they skip those behind the first one that they rewrote, which the
// rollback took away). What the log says can't be proven then, so the database is
// compared: nothing stalls, and nothing is wrong.
func TestPythonRolledBackSpill(t *testing.T) {
	h := newHost(t, nil)
	h.start()
	out := python(t, `
import json, sqlite3, struct, subprocess, sys, time
path = sys.argv[1]
db = sqlite3.connect(path, isolation_level=None, timeout=60)
db.execute("PRAGMA journal_mode=wal")
db.execute("PRAGMA cache_size=5")
db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, a, b)")
many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<?) INSERT INTO t(a, b) SELECT random(), randomblob(900) FROM c"

def odd():
    "frames that are committed without the log's salts"
    # By another process: who closes a file loses all locks that it has on it.
    log, index = (subprocess.check_output(["cat", path + f]) for f in ("-wal", "-shm"))
    if len(log) < 32:
        return 0
    frames = range(32, 32 + struct.unpack("=I", index[16:20])[0] * 4120, 4120)
    return sum(log[f + 8:f + 16] != log[16:24] for f in frames)

commits, checkpoints, most = 0, [], 0
for i in range(20):
    db.execute("BEGIN")
    db.execute(many, (40,))
    db.execute("SAVEPOINT s")
    db.execute(many, (200,))
    for n, size in (20, 890), (40, 880), (40, 890):
        db.execute("UPDATE t SET b=randomblob(?) WHERE n>(SELECT max(n) FROM t)-?", (size, n))
    db.execute("ROLLBACK TO s")
    db.execute("INSERT INTO t(a) VALUES(1)")
    db.execute("UPDATE t SET a=2 WHERE n=1")
    db.execute("COMMIT")
    commits += 1
    most = max(most, odd())
    time.sleep(0.02)
    if i % 8 == 7:
        checkpoints.append(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
db.execute("INSERT INTO t(a) VALUES('last')")
db.close()
json.dump({"sqlite": sqlite3.sqlite_version, "commits": commits, "checkpoints": checkpoints, "odd": most}, sys.stdout)
`, h.path)
	for _, ck := range out.Checkpoints {
		if ck != [3]int{} {
			t.Errorf("a checkpoint returned %v", ck)
		}
	}
	repairs := 0
	h.each = func(e *segment.Entry, _ *mirror.Mirror) error {
		if e.Kind == segment.Repair {
			repairs++
		}
		return nil
	}
	m := h.finish()
	t.Logf("SQLite %s: up to %d odd frames in the log, %d repairs; %v", out.SQLite, out.Odd, repairs, m)
	query(t, h.restore(0), "SELECT a FROM t ORDER BY n DESC LIMIT 1", "last")
	query(t, h.restore(0), "SELECT count(*) FROM t", fmt.Sprint(out.Commits*41+1))
}
