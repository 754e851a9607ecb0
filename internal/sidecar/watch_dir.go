package sidecar

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// A hook is told what happens in directories: that a file came, went or was renamed,
// or (wrote) was written to; "": that anything may have happened. It must not wait.
type hook struct {
	tell func(path string, wrote bool)
	dirs map[string]bool
}

// hear has h told of what happens in dir; once more does no harm.
func (w *watcher) hear(h *hook, dir string) error {
	dir = filepath.Clean(dir)
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.dirs[dir] {
		return nil
	}
	if !w.watched(dir) {
		if err := w.fs.Add(dir); err != nil {
			return fmt.Errorf("sidecar: watch %s: %w%s", dir, err, watchRemedy(err))
		}
	}
	h.dirs[dir] = true
	w.hooks[h] = struct{}{}
	return nil
}

// unhear ends it.
func (w *watcher) unhear(h *hook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.hooks, h)
	for dir := range h.dirs {
		w.unwatch(dir)
	}
}

// watched reports whether somebody wants to know of a directory.
func (w *watcher) watched(dir string) bool {
	if w.dirs[dir] != nil {
		return true
	}
	for h := range w.hooks {
		if h.dirs[dir] {
			return true
		}
	}
	return false
}

// unwatch lets a directory go that nobody wants to know of any more.
func (w *watcher) unwatch(dir string) {
	if !w.watched(dir) {
		_ = w.fs.Remove(dir) // gone already, or the watcher is closed
	}
}

// tellHooks passes an event on.
func (w *watcher) tellHooks(e fsnotify.Event) {
	for h := range w.hooks {
		wrote := e.Op&^(fsnotify.Write|fsnotify.Chmod) == 0
		switch {
		case e.Op == fsnotify.Chmod:
		case h.dirs[filepath.Dir(e.Name)]:
			h.tell(e.Name, wrote)
		case h.dirs[e.Name] && !wrote: // the directory itself; one that comes in its place is heard anew
			delete(h.dirs, e.Name)
			h.tell("", false)
		}
	}
}

// watchRemedy says what to do where inotify(7) has no room.
func watchRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return " (sysctl fs.inotify.max_user_instances says how many programs of a user may watch files: raise it)"
	case errors.Is(err, syscall.ENOSPC):
		return " (sysctl fs.inotify.max_user_watches says how many directories a user's programs may watch: raise it)"
	}
	return ""
}
