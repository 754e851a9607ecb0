//go:build linux

package sidecar

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

// Monitoring sees since when nothing goes on, and what was done in the sessions before.
func TestStatusSince(t *testing.T) {
	before := time.Now()
	db, err := Open(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "app.db"),
		Open: func(context.Context) (replicate.Store, error) { return nil, replicate.ErrConfig },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	if s := db.Status(); s.StateSince.Before(before) {
		t.Errorf("%s since %s", s.State, s.StateSince)
	}
	<-db.Ready()
	s := db.Status()
	if s.State != replicate.StateFailed || s.StateSince.Before(before) || s.StateSince.After(time.Now()) {
		t.Errorf("%s since %s", s.State, s.StateSince)
	}
}

// A server's answer has another number each time: that is no news. Another reason is,
// but nothing goes on since the first.
func TestSameRefusalToldOnce(t *testing.T) {
	var log bytes.Buffer
	tries := make(chan struct{}, 100)
	n, reason := 0, "400 Bad Request"
	db, err := Open(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "app.db"),
		Open: func(context.Context) (replicate.Store, error) {
			n++
			tries <- struct{}{}
			if n == 4 {
				reason = "403 Forbidden"
			}
			return nil, fmt.Errorf("%w: %s (request %d)", replicate.ErrConfig, reason, n)
		},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		hooks:  hooks{backoff: time.Microsecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-tries
	<-db.Ready()
	since := db.Status().StateSince
	for range 7 {
		<-tries
	}
	if s := db.Status(); s.StateSince != since {
		t.Errorf("failing since %s, and now since %s", since, s.StateSince)
	}
	db.Close(t.Context())
	if n := strings.Count(log.String(), "replication stopped"); n != 2 {
		t.Errorf("told %d times, not for each of 2 reasons: %s", n, log.String())
	}
}

// Between two sessions a database is not closed: monitoring would call that the end.
func TestStatusBetweenSessions(t *testing.T) {
	db := &DB{closing: make(chan struct{}), last: replicate.Status{State: replicate.StateClosed}}
	if s := db.Status(); s.State != replicate.StateOpening {
		t.Error(s.State)
	}
	close(db.closing)
	if s := db.Status(); s.State != replicate.StateClosed {
		t.Error(s.State)
	}
}

// What a database is refused for is told once, by whoever finds it.
func TestRefusedToldOnce(t *testing.T) {
	w, _ := replicatedWorld(t, Options{hooks: hooks{backoff: time.Millisecond}})
	other := newWorld(t, Options{hooks: hooks{backoff: time.Millisecond}})
	other.store = w.store
	q := other.stock()
	q.Must("PRAGMA journal_mode=wal")
	q.Must("CREATE TABLE other(a)")
	other.start()
	<-other.db.Ready()
	other.eventually("refused", func() bool { return other.state() == replicate.StateFailed })
	for range 3 { // refusals later
		at := other.store.Total()
		for other.store.Total() == at {
			runtime.Gosched()
		}
	}
	if n := other.logged("database and replica differ"); n != 1 {
		t.Errorf("the refusal is told %d times", n)
	}
}
