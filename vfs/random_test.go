package vfs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

var (
	flagSeed   = flag.Uint64("seed", 0, "first seed of TestRandom")
	flagRounds = flag.Int("rounds", 4, "rounds of TestRandom, each with a seed of its own")
	flagTime   = flag.Duration("time", 3*time.Second, "time of a round of TestRandom")
	flagOff    = flag.String("off", "", "gates that do nothing, comma-separated: TestRandom must fail then")
)

// What must hold of the workload's database after every commit.
var invariants = []string{
	"SELECT total(bal) FROM acc",
	"SELECT (SELECT v FROM meta WHERE k='ctr') - (SELECT ifnull(max(seq),0) FROM log)",
	"SELECT (SELECT v FROM meta WHERE k='ctr') - (SELECT v FROM meta WHERE k='trim') - (SELECT count(*) FROM log)",
	"SELECT (SELECT v FROM meta WHERE k='bytes') - (SELECT total(length(data)) FROM blobs)",
}

const schema = `
CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER);
INSERT INTO meta VALUES('ctr',0),('trim',0),('bytes',0);
CREATE TABLE acc(id INTEGER PRIMARY KEY, bal INTEGER, pad TEXT);
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<300) INSERT INTO acc SELECT x,0,hex(randomblob(20)) FROM c;
CREATE TABLE log(seq INTEGER PRIMARY KEY, who TEXT, n INTEGER);
CREATE INDEX log_who ON log(who);
CREATE TABLE blobs(id INTEGER PRIMARY KEY, data BLOB, tag TEXT);
CREATE INDEX blobs_tag ON blobs(tag);
`

// TestRandom runs random transactions on several connections, with checkpoints,
// VACUUM, rollbacks, closes and readers, and checks every entry: what it makes
// must satisfy the invariants, and no commit may be missing. Now and then the
// world stands still and the mirror is compared with the database byte by byte.
func TestRandom(t *testing.T) {
	for i := range *flagRounds {
		seed := *flagSeed + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { randomRound(t, seed, *flagTime, "wal") })
	}
}

// TestRandomModes does the same in rollback-journal modes, and while connections
// switch between all of them.
func TestRandomModes(t *testing.T) {
	for _, mode := range []string{"delete", "truncate", "persist", "memory", "switching"} {
		t.Run(mode, func(t *testing.T) { randomRound(t, *flagSeed, *flagTime*2/3, mode) })
	}
}

// TestGatesHaveTeeth switches each gate off: the random workload must notice.
func TestGatesHaveTeeth(t *testing.T) {
	for _, gates := range []string{"checkpoint", "checkpoint,restart", "checkpoint,truncate", "checkpoint,delete"} {
		t.Run(gates, func(t *testing.T) {
			for seed := range uint64(10) {
				if _, err := runRandom(t, seed, time.Second, "wal", gatesOff(gates), ""); err != nil {
					t.Logf("seed %d: noticed: %v", seed, err)
					return
				}
			}
			t.Errorf("nothing notices that the gates are off: %s", gates)
		})
	}
}

type randomWorld struct {
	*world
	seed     uint64
	extra    []string // of the DSN
	setup    string
	switches bool // between journal modes
	started  atomic.Bool
	rng      *rand.Rand // of the checks
	lastCtr  int
	checked  int

	still             sync.RWMutex // workers hold R for an operation
	stop              atomic.Bool
	failMu            sync.Mutex
	err               error
	ops, rolled, busy atomic.Int64
}

func pick[T any](r *rand.Rand, a ...T) T { return a[r.IntN(len(a))] }

func randomRound(t *testing.T, seed uint64, dur time.Duration, mode string) {
	rw, err := runRandom(t, seed, dur, mode, gatesOff(*flagOff), "")
	t.Logf("%d operations (%d rolled back, %d busy), %d entries checked; %v", rw.ops.Load(), rw.rolled.Load(), rw.busy.Load(), rw.checked, rw.mirror)
	if err != nil {
		t.Fatal(err)
	}
	rw.shutdown()
	rw.same()
	h, err := replicate.ReadHistory(t.Context(), rw.store)
	must(t, err)
	if h.TXID < rw.txids() {
		t.Fatalf("the replica ends at %d, %d transactions were captured", h.TXID, rw.txids())
	}
}

func (w *world) txids() uint64 { _, n := w.mirror.Checksum(); return n }

// runRandom returns what went wrong, so that a test can expect it.
func runRandom(t testing.TB, seed uint64, dur time.Duration, mode string, off map[string]bool, base string) (*randomWorld, error) {
	r := rand.New(rand.NewPCG(seed, 1))
	opts := Options{Base: base, MaxLag: pick(r, replicate.AsFast, 50*time.Millisecond, time.Second)}
	opts.hooks.off = off
	rw := &randomWorld{world: newWorld(t, opts), seed: seed, rng: rand.New(rand.NewPCG(seed, 2))}
	if base != "" {
		overBase(rw.world, base)
	}
	rw.each = rw.checkEntry
	journal := mode
	if mode == "switching" {
		rw.switches, journal = true, "wal"
	}
	size := pick(r, 512, 1024, 4096, 4096, 8192, 65536)
	vacuum := r.IntN(3)
	if r.IntN(3) == 0 {
		rw.extra = []string{"psow=0"}
	}
	rw.setup = fmt.Sprintf("PRAGMA synchronous=%s; PRAGMA cache_size=10; PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d; PRAGMA temp_store=memory",
		pick(r, "OFF", "NORMAL", "NORMAL", "FULL", "EXTRA"), pick(r, 0, 20, 100, 1000), pick(r, -1, 0, 50000))
	t.Logf("page_size=%d auto_vacuum=%d max_lag=%v %v %s", size, vacuum, opts.MaxLag, rw.extra, rw.setup)

	c := rw.open(rw.extra...)
	exec(t, c, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA journal_mode=%s; %s; BEGIN; %s COMMIT", size, vacuum, journal, rw.setup, schema))
	if mode != "wal" && mode != "switching" { // memory isn't kept by the file
		rw.setup += "; PRAGMA journal_mode=" + mode
	}
	rw.sync()
	rw.started.Store(true)

	const workers = 5
	conns := make([]*sqlite3.Conn, workers)
	var wg sync.WaitGroup
	for i := range workers {
		conns[i] = rw.openSetUp()
		wg.Go(func() { rw.work(i, &conns[i]) })
	}
	wg.Go(rw.read)
	stills := 0
	for end := time.Now().Add(dur); time.Now().Before(end) && !rw.stop.Load(); stills++ {
		time.Sleep(time.Duration(100+r.IntN(150)) * time.Millisecond)
		rw.still.Lock()
		if err := rw.compare(r, &c, conns); err != nil {
			rw.report(err)
		}
		rw.still.Unlock()
	}
	rw.stop.Store(true)
	wg.Wait()
	if err := c.Exec("UPDATE acc SET pad=hex(randomblob(9)) WHERE id=1"); err != nil { // see compare
		rw.report(err)
	}
	for _, c := range append(conns, c) {
		c.Close()
	}
	for _, db := range rw.databases() {
		if s := db.capture.Stats(); s.Excess != 0 || s.Repairs != 0 {
			rw.report(fmt.Errorf("gates found what was not captured before: %+v", s))
		}
	}
	rw.failMu.Lock()
	defer rw.failMu.Unlock()
	return rw, errors.Join(rw.err, rw.failed())
}

func gatesOff(list string) map[string]bool {
	off := map[string]bool{}
	for _, g := range strings.Split(list, ",") {
		off[g] = true
	}
	return off
}

func (rw *randomWorld) report(err error) {
	rw.failMu.Lock()
	defer rw.failMu.Unlock()
	if rw.err == nil {
		rw.err = err
	}
	rw.stop.Store(true)
}

func (rw *randomWorld) openSetUp() *sqlite3.Conn {
	c, err := rw.tryOpen(rw.extra...)
	if err == nil {
		err = c.Exec(rw.setup)
	}
	if err != nil {
		rw.report(err)
	}
	return c
}

// checkEntry is called with the mirror at each entry.
func (rw *randomWorld) checkEntry(e *segment.Entry) error {
	if !rw.started.Load() {
		return nil
	}
	img, _ := rw.mirror.Image()
	ctr := 0
	err := mirror.Query(img, func(c *sqlite3.Conn) error {
		s, err := mirror.Text(c, "SELECT v FROM meta WHERE k='ctr'")
		if err == nil {
			ctr, err = strconv.Atoi(s)
		}
		return errors.Join(err, mirror.CheckConn(c, rw.rng.IntN(20) == 0, invariants...))
	})
	if err != nil {
		return fmt.Errorf("%s of %d: %w", e.Kind, e.Count, err)
	}
	if d := ctr - rw.lastCtr; d < 0 || d > int(e.Count) {
		return fmt.Errorf("the counter went from %d to %d in a %s of %d: a commit is missing", rw.lastCtr, ctr, e.Kind, e.Count)
	}
	if e.Kind == segment.Repair {
		return errors.New("repaired, although nobody else wrote")
	}
	rw.lastCtr = ctr
	rw.checked++
	return nil
}

// compare is called while the world stands still.
func (rw *randomWorld) compare(r *rand.Rand, c **sqlite3.Conn, conns []*sqlite3.Conn) error {
	// Transactions that were rolled back change free pages in rollback-journal modes.
	if err := (*c).Exec("UPDATE acc SET pad=hex(randomblob(9)) WHERE id=1"); err != nil {
		return err
	}
	if _, err := syncNow(rw.world); err != nil {
		return err
	}
	switch r.IntN(4) {
	case 0: // checkpoint everything
		if _, _, err := (*c).WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE); err != nil {
			return err
		}
		return rw.compareFile()
	case 1: // close everything: the last close removes the WAL
		for _, c := range conns {
			c.Close()
		}
		(*c).Close()
		var err error
		if _, e := os.Stat(rw.path + "-wal"); e != nil { // the reader may hold it
			err = rw.compareFile()
		}
		for i := range conns {
			conns[i] = rw.openSetUp()
		}
		*c = rw.openSetUp()
		return err
	}
	if mode, err := mirror.Text(*c, "PRAGMA journal_mode"); err != nil || mode != "wal" {
		// The file has it all, and free pages in a cache are not what the file has.
		return errors.Join(err, rw.compareFile())
	}
	backup := rw.path + ".bak"
	os.Remove(backup)
	if err := (*c).Backup("main", rw.without(backup)); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	want := (&world{t: rw.t, path: backup, base: rw.base, params: rw.params}).file()
	got, size := rw.mirror.Image()
	for _, f := range [][2]int{{18, 20}, {24, 28}, {40, 44}, {92, 100}} { // a backup sets these anew
		clear(want[f[0]:f[1]])
		clear(got[f[0]:f[1]])
	}
	return mirror.Compare(want, got, size)
}

func syncNow(w *world) (uint64, error) {
	txid, err := Sync(w.t.Context(), w.path)
	return txid, errors.Join(err, w.failed())
}

func (w *world) compareFile() error {
	want := w.file()
	got, size := w.mirror.Image()
	return mirror.Compare(want, got, size)
}

// read holds snapshots.
func (rw *randomWorld) read() {
	r := rand.New(rand.NewPCG(rw.seed, 99))
	c := rw.openSetUp()
	defer func() { c.Close() }()
	for !rw.stop.Load() {
		rw.still.RLock()
		c.Exec("BEGIN; SELECT count(*) FROM meta")
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		for _, q := range invariants {
			if s, err := mirror.Text(c, q); err != nil || s != "0" && s != "0.0" {
				rw.report(fmt.Errorf("the source itself is wrong: %s = %s (%w)", q, s, err))
			}
		}
		c.Exec("COMMIT")
		rw.still.RUnlock()
		time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
	}
}

var errReopen = errors.New("reopen")

func (rw *randomWorld) work(i int, c **sqlite3.Conn) {
	r := rand.New(rand.NewPCG(rw.seed, uint64(100+i)))
	for !rw.stop.Load() {
		rw.still.RLock()
		var err error
		if rw.switches && r.IntN(20) == 0 {
			err = (*c).Exec("PRAGMA journal_mode=" + pick(r, "wal", "delete", "truncate", "persist", "memory"))
		} else {
			err = oneOperation(r, *c, i, &rw.rolled)
		}
		if errors.Is(err, errReopen) {
			(*c).Close()
			*c, err = rw.openSetUp(), nil
		}
		if err != nil {
			if errors.Is(err, sqlite3.BUSY) || errors.Is(err, sqlite3.LOCKED) {
				rw.busy.Add(1)
			} else {
				rw.report(fmt.Errorf("worker %d: %w", i, err))
			}
			(*c).Exec("ROLLBACK")
		}
		rw.ops.Add(1)
		rw.still.RUnlock()
	}
}

func oneOperation(r *rand.Rand, c *sqlite3.Conn, worker int, rolled *atomic.Int64) error {
	switch n := r.IntN(100); {
	case n < 6:
		_, _, err := c.WALCheckpoint("main", pick(r, sqlite3.CHECKPOINT_PASSIVE, sqlite3.CHECKPOINT_FULL, sqlite3.CHECKPOINT_RESTART, sqlite3.CHECKPOINT_TRUNCATE))
		return err
	case n < 7:
		return c.Exec("VACUUM")
	case n < 9:
		return c.Exec("PRAGMA incremental_vacuum(20)")
	case n < 11:
		return errReopen
	case n < 12:
		return c.Exec(fmt.Sprintf("CREATE TABLE IF NOT EXISTS x%d(a); DROP TABLE IF EXISTS x%d", r.IntN(5), r.IntN(5)))
	}
	if err := c.Exec(pick(r, "BEGIN IMMEDIATE", "BEGIN IMMEDIATE", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")); err != nil {
		return err
	}
	if err := c.Exec(randomBody(r, worker)); err != nil {
		return err
	}
	if r.IntN(6) == 0 {
		rolled.Add(1)
		return c.Exec("ROLLBACK")
	}
	return c.Exec("COMMIT")
}

// randomBody is a transaction that keeps the invariants.
func randomBody(r *rand.Rand, worker int) string {
	var sql bytes.Buffer
	grow := func(by string) { fmt.Fprintf(&sql, "UPDATE meta SET v=v+(%s) WHERE k='bytes';", by) }
	body := func() {
		switch r.IntN(6) {
		case 0, 1, 2:
			a, b, m := r.IntN(300)+1, r.IntN(300)+1, r.IntN(1000)
			fmt.Fprintf(&sql, "UPDATE acc SET bal=bal-%d WHERE id=%d; UPDATE acc SET bal=bal+%d WHERE id=%d;", m, a, m, b)
		case 3: // large: the cache spills, frames are rewritten
			n, l := r.IntN(80)+1, r.IntN(4000)+1
			fmt.Fprintf(&sql, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<%d) INSERT INTO blobs(data,tag) SELECT randomblob(%d),hex(randomblob(4)) FROM c;", n, l)
			grow(fmt.Sprint(n * l))
			fmt.Fprintf(&sql, "UPDATE acc SET pad=hex(randomblob(%d)) WHERE id%%%d=0;", r.IntN(40), r.IntN(20)+2)
		case 4:
			cond := fmt.Sprintf("id%%%d=%d", r.IntN(7)+2, r.IntN(2))
			grow("-(SELECT total(length(data)) FROM blobs WHERE " + cond + ")")
			fmt.Fprintf(&sql, "DELETE FROM blobs WHERE %s;", cond)
		case 5:
			fmt.Fprintf(&sql, "UPDATE blobs SET tag=hex(randomblob(3)) WHERE id%%%d=1;", r.IntN(9)+1)
		}
	}
	for range r.IntN(3) + 1 {
		body()
	}
	if r.IntN(4) == 0 {
		sql.WriteString("SAVEPOINT s1;")
		body()
		body()
		if r.IntN(2) == 0 {
			sql.WriteString("SAVEPOINT s2;")
			body()
			sql.WriteString("ROLLBACK TO s2; RELEASE s2;")
		}
		sql.WriteString(pick(r, "RELEASE s1;", "ROLLBACK TO s1; RELEASE s1;", "ROLLBACK TO s1;"))
		body()
	}
	fmt.Fprintf(&sql, "UPDATE meta SET v=v+1 WHERE k='ctr'; INSERT INTO log SELECT v,'w%d',%d FROM meta WHERE k='ctr';", worker, r.IntN(100))
	if r.IntN(30) == 0 {
		sql.WriteString("UPDATE meta SET v=(SELECT max(seq)-10 FROM log) WHERE k='trim' AND (SELECT count(*) FROM log)>20; DELETE FROM log WHERE seq<=(SELECT v FROM meta WHERE k='trim');")
	}
	return sql.String()
}
