package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/outwash/outwash/vfs"
)

// commits measures how many small transactions a single writer commits a second.
func commits(ctx context.Context, b *bench) error {
	for _, c := range []struct {
		sync string
		goal float64
	}{{"normal", 0.85}, {"full", 0.97}} {
		for _, pool := range []bool{false, true} {
			if err := commitPairs(ctx, b, c.sync, pool, c.goal); err != nil {
				return err
			}
		}
	}
	return nil
}

func commitPairs(ctx context.Context, b *bench, sync string, pool bool, goal float64) error {
	var sides [2][]outcome[commitsResult]
	for range b.runs {
		for side, replicated := range []bool{false, true} {
			got, err := commitRun(ctx, b, sync, pool, replicated)
			if err != nil {
				return err
			}
			sides[side] = append(sides[side], got)
		}
	}
	rate := func(o outcome[commitsResult]) float64 { return float64(o.Result.Commits) / o.Result.Seconds }
	cpu := func(o outcome[commitsResult]) float64 { return o.Result.CPU / float64(o.Result.Commits) }
	writer := func(o outcome[commitsResult]) float64 { return o.Result.Writer / float64(o.Result.Commits) }
	plain, with := sides[0], sides[1]
	what := strings.ToUpper(sync) + ", prepared statement"
	if pool {
		what = strings.ToUpper(sync) + ", database/sql"
	}
	b.add(row{
		Case: "commits", What: what, Unit: "×", Goal: atLeast(goal),
		Runs: ratios(each(with, rate), each(plain, rate)),
		Detail: []string{
			fmt.Sprintf("plain %s/s, replicated %s/s", thousands(median(each(plain, rate))), thousands(median(each(with, rate)))),
			"p99 of a commit " + pair(plain, with, "s", func(o outcome[commitsResult]) float64 { return o.Result.P99 }),
			"CPU per commit " + pair(plain, with, "s", cpu) + "; on the writer's thread " + pair(plain, with, "s", writer),
			fmt.Sprintf("all uploaded %s after the last one", seconds(median(each(with, func(o outcome[commitsResult]) float64 { return o.Result.Drain })))),
		},
	})
	b.peaks = append(b.peaks, memoryOf("commits, "+what, plain, with))
	return nil
}

// pair tells a figure of both sides.
func pair[R any](plain, with []outcome[R], unit string, f func(outcome[R]) float64) string {
	return fmt.Sprintf("%s, replicated %s", figure(median(each(plain, f)), unit), figure(median(each(with, f)), unit))
}

func memoryOf[P, W any](what string, plain []outcome[P], with []outcome[W]) peaks {
	return peaks{
		what,
		each(plain, func(o outcome[P]) float64 { return float64(o.Peak) }),
		each(with, func(o outcome[W]) float64 { return float64(o.Peak) }),
	}
}

func commitRun(ctx context.Context, b *bench, sync string, pool, replicated bool) (got outcome[commitsResult], err error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return got, err
	}
	defer remove()
	a := commitsArgs{Pool: pool, Warm: b.warm, Measure: b.measure}
	a.Database, a.Sync = filepath.Join(dir, "a.db"), sync
	if replicated {
		a.Replica = "file://" + filepath.Join(dir, "replica")
	}
	return commitsTask(ctx, b, a)
}

type commitsArgs struct {
	target
	Pool          bool          `json:"pool"`
	Warm, Measure time.Duration // JSON: numbers
}

type commitsResult struct {
	Commits int     `json:"commits"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`    // seconds, while counting
	Writer  float64 `json:"writer"` // of them on the thread that commits; 0: unknown
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Drain   float64 `json:"drain"` // seconds until all was acknowledged
	Backlog int     `json:"backlog"`
}

var commitsTask = task("commits", func(ctx context.Context, a commitsArgs) (r commitsResult, err error) {
	insert, done, err := inserter(ctx, a.target, a.Pool)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, done(), a.end()) }()
	for start := time.Now(); time.Since(start) < a.Warm; {
		if err := insert(); err != nil {
			return r, err
		}
	}
	// The goroutine keeps its thread, so that what a commit costs its caller can be
	// told from what goes on beside it.
	runtime.LockOSThread()
	var took []float64
	used, own, start := processorTime(), threadTime(), time.Now()
	for last := start; last.Sub(start) < a.Measure && ctx.Err() == nil; {
		if err := insert(); err != nil {
			return r, err
		}
		now := time.Now()
		took = append(took, now.Sub(last).Seconds())
		last = now
	}
	end := time.Now()
	r.CPU, r.Writer = (processorTime() - used).Seconds(), (threadTime() - own).Seconds()
	r.Commits, r.Seconds = len(took), end.Sub(start).Seconds()
	r.P50, r.P99 = percentile(took, 50), percentile(took, 99)
	if s, err := vfs.Stat(a.Database); err == nil {
		r.Backlog = s.Backlog
	}
	if _, err := a.sync(ctx); err != nil {
		return r, err
	}
	r.Drain = time.Since(end).Seconds()
	return r, ctx.Err()
})

// inserter returns a function that commits one small row.
func inserter(ctx context.Context, t target, pool bool) (insert, done func() error, err error) {
	const (
		create = `CREATE TABLE event(id INTEGER PRIMARY KEY, text TEXT NOT NULL)`
		sql    = `INSERT INTO event(text) VALUES (?)`
		text   = "user 4711 changed the address of order 20394"
	)
	if pool {
		db, err := t.pool()
		if err != nil {
			return nil, nil, err
		}
		if _, err := db.ExecContext(ctx, create); err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		return func() error {
			_, err := db.ExecContext(ctx, sql, text)
			return err
		}, db.Close, nil
	}
	c, err := t.open(nil)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Exec(create); err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	s, _, err := c.Prepare(sql)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	insert = func() error {
		if err := s.BindText(1, text); err != nil {
			return err
		}
		s.Step()
		return s.Reset()
	}
	return insert, func() error { return errors.Join(s.Close(), c.Close()) }, nil
}
