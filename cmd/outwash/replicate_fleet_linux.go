package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
)

// start has all databases replicated.
func (r *replication) start() (fleet, error) {
	m, err := sidecar.NewManager(sidecar.ManagerOptions{Logger: r.say.log})
	if err != nil {
		return nil, err
	}
	for _, t := range r.databases {
		if r.once && !t.restore && !exists(t.path) { // nothing is put beside what isn't there
			r.ended[t.path] = true
			r.errs = append(r.errs, fmt.Errorf("%s: %w", t.path, errNoDatabase))
			continue
		}
		if err != nil {
			break
		}
		if err = m.Add(r.options(t)); errors.Is(err, sidecar.ErrManaged) {
			err = usagef("the file %s is listed twice, by different names", t.path)
		}
	}
	for _, d := range r.directories {
		if err == nil {
			err = r.add(m, d)
		}
	}
	if err != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nothing was captured yet
		_ = m.Close(ctx)
		return nil, err
	}
	return m, nil
}

func (r *replication) options(t target) sidecar.Options {
	return sidecar.Options{
		Path: t.path, Open: t.open, MaxLag: t.maxLag, Keep: t.keep, Restore: t.restore, Logger: r.say.log,
		OnState: func(s replicate.Status) {
			r.announce(s)
			r.say.opened(s)
			select {
			case r.changed <- struct{}{}:
			default:
			}
		},
	}
}

// add has the databases of a directory replicated.
func (r *replication) add(m *sidecar.Manager, d *config.Directory) error {
	n, err := m.AddDir(sidecar.DirOptions{
		Dir:   sidecar.Dir{Path: d.Path, Pattern: d.Pattern, Recursive: d.Recursive},
		Watch: d.Watch && !r.once,
		Database: func(f sidecar.Found) (sidecar.Options, error) {
			// The file may list it by its own path, too, which counts.
			db, err := r.config.Database(filepath.Join(d.Path, filepath.FromSlash(f.Rel)))
			if err != nil {
				return sidecar.Options{}, err
			}
			return r.options(r.targetOf(db)), nil
		},
	})
	switch {
	case err != nil && n == 0:
		return fmt.Errorf("%s: %w", d, err)
	case err != nil && r.once:
		r.errs = append(r.errs, fmt.Errorf("%s: %w", d, err))
	case err != nil: // a directory lost+found, say: what can be read is replicated
		r.say.log.Error("databases may be missing", "directory", d.Path, "error", err)
	case n == 0 && !d.Watch:
		// As with Litestream: somebody has taken a wrong directory or pattern.
		return fmt.Errorf("%s: %w; with watch: true it is waited for", d, errNoDatabase)
	case n == 0:
		r.say.note("%s: no databases yet", printable(d.String()))
	}
	return nil
}
