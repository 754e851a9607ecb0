package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
	"golang.org/x/sys/unix"
)

// source is the capture, with the guard held before anything is looked at.
type source struct {
	*capture.DB
	s *session
}

func (src *source) Evidence(ctx context.Context, tail replicate.Tail) (replicate.Evidence, error) {
	if err := src.s.prepare(ctx); err != nil {
		return replicate.Evidence{}, err
	}
	ev, err := src.DB.Evidence(ctx, tail)
	err = src.s.mend(err)
	if err == nil && ev.File == replicate.FilePresent && !src.s.isGuarded() {
		return replicate.Evidence{}, src.s.appeared() // since prepare looked
	}
	return ev, err
}

// Begin waits, where there is nothing on both sides, for the database to appear.
func (src *source) Begin(ctx context.Context, start replicate.Start, tail replicate.Tail) error {
	if start != replicate.StartEmpty {
		return src.s.mend(src.DB.Begin(ctx, start, tail))
	}
	if err := src.s.appear(ctx); err != nil {
		return err
	}
	return src.s.appeared()
}

func (src *source) Export(ctx context.Context, tail replicate.Tail, write func(segment.Block, []byte) error) (*segment.Entry, error) {
	e, err := src.DB.Export(ctx, tail, write)
	for try := 0; errors.Is(err, capture.ErrBroken) && try < 5 && ctx.Err() == nil; try++ {
		if err = src.s.mend(err); errors.Is(err, local.ErrChanged) {
			e, err = src.DB.Export(ctx, tail, write)
		}
	}
	return e, err
}

// mend checkpoints a log that can't be read to its end, so that it needn't be.
func (s *session) mend(err error) error {
	if !errors.Is(err, capture.ErrBroken) {
		return err
	}
	if e := checkpoint(s.path); e != nil {
		return errors.Join(err, e)
	}
	return fmt.Errorf("sidecar: %s is checkpointed, because %w: %w", s.path, err, local.ErrChanged)
}

// appeared is the error that has everything looked at anew, with the guard held.
func (s *session) appeared() error {
	return fmt.Errorf("sidecar: %s has appeared: %w", s.path, local.ErrChanged)
}

func (s *session) isGuarded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guard != nil
}

// appear waits until there is a database file with content.
func (s *session) appear(ctx context.Context) error {
	set := func(absent bool) {
		s.mu.Lock()
		s.absent = absent
		s.mu.Unlock()
	}
	set(true)
	defer set(false)
	s.log.Info("waiting for the database file to appear")
	s.db.decided()
	for !s.present() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.db.closing:
			return replicate.ErrClosed
		case <-s.here:
		}
	}
	return nil
}

// prepare takes the locks of a database that is there: in WAL mode, with a WAL-index
// that is whole, by a short connection.
func (s *session) prepare(ctx context.Context) error {
	s.preparing.Lock()
	defer s.preparing.Unlock()
	if s.isGuarded() || !s.present() {
		return nil
	}
	if err := writable(s.path); err != nil {
		return err
	}
	if err := capture.CheckReadable(s.path, nil); err != nil {
		return err
	}
	c, err := openConn(s.path)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := s.toWAL(c); err != nil {
		return fmt.Errorf("sidecar: %s: put into WAL mode: %w", s.path, busy(err))
	}
	// A damaged schema is found by whoever reads it.
	if err := c.Exec("BEGIN; PRAGMA schema_version"); err != nil {
		return fmt.Errorf("sidecar: read %s: %w", s.path, busy(err))
	}
	g, err := newGuard(s.path, s.db.o.hooks.unguarded)
	if errors.Is(err, errLocks) {
		return fmt.Errorf("%w: %w", local.ErrLocked, err)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.guard = g
	s.mu.Unlock()
	s.db.guarded.Store(true)
	s.watch.notify()
	return nil
}

// writable refuses a database that this user may not write. SQLite would make its -wal
// and -shm all the same, and as this user's they would be in its owner's way.
func writable(path string) error {
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("sidecar: %s can't be written by this user (uid %d): %w", path, os.Geteuid(), err)
}

// openConn opens a connection that neither checkpoints nor deletes the log when it
// is closed.
func openConn(path string) (*sqlite3.Conn, error) {
	capture.Companions(path)
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(1000)"}}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: capture.EncodeQuery(q)}
	c, err := sqlite3.Open(u.String())
	if err != nil {
		return nil, fmt.Errorf("sidecar: open %s: %w", path, busy(err))
	}
	if _, err := c.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true); err != nil {
		c.Close()
		return nil, fmt.Errorf("sidecar: open %s: %w", path, err)
	}
	return c, nil
}

// toWAL puts the database into WAL mode, if it isn't.
func (s *session) toWAL(c *sqlite3.Conn) error {
	mode, err := text(c, "PRAGMA journal_mode")
	if err != nil || mode == "wal" {
		return err
	}
	now, err := text(c, "PRAGMA journal_mode=wal")
	if err != nil {
		return err
	}
	capture.Companions(s.path) // no log was made yet: that is at the next read
	if now != "wal" {
		return fmt.Errorf("the journal mode stays %s", now)
	}
	s.log.Info("the database is in WAL mode now, which replication needs", "before", mode)
	return nil
}

func text(c *sqlite3.Conn, sql string) (string, error) {
	stmt, _, err := c.Prepare(sql)
	if err != nil {
		return "", err
	}
	defer stmt.Close()
	out := ""
	if stmt.Step() {
		out = stmt.ColumnText(0)
	}
	return out, stmt.Err()
}

// busy says of SQLite's "busy" what it means to who decides.
func busy(err error) error {
	if errors.Is(err, sqlite3.BUSY) {
		return fmt.Errorf("%w: %w", local.ErrLocked, err)
	}
	return err
}

// checkpoint brings what it can into the database file.
func checkpoint(path string) error {
	c, err := openConn(path)
	if err != nil {
		return err
	}
	defer c.Close()
	return passive(c)
}

// read reads the database, which recovers its WAL-index.
func read(path string) error {
	c, err := openConn(path)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Exec("PRAGMA schema_version"); err != nil {
		return fmt.Errorf("sidecar: read %s: %w", path, busy(err))
	}
	return nil
}

func passive(c *sqlite3.Conn) error {
	// Or SQLite doesn't know yet that there is a log.
	if err := c.Exec("PRAGMA schema_version"); err != nil {
		return fmt.Errorf("sidecar: checkpoint: %w", busy(err))
	}
	if _, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE); err != nil && !errors.Is(err, sqlite3.BUSY) {
		return fmt.Errorf("sidecar: checkpoint: %w", err)
	}
	return nil
}
