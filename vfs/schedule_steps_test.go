package vfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// step does one thing, and goes on with the next process if this one died of it.
func (l *life) step() error {
	if l.m.disk.Dead() {
		return l.crashed()
	}
	if l.doubt {
		return errors.New("in doubt without a crash")
	}
	_, err := l.alive(l.doStep())
	return err
}

// alive goes on after what a step did: if the process died of it, its error is
// no matter.
func (l *life) alive(err error) (dead bool, _ error) {
	if !l.m.disk.Dead() || l.m.p == nil {
		return false, err
	}
	return true, l.crashed()
}

func (l *life) doStep() error {
	r, p := l.r, l.m.p
	if len(l.under) > 0 && r.IntN(4) == 0 {
		l.arrive()
	}
	i := r.IntN(2)
	c := p.conns[i]
	if c == nil {
		if p.conns[1-i] != nil && r.IntN(2) == 0 {
			c = p.conns[1-i]
		} else {
			return l.connect(i)
		}
	}
	switch n := r.IntN(100); {
	case n < 36:
		return l.write(c)
	case n < 42:
		return l.leaveOpen(c)
	case n < 46:
		return l.read(c)
	case n < 58:
		return l.checkpoint(c)
	case n < 60:
		if c.reading || c.writing {
			return l.write(c)
		}
		return l.run(c, pick(r, "VACUUM", "PRAGMA incremental_vacuum(3)", "PRAGMA incremental_vacuum"))
	case n < 66:
		return l.disconnect(i)
	case n < 70:
		return l.closeAll()
	case n < 72:
		return l.reopen()
	case n < 82:
		return l.sync()
	case n < 90 && !l.conf.smooth:
		w := weather(r.IntN(len(weathers)))
		l.say("the store is %s", weathers[w])
		p.setWeather(w)
		return nil
	case n < 93:
		l.m.disk.KillAt(1 + r.IntN(pick(r, 3, 10, 50)))
		l.say("will die at a write soon")
		return nil
	case n < 96:
		l.say("killed")
		return l.crashed()
	case n < 98:
		p.plan(pick(r, failpoints...), 1+r.IntN(2))
		l.say("will die at %s, passing %d", p.crashAt, p.passes)
		return nil
	default:
		return l.takeover()
	}
}

// run executes what may commit at most once, and notes the state after it.
func (l *life) run(c *conn, sql string) error {
	l.say("  %s", shorten(sql))
	c.BusyTimeout(l.m.p.busyTimeout(c))
	l.doubt = true
	err := c.Exec(sql)
	if l.m.disk.Dead() {
		return err
	}
	l.doubt = false
	if err != nil {
		c.Exec("ROLLBACK")
	}
	if c.GetAutocommit() {
		c.writing, c.reading = false, false
	}
	if err != nil || strings.HasSuffix(sql, "ROLLBACK") {
		if o := l.rolledBack(); o != nil {
			return o
		}
	}
	was := l.cur
	if o := l.observe(shorten(sql)); o != nil {
		return o
	}
	if err == nil && l.cur != was {
		l.sure = l.cur
	}
	return l.allowed(err)
}

// busyTimeout is nothing if another connection is not about to end what it does.
func (p *process) busyTimeout(c *conn) time.Duration {
	for _, o := range p.conns {
		if o != nil && o != c && (o.writing || o.reading) {
			return 0
		}
	}
	return patience
}

// context ends after a time, and with the process.
func (l *life) context(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	gone := l.m.disk.Gone()
	go func() {
		select {
		case <-ctx.Done():
		case <-gone:
			cancel()
		}
	}()
	return ctx, cancel
}

// allowed returns errors that must not be.
func (l *life) allowed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sqlite3.BUSY), errors.Is(err, sqlite3.LOCKED):
		l.counts.add("refusals", "busy")
		l.say("    busy: %v", err)
		return nil
	case l.conf.loose && (errors.Is(err, sqlite3.READONLY) || errors.Is(err, replicate.ErrDiverged) || errors.Is(err, replicate.ErrRepair) || errors.Is(err, local.ErrChanged)):
		// It was let in before it was known what is left of it.
		l.counts.add("refusals", "of what is left without syncs")
		l.say("    %v", err)
		l.end()
		return l.replace()
	case errors.Is(err, replicate.ErrDiverged) || errors.Is(err, replicate.ErrRepair):
		if err := l.checkReplica(); err != nil {
			return err
		}
		if l.unproven() {
			l.counts.add("refusals", "though not behind, before the first upload")
			l.say("    %v", err)
			l.end()
			return l.replace()
		}
	}
	return err
}

// write is one transaction, or what is left of one that a connection has open.
func (l *life) write(c *conn) error {
	r := l.r
	sql := ""
	switch {
	case c.reading:
		sql = "COMMIT"
	case c.writing:
		sql = l.body(l.rows()) + pick(r, "COMMIT", "COMMIT", "ROLLBACK", "")
	case r.IntN(8) == 0:
		sql = "BEGIN IMMEDIATE;" + l.body(l.rows()) + "ROLLBACK"
	case r.IntN(5) == 0:
		sql = "BEGIN IMMEDIATE;" + l.body(l.rows()) + "SAVEPOINT s;" + l.body(l.rows()) + pick(r, "ROLLBACK TO s;", "RELEASE s;", "") + l.body(1) + "COMMIT"
	default:
		sql = "BEGIN IMMEDIATE;" + l.body(l.rows()) + "COMMIT"
	}
	return l.run(c, sql)
}

// leaveOpen begins a transaction that stays open.
func (l *life) leaveOpen(c *conn) error {
	if c.reading || c.writing {
		return l.write(c)
	}
	err := l.run(c, "BEGIN IMMEDIATE;"+l.body(l.rows()))
	c.writing = !c.GetAutocommit()
	return err
}

// read begins a read transaction that stays open: checkpoints can't finish.
func (l *life) read(c *conn) error {
	if c.reading || c.writing {
		return l.write(c)
	}
	err := l.run(c, "BEGIN; SELECT count(*) FROM t")
	c.reading = !c.GetAutocommit()
	return err
}

func (l *life) checkpoint(c *conn) error {
	mode := pick(l.r, "PASSIVE", "FULL", "RESTART", "TRUNCATE")
	if c.reading || c.writing {
		return l.write(c)
	}
	l.counts.add("checkpoints", mode)
	return l.run(c, "PRAGMA wal_checkpoint("+mode+")")
}

func (l *life) connect(i int) error {
	l.say("connection %d opens", i)
	if len(l.m.p.databases()) == 0 {
		l.m.p.setWeather(fair) // or it may not be known what to do with it
	}
	c, err := l.m.p.open(l)
	if err == nil {
		l.m.p.conns[i] = c
		return l.opened()
	}
	return l.allowed(err)
}

func (l *life) disconnect(i int) error {
	p := l.m.p
	c := p.conns[i]
	if c == nil {
		return nil
	}
	if p.conns[1-i] == nil {
		l.patient()
	}
	l.say("connection %d closes", i)
	p.conns[i] = nil
	if !c.GetAutocommit() && l.conf.journal != "wal" {
		l.doubt = true // if the process dies of it, who comes next rolls back
	}
	err := c.Close()
	if l.m.disk.Dead() {
		return nil
	}
	l.doubt = false
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if c.writing {
		return l.rolledBack()
	}
	return l.observe("close")
}

// patient makes the store answer, if the last close is going to wait for it.
func (l *life) patient() {
	if l.conf.closeTimeout > 0 {
		l.m.p.setWeather(fair)
	}
}

func (l *life) disconnectAll() error {
	return errors.Join(l.disconnect(0), l.disconnect(1))
}

// closeAll closes the connections; then the database is idle until it is closed.
func (l *life) closeAll() error {
	if err := l.disconnectAll(); err != nil || l.m.disk.Dead() {
		return err
	}
	l.say("idle")
	for _, db := range l.m.p.databases() {
		db.closeIdle()
	}
	return nil
}

func (p *process) databases() []*database {
	registry.Lock()
	defer registry.Unlock()
	return registry.byName[p.vfs].databases.all()
}

// shutdown ends the process's databases in order.
func (l *life) shutdown(ctx context.Context) error {
	if err := l.disconnectAll(); err != nil || l.m.disk.Dead() {
		return err
	}
	l.say("shutdown")
	var errs []error
	for _, db := range l.m.p.databases() {
		errs = append(errs, db.shutdown(ctx))
	}
	return errors.Join(errs...)
}

// reopen ends the process in order, and starts another.
func (l *life) reopen() error {
	limit := patience
	if l.r.IntN(3) == 0 {
		limit = time.Millisecond // what is left stays
	} else {
		l.m.p.setWeather(fair)
	}
	ctx, cancel := l.context(limit)
	defer cancel()
	err := l.shutdown(ctx)
	if l.m.disk.Dead() {
		return nil
	}
	if err != nil && limit == patience {
		return err
	}
	l.end()
	l.counts.add("restarts", "in order")
	l.afterCrash = false
	return l.start(nil)
}

// sync makes everything committed acknowledged, if the store works.
func (l *life) sync() error {
	p := l.m.p
	if len(p.databases()) == 0 {
		if err := l.connect(0); err != nil || l.m.disk.Dead() {
			return err
		}
	}
	limit := patience
	p.mu.Lock()
	w := p.weather
	p.mu.Unlock()
	switch {
	case w == flaky:
	case w != fair && l.r.IntN(3) == 0:
		limit = 2 * time.Millisecond
	default:
		w = fair
		p.setWeather(fair)
	}
	if l.dirty() { // the transaction may keep the database to itself
		limit = 20 * time.Millisecond
	}
	ctx, cancel := l.context(limit)
	defer cancel()
	txid, err := Sync(ctx, l.m.path)
	l.say("sync (%s): %d %v", weathers[w], txid, err)
	if l.m.disk.Dead() || err != nil && limit < patience {
		return nil
	}
	if err != nil {
		return l.allowed(fmt.Errorf("sync: %w", err))
	}
	l.acked = l.cur
	if l.r.IntN(2) == 0 {
		return nil
	}
	return l.checkSame()
}

// takeover: another machine restores the replica and goes on. The first notices
// when it wants to go on, too.
func (l *life) takeover() error {
	r, a := l.r, l.m
	name := "b"
	if a.name == "b" {
		name = "a"
	}
	if err := l.checkReplica(); err != nil || l.tail == empty {
		return err
	}
	p := a.p
	down := r.IntN(3) == 0
	if down {
		l.say("machine %s goes down", a.name)
		l.end()
	} else {
		p.plan("", 0)
		a.disk.KillAt(0)
		w := pick(r, fair, held, out)
		p.setWeather(w)
		l.say("another machine takes over while %s runs (%s)", a.name, weathers[w])
		if err := errors.Join(l.disconnectAll(), l.connect(0)); err != nil {
			return err
		}
		if err := l.write(p.conns[0]); err != nil {
			return err
		}
	}
	aCur, aSure := l.cur, l.sure
	if err := os.RemoveAll(l.slot.dir + "/" + name); err != nil {
		return err
	}
	b, err := l.newMachine(name)
	if err != nil {
		return err
	}
	l.m, l.owns, l.cur, l.sure, l.placed = b, true, l.tail, l.tail, l.tail
	if l.other = a; down {
		l.other = nil
	}
	l.counts.add("takeovers", map[bool]string{true: "down", false: "running"}[down])
	lost := false
	if err := l.start(func(err error) error {
		if down || !errors.Is(err, replicate.ErrFenced) && !errors.Is(err, replicate.ErrDiverged) {
			return err
		}
		l.counts.add("takeovers", "lost the race")
		l.m, l.cur, l.sure, l.other, lost = a, aCur, aSure, nil, true
		return nil
	}); err != nil || lost || down {
		return err
	}
	if l.other == nil { // this one died while it opened
		return nil
	}
	l.other = nil
	l.placed = l.cur
	return l.fence(a)
}

// fence makes the machine that was taken over from find out.
func (l *life) fence(a *machine) error {
	b, bCur := l.m, l.cur
	defer func() { l.m, l.cur = b, bCur }()
	l.m = a
	a.p.setWeather(fair)
	var err error
	for range 3 {
		if c := a.p.conns[0]; c != nil {
			if err = c.Exec("BEGIN IMMEDIATE;" + l.body(1) + "COMMIT"); err != nil {
				c.Exec("ROLLBACK")
			}
		}
		ctx, cancel := l.context(patience)
		_, err = Sync(ctx, a.path)
		cancel()
		if err != nil {
			break
		}
	}
	l.say("  machine %s: %v", a.name, err)
	// One that had let its application in, because what is on the machine fitted, and
	// then not reached the store again before it began, finds the other's claim where
	// it decides, not where it uploads: the same, by another name.
	if !errors.Is(err, replicate.ErrFenced) && !errors.Is(err, replicate.ErrDiverged) {
		return fmt.Errorf("the machine that was taken over from goes on: %w", err)
	}
	if errors.Is(err, replicate.ErrFenced) {
		l.counts.add("refusals", replicate.ErrFenced.Error())
	} else {
		l.counts.add("refusals", "another writer, found before it began")
	}
	if c := a.p.conns[0]; c != nil {
		if err := c.Exec("INSERT INTO t(b) VALUES(1)"); !errors.Is(err, sqlite3.READONLY) {
			return fmt.Errorf("a fenced machine writes: %w", err)
		}
	}
	l.end()
	return nil
}
