package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/replicate"
)

// sidecarCase measures the replication of databases that other programs write: many
// that nobody writes to, and how long a commit takes to the bucket; Litestream's
// figures beside them.
func sidecarCase(ctx context.Context, b *bench) error {
	if b.s3 == "" {
		stop, err := b.useS3("")
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := idle(ctx, b); err != nil {
		return err
	}
	return sidecarLag(ctx, b)
}

// What a thousand idle databases may take.
const (
	idleMemory = 200e6 // bytes
	idleCPU    = 0.6   // seconds in a minute: a hundredth of a core
)

// idle measures a process with many databases that nobody writes to.
func idle(ctx context.Context, b *bench) error {
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	defer remove()
	ours, litestreams := filepath.Join(dir, "ours"), filepath.Join(dir, "litestream")
	if err := manyDatabases(ctx, b, b.many, ours, litestreams); err != nil {
		return err
	}
	replica, calls, stop, err := b.counted(b.replica("s3", dir, "idle"))
	if err != nil {
		return err
	}
	defer stop()
	a := idleArgs{Dir: ours, Replica: replica}
	first, err := idleTask(ctx, b, a)
	if err != nil {
		return err
	}
	firstCalls := calls.forget()
	a.For = b.idleFor
	again, err := idleTask(ctx, b, a)
	if err != nil {
		return err
	}
	r := again.Result
	before, during := split(calls.forget(), r.From, r.To)
	l, err := litestreamIdle(ctx, b, litestreams)
	if err != nil {
		return err
	}
	minute := time.Minute.Seconds() / b.idleFor.Seconds()
	theirs := func(format string, a ...any) string {
		return "Litestream " + litestreamVersion + ": " + fmt.Sprintf(format, a...)
	}
	for _, row := range []row{{
		What: "resident memory", Unit: "B", Value: float64(r.Resident), Goal: atMost(idleMemory),
		Detail: []string{
			fmt.Sprintf("peak %s, of the first start %s; %d goroutines, %d files", figure(float64(again.Peak), "B"), figure(float64(first.Peak), "B"), r.Goroutines, r.Files),
			theirs("%s", figure(float64(l.resident), "B")),
		},
	}, {
		What: "CPU in a minute", Unit: "s", Value: r.CPU * minute, Goal: atMost(idleCPU),
		Detail: []string{theirs("%s", figure(l.cpu*minute, "s"))},
	}, {
		What: "requests in a minute", Value: float64(len(during)) * minute, Goal: atMost(0),
		Detail: []string{
			fmt.Sprintf("in %s a proxy saw %s", b.idleFor, counts(during)),
			theirs("%s", counts(l.calls)),
		},
	}, {
		What: "first start, until all is in the bucket", Unit: "s", Value: first.Result.Start,
		Detail: []string{counts(firstCalls), theirs("%s until something of each is there", figure(l.start, "s"))},
	}, {
		What: "another start", Unit: "s", Value: r.Start, Detail: []string{counts(before)},
	}} {
		row.Case, row.What = "sidecar", fmt.Sprintf("%s idle databases: %s", thousands(float64(b.many)), row.What)
		b.add(row)
	}
	return nil
}

// manyDatabases fills directories with copies of a small database.
func manyDatabases(ctx context.Context, b *bench, n int, dirs ...string) error {
	template := filepath.Join(b.dir, "template-small.db")
	if _, err := buildTask(ctx, b, buildArgs{Database: template, Rows: 500}); err != nil {
		return err
	}
	content, err := os.ReadFile(template)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for i := range n {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("tenant-%04d.db", i)), content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

type idleArgs struct {
	Dir     string        `json:"dir"`
	Replica string        `json:"replica"`
	For     time.Duration `json:"for"`
}

type idleResult struct {
	Start      float64   `json:"start"` // seconds until all was uploaded
	Resident   int64     `json:"resident"`
	CPU        float64   `json:"cpu"` // seconds, in the time that follows
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Goroutines int       `json:"goroutines"`
	Files      int       `json:"files"`
}

var idleTask = task("idle", func(ctx context.Context, a idleArgs) (r idleResult, err error) {
	m, err := sidecar.NewManager(sidecar.ManagerOptions{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return r, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, m.Close(ctx))
	}()
	began := time.Now()
	if _, err = m.AddDir(sidecar.DirOptions{
		Dir: sidecar.Dir{Path: a.Dir, Pattern: "*.db"}, Watch: true,
		Database: func(f sidecar.Found) (sidecar.Options, error) {
			return sidecar.Options{Open: func(ctx context.Context) (replicate.Store, error) {
				return replicate.OpenStore(ctx, objstore.Below(a.Replica, f.Rel))
			}}, nil
		},
	}); err != nil {
		return r, err
	}
	if err = m.Decided(ctx); err == nil {
		err = m.Sync(ctx)
	}
	if err != nil {
		return r, err
	}
	r.Start = time.Since(began).Seconds()
	if a.For == 0 {
		return r, nil
	}
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	wait(5 * time.Second) // what has begun ends
	used := processorTime()
	r.From = time.Now()
	wait(a.For)
	r.To = time.Now()
	r.CPU = (processorTime() - used).Seconds()
	r.Resident, r.Goroutines = procBytes("/proc/self/status", "VmRSS"), runtime.NumGoroutine()
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.Files = len(files)
	}
	for _, s := range m.Statuses() {
		if s.State != replicate.StateReplicating || s.Backlog > 0 || s.Error != "" {
			err = errors.Join(err, fmt.Errorf("%s is %s, with a backlog of %d: %s", s.Database, s.State, s.Backlog, s.Error))
		}
	}
	return r, errors.Join(err, ctx.Err())
})

// A call is a request that a proxy has seen.
type call struct {
	s3proxy.Call
	at time.Time
}

type callLog struct {
	mu   sync.Mutex
	list []call
}

// forget returns the calls so far.
func (l *callLog) forget() []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// counted puts a proxy before a replica's server that notes all calls.
func (b *bench) counted(replica string) (string, *callLog, func(), error) {
	proxied, p, stop, err := b.proxy(replica, s3proxy.Options{})
	if err != nil {
		return "", nil, nil, err
	}
	if p == nil {
		return "", nil, nil, errors.New("it takes the server that is started here: leave out the URL of -s3")
	}
	l := &callLog{}
	p.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
		c.Header, c.Query = nil, nil
		p.Forget()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.list = append(l.list, call{c, time.Now()})
		return nil
	})
	return proxied, l, stop, nil
}

// split returns the calls before from, and those from then until to.
func split(calls []call, from, to time.Time) (before, during []call) {
	for _, c := range calls {
		switch {
		case c.at.Before(from):
			before = append(before, c)
		case c.at.Before(to):
			during = append(during, c)
		}
	}
	return before, during
}

// counts tells calls by their operation.
func counts(calls []call) string {
	list := make([]s3proxy.Call, len(calls))
	for i, c := range calls {
		list[i] = c.Call
	}
	return cmp.Or(operations(list), "no request")
}
