package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outwash/outwash/replicate"
)

// lag measures how long after its commit a transaction is in the store.
func lag(ctx context.Context, b *bench) error {
	stores := []string{"file"}
	if b.s3 != "" {
		stores = append(stores, "s3")
	}
	for _, store := range stores {
		for _, c := range []struct {
			what string
			max  time.Duration
		}{{"max_lag 1s (default)", 0}, {"max_lag 0", replicate.AsFast}} {
			dir, remove, err := b.scratch()
			if err != nil {
				return err
			}
			defer remove()
			a := lagArgs{Rate: b.lagRate, For: b.lagFor}
			a.Database, a.Sync, a.MaxLag = filepath.Join(dir, "a.db"), "normal", c.max
			a.Replica = b.replica(store, dir, "lag")
			got, err := lagTask(ctx, b, a)
			if err != nil {
				return err
			}
			r := got.Result
			b.add(row{
				Case: "lag", What: fmt.Sprintf("%s, %s, median", store, c.what), Unit: "s",
				Value: percentile(r.Lags, 50),
				Detail: []string{
					fmt.Sprintf("p99 %s, longest %s", seconds(percentile(r.Lags, 99)), seconds(slices.Max(r.Lags))),
					fmt.Sprintf("%d transactions, %d a second, in %d uploads; %s per transaction", len(r.Lags), b.lagRate, r.Uploads, figure(float64(r.Bytes)/float64(len(r.Lags)), "B")),
				},
			})
		}
	}
	return nil
}

type lagArgs struct {
	target
	Rate int
	For  time.Duration
}

type lagResult struct {
	Lags    []float64 `json:"lags"` // seconds
	Uploads int       `json:"uploads"`
	Bytes   int64     `json:"bytes"`
}

var lagTask = task("lag", func(ctx context.Context, a lagArgs) (r lagResult, err error) {
	store, err := replicate.OpenStore(ctx, a.Replica)
	if err != nil {
		return r, err
	}
	timed := &timedStore{Store: store}
	c, err := a.open(timed)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Close(), a.end()) }()
	if err := c.Exec(`CREATE TABLE event(id INTEGER PRIMARY KEY, text TEXT NOT NULL)`); err != nil {
		return r, err
	}
	s, err := prepare(c, `INSERT INTO event(text) VALUES (?)`)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	before, err := a.sync(ctx)
	if err != nil {
		return r, err
	}
	timed.reset()
	var committed []time.Time
	p := pacer{rate: a.Rate}
	for range int(a.For.Seconds() * float64(a.Rate)) {
		p.wait(ctx)
		if err := errors.Join(ctx.Err(), s.exec("user 4711 changed the address of order 20394")); err != nil {
			return r, err
		}
		committed = append(committed, time.Now())
	}
	// The last ones are not to be hurried by a Sync that applications don't do.
	last := before + uint64(len(committed))
	if err := timed.await(ctx, last, a.sync); err != nil {
		return r, err
	}
	r.Lags, r.Uploads, r.Bytes, err = timed.lags(before, committed)
	return r, err
})

// timedStore notes when log segments were acknowledged.
type timedStore struct {
	replicate.Store
	mu   sync.Mutex
	acks []ack
}

type ack struct {
	first uint64 // TXID that the segment begins with
	at    time.Time
	bytes int
	took  time.Duration
}

func (s *timedStore) Create(ctx context.Context, key string, data []byte) error {
	began := time.Now()
	err := s.Store.Create(ctx, key, data)
	if hex, ok := strings.CutPrefix(key, "log/"); ok && err == nil {
		first, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.acks = append(s.acks, ack{first, time.Now(), len(data), time.Since(began)})
		s.mu.Unlock()
	}
	return err
}

func (s *timedStore) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks = nil
}

// await gives the last upload the time that it takes by itself, then asks for it.
func (s *timedStore) await(ctx context.Context, last uint64, sync func(context.Context) (uint64, error)) error {
	select {
	case <-time.After(replicate.DefaultMaxLag + 500*time.Millisecond):
	case <-ctx.Done():
	}
	txid, err := sync(ctx)
	if err == nil && txid != last {
		err = fmt.Errorf("the replica is at TXID %d, expected %d", txid, last)
	}
	return err
}

// lags returns how long each transaction took from its commit to the end of the
// upload that it was in. The first has the TXID before + 1.
func (s *timedStore) lags(before uint64, committed []time.Time) (lags []float64, uploads int, bytes int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks) == 0 || s.acks[0].first > before+1 {
		return nil, 0, 0, errors.New("no upload has the first transaction")
	}
	i := 0
	for n, at := range committed {
		for i+1 < len(s.acks) && s.acks[i+1].first <= before+1+uint64(n) {
			i++
		}
		lags = append(lags, s.acks[i].at.Sub(at).Seconds())
	}
	for _, a := range s.acks {
		bytes += int64(a.bytes)
	}
	return lags, len(s.acks), bytes, nil
}
