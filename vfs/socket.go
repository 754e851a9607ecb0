package vfs

import (
	"cmp"
	"errors"
	"slices"

	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// SocketAuto is a StatusSocket with a name of its own, in a directory where
// "outwash status" looks.
const SocketAuto = status.Auto

// announce makes the socket tell of the database, if Options ask for one. VFSes with
// the same path share it; it stays until Shutdown. Without it replication goes on:
// what fails is logged.
func (db *database) announce() {
	path := db.opts.StatusSocket
	if path == "" {
		return
	}
	registry.Lock()
	s := registry.sockets[path]
	var err error
	if s == nil {
		if s, err = status.Serve(path, func() []replicate.Status { return statuses(path) }); err == nil {
			if registry.sockets == nil {
				registry.sockets = map[string]*status.Server{}
			}
			registry.sockets[path] = s
		}
	}
	registry.Unlock()
	if err == nil {
		err = s.Announce(db.path)
	}
	if err != nil {
		db.log.Warn("\"outwash status\" can't ask this process about the database", "error", err)
	}
}

// statuses are those of the databases that the socket tells of.
func statuses(socket string) []replicate.Status {
	list := []replicate.Status{}
	for _, db := range allRunning() {
		if db.opts.StatusSocket == socket {
			list = append(list, db.status())
		}
	}
	slices.SortFunc(list, func(a, b replicate.Status) int { return cmp.Compare(a.Database, b.Database) })
	return list
}

// allRunning are the databases of all VFSes that have been started.
func allRunning() []*database {
	registry.Lock()
	defer registry.Unlock()
	var list []*database
	for _, v := range registry.byName {
		for _, db := range v.databases.all() {
			if v.databases.running(db.path) == db {
				list = append(list, db)
			}
		}
	}
	return list
}

// closeSockets ends them; an open of a database makes them anew.
func closeSockets() error {
	registry.Lock()
	sockets := registry.sockets
	registry.sockets = nil
	registry.Unlock()
	var errs []error
	for _, s := range sockets {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
