package main

import (
	"cmp"
	"context"
	"errors"
	"os"

	"github.com/outwash/outwash/internal/service"
	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// watchers tell others how replication stands: over HTTP, by heartbeats, and over the
// socket that outwash status asks.
type watchers struct {
	service *service.Service
	socket  *status.Server // nil: none
}

// serve begins to tell. What was asked for and can't be is an error; a socket that
// nobody asked for is done without.
func (r *replication) serve() (*watchers, error) {
	w := &watchers{}
	if r.once {
		return w, nil // it is over before anybody could ask
	}
	s := r.replicatePlan.service
	var err error
	w.service, err = service.Start(context.Background(), service.Options{
		List: r.fleet.Statuses, Addr: s.Addr, MaxLag: r.maxLag, Logger: r.say.log,
		HeartbeatURL: s.Heartbeat.URL, HeartbeatInterval: s.Heartbeat.Interval,
	})
	if err != nil {
		return w, err
	}
	asked := s.Socket.Path != "" || s.Socket.Enabled != nil && *s.Socket.Enabled
	if s.Socket.Path == noSocket || !asked && s.Socket.Enabled != nil {
		return w, nil
	}
	w.socket, err = status.Serve(cmp.Or(s.Socket.Path, status.Auto), r.fleet.Statuses)
	if err == nil && s.Socket.Permissions != 0 {
		err = os.Chmod(w.socket.Path(), s.Socket.Permissions)
	}
	if err != nil && !asked {
		r.say.log.Warn("\"outwash status\" can't ask this process", "error", err)
		err = nil
	}
	if err != nil || w.socket == nil {
		return w, err
	}
	r.socket.Store(w.socket)
	for _, s := range r.fleet.Statuses() { // those that were quicker
		r.announce(s)
	}
	return w, nil
}

// announce notes beside a database where it can be asked after it; not beside one
// that another process has.
func (r *replication) announce(s replicate.Status) {
	socket := r.socket.Load()
	if socket == nil {
		return
	}
	switch s.State {
	case replicate.StateReplicating, replicate.StateExporting, replicate.StateUnreachable, replicate.StateDenied:
		if err := socket.Announce(s.Database); err != nil {
			r.say.log.Warn("\"outwash status\" doesn't find the process by the database", "database", s.Database, "error", err)
		}
	}
}

// close ends the telling.
func (w *watchers) close(ctx context.Context) error {
	var errs []error
	if w.socket != nil {
		errs = append(errs, w.socket.Close())
	}
	if w.service != nil {
		errs = append(errs, w.service.Close(ctx))
	}
	return errors.Join(errs...)
}
