package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/replicate"
)

// restores measures how fast a database comes back: after its snapshot, with many
// transactions behind it, and from very many small objects. Over S3 Litestream
// does it, too.
func restores(ctx context.Context, b *bench) error {
	if err := restoreOf(ctx, b, "file"); err != nil {
		return err
	}
	if err := smallObjects(ctx, b, "file", 0); err != nil || b.s3 == "" {
		return err
	}
	if err := restoreOf(ctx, b, "s3"); err != nil {
		return err
	}
	for _, latency := range []time.Duration{0, 20 * time.Millisecond} {
		if err := smallObjects(ctx, b, "s3", latency); err != nil {
			return err
		}
	}
	return requests(ctx, b)
}

// restoreOf measures a large database.
func restoreOf(ctx context.Context, b *bench, store string) error {
	template, err := b.template(ctx, &b.large, b.database)
	if err != nil {
		return err
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	defer remove()
	a := snapshotArgs{Rows: b.sizes.rows}
	a.Database, a.Sync, a.Replica = filepath.Join(dir, "a.db"), "normal", b.replica(store, dir, "restore")
	if err := copyFile(a.Database, template); err != nil {
		return err
	}
	if _, err := snapshotTask(ctx, b, a); err != nil {
		return err
	}
	var other *litestream
	if store == "s3" {
		if other, err = b.litestream(filepath.Join(dir, "litestream.db"), "large", ""); err != nil {
			return err
		}
		if err := copyFile(other.database, template); err != nil {
			return err
		}
		if err := other.replicateOnce(ctx); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("%.0f MB, %s", float64(b.database)/1e6, store)
	if err := restoreRounds(ctx, b, what, a, other); err != nil {
		return err
	}
	return restoreBehind(ctx, b, what, a)
}

// restoreRounds restores, beside the plain copy and beside Litestream.
func restoreRounds(ctx context.Context, b *bench, what string, a snapshotArgs, other *litestream) error {
	output := filepath.Join(filepath.Dir(a.Database), "restored.db")
	var with []outcome[restoreResult]
	var plain []outcome[rawResult]
	var theirs []float64
	for range b.runs {
		p, err := plainCopy(ctx, b, a, output)
		if err != nil {
			return err
		}
		w, err := restored(ctx, b, restoreArgs{Replica: a.Replica, Output: output}, a.Database)
		if err != nil {
			return err
		}
		plain, with = append(plain, p), append(with, w)
		if other != nil {
			took, err := other.restore(ctx, output)
			if err != nil {
				return err
			}
			theirs = append(theirs, took.Seconds())
			os.Remove(output)
		}
	}
	ours := each(with, took)
	copied := each(plain, func(o outcome[rawResult]) float64 { return o.Result.Download + o.Result.Write })
	b.add(row{
		Case: "restore", What: "restore of " + what + " ÷ download, write and fsync", Unit: "×", Goal: atMost(1.5), Runs: ratios(ours, copied),
		Detail: []string{
			seconds(median(ours)) + "; " + copyTimes(plain),
			fmt.Sprintf("%s read in %d requests, %s written", size(float64(with[0].Result.Fetched)), with[0].Result.Requests, size(float64(with[0].Result.Bytes))),
			"CPU " + figure(median(each(with, func(o outcome[restoreResult]) float64 { return o.Result.CPU })), "s"),
			"equal to the database byte for byte",
		},
	})
	b.restorePeak(what, with)
	if other != nil {
		b.add(row{
			Case: "restore", What: "Litestream's restore of " + what + " ÷ ours", Unit: "×", Goal: atLeast(6), Runs: ratios(theirs, ours),
			Detail: []string{fmt.Sprintf("Litestream %s %s, ours %s", litestreamVersion, seconds(median(theirs)), seconds(median(ours)))},
		})
	}
	return nil
}

// restoreBehind restores with transactions after the snapshot, beside the same
// state in a fresh snapshot.
func restoreBehind(ctx context.Context, b *bench, what string, a snapshotArgs) error {
	// Not more than are kept as transactions of their own.
	if _, err := bytesTask(ctx, b, bytesArgs{target: a.target, Rows: a.Rows, Transactions: b.behind, Rate: 1000}); err != nil {
		return err
	}
	fresh := a
	fresh.Database, fresh.Replica = filepath.Join(filepath.Dir(a.Database), "fresh.db"), a.Replica+"-fresh"
	if path, query, ok := strings.Cut(a.Replica, "?"); ok {
		fresh.Replica = path + "-fresh?" + query
	}
	if err := copyFile(fresh.Database, a.Database); err != nil {
		return err
	}
	if _, err := snapshotTask(ctx, b, fresh); err != nil {
		return err
	}
	output := filepath.Join(filepath.Dir(a.Database), "restored.db")
	var log, snap []outcome[restoreResult]
	for range b.runs {
		s, err := restored(ctx, b, restoreArgs{Replica: fresh.Replica, Output: output}, a.Database)
		if err != nil {
			return err
		}
		l, err := restored(ctx, b, restoreArgs{Replica: a.Replica, Output: output}, a.Database)
		if err != nil {
			return err
		}
		snap, log = append(snap, s), append(log, l)
	}
	what = fmt.Sprintf("%s, %s transactions behind the snapshot", what, thousands(float64(b.behind)))
	b.add(row{
		Case: "restore", What: "restore of " + what + " ÷ of a fresh snapshot", Unit: "×", Goal: atMost(1.5), Runs: ratios(each(log, took), each(snap, took)),
		Detail: []string{
			fmt.Sprintf("%s, fresh %s", seconds(median(each(log, took))), seconds(median(each(snap, took)))),
			fmt.Sprintf("CPU %s, fresh %s", seconds(median(each(log, cpu))), seconds(median(each(snap, cpu)))),
			fmt.Sprintf("%d requests, fresh %d", log[0].Result.Requests, snap[0].Result.Requests),
		},
	})
	b.restorePeak(what, log)
	return nil
}

// smallObjects restores what was uploaded one transaction at a time.
func smallObjects(ctx context.Context, b *bench, store string, latency time.Duration) error {
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	defer remove()
	a := snapshotArgs{}
	a.Database, a.Sync, a.Replica, a.MaxLag = filepath.Join(dir, "a.db"), "normal", b.replica(store, dir, "small"), replicate.AsFast
	if _, err := smallTask(ctx, b, smallArgs{a.target, b.sizes.small}); err != nil {
		return err
	}
	what := fmt.Sprintf("%s log segments of a transaction each, %s", thousands(float64(b.sizes.small)), store)
	replica := a.Replica
	if latency > 0 {
		proxied, _, stop, err := b.proxy(a.Replica, s3proxy.Options{Latency: latency})
		if err != nil || proxied == "" {
			return err
		}
		defer stop()
		replica = proxied
		what = fmt.Sprintf("%s, %v per request", what, latency)
	}
	var got []outcome[restoreResult]
	for range b.runs {
		g, err := restored(ctx, b, restoreArgs{Replica: replica, Output: filepath.Join(dir, "restored.db")}, a.Database)
		if err != nil {
			return err
		}
		got = append(got, g)
	}
	b.add(row{
		Case: "restore", What: "restore of " + what, Unit: "s", Runs: each(got, took),
		Detail: []string{
			fmt.Sprintf("%d requests, %s read", got[0].Result.Requests, size(float64(got[0].Result.Fetched))),
			"CPU " + seconds(median(each(got, cpu))),
		},
	})
	return nil
}

type smallArgs struct {
	target
	Segments int
}

var smallTask = task("small", func(ctx context.Context, a smallArgs) (_ struct{}, err error) {
	c, err := a.open(nil)
	if err != nil {
		return struct{}{}, err
	}
	defer func() { err = errors.Join(err, c.Close(), a.end()) }()
	if err := c.Exec(schema); err != nil {
		return struct{}{}, err
	}
	w, err := newWriter(c, 100)
	if err != nil {
		return struct{}{}, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for range a.Segments {
		w.inserted++
		if err := w.insert.exec(w.name(w.inserted), w.summary(), w.updated(), w.IntN(1e6)); err != nil {
			return struct{}{}, err
		}
		if _, err := a.sync(ctx); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, nil
})

// requests counts what a restore by time asks the store for, by both.
func requests(ctx context.Context, b *bench) error {
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	defer remove()
	a := lagArgs{Rate: b.lagRate, For: b.history}
	a.Database, a.Sync, a.Replica = filepath.Join(dir, "a.db"), "normal", b.replica("s3", dir, "history")
	proxied, calls, stop, err := b.proxy(a.Replica, s3proxy.Options{})
	if err != nil || proxied == "" {
		return err
	}
	defer stop()
	u, err := url.Parse(proxied)
	if err != nil {
		return err
	}
	endpoint := u.Query().Get("endpoint")
	theirs := a
	theirs.Database, theirs.Replica = filepath.Join(dir, "litestream.db"), ""
	other, err := b.litestream(theirs.Database, "history", endpoint)
	if err != nil {
		return err
	}
	start := time.Now()
	end, err := other.start(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := historyTask(ctx, b, theirs)
		done <- err
	}()
	_, err = historyTask(ctx, b, a)
	if err = errors.Join(err, <-done, end()); err != nil {
		return err
	}
	output := filepath.Join(dir, "restored.db")
	middle := start.Add(b.history * 2 / 3).UTC()
	calls.Forget()
	if _, err := restoreTask(ctx, b, restoreArgs{Replica: proxied, Output: output, Timestamp: middle}); err != nil {
		return err
	}
	ours := calls.Calls()
	os.Remove(output)
	calls.Forget()
	if _, err := other.restore(ctx, output, "-timestamp", middle.Format(time.RFC3339)); err != nil {
		return err
	}
	b.add(row{
		Case: "restore", What: fmt.Sprintf("requests of a restore by time, %v of history", b.history), Unit: "requests", Runs: []float64{float64(len(ours))},
		Detail: []string{operations(ours), "Litestream " + litestreamVersion + ": " + operations(calls.Calls())},
	})
	return nil
}

// historyTask writes transactions for a while.
var historyTask = task("history", func(ctx context.Context, a lagArgs) (_ struct{}, err error) {
	c, err := a.open(nil)
	if err != nil {
		return struct{}{}, err
	}
	defer func() { err = errors.Join(err, c.Close(), a.end()) }()
	if err := c.Exec(`CREATE TABLE event(id INTEGER PRIMARY KEY, text TEXT NOT NULL)`); err != nil {
		return struct{}{}, err
	}
	s, err := prepare(c, `INSERT INTO event(text) VALUES (?)`)
	if err != nil {
		return struct{}{}, err
	}
	defer s.Close()
	t, p := newText(3), pacer{rate: a.Rate}
	for start := time.Now(); time.Since(start) < a.For && ctx.Err() == nil; {
		p.wait(ctx)
		if err := s.exec(t.summary()); err != nil {
			return struct{}{}, err
		}
	}
	_, err = a.sync(ctx)
	return struct{}{}, err
})

// proxy starts a proxy before the server of a replica; none ("") if that server
// would see that what is signed for it comes from another host.
func (b *bench) proxy(replica string, o s3proxy.Options) (proxied string, p *s3proxy.Proxy, stop func(), err error) {
	u, err := url.Parse(replica)
	if err != nil {
		return "", nil, nil, err
	}
	q := u.Query()
	endpoint := q.Get("endpoint")
	if !strings.HasPrefix(endpoint, "http://127.0.0.1:") {
		b.say("  no requests are counted or delayed: that takes the server that -s3 starts")
		return "", nil, nil, nil
	}
	h := &host{dir: b.dir}
	p = s3proxy.New(h, endpoint, o)
	q.Set("endpoint", p.URL)
	u.RawQuery = q.Encode()
	return u.String(), p, h.end, nil
}

// operations counts calls by their operation.
func operations(calls []s3proxy.Call) string {
	n, order := map[string]int{}, []string(nil)
	for _, c := range calls {
		if n[c.Operation]++; n[c.Operation] == 1 {
			order = append(order, c.Operation)
		}
	}
	for i, o := range order {
		order[i] = fmt.Sprintf("%d %s", n[o], o)
	}
	return strings.Join(order, ", ")
}

// restored restores, and compares with the database that it must equal.
func restored(ctx context.Context, b *bench, a restoreArgs, database string) (got outcome[restoreResult], err error) {
	if got, err = restoreTask(ctx, b, a); err != nil {
		return got, err
	}
	if err := sameContent(a.Output, database); err != nil {
		return got, fmt.Errorf("the restored database is wrong: %w", err)
	}
	return got, os.Remove(a.Output)
}

func took(o outcome[restoreResult]) float64 { return o.Result.Seconds }
func cpu(o outcome[restoreResult]) float64  { return o.Result.CPU }

// restorePeak adds the peak memory of restores, absolute.
func (b *bench) restorePeak(what string, of []outcome[restoreResult]) {
	b.add(row{
		Case: "restore", What: "peak memory of the restore of " + what, Unit: "B", Goal: atMost(restoreMemory),
		Runs: each(of, func(o outcome[restoreResult]) float64 { return float64(o.Peak) }),
	})
}

// restoreMemory is how much memory a restore may need, whatever the database's size.
const restoreMemory = 128 << 20
