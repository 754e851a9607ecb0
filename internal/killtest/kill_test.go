package killtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/replicate"
)

var (
	flagSeed  = flag.Uint64("seed", 0, "seed of the first database")
	flagKills = flag.Int("kills", 120, "how often to kill, at least")
	flagKeep  = flag.String("keep", "", "directory that keeps the files of a failure")
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		childMain(text)
		return
	}
	if text := os.Getenv(sidecarEnv); text != "" {
		sidecarMain(text)
		return
	}
	if cache := os.Getenv(contenderEnv); cache != "" {
		contenderMain(cache)
		return
	}
	if cache := os.Getenv(actorEnv); cache != "" {
		actorMain(cache)
		return
	}
	os.Exit(m.Run())
}

// killsPerDatabase is how often the same database is killed before it must end
// with nothing missing.
const killsPerDatabase = 12

// TestKill: whenever a program is killed, the replica has what was acknowledged,
// and is a prefix of what was committed; and the program goes on when it is
// started again, with nothing missing in the end.
func TestKill(t *testing.T) {
	cache := t.TempDir()
	if err := setupDriver(cache); err != nil {
		t.Fatal(err)
	}
	var sum tally
	for seed := *flagSeed; sum.kills < *flagKills && !t.Failed(); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newSubject(t, seed, cache, &sum)
			w.torment()
		})
	}
	t.Log(&sum)
	if sum.kills < *flagKills && !t.Failed() {
		t.Errorf("%d kills, want %d", sum.kills, *flagKills)
	}
	if sum.commits == 0 || sum.acked == 0 {
		t.Error("nothing was committed, or nothing acknowledged")
	}
}

// tally counts over all databases.
type tally struct {
	kills, databases int
	opening, behind  int // kills before the first open returned; with commits that the replica didn't have
	spool            int // kills that left entries in the spool
	empty            int // kills that left a replica with nothing to restore
	commits, acked   int
	restores         int
}

func (s *tally) String() string {
	return fmt.Sprintf("%d databases, %d kills: %d while opening, %d with commits that the replica lacked, %d with a spool, %d before there was anything to restore; "+
		"%d commits, %d acknowledgements, %d restores", s.databases, s.kills, s.opening, s.behind, s.spool, s.empty, s.commits, s.acked, s.restores)
}

// subject is one database that is killed again and again.
type subject struct {
	t    *testing.T
	r    *rand.Rand
	sum  *tally
	dir  string
	seed uint64
	base job

	runs      uint64
	log       bytes.Buffer // what the last child logged
	committed int          // highest counter that COMMIT returned for
	acks      []ack        // in order
	sideRead  int64        // of the side log
}

type ack struct {
	txid uint64
	ctr  int
}

func newSubject(t *testing.T, seed uint64, cache string, sum *tally) *subject {
	w := &subject{t: t, r: rand.New(rand.NewPCG(seed, 1)), sum: sum, seed: seed}
	w.dir = w.temp()
	if *flagKeep != "" {
		w.dir = filepath.Join(*flagKeep, fmt.Sprint("seed", seed))
		w.must(os.MkdirAll(w.dir, 0o700))
	}
	w.base = job{
		Path: filepath.Join(w.dir, "app.db"), Store: filepath.Join(w.dir, "replica"), Side: filepath.Join(w.dir, "side"),
		Cache: cache, PageSize: pick(w.r, 512, 1024, 4096, 4096, 8192, 65536), AutoVacuum: w.r.IntN(3),
	}
	w.must(os.Mkdir(w.base.Store, 0o700))
	before := pick(w.r, "nothing", "nothing", "small", "large")
	if before != "nothing" {
		w.prepare(before == "large")
	}
	t.Logf("page_size=%d auto_vacuum=%d, %s there before", w.base.PageSize, w.base.AutoVacuum, before)
	sum.databases++
	return w
}

func (w *subject) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// temp returns a new directory, mostly one in memory: a kill does not empty the
// page cache, so that syncing decides nothing and only takes time.
func (w *subject) temp() string {
	if w.seed%4 == 3 {
		return w.t.TempDir()
	}
	return memoryDir(w.t)
}

// prepare makes the database before it is replicated.
func (w *subject) prepare(large bool) {
	c := w.plain(w.base.Path)
	w.must(c.Exec(fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA journal_mode=%s", w.base.PageSize, w.base.AutoVacuum, pick(w.r, "wal", "delete"))))
	w.must(createTables(c))
	for range 5 {
		_, err := transaction(w.r, c, "before")
		w.must(err)
	}
	if large { // too large for one entry: its first contact is a snapshot
		w.must(c.Exec("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<100) INSERT INTO blobs(data,tag) SELECT randomblob(60000),'big' FROM c"))
		_, err := transaction(rand.New(rand.NewPCG(1, 1)), c, "before")
		w.must(err)
	}
	w.must(c.Close())
}

// plain opens a database with the driver alone.
func (w *subject) plain(path string) *sqlite3.Conn {
	w.t.Helper()
	c, err := sqlite3.Open("file:" + path)
	w.must(err)
	w.must(addFunctions(c))
	return c
}

// torment kills killsPerDatabase times, then lets the database end.
func (w *subject) torment() {
	for n := 0; n < killsPerDatabase; {
		for _, delay := range w.delays() {
			j := w.job()
			w.run(j, delay)
			n++
			w.t.Logf("kill %d: %s store, synchronous=%s wal_autocheckpoint=%d journal_size_limit=%d max_lag=%v, after %v",
				n, j.Fault, j.Synchronous, j.AutoCheckpoint, j.JournalLimit, j.MaxLag, delay)
		}
		w.check()
	}
	for _, e := range []end{pick(w.r, synced, shut), orderly} {
		j := w.job()
		j.End = e
		w.run(j, 0)
		w.t.Logf("%s (%s store)", e, j.Fault)
		w.check()
		w.same()
	}
}

// delays are when to kill: once, or several times in short order.
func (w *subject) delays() []time.Duration {
	ms := func(n int) time.Duration { return time.Duration(w.r.IntN(n*1000)) * time.Microsecond }
	switch w.r.IntN(8) {
	case 0, 1:
		return []time.Duration{ms(400), ms(30)}
	case 2:
		return []time.Duration{ms(30)}
	case 3:
		return []time.Duration{ms(120)}
	}
	return []time.Duration{100*time.Millisecond + ms(300)}
}

func (w *subject) job() job {
	j := w.base
	w.runs++
	j.Seed = w.seed<<16 | w.runs
	j.Synchronous = pick(w.r, "OFF", "NORMAL", "NORMAL", "FULL", "EXTRA")
	j.AutoCheckpoint = pick(w.r, 0, 20, 100, 1000)
	j.JournalLimit = pick(w.r, -1, 0, 50000)
	j.MaxLag = pick(w.r, replicate.AsFast, 5*time.Millisecond, 50*time.Millisecond, time.Second)
	j.Fault = pick(w.r, healthy, healthy, healthy, slow, flaky, lossy, away, comes)
	if j.Fault == away || j.Fault == comes {
		// What a checkpoint takes from the log is then in the spool or nowhere.
		j.AutoCheckpoint = pick(w.r, 5, 20, 100)
	}
	j.End = never
	return j
}

// run runs the child. One that works on is killed after the delay.
func (w *subject) run(j job, delay time.Duration) {
	w.t.Helper()
	text, err := json.Marshal(j)
	w.must(err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	w.log.Reset()
	cmd.Stderr = &w.log
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	hung := time.AfterFunc(2*slowest, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()

	var said []string
	lines := bufio.NewScanner(out)
	read := func(until string) bool {
		for lines.Scan() {
			said = append(said, lines.Text())
			if lines.Text() == until {
				return true
			}
		}
		return false
	}
	killed := false
	kill := func() { killed = cmd.Process.Kill() == nil }
	switch {
	case j.End == never && read("START"):
		time.Sleep(delay)
		kill()
	case j.End == synced && read("SYNCED"):
		kill()
	}
	read("")
	err = cmd.Wait()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed = killed && status.Signaled() && status.Signal() == syscall.SIGKILL
	want := j.End == never || j.End == synced
	if failed := len(said) > 0 && strings.HasPrefix(said[len(said)-1], "ERR"); failed || killed != want || !want && err != nil {
		w.t.Fatalf("run %d, %+v, kill after %v: ended with %v, said %q\n%s", w.runs, j, delay, err, said, &w.log)
	}
	if !killed {
		return
	}
	w.sum.kills++
	if len(said) == 1 {
		w.sum.opening++
	}
	if fi, err := os.Stat(j.Path + "-replicated/spool"); err == nil && fi.Size() > 100 {
		w.sum.spool++
	}
}

// check compares what the replica gives with the source, as both are now.
func (w *subject) check() {
	w.t.Helper()
	w.readSide()
	src := w.source()
	if src == nil {
		if len(w.acks) > 0 {
			w.t.Fatal("the database is gone")
		}
		return
	}
	defer src.Close()
	w.must(mirror.CheckConn(src, false, invariants...))
	have := w.counter(src)
	if have < w.committed {
		w.t.Fatalf("the database itself lost commits: it is at %d, %d was committed", have, w.committed)
	}
	least := ack{ctr: -1}
	if len(w.acks) > 0 {
		least = w.acks[len(w.acks)-1]
		early := w.acks[w.r.IntN(len(w.acks))]
		w.restored(early.txid, early, src)
	}
	if w.restored(0, least, src) < have {
		w.sum.behind++
	}
}

// readSide reads what the child noted.
func (w *subject) readSide() {
	b, err := os.ReadFile(w.base.Side)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	w.must(err)
	b = b[w.sideRead:]
	w.sideRead += int64(len(b))
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch f[0] {
		case "C":
			w.committed = max(w.committed, w.atoi(f[1]))
			w.sum.commits++
		case "A":
			w.acks = append(w.acks, ack{uint64(w.atoi(f[1])), w.atoi(f[2])})
			w.sum.acked++
		}
	}
}

func (w *subject) atoi(s string) int {
	w.t.Helper()
	n, err := strconv.Atoi(s)
	w.must(err)
	return n
}

// source opens a copy of the database and its log as the kill left them; nil if
// it has no tables yet.
func (w *subject) source() *sqlite3.Conn {
	w.t.Helper()
	dir := w.temp()
	for _, f := range []string{"", "-wal", "-journal"} {
		if err := copyFile(dir+"/app.db"+f, w.base.Path+f); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
	}
	c := w.plain(dir + "/app.db")
	if n, err := mirror.Text(c, "SELECT count(*) FROM sqlite_schema WHERE name='meta'"); err != nil || n == "0" {
		w.must(err)
		c.Close()
		return nil
	}
	return c
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (w *subject) counter(c *sqlite3.Conn) int {
	w.t.Helper()
	s, err := mirror.Text(c, "SELECT v FROM meta WHERE k='ctr'")
	w.must(err)
	return w.atoi(s)
}

// restored restores a TXID and checks that it is a state of the source, not
// older than what was acknowledged. It returns the counter; -1: nothing.
func (w *subject) restored(txid uint64, least ack, src *sqlite3.Conn) int {
	w.t.Helper()
	path, err := w.restore(txid)
	if err != nil {
		if least.ctr < 0 && nothingYet(err) {
			w.sum.empty++
			return -1
		}
		w.t.Fatalf("restore of %d (acknowledged: %+v): %v", txid, least, err)
	}
	c := w.plain(path)
	defer c.Close()
	w.must(mirror.CheckConn(c, true))
	if n, err := mirror.Text(c, "SELECT count(*) FROM sqlite_schema WHERE name='meta'"); err != nil || n == "0" {
		w.must(err)
		if least.ctr >= 0 {
			w.t.Fatalf("restored: no tables, although counter %d was acknowledged at TXID %d", least.ctr, least.txid)
		}
		return -1
	}
	if err := mirror.CheckConn(c, false, invariants...); err != nil {
		w.t.Fatalf("restored: %v", err)
	}
	ctr, have := w.counter(c), w.counter(src)
	if ctr < least.ctr || ctr > have {
		w.t.Fatalf("restored TXID %d is at counter %d; %d was acknowledged at TXID %d, the source is at %d", txid, ctr, least.ctr, least.txid, have)
	}
	q := fmt.Sprintf("SELECT count(*)||' '||ifnull(sum(rowhash(seq,who,hash)),0) FROM log WHERE seq<=%d", ctr)
	got, err := mirror.Text(c, q)
	w.must(err)
	want, err := mirror.Text(src, q)
	w.must(err)
	if got != want {
		w.t.Fatalf("restored TXID %d, counter %d: its log is %s, the source's %s", txid, ctr, got, want)
	}
	return ctr
}

func (w *subject) restore(txid uint64) (string, error) {
	s, err := replicate.OpenStore(context.Background(), "file://"+w.base.Store)
	w.must(err)
	path := filepath.Join(w.temp(), "restored.db")
	w.sum.restores++
	_, err = replicate.Restore(context.Background(), replicate.RestoreOptions{Store: s, Output: path, TXID: txid})
	return path, err
}

// nothingYet reports whether err says that the replica has no commit yet, or that
// the first snapshot of a database that was there before is not finished.
func nothingYet(err error) bool {
	return errors.Is(err, replicate.ErrNoReplica) || errors.Is(err, replicate.ErrNotRestorable)
}

// same checks that the source, with its log copied into it, is what is restored.
func (w *subject) same() {
	w.t.Helper()
	path, err := w.restore(0)
	w.must(err)
	got, err := os.ReadFile(path)
	w.must(err)
	dir := w.temp()
	w.must(copyFile(dir+"/app.db", w.base.Path))
	if err := copyFile(dir+"/app.db-wal", w.base.Path+"-wal"); err == nil {
		c := w.plain(dir + "/app.db")
		w.counter(c) // a connection that has read nothing checkpoints nothing
		_, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
		w.must(err)
		w.must(c.Close())
	}
	want, err := os.ReadFile(dir + "/app.db")
	w.must(err)
	size := int(want[16])<<8 | int(want[17])
	if size == 1 {
		size = 65536
	}
	if err := mirror.Compare(want, got, size); err != nil {
		src, c := w.source(), w.plain(path)
		defer src.Close()
		defer c.Close()
		w.t.Fatalf("restored %d bytes at counter %d of %d: %v\n%s", len(got), w.counter(c), w.counter(src), err, &w.log)
	}
	w.t.Logf("equal: %d pages, counter %d", len(got)/size, w.committed)
}
