package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/replicate"
)

// transactionBytes measures what a small transaction takes in the replica.
func transactionBytes(ctx context.Context, b *bench) error {
	template, err := b.template(ctx, &b.tiny, 0)
	if err != nil {
		return err
	}
	for _, rate := range []int{b.rate, 0} {
		what := fmt.Sprintf("%d transactions a second", rate)
		if rate == 0 {
			what = "as many as possible"
		}
		var plain []outcome[bytesResult]
		var with []outcome[bytesResult]
		var found []uploaded
		for range min(b.runs, 3) {
			p, _, err := bytesRun(ctx, b, template, rate, false)
			if err != nil {
				return err
			}
			w, u, err := bytesRun(ctx, b, template, rate, true)
			if err != nil {
				return err
			}
			plain, with, found = append(plain, p), append(with, w), append(found, u)
		}
		n := float64(b.transactions)
		u, pages := found[len(found)-1], float64(plain[len(plain)-1].Result.Pages*4096)
		r := row{
			Case: "bytes", What: what, Unit: "B", Goal: atMost(250),
			Runs: each(found, func(u uploaded) float64 { return float64(u.bytes) / n }),
			Detail: []string{
				fmt.Sprintf("%s of changed pages per transaction, 1:%.0f", figure(pages/n, "B"), pages/float64(u.bytes)),
				fmt.Sprintf("%s transactions, %s restorable one by one, in %d objects", thousands(n), thousands(float64(u.points)), u.objects),
				fmt.Sprintf("committed at %s/s, plain %s/s", thousands(median(each(with, bytesRate))), thousands(median(each(plain, bytesRate)))),
				"CPU " + pair(plain, with, "s", func(o outcome[bytesResult]) float64 { return o.Result.CPU }),
			},
		}
		if u.transactions != int64(b.transactions) {
			r.Detail = append(r.Detail, fmt.Sprintf("the replica has %d transactions", u.transactions))
		}
		b.add(r)
		b.peaks = append(b.peaks, memoryOf("bytes, "+what, plain, with))
	}
	return nil
}

func bytesRate(o outcome[bytesResult]) float64 {
	return float64(o.Result.Transactions) / o.Result.Seconds
}

func bytesRun(ctx context.Context, b *bench, template string, rate int, replicated bool) (got outcome[bytesResult], u uploaded, err error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return got, u, err
	}
	defer remove()
	a := bytesArgs{Rows: b.sizes.rows, Transactions: b.transactions, Rate: rate}
	a.Database, a.Sync = filepath.Join(dir, "a.db"), "normal"
	if replicated {
		a.Replica = "file://" + filepath.Join(dir, "replica")
	}
	if err := copyFile(a.Database, template); err != nil {
		return got, u, err
	}
	if got, err = bytesTask(ctx, b, a); err != nil || !replicated {
		return got, u, err
	}
	u, err = sinceBase(ctx, a.Replica, got.Result.Base)
	return got, u, err
}

type bytesArgs struct {
	target
	Rows         int `json:"rows"`
	Transactions int `json:"transactions"`
	Rate         int `json:"rate"`
}

// base is what a replica had before the transactions.
type base struct {
	TXID    uint64 `json:"txid"`
	Bytes   int64  `json:"bytes"`
	Objects int    `json:"objects"`
}

type bytesResult struct {
	Base         base    `json:"base"`
	Transactions int     `json:"transactions"`
	Pages        int64   `json:"pages"` // written to the WAL
	Seconds      float64 `json:"seconds"`
	CPU          float64 `json:"cpu"` // seconds, until all was acknowledged
}

var bytesTask = task("bytes", func(ctx context.Context, a bytesArgs) (r bytesResult, err error) {
	c, err := a.open(nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Close(), a.end()) }()
	w, err := newWriter(c, a.Rows)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if a.replicated() {
		if r.Base, err = baseOf(ctx, a.target); err != nil {
			return r, err
		}
	}
	if _, _, err := c.Status(sqlite3.DBSTATUS_CACHE_WRITE, true); err != nil {
		return r, err
	}
	p := pacer{rate: a.Rate}
	used, start := processorTime(), time.Now()
	for range a.Transactions {
		p.wait(ctx)
		if err := errors.Join(ctx.Err(), w.transaction()); err != nil {
			return r, err
		}
	}
	r.Transactions, r.Seconds = a.Transactions, time.Since(start).Seconds()
	if r.Pages, _, err = c.Status(sqlite3.DBSTATUS_CACHE_WRITE, false); err != nil {
		return r, err
	}
	_, err = a.sync(ctx)
	r.CPU = (processorTime() - used).Seconds()
	return r, err
})

// baseOf waits for the first snapshot and looks at the replica.
func baseOf(ctx context.Context, t target) (b base, err error) {
	if b.TXID, err = t.sync(ctx); err != nil {
		return b, err
	}
	objects, err := list(ctx, t.Replica)
	for _, o := range objects {
		b.Bytes += o.Size
		b.Objects++
	}
	return b, err
}

func list(ctx context.Context, url string) (objects []replicate.ObjectInfo, err error) {
	store, err := replicate.OpenStore(ctx, url)
	if err != nil {
		return nil, err
	}
	return listStore(ctx, store)
}

func listStore(ctx context.Context, store replicate.Store) (objects []replicate.ObjectInfo, err error) {
	for o, err := range store.List(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// uploaded is what came into a replica after a base.
type uploaded struct {
	bytes        int64
	objects      int
	transactions int64
	points       uint64 // states that can be restored
}

// sinceBase looks at the objects themselves: what the engine says of itself is
// not asked.
func sinceBase(ctx context.Context, url string, b base) (u uploaded, err error) {
	objects, err := list(ctx, url)
	if err != nil {
		return u, err
	}
	for _, o := range objects {
		u.bytes += o.Size
		u.objects++
	}
	u.bytes -= b.Bytes
	u.objects -= b.Objects
	store, err := replicate.OpenStore(ctx, url)
	if err != nil {
		return u, err
	}
	h, err := replicate.ReadHistory(ctx, store)
	if err != nil {
		return u, err
	}
	u.transactions = int64(h.TXID) - int64(b.TXID)
	for i, s := range h.Segments {
		if s.MinTXID <= b.TXID || s.Claim || !strings.HasPrefix(s.Key, "log/") {
			continue
		}
		if s, err = h.Details(ctx, i); err != nil {
			return u, err
		}
		u.points += s.Entries
	}
	return u, nil
}
