package sidecar

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// sweepEvery is how often databases are looked at without having been told of
// anything, should the system have failed to tell.
const sweepEvery = time.Minute

// watcher tells databases when their files change: one watch for each directory, one
// goroutine for all.
type watcher struct {
	fs   *fsnotify.Watcher
	done chan struct{}

	mu   sync.Mutex
	dirs map[string]map[string]map[*watch]struct{} // by directory and name of the database
	// hooks are told of all files.
	hooks map[*hook]struct{}
}

// watch is one database's.
type watch struct {
	w         *watcher
	dir, name string
	wake      chan struct{}
	names     atomic.Bool // a file came, went or was renamed
}

// newWatcher makes one, for any number of databases.
func newWatcher() (*watcher, error) {
	fs, err := fsnotify.NewBufferedWatcher(64)
	if err != nil {
		return nil, fmt.Errorf("sidecar: watch files: %w%s", err, watchRemedy(err))
	}
	w := &watcher{fs: fs, done: make(chan struct{}), dirs: map[string]map[string]map[*watch]struct{}{}, hooks: map[*hook]struct{}{}}
	go w.run()
	return w, nil
}

// Close ends it.
func (w *watcher) Close() error {
	err := w.fs.Close()
	<-w.done
	if err != nil {
		return fmt.Errorf("sidecar: %w", err)
	}
	return nil
}

// watch begins to watch a database's files.
func (w *watcher) watch(path string) (*watch, error) {
	t := &watch{w: w, dir: filepath.Dir(path), name: filepath.Base(path), wake: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[t.dir] == nil {
		if err := w.fs.Add(t.dir); err != nil { // once more does no harm
			return nil, fmt.Errorf("sidecar: watch %s: %w%s", t.dir, err, watchRemedy(err))
		}
		w.dirs[t.dir] = map[string]map[*watch]struct{}{}
	}
	if w.dirs[t.dir][t.name] == nil {
		w.dirs[t.dir][t.name] = map[*watch]struct{}{}
	}
	w.dirs[t.dir][t.name][t] = struct{}{}
	return t, nil
}

// close ends the watch.
func (t *watch) close() {
	w := t.w
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.dirs[t.dir]
	delete(of[t.name], t)
	if of != nil && len(of[t.name]) == 0 {
		delete(of, t.name)
	}
	if of != nil && len(of) == 0 {
		delete(w.dirs, t.dir)
		w.unwatch(t.dir)
	}
}

// notify wakes whoever watches; it never waits.
func (t *watch) notify() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) run() {
	defer close(w.done)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			w.tell(e)
		case _, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			w.all(true) // events were lost
		case <-sweep.C:
			w.all(true)
		}
	}
}

// files are what SQLite keeps beside a database.
var files = []string{"-wal", "-shm", "-journal"}

func (w *watcher) tell(e fsnotify.Event) {
	dir, name := filepath.Split(e.Name)
	dir = filepath.Clean(dir)
	for _, suffix := range files {
		name = strings.TrimSuffix(name, suffix)
	}
	names := e.Op&^(fsnotify.Write|fsnotify.Chmod) != 0
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tellHooks(e)
	if of, ok := w.dirs[filepath.Clean(e.Name)]; ok && names { // the directory itself
		for _, all := range of {
			wake(all, true)
		}
		delete(w.dirs, filepath.Clean(e.Name)) // who begins anew watches what has its name then
		return
	}
	wake(w.dirs[dir][name], names)
}

func (w *watcher) all(names bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range w.dirs {
		for _, all := range of {
			wake(all, names)
		}
	}
	for h := range w.hooks {
		h.tell("", false)
	}
}

func wake(all map[*watch]struct{}, names bool) {
	for t := range all {
		if names {
			t.names.Store(true)
		}
		t.notify()
	}
}
