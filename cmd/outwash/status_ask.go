package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
)

// statusTarget is a database or replica that is asked about.
type statusTarget struct {
	path  string           // absolute; "": only the replica is known
	store replicate.Store  // nil: not known, or not opened yet
	file  *config.Database // that says where the replica is; nil: none does
}

// open opens the replica, if it is known where that is.
func (t *statusTarget) open(ctx context.Context) (err error) {
	if t.store == nil && t.file != nil {
		t.store, err = t.file.Open(ctx)
	}
	return err
}

// among returns those entries that are about the target.
func (t *statusTarget) among(list []*statusEntry) (found []*statusEntry) {
	for _, e := range list {
		if t.path != "" && samePath(t.path, e.Database) || t.path == "" && t.store.String() == e.Replica {
			found = append(found, e)
		}
	}
	return found
}

// samePath reports whether two paths are of one file, whatever it is called.
func samePath(a, b string) bool { return a == b || realPath(a) == realPath(b) }

// realPath follows symbolic links, also of a file that isn't there.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// targets are what the arguments name; without any, the databases of the
// configuration file.
func (f *statusFlags) targets(ctx context.Context, args []string) ([]*statusTarget, error) {
	var list []*statusTarget
	if len(args) == 0 && f.socket == "" {
		c, err := f.optional()
		if c == nil || err != nil {
			return nil, err
		}
		return listed(c)
	}
	for _, arg := range args {
		if arg == "" {
			return nil, usagef("an argument is empty")
		}
		t, err := f.target(ctx, arg)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// listed are the databases of a configuration file, those of its directories included.
func listed(c *config.Config) (list []*statusTarget, err error) {
	for _, d := range c.Databases {
		list = append(list, &statusTarget{path: d.Path, file: d})
	}
	for _, dir := range c.Directories {
		found, err := sidecar.Dir{Path: dir.Path, Pattern: dir.Pattern, Recursive: dir.Recursive}.Databases()
		if err != nil {
			return nil, err
		}
		for _, db := range found {
			d, err := c.Database(filepath.Join(dir.Path, filepath.FromSlash(db.Rel)))
			if err != nil {
				return nil, err
			}
			if !slices.Contains(c.Databases, d) { // listed by its own path, too
				list = append(list, &statusTarget{path: d.Path, file: d})
			}
		}
	}
	return list, nil
}

// optional loads the configuration file; nil without error if none is asked for and
// the one at the usual place isn't there, or isn't for this user. One that nobody named
// on the command line and that can't be used keeps nobody from asking processes: a
// service may have variables that this shell hasn't.
func (f *statusFlags) optional() (*config.Config, error) {
	path := f.configPath()
	if path == "" {
		return nil, nil
	}
	c, err := f.load(path)
	if errors.Is(err, fs.ErrPermission) && f.file.path == "" && os.Getenv(config.Env) == "" {
		return nil, nil
	}
	if err != nil && f.file.path == "" {
		f.unusable = err
		return nil, nil
	}
	return c, err
}

func (f *statusFlags) target(ctx context.Context, arg string) (*statusTarget, error) {
	t := &statusTarget{}
	var err error
	if isURL(arg) {
		f.database = nil
		if t.store, err = f.open(ctx, arg); err == nil && f.database != nil {
			t.path = f.database.Path
		}
		return t, err
	}
	arg = strings.TrimPrefix(strings.TrimPrefix(arg, "sqlite3://"), "sqlite://")
	if t.path, err = filepath.Abs(arg); err != nil {
		return nil, err
	}
	c, err := f.optional()
	if c == nil || err != nil {
		return t, err
	}
	d, err := c.Database(arg)
	if err != nil {
		if f.file.path == "" { // it may well not be in a file that nobody named
			err = nil
		}
		return t, err
	}
	t.path, t.file = d.Path, d
	return t, nil
}

// ask asks all processes that can be found. Those that should have answered and didn't
// are noted, and returned.
func (f *statusFlags) ask(ctx context.Context, u *ui, targets []*statusTarget) (list []*statusEntry, unanswered []error, err error) {
	sockets := []string{f.socket}
	if f.socket == "" {
		sockets = f.sockets(u, targets)
	}
	answers := make([]status.Report, len(sockets))
	errs := make([]error, len(sockets))
	var g errgroup.Group
	g.SetLimit(16)
	for i, path := range sockets {
		g.Go(func() error {
			answers[i], errs[i] = status.Query(ctx, path)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i, r := range answers {
		switch err := errs[i]; {
		case err == nil:
		case f.socket != "":
			return nil, nil, err
		case errors.Is(err, status.ErrNobody): // a process that is gone leaves a socket
		default:
			u.note("outwash: status: %s", plainMessage(err))
			if !errors.Is(err, status.ErrForbidden) { // other users' processes are theirs
				unanswered = append(unanswered, err)
			}
		}
		for _, s := range r.Databases {
			p := &statusProcess{Owner: r.Owner, Outwash: r.Outwash, Socket: sockets[i]}
			list = append(list, &statusEntry{Database: s.Database, Replica: s.Replica, State: string(s.State), Process: p, Status: &s})
		}
	}
	return list, unanswered, nil
}

// sockets are those of the directories where processes have them, and those that
// the databases and the configuration file name.
func (f *statusFlags) sockets(u *ui, targets []*statusTarget) (list []string) {
	for _, dir := range status.Dirs() {
		found, err := status.Sockets(dir)
		if err != nil && !errors.Is(err, fs.ErrPermission) { // another user's
			u.note("outwash: status: %s", plainMessage(err))
		}
		list = append(list, found...)
	}
	for _, t := range targets {
		if t.path != "" {
			list = append(list, cmp.Or(status.SocketOf(t.path), status.SocketOf(realPath(t.path))))
		}
	}
	if f.config != nil && f.config.Service.Socket.Path != "" {
		list = append(list, f.config.Service.Socket.Path)
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(s string) bool { return s == "" })
}

// where says where it was looked for processes.
func (f *statusFlags) where() string {
	if f.socket != "" {
		return f.socket
	}
	return strings.Join(status.Dirs(), ", ")
}
