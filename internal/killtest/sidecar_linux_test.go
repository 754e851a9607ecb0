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
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

var flagSidecarKills = flag.Int("sidecar-kills", 50, "how many rounds of TestKillSidecar, each with a kill or two")

// roundsPerPair is how often the same database is used.
const roundsPerPair = 10

// TestKillSidecar: a program with stock SQLite writes a database and a sidecar
// replicates it; one of both, or both, are killed at any moment. Each time the
// replica has what was acknowledged and is a prefix of what was committed; and once
// both ran again, it has all.
func TestKillSidecar(t *testing.T) {
	cache := t.TempDir()
	if err := setupDriver(cache); err != nil {
		t.Fatal(err)
	}
	var sum pairTally
	for seed := *flagSeed; sum.rounds < *flagSidecarKills && !t.Failed(); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			p := newPair(t, seed, cache, &sum)
			for range roundsPerPair {
				p.round()
			}
			p.end()
		})
	}
	t.Log(&sum)
	if sum.sidecars == 0 || sum.apps == 0 || sum.behind == 0 || sum.acked == 0 {
		t.Error("what is to be tested did not happen")
	}
}

// pairTally counts over all databases.
type pairTally struct {
	rounds, sidecars, apps, spool, behind, empty int
	commits, acked, restores                     int
}

func (s *pairTally) String() string {
	return fmt.Sprintf("%d rounds: %d kills of the sidecar, %d of the application; %d left commits that the replica lacked, %d a spool, %d nothing to restore yet; "+
		"%d commits, %d acknowledgements, %d restores", s.rounds, s.sidecars, s.apps, s.behind, s.spool, s.empty, s.commits, s.acked, s.restores)
}

// pair is an application, its sidecar and their database.
type pair struct {
	t    *testing.T
	r    *rand.Rand
	sum  *pairTally
	base job
	work stocksqlite.Work

	app  *stocksqlite.Worker
	side *sidecarChild

	acks      []ack
	committed int // the highest counter that a COMMIT returned for, of workers that ended
}

func newPair(t *testing.T, seed uint64, cache string, sum *pairTally) *pair {
	dir := memoryDir(t) // a kill doesn't empty the page cache
	r := rand.New(rand.NewPCG(seed, 11))
	p := &pair{t: t, r: r, sum: sum, base: job{Path: filepath.Join(dir, "app.db"), Store: filepath.Join(dir, "replica"), Cache: cache}}
	p.must(os.Mkdir(p.base.Store, 0o700))
	p.work = stocksqlite.Work{
		Path: p.base.Path, Random: true, Connections: 2, CacheSize: 10, PageSize: pick(r, 512, 1024, 4096, 4096, 8192, 65536), AutoVacuum: r.IntN(3),
	}
	return p
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		if p.side != nil {
			p.t.Logf("the sidecar said:\n%s", p.side.said())
		}
		p.t.Fatal(err)
	}
}

// round kills, looks, and has both go on to a common end.
func (p *pair) round() {
	p.t.Helper()
	p.sum.rounds++
	p.startApp()
	p.startSidecar(pick(p.r, healthy, healthy, healthy, slow, flaky, lossy, away))
	if p.r.IntN(4) > 0 {
		p.app.Ready()
	}
	time.Sleep(time.Duration(p.r.IntN(250)) * time.Millisecond)
	victim := pick(p.r, "sidecar", "application", "both")
	if victim != "application" {
		p.killSidecar()
	}
	if victim != "sidecar" {
		p.app.Kill()
		p.ended()
		p.sum.apps++
	}
	p.t.Logf("%s killed, %s store", victim, p.base.Fault)
	p.prefix()
	// And on: the one that is left, with the other one started again.
	if p.app == nil {
		p.startApp()
	}
	if p.side == nil {
		p.startSidecar(healthy)
	}
	p.app.Ready()
	p.app.WaitCommits(p.app.Report().Commits + 3)
	p.must(p.app.Stop())
	p.ended()
	p.sync(p.committed)
	p.whole()
	if p.r.IntN(2) == 0 { // the next round's may find the database with a sidecar, or without
		p.killSidecar()
	}
}

func (p *pair) startApp() {
	p.work.Seed = p.r.Uint64()
	p.work.Synchronous = pick(p.r, "OFF", "NORMAL", "NORMAL", "FULL")
	p.work.AutoCheckpoint = pick(p.r, -1, 20, 100, 1000)
	p.work.JournalLimit = pick(p.r, -1, 0, 50000)
	p.app = stocksqlite.StartWork(p.t, p.work)
}

// ended takes note of what a worker that is gone did.
func (p *pair) ended() {
	r := p.app.Report()
	p.sum.commits += r.Commits
	p.committed = max(p.committed, r.Highest)
	p.app = nil
}

// sidecarChild is a sidecar's process.
type sidecarChild struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	log  *bytes.Buffer
	gone chan struct{} // closed when it is
	next chan string   // what it says; closed when it ends
}

func (p *pair) startSidecar(f fault) {
	p.t.Helper()
	if p.side != nil {
		return // the last round's
	}
	j := p.base
	j.Seed, j.Fault = p.r.Uint64(), f
	j.MaxLag = pick(p.r, replicate.AsFast, 5*time.Millisecond, 50*time.Millisecond, time.Second)
	p.base.Fault = f
	text, err := json.Marshal(j)
	p.must(err)
	c := &sidecarChild{cmd: exec.Command(os.Args[0]), log: &bytes.Buffer{}, gone: make(chan struct{}), next: make(chan string, 100)}
	c.cmd.Env = append(os.Environ(), sidecarEnv+"="+string(text))
	c.cmd.Stderr = c.log
	c.in, err = c.cmd.StdinPipe()
	p.must(err)
	out, err := c.cmd.StdoutPipe()
	p.must(err)
	p.must(c.cmd.Start())
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			c.next <- lines.Text()
		}
		close(c.next)
		_ = c.cmd.Wait()
		close(c.gone)
	}()
	p.t.Cleanup(func() { _ = c.cmd.Process.Kill(); <-c.gone })
	p.side = c
	p.expect("START")
}

// said is what the child logged; it is ended for it.
func (c *sidecarChild) said() string {
	_ = c.cmd.Process.Kill()
	<-c.gone
	return c.log.String()
}

// expect waits for a line of the sidecar.
func (p *pair) expect(prefix string) string {
	p.t.Helper()
	hung := time.AfterFunc(2*slowest, func() { _ = p.side.cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	for line := range p.side.next {
		if strings.HasPrefix(line, prefix) {
			return line
		}
		if strings.HasPrefix(line, "ERR") || strings.HasPrefix(line, "FAILED") {
			p.t.Fatalf("the sidecar, asked for %s: %s\n%s", prefix, line, p.side.said())
		}
	}
	p.t.Fatalf("the sidecar ended without %s\n%s", prefix, p.side.said())
	return ""
}

// sync waits until the replica has all, of which ctr is the last commit.
func (p *pair) sync(ctr int) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.side.in, ctr)
	p.must(err)
	var a ack
	_, err = fmt.Sscanf(p.expect("A "), "A %d %d", &a.txid, &a.ctr)
	p.must(err)
	p.acks = append(p.acks, a)
	p.sum.acked++
}

func (p *pair) killSidecar() {
	p.must(p.side.cmd.Process.Kill())
	<-p.side.gone
	p.side = nil
	p.sum.sidecars++
	if fi, err := os.Stat(p.base.Path + "-replicated/spool"); err == nil && fi.Size() > 100 {
		p.sum.spool++
	}
}

// source opens a copy of the database and its log as they are now; nil if it has no
// tables yet. An application that runs is stopped for it.
func (p *pair) source() *sqlite3.Conn {
	p.t.Helper()
	dir := memoryDir(p.t)
	for _, f := range []string{"", "-wal", "-journal"} {
		if err := copyFile(dir+"/app.db"+f, p.base.Path+f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.t.Fatal(err)
		}
	}
	c, err := sqlite3.Open("file:" + dir + "/app.db")
	p.must(err)
	n, err := mirror.Text(c, "SELECT count(*) FROM sqlite_schema WHERE name='meta'")
	p.must(err)
	if n == "0" {
		c.Close()
		return nil
	}
	return c
}

// prefix checks that what the replica has is a state that the database had, and at
// least what was acknowledged.
func (p *pair) prefix() {
	p.t.Helper()
	if p.app != nil {
		p.must(syscall.Kill(p.app.PID(), syscall.SIGSTOP))
		defer func() { p.must(syscall.Kill(p.app.PID(), syscall.SIGCONT)) }()
	}
	least := ack{ctr: -1}
	early := least
	if len(p.acks) > 0 {
		least, early = p.acks[len(p.acks)-1], p.acks[p.r.IntN(len(p.acks))]
	}
	image, err := p.restore(0) // before the copy: a sidecar may still be uploading
	src := p.source()
	if src == nil {
		if least.ctr >= 0 {
			p.t.Fatal("the database is gone")
		}
		return
	}
	defer src.Close()
	if err != nil && least.ctr < 0 && nothingYet(err) {
		p.sum.empty++
		return
	}
	p.must(err)
	if p.compare(image, least, src) {
		p.sum.behind++
	}
	if early.ctr >= 0 {
		image, err := p.restore(early.txid)
		p.must(err)
		p.compare(image, early, src)
	}
}

// compare checks an image against the source; behind: the source has more.
func (p *pair) compare(image []byte, least ack, src *sqlite3.Conn) (behind bool) {
	p.t.Helper()
	got, err := stocksqlite.Check(image, -1)
	p.must(err)
	want, err := stocksqlite.CheckConn(src, got.Counter)
	p.must(err)
	switch {
	case want.Counter < p.committed:
		p.t.Fatalf("the database itself lost commits: it is at %d, %d was committed", want.Counter, p.committed)
	case got.Counter < least.ctr, got.Counter > want.Counter:
		p.t.Fatalf("restored: commit %d; %d was acknowledged at TXID %d, the source is at %d", got.Counter, least.ctr, least.txid, want.Counter)
	case got.Counter >= 0 && got.Log != want.Log:
		p.t.Fatalf("restored: commit %d with the log %s, the source's is %s", got.Counter, got.Log, want.Log)
	}
	return got.Counter < want.Counter
}

func (p *pair) restore(txid uint64) ([]byte, error) {
	s, err := replicate.OpenStore(context.Background(), "file://"+p.base.Store)
	p.must(err)
	path := filepath.Join(memoryDir(p.t), "restored.db")
	p.sum.restores++
	if _, err = replicate.Restore(context.Background(), replicate.RestoreOptions{Store: s, Output: path, TXID: txid}); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// whole checks that the replica has the database, page for page.
func (p *pair) whole() {
	p.t.Helper()
	image, err := p.restore(0)
	p.must(err)
	src := p.source()
	if src == nil {
		p.t.Fatal("the database is gone")
	}
	path := src.Filename("main").String()
	_, _, err = src.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	p.must(err)
	p.must(src.Close())
	want, err := os.ReadFile(path)
	p.must(err)
	p.must(mirror.Compare(want, image, p.work.PageSize))
	s, err := stocksqlite.Check(image, -1)
	p.must(err)
	if s.Counter < p.committed {
		p.t.Fatalf("the replica ends at commit %d, %d was committed", s.Counter, p.committed)
	}
}

// end ends the sidecar in order; the database is whole then, too.
func (p *pair) end() {
	p.t.Helper()
	if p.side == nil {
		p.startSidecar(healthy)
	}
	p.must(p.side.in.Close())
	p.expect("DONE")
	<-p.side.gone
	p.whole()
}
