package killtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

const (
	twoRounds    = 200
	contenderEnv = "OUTWASH_KILLTEST_CONTENDER"
)

// outcome is what became of one of two that begin at once on an empty path.
type outcome struct {
	Won   bool
	Rows  int    // that it committed
	How   string // it was told: refused at open, or fenced
	Told  string // in which words
	Wrong string // what must not happen
	Owner bool   // the winner was named
}

// contend opens a new database on an empty path, writes and syncs, until it is
// told that it is not alone.
func contend(name, path string, store replicate.Store) (o outcome) {
	wrong := func(format string, a ...any) outcome {
		o.Wrong = fmt.Sprintf(format, a...)
		return o
	}
	told := func(err error) bool {
		o.Told = err.Error()
		switch {
		case errors.Is(err, replicate.ErrFenced):
			o.How = "fenced"
		case errors.Is(err, replicate.ErrMissing), errors.Is(err, replicate.ErrDiverged):
			o.How = "refused"
		}
		return o.How != ""
	}
	vfs.Register(name, vfs.Options{
		Store:  func(string) (replicate.Store, error) { return store, nil },
		MaxLag: replicate.AsFast, OpenTimeout: slowest, CloseTimeout: slowest,
		Logger: slog.New(slog.DiscardHandler),
	})
	c, err := sqlite3.Open("file:" + path + "?vfs=" + name)
	if err != nil {
		if !told(err) {
			return wrong("open: %v", err)
		}
		return o
	}
	defer func() {
		if err := c.Close(); err != nil && o.Wrong == "" && o.Won {
			o.Wrong = fmt.Sprint("close: ", err)
		}
	}()
	c.BusyTimeout(time.Minute)
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	write := func() error {
		err := c.Exec(fmt.Sprintf("INSERT INTO t VALUES('%s',%d,randomblob(300))", name, o.Rows))
		if err == nil {
			o.Rows++
		}
		return err
	}
	err = c.Exec("PRAGMA journal_mode=wal; CREATE TABLE t(who, n, data)")
	for i := 0; i < 4 && err == nil; i++ {
		if err = write(); err == nil && i%2 == 1 {
			_, err = vfs.Sync(ctx, path)
		}
	}
	if err == nil {
		o.Won = true
		return o
	}
	if !errors.Is(err, sqlite3.READONLY) && !told(err) {
		return wrong("write or sync: %v", err)
	}
	// It was told. Nothing more may be written, and everybody can find out why.
	if err := write(); !errors.Is(err, sqlite3.READONLY) {
		return wrong("a write after it was fenced: %v", err)
	}
	if _, err := vfs.Sync(ctx, path); err == nil || !told(err) {
		return wrong("a sync after it was fenced: %v", err)
	}
	if s, err := vfs.Stat(path); err != nil || s.State != replicate.StateFenced || s.Error == "" || s.Remedy == "" {
		return wrong("status after it was fenced: %+v %v", s, err)
	}
	var fenced *replicate.FencedError
	if _, err := vfs.Sync(ctx, path); !errors.As(err, &fenced) || fenced.Session.IsZero() || fenced.Key == "" {
		return wrong("the winner's session is not named: %v", err)
	}
	o.Owner = fenced.Owner != nil && fenced.Owner.PID != 0
	return o
}

// judge checks that one won, that the other was told, and that the replica has
// the winner's database, byte for byte. It returns how the other was told; an
// unknown owner is one whose session is all that the other learned.
func judge(t *testing.T, round int, store replicate.Store, paths [2]string, o [2]outcome) string {
	t.Helper()
	win := 0
	if o[1].Won {
		win = 1
	}
	if o[0].Wrong != "" || o[1].Wrong != "" || o[0].Won == o[1].Won || o[1-win].How == "" {
		t.Fatalf("round %d: %+v\n%+v", round, o[0], o[1])
	}
	if _, err := os.Stat(paths[win] + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("round %d: the winner's log is still there: %v", round, err)
	}
	out := filepath.Join(filepath.Dir(paths[win]), "restored.db")
	if _, err := replicate.Restore(t.Context(), replicate.RestoreOptions{Store: store, Output: out}); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	want, err := os.ReadFile(paths[win])
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) == 0 || !bytes.Equal(want, got) {
		t.Fatalf("round %d: the restored database (%d bytes) is not the winner's (%d bytes)", round, len(got), len(want))
	}
	if lost := o[1-win]; lost.How != "fenced" || lost.Owner {
		return lost.How
	}
	return "fenced by an unknown owner"
}

// memoryDir is a new directory, in memory if that can be had.
func memoryDir(t *testing.T) string {
	if fi, err := os.Stat("/dev/shm"); err != nil || !fi.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "outwash")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestTwoInOneProcess: two VFSes, two databases, one empty path. In some rounds
// both are made to meet at the root, at the first claim, or at both.
func TestTwoInOneProcess(t *testing.T) {
	if err := setupDriver(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	dir := memoryDir(t)
	how, winner := map[string]int{}, [2]int{}
	for round := range twoRounds {
		base := filepath.Join(dir, fmt.Sprint(round))
		if err := os.MkdirAll(base, 0o700); err != nil {
			t.Fatal(err)
		}
		store := replicate.NewMemStore()
		if round%2 == 1 {
			var err error
			if store, err = replicate.OpenStore(t.Context(), "file://"+base+"/replica"); err != nil {
				t.Fatal(err)
			}
		}
		m := &meeting{arrived: map[string]chan struct{}{}, root: round&2 != 0, log: round&4 != 0}
		var paths [2]string
		var o [2]outcome
		var wg sync.WaitGroup
		for i := range o {
			paths[i] = filepath.Join(base, fmt.Sprint(i, ".db"))
			fs := faultstore.New(store)
			fs.SetHooks(faultstore.Hooks{Before: m.before})
			wg.Go(func() { o[i] = contend([]string{"left", "right"}[i], paths[i], fs) })
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), slowest)
		// What the one who lost can't upload is its error.
		err := vfs.Shutdown(ctx)
		for i := range o {
			if o[i].Won && err != nil && strings.Contains(err.Error(), paths[i]) {
				t.Fatalf("round %d: shutdown: %v", round, err)
			}
		}
		cancel()
		how[judge(t, round, store, paths, o)]++
		if o[0].Won {
			winner[0]++
		} else {
			winner[1]++
		}
		os.RemoveAll(base)
	}
	t.Logf("%d rounds: the first won %d times, the second %d; the other was %v", twoRounds, winner[0], winner[1], how)
	if how["fenced"] == 0 {
		t.Error("they never met")
	}
}

// meeting makes two that create the same object wait for each other, once an
// object and not for long: one may have lost already.
type meeting struct {
	root, log bool
	mu        sync.Mutex
	arrived   map[string]chan struct{}
}

func (m *meeting) before(_ context.Context, c faultstore.Call) error {
	isLog := strings.HasPrefix(c.Key, "log/")
	if c.Op != faultstore.Create || isLog && !m.log || !isLog && !m.root {
		return nil
	}
	m.mu.Lock()
	other, second := m.arrived[c.Key]
	if !second {
		other = make(chan struct{})
		m.arrived[c.Key] = other
	}
	m.mu.Unlock()
	if second {
		select {
		case <-other:
		default:
			close(other)
		}
		return nil
	}
	select {
	case <-other:
	case <-time.After(20 * time.Millisecond):
	}
	return nil
}

// TestTwoProcesses does the same with two processes on a directory.
func TestTwoProcesses(t *testing.T) {
	cache := t.TempDir()
	if err := setupDriver(cache); err != nil {
		t.Fatal(err)
	}
	dir := memoryDir(t)
	var procs [2]*contender
	for i := range procs {
		procs[i] = startContender(t, contenderEnv, cache)
	}
	how, winner := map[string]int{}, [2]int{}
	r := rand.New(rand.NewPCG(*flagSeed, 3))
	for round := range twoRounds {
		base := filepath.Join(dir, fmt.Sprint(round))
		var paths [2]string
		var o [2]outcome
		first := r.IntN(2)
		for k := range procs {
			i := (first + k) % 2
			paths[i] = filepath.Join(base, fmt.Sprint(i), "app.db")
			if err := os.MkdirAll(filepath.Dir(paths[i]), 0o700); err != nil {
				t.Fatal(err)
			}
			procs[i].begin(paths[i], "file://"+base+"/replica")
			if k == 0 {
				time.Sleep(time.Duration(r.IntN(1500)) * time.Microsecond)
			}
		}
		for i := range procs {
			o[i] = procs[i].end()
		}
		store, err := replicate.OpenStore(t.Context(), "file://"+base+"/replica")
		if err != nil {
			t.Fatal(err)
		}
		how[judge(t, round, store, paths, o)]++
		if o[0].Won {
			winner[0]++
		} else {
			winner[1]++
		}
		os.RemoveAll(base)
	}
	t.Logf("%d rounds: the first won %d times, the second %d; the other was %v", twoRounds, winner[0], winner[1], how)
	if how["fenced"] == 0 {
		t.Error("they never met")
	}
}

// contender is a process that contends whenever it is told to.
type contender struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	log bytes.Buffer
}

type order struct{ Path, Store string }

// startContender starts this program with a variable that says what it is.
func startContender(t *testing.T, env, cache string) *contender {
	c := &contender{t: t}
	cmd := exec.Command(os.Args[0])
	c.cmd = cmd
	cmd.Env = append(os.Environ(), env+"="+cache)
	cmd.Stderr = &c.log
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	c.out.Buffer(nil, 1<<20)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(10*time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		c.in.Close()
		cmd.Wait()
		hung.Stop()
	})
	return c
}

func (c *contender) begin(path, store string) {
	if err := json.NewEncoder(c.in).Encode(order{path, store}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *contender) end() (o outcome) {
	c.t.Helper()
	if !c.out.Scan() {
		c.t.Fatalf("the process ended: %v\n%s", c.out.Err(), &c.log)
	}
	if err := json.Unmarshal(c.out.Bytes(), &o); err != nil {
		c.t.Fatalf("%v: %s\n%s", err, c.out.Bytes(), &c.log)
	}
	return o
}

// contenderMain is the process.
func contenderMain(cache string) {
	if err := setupDriver(cache); err != nil {
		die(err)
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var job order
		if err := in.Decode(&job); err != nil {
			return
		}
		store, err := replicate.OpenStore(context.Background(), job.Store)
		if err != nil {
			die(err)
		}
		o := contend("both", job.Path, store)
		ctx, cancel := context.WithTimeout(context.Background(), slowest)
		if err := vfs.Shutdown(ctx); err != nil && o.Won && o.Wrong == "" {
			o.Wrong = fmt.Sprint("shutdown: ", err)
		}
		cancel()
		if err := out.Encode(o); err != nil {
			die(err)
		}
	}
}
