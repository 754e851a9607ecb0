package vfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// restore makes the database from its replica, before anybody uses it: it is
// missing, or an earlier state of this machine's own, as after another machine
// has gone on with a copy.
func (db *database) restore(ctx context.Context, store replicate.Store) error {
	if err := removeEmpty(db.path); err != nil {
		return err
	}
	o := replicate.RestoreOptions{Store: store, Output: db.path, Database: db.path, Logger: db.log}
	_, err := os.Stat(db.path)
	exists := err == nil
	if exists {
		if err := db.emptyWAL(); err != nil {
			return err
		}
		o.Output += "-forward"
		if err := os.Remove(o.Output); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("vfs: %w", err)
		}
		// By another name of the old one it gets the old one's owner and mode. (File
		// systems without hard links know neither.)
		o.Force = os.Link(db.path, o.Output) == nil
	}
	r, err := replicate.Restore(ctx, o)
	if exists {
		if err == nil {
			err = errors.Join(os.Rename(o.Output, db.path), local.OS{}.SyncDir(filepath.Dir(db.path)))
		} else {
			os.Remove(o.Output)
		}
		if err != nil {
			err = fmt.Errorf("vfs: bring %s forward: %w", db.path, err)
		}
	}
	if err == nil {
		db.log.Info("restored", "txid", r.TXID, "bytes", r.Bytes)
	}
	return err
}

// emptyWAL brings everything into the database file: a WAL that stayed would be
// applied to the file that takes its place.
func (db *database) emptyWAL() error {
	q := url.Values{"mode": {"rw"}}
	if db.opts.Base != "" {
		q.Set("vfs", db.opts.Base)
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: db.path, RawQuery: q.Encode()}
	c, err := sqlite3.Open(u.String())
	if err == nil {
		err = c.Exec("PRAGMA schema_version") // or the WAL isn't looked at
		if err == nil {
			_, _, err = c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
		}
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		return fmt.Errorf("vfs: bring %s forward: %w", db.path, err)
	}
	if _, err := os.Stat(db.path + "-wal"); err == nil {
		return fmt.Errorf("vfs: bring %s forward: another program has it open: close it there", db.path)
	}
	return nil
}

// removeEmpty removes a database file of no bytes: it is as good as none.
func removeEmpty(path string) error {
	fi, err := os.Stat(path)
	if err != nil || fi.Size() > 0 {
		return nil
	}
	return os.Remove(path)
}
