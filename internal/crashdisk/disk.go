// Package crashdisk is a disk for tests, whose power can fail.
//
// Files are real files at real paths, so that everything can read them; changes
// go through the disk, which remembers of each file what was written since it was
// last synced, and which names came and went since their directory was. Kill
// freezes the files, as the end of a process does; PowerLoss then makes them what
// was synced and some of the rest: any of the writes, cut at any sector, and for
// each name any of the states it had.
//
//	Disk.Register  a VFS for SQLite: database, WAL, journal. Their names come and
//	               go in order, and what syncs one of these files makes everything
//	               that happened to their names before durable, as file systems
//	               with a journal do. SQLite relies on it below synchronous=EXTRA,
//	               and the driver never syncs a directory
//	Disk           a local.FS for what Outwash keeps beside the database. A name
//	               lasts here when its directory is synced, and not before
//
// The WAL-index is not the disk's: it doesn't outlive its users.
package crashdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Errors of changes.
var (
	ErrDead = errors.New("crashdisk: the process is dead")
	ErrFull = fmt.Errorf("crashdisk: %w", syscall.ENOSPC)
)

// Disk holds the files of one machine. Its methods are safe for concurrent use.
type Disk struct {
	mu    sync.Mutex
	dead  bool
	gone  chan struct{} // closed when dead
	full  bool
	boots int
	left  int // changes until the process dies; 0: it doesn't
	lies  func(name string) bool
	names map[string]*name
	order []string // SQLite's names, in the order in which they changed
	stats Stats
}

// Stats counts what happened.
type Stats struct {
	Syncs int // that did something
	Lost  int // writes that a loss of power undid, whole or in part
	Kept  int // writes that it kept though they weren't synced
	Names int // names that it changed back
}

// name is one path: what it names, and what it named since it was last durable.
type name struct {
	ordered bool   // SQLite's
	now     *inode // nil: nothing
	since   []*inode
	// durable is what the name is after a loss of power, if nothing of since is.
	durable *inode
}

// inode is one file.
type inode struct {
	info    fs.FileInfo // to tell it from others
	durable []byte
	pending []write // since the last sync
}

// write is one change: data at off, or a new size.
type write struct {
	off  int64
	data []byte // nil: off is the new size
}

// New returns a disk. What is there already is durable.
func New() *Disk { return &Disk{names: map[string]*name{}, gone: make(chan struct{})} }

// Lie makes syncs of the files that f names do nothing: of directories, too.
func (d *Disk) Lie(f func(name string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lies = f
}

// SetFull makes writes fail that need room.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// Stats returns the counters.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Kill makes every change fail from now on: the files stay as they are.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.die()
}

func (d *Disk) die() {
	if !d.dead {
		d.dead = true
		close(d.gone)
	}
}

// Gone is closed when the process that uses the disk now has died.
func (d *Disk) Gone() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gone
}

// KillAt makes the process die at the n-th change that SQLite makes from now on,
// which does not happen; 0: at none.
func (d *Disk) KillAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// Dead reports whether Kill was called and not yet Start.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Start lets the next process use the disk.
func (d *Disk) Start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		d.dead, d.gone = false, make(chan struct{})
	}
	d.left = 0
}

// find returns what is known of a path; what it does not know is durable. It is
// called with mu held.
func (d *Disk) find(path string) *name {
	n := d.names[path]
	info, err := os.Stat(path)
	if n == nil {
		n = &name{}
		d.names[path] = n
	}
	if err == nil && n.now != nil && os.SameFile(info, n.now.info) || err != nil && n.now == nil {
		return n
	}
	// Made or removed by others, who do as they ought.
	n.now, n.since = nil, nil
	if err == nil {
		b, _ := os.ReadFile(path)
		n.now = &inode{info: info, durable: b}
	}
	n.durable = n.now
	return n
}

// set makes a path name another file, or none.
func (d *Disk) set(path string, now *inode) {
	n := d.names[path]
	n.now = now
	n.since = append(n.since, now)
	if n.ordered {
		d.order = append(d.order, path)
	}
}

func (n *name) sync() { n.durable, n.since = n.now, nil }

// syncOrder makes durable what happened to SQLite's names.
func (d *Disk) syncOrder() {
	for _, path := range d.order {
		d.names[path].sync()
	}
	d.order = nil
}

func (d *Disk) lie(path string) bool { return d.lies != nil && d.lies(path) }

func (i *inode) write(off int64, b []byte) {
	i.pending = append(i.pending, write{off, append(make([]byte, 0, len(b)), b...)})
}

func (i *inode) truncate(size int64) { i.pending = append(i.pending, write{off: size}) }

func (i *inode) sync() {
	for _, w := range i.pending {
		i.durable = w.apply(i.durable)
	}
	i.pending = nil
}

func (w write) apply(b []byte) []byte {
	end := w.off + int64(len(w.data))
	if w.data == nil && end < int64(len(b)) {
		return b[:end]
	}
	if n := end - int64(len(b)); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	copy(b[w.off:], w.data)
	return b
}

// syncFile is called with mu held; ordered says that it is SQLite's.
func (d *Disk) syncFile(path string, i *inode, ordered bool) {
	if d.lie(path) {
		return
	}
	d.stats.Syncs++
	i.sync()
	if ordered {
		d.syncOrder()
	}
}

func (d *Disk) syncDir(dir string) {
	if d.lie(dir) {
		return
	}
	d.stats.Syncs++
	for path, n := range d.names {
		if filepath.Dir(path) == dir && !n.ordered {
			n.sync()
		}
	}
	d.syncOrder() // they are all in one directory, and ordered with it if not
}

// BootID implements local.FS: it changes with each loss of power.
func (d *Disk) BootID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("%p-%d", d, d.boots)
}

const sector = 512

// PowerLoss rebuilds the files of a killed process as a loss of power may leave
// them. What is lost is drawn from r.
func (d *Disk) PowerLoss(r *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dead {
		return errors.New("crashdisk: kill the process first")
	}
	d.boots++
	paths := make([]string, 0, len(d.names))
	for path := range d.names {
		paths = append(paths, path)
	}
	slices.Sort(paths) // the order of what is drawn
	keep := map[string]int{}
	for _, path := range d.order[:r.IntN(len(d.order)+1)] {
		keep[path]++
	}
	d.order = nil
	for _, path := range paths {
		n := d.find(path)
		left := n.durable
		k := keep[path]
		if !n.ordered {
			k = r.IntN(len(n.since) + 1)
		}
		if k = min(k, len(n.since)); k > 0 {
			left = n.since[k-1]
		}
		if left != n.now {
			d.stats.Names++
		}
		var content []byte
		if left != nil {
			content = d.survive(r, left)
		}
		if err := put(path, n.now != nil, left, content); err != nil {
			return err
		}
		n.now, n.durable, n.since = left, left, nil
	}
	return nil
}

// survive returns what is left of a file.
func (d *Disk) survive(r *rand.Rand, i *inode) []byte {
	b := bytes.Clone(i.durable)
	mode := r.IntN(4)
	upTo := r.IntN(len(i.pending) + 1)
	for k, w := range i.pending {
		whole := false
		switch mode {
		case 0: // nothing
		case 1: // what came first
			whole = k < upTo
		default: // any of it
			whole = r.IntN(3) > 0
		}
		switch {
		case whole:
			d.stats.Kept++
			b = w.apply(b)
		case mode > 0 && w.data != nil && (mode == 3 || k == upTo):
			d.stats.Lost++
			for off := 0; off < len(w.data); off += sector {
				if r.IntN(2) == 0 {
					b = write{w.off + int64(off), w.data[off:min(len(w.data), off+sector)]}.apply(b)
				}
			}
		default:
			d.stats.Lost++
		}
	}
	i.durable, i.pending = b, nil
	return b
}

// put makes the real file what is left of it.
func put(path string, exists bool, left *inode, content []byte) (err error) {
	switch {
	case left == nil && !exists:
		return nil
	case left == nil:
		return os.Remove(path)
	}
	if now, err := os.ReadFile(path); err == nil && exists && bytes.Equal(now, content) {
		if info, err := os.Stat(path); err == nil && os.SameFile(info, left.info) {
			return nil // its times stay
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	left.info, err = os.Stat(path)
	return err
}
