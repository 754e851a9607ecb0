package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/internal/versitygw"
)

// TestReplicateKilled: beside a program that writes 50 transactions a second, with
// TRUNCATE checkpoints of its own, outwash replicate is killed again and again, in
// turns at once and after it has said that it replicates. The checkpoints return 0
// throughout. The last one gets SIGTERM: then S3 has the database, page for page.
func TestReplicateKilled(t *testing.T) {
	server := versitygw.Start(t)
	url := server.URL("app") + "&region=us-east-1&force-path-style=true"
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", commandsCache(t))
	setupDriver()
	t.Setenv("OUTWASH_SOCKET_DIR", filepath.Join(dir, "run"))
	path := filepath.Join(dir, "app.db")
	w := stocksqlite.StartWork(t, stocksqlite.Work{Path: path, Rate: 50, Truncate: 150 * time.Millisecond})
	w.Ready()

	const kills = 8
	r := rand.New(rand.NewPCG(1, 1))
	for i := range kills {
		p := startReplicate(t, path, url)
		if i%4 != 3 {
			p.replicating()
		}
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.wait()
	}
	p := startReplicate(t, path, url)
	p.replicating()
	w.WaitCommits(w.Report().Commits + 25)
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		t.Fatalf("after SIGTERM: %v\n%s", err, p.log.String())
	}

	report := w.Report()
	for _, ck := range report.Checkpoints {
		if ck.Busy != 0 || ck.Log != 0 {
			t.Errorf("the application's checkpoint returned %+v", ck)
		}
	}
	app := stocksqlite.Start(t, path)
	if ck, err := app.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Fatalf("somebody holds the database: %+v, %v", ck, err)
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	restored := filepath.Join(dir, "restored.db")
	for _, args := range [][]string{{"restore", "-o", restored, url}, {"verify", "-read-data", "-against", path, url}} {
		if out, err := exec.Command("outwash", args...).CombinedOutput(); err != nil {
			t.Fatalf("outwash %s: %v\n%s", args[0], err, out)
		}
	}
	got, err := os.ReadFile(restored)
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.Compare(want, got, 4096); err != nil {
		t.Error(err)
	}
	s, err := stocksqlite.Check(got, -1)
	if err != nil || s.Counter != report.Highest {
		t.Errorf("restored: commit %d of %d, %v", s.Counter, report.Highest, err)
	}
	t.Logf("%d kills, %d commits, the longest took %v; %d TRUNCATE checkpoints returned 0", kills, report.Commits, report.Longest, len(report.Checkpoints))
}

// replicateProcess is outwash replicate in a process of its own.
type replicateProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of its standard error
	log   bytes.Buffer
}

func startReplicate(t *testing.T, args ...string) *replicateProcess {
	t.Helper()
	p := &replicateProcess{t: t, cmd: exec.Command("outwash", append([]string{"replicate"}, args...)...), lines: make(chan string)}
	r, w := io.Pipe()
	p.cmd.Stderr = w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			p.lines <- lines.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = w.Close()
		for range p.lines {
		}
	})
	return p
}

// replicating waits until it says so.
func (p *replicateProcess) replicating() {
	p.t.Helper()
	limit := time.After(longest)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("it ended:\n%s", p.log.String())
			}
			p.log.WriteString(line + "\n")
			if strings.Contains(line, ": replicating") {
				return
			}
		case <-limit:
			_ = p.cmd.Process.Signal(syscall.SIGQUIT) // where is it?
			_ = p.wait()
			p.t.Fatalf("it doesn't replicate:\n%s", p.log.String())
		}
	}
}

// wait waits until it has ended; what it said is in log then.
func (p *replicateProcess) wait() error {
	p.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	limit := time.After(longest)
	for {
		select {
		case line := <-p.lines:
			p.log.WriteString(line + "\n")
		case err := <-ended:
			return err
		case <-limit:
			return errors.New("it doesn't end")
		}
	}
}
