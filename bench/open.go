package main

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"time"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// target is the database of a measured process. Without a replica it is opened
// with the plain driver: that is the other side of each pair.
type target struct {
	Database string        `json:"database"`
	Replica  string        `json:"replica"`
	Sync     string        `json:"sync"`    // PRAGMA synchronous
	MaxLag   time.Duration `json:"max_lag"` // 0: the default; negative: as fast as the store answers
}

func (t target) replicated() bool { return t.Replica != "" }

// dsn also registers the VFS anew, so that warnings are seen; store, if any,
// comes in the place of the replica's URL.
func (t target) dsn(store replicate.Store) string {
	pragmas := []string{"_pragma=busy_timeout(10000)", "_pragma=synchronous(" + t.Sync + ")"}
	if !t.replicated() {
		u := "file:" + t.Database + "?_pragma=journal_mode(wal)"
		for _, p := range pragmas {
			u += "&" + p
		}
		return u
	}
	o := vfs.Options{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		MaxLag: t.MaxLag, OpenTimeout: time.Minute,
	}
	replica := t.Replica
	if store != nil {
		o.Store = func(string) (replicate.Store, error) { return store, nil }
		replica = ""
	}
	vfs.Register(vfs.Name, o)
	return vfs.DSN(t.Database, replica, pragmas...)
}

// open opens a connection of the driver's own.
func (t target) open(store replicate.Store) (*sqlite3.Conn, error) {
	return sqlite3.Open(t.dsn(store))
}

// pool opens the database with database/sql.
func (t target) pool() (*sql.DB, error) { return sql.Open("sqlite3", t.dsn(nil)) }

// sync waits until everything is in the replica; 0 without one.
func (t target) sync(ctx context.Context) (uint64, error) {
	if !t.replicated() {
		return 0, nil
	}
	return vfs.Sync(ctx, t.Database)
}

// end closes what replicates.
func (t target) end() error {
	if !t.replicated() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return vfs.Shutdown(ctx)
}

// warmUp opens a database in memory once.
var warmUp = task("warm-up", func(context.Context, struct{}) (struct{}, error) {
	c, err := sqlite3.Open(":memory:")
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, c.Close()
})
