package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// settle is how long a directory is left alone after something happened there.
	settle = 100 * time.Millisecond
	// scanShare bounds how much of the time is spent on scans: one that takes a
	// second is followed by none for scanShare seconds.
	scanShare = 20
	// letGo bounds what is uploaded of a database whose file was removed.
	letGo = 30 * time.Second
)

// DirOptions of AddDir.
type DirOptions struct {
	Dir
	// Watch takes databases up that come later, and lets those go that are removed.
	Watch bool
	// Database says how one of them is replicated; its Path is filled in.
	Database func(Found) (Options, error)
}

// dir is a directory whose databases the manager has.
type dir struct {
	DirOptions
	m    *Manager
	hook *hook
	kick chan struct{}
	told map[string]bool // what is said once

	mu   sync.Mutex
	have map[string]Found // by Rel
}

// AddDir adds the databases of a directory, and returns how many there are now. Of
// databases that can't be added the error tells; the others are.
func (m *Manager) AddDir(o DirOptions) (int, error) {
	if err := o.Check(); err != nil {
		return 0, err
	}
	full, err := filepath.Abs(o.Path)
	if err != nil {
		return 0, fmt.Errorf("sidecar: directory %s: %w", o.Path, err)
	}
	o.Path = full
	if fi, err := os.Stat(full); err != nil {
		return 0, fmt.Errorf("sidecar: directory of databases: %w", err)
	} else if !fi.IsDir() {
		return 0, fmt.Errorf("sidecar: directory of databases: %s is no directory", full)
	}
	d := &dir{DirOptions: o, m: m, kick: make(chan struct{}, 1), told: map[string]bool{}, have: map[string]Found{}}
	d.hook = &hook{tell: d.happened, dirs: map[string]bool{}}
	if err = d.scan(m.ctx); err != nil {
		d.told[err.Error()] = true
	}
	if !o.Watch {
		return len(d.have), err
	}
	n := len(d.have)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.watcher.unhear(d.hook)
		return n, fmt.Errorf("sidecar: directory %s: %w", full, errManagerClosed)
	}
	m.dirs = append(m.dirs, d)
	m.work.Go(func() {
		defer m.watcher.unhear(d.hook)
		d.run(m.ctx)
	})
	return n, err
}

// happened is told of what happens in the directories: to the file at path, or, if
// that is empty, to whatever. A database that is being made is one with the first
// write to it, or when its companions come and go; those that there are do that all
// the time.
func (d *dir) happened(path string, wrote bool) {
	name := filepath.Base(path)
	base := stem(path)
	switch {
	case path == "":
	case wrote && (!d.takes(name) || d.has(path)):
		return
	case d.concerns(name):
		if base != path && d.has(base) {
			return
		}
	case !d.enters(name): // it can't be a directory that matters
		return
	}
	d.again()
}

// again has the directory scanned soon.
func (d *dir) again() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// freed is told that the manager doesn't have a database any more, which this
// directory may have left to another entry.
func (d *dir) freed(was string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for rel, f := range d.have {
		if !f.others {
			continue
		}
		if k, err := key(f.Path); err == nil && k == was {
			delete(d.have, rel)
			d.again()
		}
	}
}

// has reports whether a file is a database that is taken.
func (d *dir) has(path string) bool {
	rel, err := filepath.Rel(d.Path, path)
	if err != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.have[filepath.ToSlash(rel)]
	return ok
}

// run scans the directories when something happened there.
func (d *dir) run(ctx context.Context) {
	wait := settle
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.kick:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		select { // what happened meanwhile is seen, too
		case <-d.kick:
		default:
		}
		start := time.Now()
		if err := d.scan(ctx); err != nil && !d.told[err.Error()] {
			d.told[err.Error()] = true
			d.m.log.Error("databases may be missing", "directory", d.Path, "error", err)
		}
		wait = max(settle, scanShare*time.Since(start))
	}
}

// scan takes up the databases that are there now, and, if the directory is watched,
// lets those go that aren't any more.
func (d *dir) scan(ctx context.Context) error {
	d.mu.Lock()
	have := maps.Clone(d.have)
	d.mu.Unlock()
	files, err := scan(d.Dir, have, d.enter)
	found, skips := choose(files, have)
	for _, s := range skips {
		if !d.told[s.rel] {
			d.told[s.rel] = true
			d.m.log.Warn("another name of a database is left out", "directory", d.Path, "name", s.rel, "database", s.same)
		}
	}
	errs := []error{err}
	come, gone := differ(have, found)
	for _, f := range gone {
		if ctx.Err() == nil && d.isGone(f) {
			d.letGo(f)
		}
	}
	for _, f := range come {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, d.take(f))
	}
	return errors.Join(errs...)
}

func (d *dir) enter(path string) error {
	if !d.Watch {
		return nil
	}
	return d.m.watcher.hear(d.hook, path)
}

// isGone tells a file that isn't there any more from one that can't be seen just now.
func (d *dir) isGone(f Found) bool {
	_, err := os.Lstat(filepath.Join(d.Path, filepath.FromSlash(f.Rel)))
	return errors.Is(err, fs.ErrNotExist) || f.link
}

// take adds a database, unless it is replicated for another reason already.
func (d *dir) take(f Found) error {
	o, err := d.Database(f)
	if err != nil {
		return err
	}
	o.Path, o.mayGo = f.Path, d.Watch
	err = d.m.Add(o)
	f.others = errors.Is(err, ErrManaged)
	switch {
	case f.others:
		d.m.log.Info("a database of this directory is replicated by another entry", "directory", d.Path, "database", f.Path)
	case err != nil:
		return err
	case d.Watch:
		d.m.log.Info("database taken up", "directory", d.Path, "database", f.Path)
	}
	d.mu.Lock()
	d.have[f.Rel] = f
	d.mu.Unlock()
	if f.others && d.m.member(f.Path) == nil { // it has just ended
		if k, err := key(f.Path); err == nil {
			d.freed(k)
		}
	}
	return nil
}

// letGo ends the replication of a database whose file was removed.
func (d *dir) letGo(f Found) {
	d.mu.Lock()
	delete(d.have, f.Rel)
	d.mu.Unlock()
	if f.others {
		return
	}
	d.m.log.Info("database let go: its file was removed", "directory", d.Path, "database", f.Path)
	b := d.m.member(f.Path)
	if b == nil {
		return
	}
	stop := b.leave() // before it is taken up by another name
	if stop == nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(d.m.ctx, letGo)
		defer cancel()
		err := b.finish(ctx, stop)
		if err != nil && !(errors.Is(err, ErrRemoved) && b.status().Backlog == 0) {
			d.m.log.Warn("a database whose file was removed is not replicated to its end", "database", f.Path, "error", err)
		}
		d.m.forget(b)
	}()
}
