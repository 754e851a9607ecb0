package vfs

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// fastClock makes the engine's time pass quickly.
type fastClock struct{}

func (fastClock) Now() time.Time                         { return time.Now() }
func (fastClock) After(d time.Duration) <-chan time.Time { return time.After(d / 200) }

// hurriedClock is one by which sessions live for hours, so that they ask what there is
// to continue.
type hurriedClock struct{ fastClock }

var clockBegan = time.Now()

func (hurriedClock) Now() time.Time {
	return clockBegan.Add(10000 * time.Since(clockBegan))
}

// start starts a process on the machine and opens the database. With refusal,
// that may be refused: refusal says why not.
func (l *life) start(refusal func(error) error) error {
	r, m := l.r, l.m
	m.disk.Start()
	p := &process{m: m, vfs: l.slot.name + "_" + m.name, calls: make(chan struct{}), random: rand.New(rand.NewPCG(l.seed, uint64(r.Uint32())))}
	p.store = faultstore.New(lateStore{l.bucket, p, l})
	p.store.SetHooks(p.faults(l))
	m.p = p
	switch {
	case !l.conf.steady && r.IntN(3) == 0:
		p.plan(pick(r, failpoints...), 1+r.IntN(3))
	case !l.conf.steady && l.conf.keep.PagesEvery > 0 && r.IntN(5) == 0:
		p.plan(pick(r, exportFailpoints...), 1)
	}
	if p.crashAt != "" {
		l.say("process on %s: will die at %s, passing %d", m.name, p.crashAt, p.passes)
	} else {
		l.say("process on %s", m.name)
	}
	opts := Options{
		Base: l.slot.name + "_disk_" + m.name, MaxLag: l.conf.maxLag, CloseTimeout: l.conf.closeTimeout, OpenTimeout: patience,
		Keep:   l.conf.keep,
		Store:  func(string) (replicate.Store, error) { return p.store, nil },
		Logger: slog.New(slog.NewTextHandler(storyWriter{l}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if l.verbose == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	var clock replicate.Clock = fastClock{}
	if l.conf.hurried {
		clock = hurriedClock{}
	}
	if l.owns {
		opts.Restore = RestoreAuto
	}
	opts.hooks = hooks{failpoint: func(name string) error { return p.failpoint(l, name) }, off: l.teeth.off, files: m.disk, clock: clock,
		limits: func(o *capture.Options) { o.CopyBytes = 8 * l.conf.pageSize }}
	Register(p.vfs, opts)
	p.weather = fair
	l.opening = true
	defer func() { l.opening = false }()
	c, err := p.open(l)
	if err == nil {
		l.opening = false
		p.conns[0] = c
		err = l.opened()
		if err == nil || !m.disk.Dead() {
			return err
		}
	}
	if m.disk.Dead() {
		return l.crashed()
	}
	l.say("  refused: %v", err)
	l.end()
	switch {
	case refusal == nil && l.conf.loose:
		l.counts.add("refusals", "of what is left without syncs")
		return l.replace()
	case refusal == nil:
		return fmt.Errorf("open: %w", err)
	}
	return refusal(err)
}

type storyWriter struct{ l *life }

func (w storyWriter) Write(b []byte) (int, error) {
	w.l.verbose("    log: " + strings.TrimSpace(string(b)))
	return len(b), nil
}

// open opens a connection.
func (p *process) open(l *life) (*conn, error) {
	c, err := sqlite3.Open("file:" + p.m.path + "?vfs=" + url.QueryEscape(p.vfs))
	if err != nil {
		return nil, err
	}
	c.BusyTimeout(p.busyTimeout(nil))
	setup := l.conf.begin + "PRAGMA journal_mode=" + l.conf.journal + "; " + l.conf.setup
	if fi, err := os.Stat(p.m.path); err == nil && fi.Size() == 0 {
		setup = l.first() + "; " + setup
	}
	err = c.Exec(setup)
	for range 500 { // going from WAL mode to another doesn't wait for who reads
		if !errors.Is(err, sqlite3.BUSY) || len(l.conns()) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
		err = c.Exec(setup)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("set up: %w", err)
	}
	return &conn{Conn: c}, nil
}

// opened takes note of what the database is after it was opened.
func (l *life) opened() error {
	if l.dirty() {
		return nil
	}
	image, err := committed(l.m.path, true)
	if err != nil {
		return err
	}
	was := l.cur
	l.lost = false
	if n := l.history.find(image); n >= 0 {
		l.cur = n
	} else if err := l.observe("opened"); err != nil {
		return err
	}
	if l.cur != was {
		l.say("  the database is %s", l.history.text(l.cur))
	}
	if l.unsound {
		// With OFF that is what the database is now. The replica must not be spoilt
		// by it: whatever it takes can be restored.
		l.counts.add("power losses", "torn or behind, accepted")
		l.m.p.setWeather(fair)
		ctx, cancel := l.context(patience)
		defer cancel()
		if _, err := Sync(ctx, l.m.path); err == nil {
			if _, _, err := l.restore(0); err != nil {
				return err
			}
		}
		return errTorn
	}
	if l.history.nodes[l.cur].pages <= 1 && l.m.p.conns[0] != nil {
		return l.run(l.m.p.conns[0], "BEGIN;"+tables+"COMMIT")
	}
	return nil
}

// errTorn ends a life: synchronous=OFF and a loss of power have left something that
// is no database.
var errTorn = errors.New("torn")

// conns are the open ones.
func (l *life) conns() (open []*conn) {
	if l.m.p != nil {
		for _, c := range l.m.p.conns {
			if c != nil {
				open = append(open, c)
			}
		}
	}
	return open
}

// dirty reports whether a transaction may have written the database file, which
// nobody else can do meanwhile.
func (l *life) dirty() bool {
	for _, c := range l.conns() {
		if !c.GetAutocommit() && l.conf.journal != "wal" {
			return true
		}
	}
	return false
}

// rolledBack takes note of what a rollback has left. Without a WAL the file can be
// another than before: pages that were free are not put back.
func (l *life) rolledBack() error {
	if l.conf.journal == "wal" || l.dirty() {
		return nil
	}
	image, err := committed(l.m.path, true)
	if err == nil && l.history.find(image) < 0 {
		l.history.alias(l.cur, image)
		l.hot = true
	}
	return err
}

// observe adds what is committed now to the history.
func (l *life) observe(what string) error {
	if l.dirty() {
		return nil
	}
	image, err := committed(l.m.path, true)
	if err != nil {
		return fmt.Errorf("the database after %s: %w", what, err)
	}
	n := l.history.find(image)
	if n == l.cur {
		return nil
	}
	if n < 0 {
		n = l.history.add(l.cur, image, what)
		l.counts.add("commits", "all")
	}
	l.cur = n
	return nil
}

// end ends the process as the system does: nothing it does now reaches the disk.
func (l *life) end() {
	p := l.m.p
	l.m.disk.Kill()
	p.setWeather(fair)
	registry.Lock()
	set := registry.byName[p.vfs].databases
	registry.Unlock()
	all := set.all()
	for _, db := range all {
		<-db.ready
		if db.startErr == nil {
			db.cancel()
			<-db.engine.Done()
		}
	}
	for i, c := range p.conns {
		if c != nil {
			c.Close()
			p.conns[i] = nil
		}
	}
	for _, db := range all {
		if db.startErr == nil {
			abandon(db)
		}
	}
	l.under = append(l.under, p.late...)
	l.m.p = nil
}

// abandon lets go of what a dead process had.
func abandon(db *database) {
	db.mu.Lock()
	closed := db.closed
	db.closed = true
	if db.idle != nil {
		db.idle.Stop()
	}
	db.mu.Unlock()
	if closed {
		<-db.gone
		return
	}
	db.running.Wait()
	db.capture.Close()
	db.dir.Close()
	db.set.mu.Lock()
	delete(db.set.byPath, db.path)
	db.set.mu.Unlock()
	close(db.gone)
}
