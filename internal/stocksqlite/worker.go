package stocksqlite

import (
	"bufio"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// Work is what a [Worker] does. The database has tables of its own, made if they
// aren't there: each of its commits adds one to a counter, so that a database says
// which of them it is at. [Check] checks them.
type Work struct {
	Path string
	Seed uint64
	// Connections make transactions at the same time; 0: one.
	Connections int
	// Random transactions are of all kinds and sizes, with savepoints, rollbacks and
	// spilled caches; between them are VACUUM, checkpoints of all modes, and
	// connections opened anew. Else each writes one row.
	Random bool
	// Rate is how many transactions a second all connections make; 0: as many as they
	// can. Commits of them are made, 0: without end; for this time, 0: for ever.
	Rate    int
	Commits int
	For     time.Duration
	// Truncate is how often a connection of its own does a TRUNCATE checkpoint, and
	// once more at the end; 0: never.
	Truncate time.Duration
	// Busy is the busy timeout; 0: BusyTimeout.
	Busy time.Duration
	// Pragmas; zero values are SQLite's defaults. AutoCheckpoint below 0: none.
	PageSize       int
	AutoVacuum     int
	AutoCheckpoint int
	JournalLimit   int
	Synchronous    string
	CacheSize      int
}

// A Worker works by itself. Its methods are safe for concurrent use.
type Worker struct {
	*child
	ready chan struct{} // closed once the tables are there
	done  chan struct{} // closed when it ended

	mu      sync.Mutex
	notify  chan struct{} // closed and made anew at each commit and checkpoint
	report  Report
	inOrder bool
}

// Report is what a worker said so far.
type Report struct {
	// Commits counts those that returned, Highest is the highest counter among them.
	Commits, Highest int
	// Longest is the longest time that one took, from BEGIN on.
	Longest     time.Duration
	Checkpoints []Checkpoint
}

// StartWork starts a worker.
func StartWork(t testing.TB, w Work) *Worker {
	t.Helper()
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&w.Connections, 1)
	set(&w.PageSize, 4096)
	set(&w.AutoCheckpoint, 1000)
	set(&w.JournalLimit, -1)
	set(&w.CacheSize, -2000)
	if w.Synchronous == "" {
		w.Synchronous = "NORMAL"
	}
	if w.Busy == 0 {
		w.Busy = BusyTimeout
	}
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	p := &Worker{child: launch(t, "work", string(text)), ready: make(chan struct{}), done: make(chan struct{}), notify: make(chan struct{})}
	go p.read()
	return p
}

// read collects what the worker says.
func (w *Worker) read() {
	defer close(w.done)
	lines := bufio.NewScanner(w.out)
	for lines.Scan() {
		var l struct {
			Ready, Done bool
			Commit      int
			Checkpoint  string
			Result      []int
			Took        int64 `json:"took_us"`
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			continue // a line that a kill cut off
		}
		w.mu.Lock()
		switch {
		case l.Ready:
			close(w.ready)
		case l.Done:
			w.inOrder = true
		case l.Commit > 0:
			w.report.Commits++
			w.report.Highest = max(w.report.Highest, l.Commit)
			w.report.Longest = max(w.report.Longest, time.Duration(l.Took)*time.Microsecond)
			w.news()
		case len(l.Result) == 3:
			w.report.Checkpoints = append(w.report.Checkpoints, Checkpoint{
				Mode: l.Checkpoint, Busy: l.Result[0], Log: l.Result[1], Done: l.Result[2], Took: time.Duration(l.Took) * time.Microsecond,
			})
			w.news()
		}
		w.mu.Unlock()
	}
}

// Ready waits until the tables are there, or fails the test.
func (w *Worker) Ready() {
	w.t.Helper()
	select {
	case <-w.ready:
	case <-w.done:
		w.t.Fatal("the worker ended before it was ready: ", w.wait())
	case <-w.t.Context().Done():
		w.t.Fatal("the worker is not ready: ", w.t.Context().Err())
	}
}

// news wakes who waits; mu is held.
func (w *Worker) news() {
	close(w.notify)
	w.notify = make(chan struct{})
}

// WaitCommits waits until n commits returned, or the worker ended.
func (w *Worker) WaitCommits(n int) { w.WaitDone(n, 0) }

// WaitDone waits until so many commits and checkpoints returned, however long that
// takes here, or the worker ended.
func (w *Worker) WaitDone(commits, checkpoints int) {
	for {
		w.mu.Lock()
		done, news := w.report.Commits >= commits && len(w.report.Checkpoints) >= checkpoints, w.notify
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-w.done:
			return
		}
	}
}

// Report says what was done so far.
func (w *Worker) Report() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.report
	r.Checkpoints = slices.Clone(r.Checkpoints)
	return r
}

// Kill ends the worker by SIGKILL. Then Report has all that it said.
func (w *Worker) Kill() {
	_ = w.cmd.Process.Kill()
	<-w.done
	_ = w.wait()
}

// Stop has the worker end in order.
func (w *Worker) Stop() error {
	_ = w.in.Close() // it may have ended by itself
	return w.Wait()
}

// Wait waits until the worker ends by itself; an error is what it failed with.
func (w *Worker) Wait() error {
	<-w.done
	if err := w.wait(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.inOrder {
		return fmt.Errorf("stock SQLite: the worker ended without a word")
	}
	return nil
}
