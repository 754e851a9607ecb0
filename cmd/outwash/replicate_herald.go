package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/replicate"
)

// herald tells people what becomes of the databases: in lines of text beside the
// log, or as records of it where that is JSON.
type herald struct {
	u        *ui
	log      *slog.Logger
	json     bool
	replicas map[string]string // by path
	alone    bool              // there is one database, and no directory

	mu      sync.Mutex
	opening map[string]bool // of which begun said that they are
}

func newHerald(u *ui, p *replicatePlan) *herald {
	h := &herald{u: u, json: p.service.Logging.Format == "json", replicas: map[string]string{}, opening: map[string]bool{}}
	h.alone = len(p.databases) == 1 && len(p.directories) == 0
	o := &slog.HandlerOptions{Level: p.level, AddSource: p.service.Logging.Source}
	if h.json {
		h.log = slog.New(slog.NewJSONHandler(u.errOut, o))
	} else {
		h.log = slog.New(slog.NewTextHandler(u.errOut, o))
	}
	for _, t := range p.databases {
		h.replicas[t.path] = t.replica
	}
	return h
}

// note says one thing.
func (h *herald) note(format string, args ...any) {
	if h.json {
		h.log.Info(fmt.Sprintf(format, args...))
		return
	}
	h.u.note("outwash: "+format, args...)
}

// pair names a database and its replica.
func (h *herald) pair(s replicate.Status) string {
	replica := s.Replica
	if replica == "" {
		replica = h.replicas[s.Database]
	}
	if replica == "" {
		return printable(s.Database)
	}
	return printable(s.Database) + " -> " + printable(replica)
}

// state is how a database is, in a few words.
func state(s replicate.Status) string {
	text := string(s.State)
	switch {
	case s.State == replicate.StateReplicating && s.TXID > 0:
		text += fmt.Sprintf(", TXID %d", s.TXID)
	case s.State == replicate.StateOpening && s.Error != "":
		text = "waiting"
	}
	switch {
	case refused(s) && s.Remedy != "": // the log has why, and so has the end
		text += ": " + s.Remedy
	case s.State != replicate.StateReplicating && s.Error != "":
		text += ": " + plainMessage(errors.New(s.Error))
	}
	return text
}

// begun says how all databases are when that is known: a line each, or how many.
func (h *herald) begun(list []replicate.Status) {
	if len(list) > mostLines {
		h.summary(list)
		list = slices.DeleteFunc(slices.Clone(list), func(s replicate.Status) bool { return !refused(s) })
	}
	h.lines(list)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range list[:min(len(list), mostLines)] {
		if s.State == replicate.StateOpening {
			h.opening[s.Database] = true
		}
	}
}

// opened says how a database is of which the last that was said is that it opens. It
// may be called at any time, with any status.
func (h *herald) opened(s replicate.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.opening[s.Database] || s.State == replicate.StateOpening {
		return
	}
	delete(h.opening, s.Database)
	if s.State != replicate.StateClosed { // of the end others speak
		h.lines([]replicate.Status{s})
	}
}

// waiting says of which databases it isn't known yet how they are.
func (h *herald) waiting(list []replicate.Status) {
	h.lines(slices.DeleteFunc(slices.Clone(list), func(s replicate.Status) bool {
		return s.State != replicate.StateOpening && !notReached(s)
	}))
}

func (h *herald) lines(list []replicate.Status) {
	for i, s := range list {
		if i == mostLines {
			h.note("and %s more", count(len(list)-i))
			return
		}
		if h.json {
			h.log.Info("database", "database", s.Database, "replica", s.Replica, "state", string(s.State), "txid", s.TXID, "error", s.Error)
			continue
		}
		h.note("%s: %s", h.pair(s), state(s))
	}
}

// summary counts databases by their state.
func (h *herald) summary(list []replicate.Status) {
	n := map[replicate.State]int{}
	for _, s := range list {
		n[s.State]++
	}
	var parts []string
	for _, st := range replicate.States() {
		if n[st] > 0 {
			parts = append(parts, count(n[st])+" "+string(st))
		}
	}
	h.note("%s: %s", plural(len(list), "database", "databases"), strings.Join(parts, ", "))
}

// draining says that the end has begun, if there is something left to upload.
func (h *herald) draining(list []replicate.Status, limit time.Duration) {
	waiting := 0
	for _, s := range list {
		if s.Backlog > 0 {
			waiting++
		}
	}
	if waiting > 0 {
		h.note("uploading what is left of %s, for %s at most", plural(waiting, "database", "databases"), limit)
	}
}

// done is the end with everything stored.
func (h *herald) done(list []replicate.Status) {
	switch {
	case len(list) == 0:
		h.note("ended; there was no database")
	case h.alone:
		h.note("ended; everything is in the replica")
	default:
		h.note("ended; everything is in the replicas of %s", plural(len(list), "database", "databases"))
	}
}

// refusal is the error for a database that is not replicated.
func (h *herald) refusal(s replicate.Status) error {
	text := plainMessage(errors.New(s.Error))
	do := strings.TrimSuffix(s.Remedy, sidecar.Again) // not by this process
	if do != "" && !strings.Contains(text, do) && !strings.Contains(text, "outwash adopt ") {
		text += " (" + do + ")"
	}
	return fmt.Errorf("%s: %w: %s: %s", h.pair(s), errRefused, s.State, text)
}

// failed makes an error a record, if all is one; it is reported then. How a program
// of -exec ended is no failure of ours.
func (h *herald) failed(err error) error {
	if err == nil {
		return nil
	}
	if child, ok := err.(*childError); ok {
		h.note("%s", child)
		return &reported{err}
	}
	if h.json {
		h.log.Error("ended", "error", plainMessage(err))
		return &reported{err}
	}
	return err
}

// refused: the database is not replicated, and will not be by itself.
func refused(s replicate.Status) bool {
	return s.State == replicate.StateFailed || s.State == replicate.StateFenced
}

// notReached: it is being tried on, and may be for ever.
func notReached(s replicate.Status) bool {
	return s.State == replicate.StateUnreachable || s.State == replicate.StateDenied || s.State == replicate.StateOpening && s.Error != ""
}
