package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

const (
	// sidecarRate is how many commits stock SQLite makes in a second: few enough that
	// each finds the store idle.
	sidecarRate = 10
	// beyondUpload is how much longer than one upload it may take, half of the time,
	// from a commit to its object.
	beyondUpload = 0.020 // seconds
	sidecarRuns  = 3
)

// sidecarLag measures how long after its commit a transaction of stock SQLite is in
// the bucket, in rounds that alternate with Litestream's.
func sidecarLag(ctx context.Context, b *bench) error {
	var fast, theirs []sidecarLagResult
	var lazy sidecarLagResult
	runs := min(b.runs, sidecarRuns)
	for i := range runs {
		got, err := sidecarLagRun(ctx, b, replicate.AsFast)
		if err != nil {
			return err
		}
		fast = append(fast, got)
		if i == 0 {
			if lazy, err = sidecarLagRun(ctx, b, 0); err != nil {
				return err
			}
		}
		l, err := litestreamLag(ctx, b)
		if err != nil {
			return err
		}
		theirs = append(theirs, l)
	}
	lags := func(p float64) func(sidecarLagResult) float64 {
		return func(r sidecarLagResult) float64 { return percentile(r.Lags, p) }
	}
	upload := func(r sidecarLagResult) float64 { return percentile(r.Uploads, 50) }
	tell := func(of []sidecarLagResult) string {
		return fmt.Sprintf("p50 %s, p99 %s, longest %s", seconds(median(each(of, lags(50)))), seconds(median(each(of, lags(99)))), seconds(median(each(of, lags(100)))))
	}
	b.add(row{
		Case: "sidecar", What: "commit to object, max_lag 0: p50 beyond one upload", Unit: "s", Goal: atMost(beyondUpload),
		Runs: each(fast, func(r sidecarLagResult) float64 { return lags(50)(r) - upload(r) }),
		Detail: []string{
			fmt.Sprintf("%s; one upload %s; %d commits of stock SQLite a second", tell(fast), seconds(median(each(fast, upload))), sidecarRate),
			"max_lag 1s (default): " + tell([]sidecarLagResult{lazy}),
			"Litestream " + litestreamVersion + ": " + tell(theirs),
		},
	})
	return nil
}

func sidecarLagRun(ctx context.Context, b *bench, maxLag time.Duration) (sidecarLagResult, error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return sidecarLagResult{}, err
	}
	defer remove()
	got, err := sidecarLagTask(ctx, b, sidecarLagArgs{
		Database: filepath.Join(dir, "a.db"), Replica: b.replica("s3", dir, "sidecar-lag"), MaxLag: maxLag, For: b.lagRound,
	})
	return got.Result, err
}

type sidecarLagArgs struct {
	Database string        `json:"database"`
	Replica  string        `json:"replica"`
	MaxLag   time.Duration `json:"max_lag"`
	For      time.Duration `json:"for"`
}

type sidecarLagResult struct {
	Lags    []float64 `json:"lags"`    // seconds
	Uploads []float64 `json:"uploads"` // seconds that each took
}

var sidecarLagTask = task("sidecar-lag", func(ctx context.Context, a sidecarLagArgs) (r sidecarLagResult, err error) {
	h := &host{dir: filepath.Dir(a.Database)}
	defer h.end()
	w, err := startWriter(h, a.Database)
	if err != nil {
		return r, err
	}
	store, err := replicate.OpenStore(ctx, a.Replica)
	if err != nil {
		return r, err
	}
	timed := &timedStore{Store: store}
	db, err := sidecar.Open(ctx, sidecar.Options{
		Path: a.Database, MaxLag: a.MaxLag, Open: func(context.Context) (replicate.Store, error) { return timed, nil },
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, db.Close(ctx)) }()
	before, err := db.Sync(ctx)
	if err != nil {
		return r, err
	}
	timed.reset()
	committed, err := w.commits(ctx, a.For)
	if err != nil {
		return r, err
	}
	if err := timed.await(ctx, before+uint64(len(committed)), db.Sync); err != nil {
		return r, err
	}
	r.Lags, _, _, err = timed.lags(before, committed)
	for _, a := range timed.acks {
		r.Uploads = append(r.Uploads, a.took.Seconds())
	}
	return r, err
})

// A stockWriter commits with SQLite as other programs have it.
type stockWriter struct{ p *stocksqlite.Process }

// startWriter makes a database. The process ends with h.
func startWriter(h *host, path string) (w stockWriter, err error) {
	defer func() {
		if p := recover(); p != nil { // what would fail a test
			err = fmt.Errorf("stock SQLite: %v", p)
		}
	}()
	w.p = stocksqlite.Start(h, path)
	for _, sql := range []string{"PRAGMA journal_mode=wal", "PRAGMA synchronous=normal", `CREATE TABLE event(id INTEGER PRIMARY KEY, text TEXT NOT NULL)`} {
		if err := w.p.Exec(sql); err != nil {
			return w, err
		}
	}
	return w, nil
}

// commits makes commits for some time, and tells when each was done.
func (w stockWriter) commits(ctx context.Context, limit time.Duration) (at []time.Time, err error) {
	p := pacer{rate: sidecarRate}
	for range int(limit.Seconds() * sidecarRate) {
		p.wait(ctx)
		err := errors.Join(ctx.Err(), w.p.Exec(`INSERT INTO event(text) VALUES (?)`, "user 4711 changed the address of order 20394"))
		if err != nil {
			return nil, err
		}
		at = append(at, time.Now())
	}
	return at, nil
}

// litestreamLag is the same with Litestream. A commit counts as uploaded when the
// first upload of changes that was asked for after it arrives at the server, which
// is a little too good: it may have been read before.
func litestreamLag(ctx context.Context, b *bench) (r sidecarLagResult, err error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return r, err
	}
	defer remove()
	replica, calls, stop, err := b.counted(b.replica("s3", dir, "litestream"))
	if err != nil {
		return r, err
	}
	defer stop()
	h := &host{dir: dir}
	defer h.end()
	database := filepath.Join(dir, "a.db")
	w, err := startWriter(h, database)
	if err != nil {
		return r, err
	}
	l, err := b.litestream(database, fmt.Sprintf("lag-%d", time.Now().UnixNano()), endpoint(replica))
	if err != nil {
		return r, err
	}
	end, err := l.start(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, end()) }()
	for began := time.Now(); len(uploadsOf(calls)) == 0; { // the first one
		if time.Since(began) > time.Minute {
			return r, errors.New("litestream uploaded nothing in a minute")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return r, err
		}
	}
	committed, err := w.commits(ctx, b.lagRound)
	if err != nil {
		return r, err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return r, err
	}
	uploads := uploadsOf(calls)
	for _, at := range committed {
		i := slices.IndexFunc(uploads, func(u time.Time) bool { return u.After(at) })
		if i < 0 {
			return r, errors.New("litestream did not upload the last commits")
		}
		r.Lags = append(r.Lags, uploads[i].Sub(at).Seconds())
	}
	return r, nil
}

// uploadsOf returns when Litestream uploaded changes, as they are and not compacted:
// files of level 0.
func uploadsOf(calls *callLog) (at []time.Time) {
	calls.mu.Lock()
	defer calls.mu.Unlock()
	for _, c := range calls.list {
		if c.Operation == "PutObject" && strings.HasSuffix(c.Key, ".ltx") && strings.Contains(c.Key, "/0000/") {
			at = append(at, c.at)
		}
	}
	return at
}
