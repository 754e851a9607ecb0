package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// replication is one run of outwash replicate.
type replication struct {
	*replicatePlan
	once    bool
	say     *herald
	fleet   fleet
	signals *signals
	told    *watchers
	socket  atomic.Pointer[status.Server] // nil: none
	changed chan struct{}                 // a database's state is another one

	mu    sync.Mutex
	errs  []error         // of databases that this run has given up
	ended map[string]bool // which these are
}

// fleet is what replicates the databases.
type fleet interface {
	// Decided waits until it is known of each how it relates to its replica.
	Decided(ctx context.Context) error
	Sync(ctx context.Context) error
	Statuses() []replicate.Status
	Remove(ctx context.Context, path string) error
	Close(ctx context.Context) error
}

func (f *replicateFlags) run(ctx context.Context, u *ui, args []string) error {
	p, err := f.plan(context.WithoutCancel(ctx), args)
	if err != nil {
		return err
	}
	command, err := parseCommand(p.service.Exec)
	if err != nil {
		return err
	}
	say := newHerald(u, p)
	r := &replication{replicatePlan: p, once: f.once, say: say, changed: make(chan struct{}, 1), ended: map[string]bool{}}
	r.signals = watchSignals(say, command != nil)
	defer r.signals.end()
	if r.fleet, err = r.start(); err != nil {
		return say.failed(err)
	}
	if r.told, err = r.serve(); err == nil {
		err = r.work(u, command)
	}
	return say.failed(r.end(err))
}

// work is what there is between start and end.
func (r *replication) work(u *ui, command []string) error {
	ctx := r.signals.stop
	if err := r.begin(ctx); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case r.once:
		return r.syncAll(ctx)
	}
	r.told.service.Ready()
	if command != nil {
		return r.runChild(u, command)
	}
	r.wait(ctx)
	return nil
}

// begin waits until all databases are decided, and says how they are.
func (r *replication) begin(ctx context.Context) error {
	decided := make(chan error, 1)
	go func() { decided <- r.fleet.Decided(ctx) }()
	slow := time.NewTimer(5 * time.Second)
	defer slow.Stop()
	unreached := &patience{limit: r.drain}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-decided:
			if ctx.Err() != nil {
				return nil // a signal ended it, which is no failure
			}
			r.settle(ctx)
			r.say.begun(r.fleet.Statuses())
			for _, s := range r.fleet.Statuses() { // some have begun meanwhile
				r.say.opened(s)
			}
			return err
		case <-slow.C:
			r.say.waiting(r.fleet.Statuses())
		case <-tick.C:
			if r.once && unreached.over(r.fleet.Statuses()) {
				return r.giveUp()
			}
		}
	}
}

// settle waits for a moment, so that what is said of the databases is not that they
// are just about to be replicated.
func (r *replication) settle(ctx context.Context) {
	moment := time.NewTimer(time.Second)
	defer moment.Stop()
	for slices.ContainsFunc(r.fleet.Statuses(), func(s replicate.Status) bool { return s.State == replicate.StateOpening && s.Error == "" }) {
		select {
		case <-r.changed:
		case <-moment.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wait returns when a signal has come, or nothing can be replicated any more.
func (r *replication) wait(ctx context.Context) {
	for {
		if r.allFenced() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		}
	}
}

// allFenced: that doesn't pass by itself. What is refused may yet be accepted.
func (r *replication) allFenced() bool {
	for _, d := range r.directories {
		if d.Watch {
			return false
		}
	}
	list := r.fleet.Statuses()
	for _, s := range list {
		if s.State != replicate.StateFenced {
			return false
		}
	}
	return len(list) > 0
}

// syncAll waits until everything is stored. Databases that won't be are left out.
func (r *replication) syncAll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.drop(ctx)
	done := make(chan error, 1)
	go func() { done <- r.fleet.Sync(ctx) }()
	unreached := &patience{limit: r.drain}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			switch {
			case r.signals.stop.Err() != nil:
				return errInterrupted
			case err != nil && len(r.given()) == 0:
				return fmt.Errorf("%w: %s", errBehind, plainMessage(err))
			}
			return nil // of what was given up end speaks
		case <-r.changed:
			r.drop(ctx)
		case <-tick.C:
			if unreached.over(r.fleet.Statuses()) {
				return r.giveUp()
			}
		}
	}
}

// giveUp is the end of -once while a store doesn't answer.
func (r *replication) giveUp() error {
	for _, s := range r.fleet.Statuses() {
		if notReached(s) {
			return fmt.Errorf("%w: %s: given up after %s: %s", errBehind, r.say.pair(s), r.drain, plainMessage(errors.New(s.Error)))
		}
	}
	return errBehind
}

// patience is with stores that don't answer.
type patience struct {
	limit time.Duration
	since map[string]time.Time
}

func (p *patience) over(list []replicate.Status) bool {
	now := time.Now()
	if p.since == nil {
		p.since = map[string]time.Time{}
	}
	for _, s := range list {
		if !notReached(s) {
			delete(p.since, s.Database)
			continue
		}
		first, ok := p.since[s.Database]
		if !ok {
			p.since[s.Database] = now
		} else if now.Sub(first) >= p.limit {
			return true
		}
	}
	return false
}

// drop lets the databases go that can't be stored: refused ones, and those that there
// are not. It is for -once, which doesn't wait for somebody to do something.
func (r *replication) drop(ctx context.Context) {
	for _, s := range r.fleet.Statuses() {
		var err error
		if refused(s) {
			err = r.say.refusal(s)
		} else if fi, serr := os.Stat(s.Database); errors.Is(serr, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", s.Database, errNoDatabase)
		} else if serr == nil && fi.Size() == 0 && s.State == replicate.StateOpening { // content is waited for
			err = fmt.Errorf("%s: %w: the file is empty", s.Database, errNoDatabase)
		}
		if err == nil {
			continue
		}
		r.mu.Lock()
		news := !r.ended[s.Database]
		r.ended[s.Database] = true
		if news {
			r.errs = append(r.errs, err)
		}
		r.mu.Unlock()
		if news {
			_ = r.fleet.Remove(ctx, s.Database) // that it isn't stored is said already
		}
	}
}

func (r *replication) given() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errs
}

// end drains, and says what is left.
func (r *replication) end(err error) error {
	r.signals.draining()
	before := r.fleet.Statuses()
	r.say.draining(before, r.drain)
	ctx, cancel := context.WithTimeout(r.signals.hard, r.drain)
	defer cancel()
	r.catchUp(ctx)
	closed := r.fleet.Close(ctx)
	if err := r.told.close(ctx); err != nil {
		r.say.log.Warn("not ended in order", "error", err)
	}
	errs := slices.Clone(r.given())
	for _, s := range before {
		if refused(s) && !r.ended[s.Database] {
			errs = append(errs, r.say.refusal(s))
			r.ended[s.Database] = true
		}
	}
	errs = append(errs, r.leftOver(closed)...)
	left := joinFew(errs)
	if left == nil && (err == nil || errors.As(err, new(*childError))) {
		r.say.done(slices.DeleteFunc(before, func(s replicate.Status) bool { return s.State == replicate.StateOpening && !exists(s.Database) }))
	}
	return joinFew([]error{err, left})
}

// catchUp waits for databases that are there, and whose replication has not begun: a
// program of -exec can make one, and end, in the twinkling of an eye.
func (r *replication) catchUp(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(r.fleet.Statuses(), func(s replicate.Status) bool {
		fi, err := os.Stat(s.Database)
		return s.State == replicate.StateOpening && err == nil && fi.Size() > 0
	}) {
		select {
		case <-tick.C: // that a file has appeared changes no state
		case <-ctx.Done():
			return
		}
	}
}

// leftOver makes a list of what Close says, without the databases that were refused:
// of them more is said.
func (r *replication) leftOver(closed error) []error {
	if many, ok := closed.(interface{ Unwrap() []error }); ok {
		var list []error
		for _, err := range many.Unwrap() {
			list = append(list, r.leftOver(err)...)
		}
		return list
	}
	if closed == nil || slices.ContainsFunc(slices.Collect(maps.Keys(r.ended)), func(path string) bool {
		return strings.HasPrefix(closed.Error(), "sidecar: close "+path+": ")
	}) {
		return nil
	}
	return []error{fmt.Errorf("%w: %s", errBehind, plainMessage(closed))}
}

// joinFew joins errors, and counts what would be too many to read.
func joinFew(errs []error) error {
	var list []error
	more := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case len(list) < mostLines:
			list = append(list, err)
		default:
			more++
		}
	}
	if more > 0 {
		list = append(list, fmt.Errorf("and %s more", count(more)))
	}
	if len(list) == 1 {
		return list[0]
	}
	return errors.Join(list...)
}
