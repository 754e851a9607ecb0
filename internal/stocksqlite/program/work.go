package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
)

// work is what to do; package stocksqlite documents it.
type work struct {
	Path           string
	Seed           uint64
	Connections    int
	Random         bool
	Rate           int
	Commits        int
	For            time.Duration
	Truncate       time.Duration
	Busy           time.Duration
	PageSize       int
	AutoVacuum     int
	AutoCheckpoint int
	JournalLimit   int
	Synchronous    string
	CacheSize      int

	stop  atomic.Bool
	count atomic.Int64
	mu    sync.Mutex // of what is printed
}

// The database: every transaction adds one to the counter and a row to log, with a
// hash over the content of the other tables, which triggers keep up to date. So a
// database says which commit it is, and whether its content is that commit's.
const schema = `
CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER);
INSERT INTO meta VALUES('ctr',0),('hash',0);
CREATE TABLE acc(id INTEGER PRIMARY KEY, bal INTEGER, pad TEXT);
CREATE TABLE blobs(id INTEGER PRIMARY KEY, data BLOB, tag TEXT);
CREATE INDEX blobs_tag ON blobs(tag);
CREATE TABLE log(seq INTEGER PRIMARY KEY, who TEXT, hash INTEGER);
CREATE INDEX log_who ON log(who);
CREATE TRIGGER acc_i AFTER INSERT ON acc BEGIN UPDATE meta SET v=v+rowhash(1,new.id,new.bal,new.pad) WHERE k='hash'; END;
CREATE TRIGGER acc_u AFTER UPDATE ON acc BEGIN UPDATE meta SET v=v+rowhash(1,new.id,new.bal,new.pad)-rowhash(1,old.id,old.bal,old.pad) WHERE k='hash'; END;
CREATE TRIGGER blobs_i AFTER INSERT ON blobs BEGIN UPDATE meta SET v=v+rowhash(2,new.id,new.data,new.tag) WHERE k='hash'; END;
CREATE TRIGGER blobs_u AFTER UPDATE ON blobs BEGIN UPDATE meta SET v=v+rowhash(2,new.id,new.data,new.tag)-rowhash(2,old.id,old.data,old.tag) WHERE k='hash'; END;
CREATE TRIGGER blobs_d AFTER DELETE ON blobs BEGIN UPDATE meta SET v=v-rowhash(2,old.id,old.data,old.tag) WHERE k='hash'; END;
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<100) INSERT INTO acc SELECT x,0,hex(randomblob(20)) FROM c;
`

func workMain(text string) error {
	w := &work{}
	if err := json.Unmarshal([]byte(text), w); err != nil {
		return err
	}
	go func() { // the test is over, or wants the work to end
		_, _ = io.Copy(io.Discard, os.Stdin)
		w.stop.Store(true)
	}()
	first, err := w.first()
	if err != nil {
		return fmt.Errorf("first connection: %w", err)
	}
	w.say(`{"ready":true}`)
	began := time.Now()
	if w.For > 0 {
		time.AfterFunc(w.For, func() { w.stop.Store(true) })
	}
	errs := make(chan error, w.Connections+1)
	var wg sync.WaitGroup
	for i := range w.Connections {
		wg.Go(func() { errs <- w.transactions(i, began) })
	}
	var truncating sync.WaitGroup
	if w.Truncate > 0 {
		truncating.Go(func() { errs <- w.truncate(first) })
	}
	wg.Wait()
	w.stop.Store(true)
	truncating.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err = errors.Join(err, first.Close()); err == nil {
		w.say(`{"done":true}`)
	}
	return err
}

// say prints a line in one write.
func (w *work) say(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := fmt.Printf(format+"\n", a...); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func (w *work) open() (*sqlite3.SQLiteConn, error) {
	c, err := open(w.Path, strconv.FormatInt(w.Busy.Milliseconds(), 10))
	if err != nil {
		return nil, err
	}
	sql := fmt.Sprintf("PRAGMA synchronous=%s; PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d; PRAGMA cache_size=%d", w.Synchronous, w.AutoCheckpoint, w.JournalLimit, w.CacheSize)
	if _, err := c.Exec(sql, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// first opens the first connection, and makes the tables if there are none.
func (w *work) first() (*sqlite3.SQLiteConn, error) {
	for {
		c, err := w.open()
		if err == nil {
			if err = w.tables(c); err == nil {
				return c, nil
			}
			c.Close()
		}
		if !busy(err) {
			return nil, err
		}
	}
}

func (w *work) tables(c *sqlite3.SQLiteConn) error {
	if _, err := c.Exec(fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA journal_mode=wal", w.PageSize, w.AutoVacuum), nil); err != nil {
		return err
	}
	if n, err := text(c, "SELECT count(*) FROM sqlite_schema WHERE name='meta'"); err != nil || n != "0" {
		return err
	}
	return execute(c, "BEGIN IMMEDIATE; "+schema+" COMMIT")
}

// transactions makes them on a connection of its own.
func (w *work) transactions(i int, start time.Time) error {
	r := rand.New(rand.NewPCG(w.Seed, uint64(100+i)))
	c, err := w.open()
	for n := 0; err == nil && !w.stop.Load(); n++ {
		if w.Rate > 0 { // by a plan, so that what was late is caught up with
			time.Sleep(time.Until(start.Add(time.Duration(n*w.Connections+i) * time.Second / time.Duration(w.Rate))))
		}
		if w.Commits > 0 && w.count.Add(1) > int64(w.Commits) {
			break
		}
		var ctr string
		began := time.Now()
		switch k := r.IntN(100); {
		case w.Random && k < 12:
			err = w.upkeep(r, c)
		case w.Random && k < 15:
			if err = c.Close(); err == nil {
				c, err = w.open()
			}
		default:
			ctr, err = w.transaction(r, c, fmt.Sprintf("%d of %d, seed %d", n, i, w.Seed))
		}
		if busy(err) && w.Random {
			err = nil
		}
		if ctr != "" && err == nil {
			w.say(`{"commit":%s,"took_us":%d}`, ctr, time.Since(began).Microseconds())
		}
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		w.stop.Store(true)
		return fmt.Errorf("connection %d: %w", i, err)
	}
	return nil
}

// truncate checkpoints again and again, and once more at the end.
func (w *work) truncate(c *sqlite3.SQLiteConn) error {
	tick := time.NewTicker(w.Truncate)
	defer tick.Stop()
	for over := false; !over; {
		<-tick.C
		over = w.stop.Load()
		if err := w.checkpoint(c, "TRUNCATE"); err != nil {
			w.stop.Store(true)
			return err
		}
	}
	return nil
}

func (w *work) checkpoint(c *sqlite3.SQLiteConn, mode string) error {
	began := time.Now()
	rows, err := query(c, "PRAGMA wal_checkpoint("+mode+")", nil)
	if err != nil {
		return err
	}
	w.say(`{"checkpoint":%q,"result":[%s],"took_us":%d}`, mode, strings.Join(rows[0], ","), time.Since(began).Microseconds())
	return nil
}

// transaction makes one; it returns the counter if it was committed.
func (w *work) transaction(r *rand.Rand, c *sqlite3.SQLiteConn, who string) (ctr string, err error) {
	if _, err := c.Exec("BEGIN IMMEDIATE", nil); err != nil {
		return "", err
	}
	sql := ""
	if w.Random {
		sql = body(r)
	}
	sql += fmt.Sprintf("UPDATE meta SET v=v+1 WHERE k='ctr'; INSERT INTO log SELECT (SELECT v FROM meta WHERE k='ctr'),'%s',(SELECT v FROM meta WHERE k='hash')", who)
	if err := execute(c, sql); err != nil {
		return "", err
	}
	if w.Random && r.IntN(8) == 0 {
		return "", execute(c, "ROLLBACK")
	}
	if ctr, err = text(c, "SELECT v FROM meta WHERE k='ctr'"); err != nil {
		return "", errors.Join(err, execute(c, "ROLLBACK"))
	}
	return ctr, execute(c, "COMMIT")
}

// body is a random one's.
func body(r *rand.Rand) string {
	var sql strings.Builder
	change := func() {
		switch r.IntN(6) {
		case 0, 1, 2:
			a, b, m := r.IntN(100)+1, r.IntN(100)+1, r.IntN(1000)
			fmt.Fprintf(&sql, "UPDATE acc SET bal=bal-%d WHERE id=%d; UPDATE acc SET bal=bal+%d WHERE id=%d;", m, a, m, b)
		case 3: // large: the cache spills, frames are rewritten
			fmt.Fprintf(&sql, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<%d) INSERT INTO blobs(data,tag) SELECT randomblob(%d),hex(randomblob(4)) FROM c;",
				r.IntN(30)+1, r.IntN(4000)+1)
			fmt.Fprintf(&sql, "UPDATE acc SET pad=hex(randomblob(%d)) WHERE id%%%d=0;", r.IntN(40), r.IntN(20)+2)
		case 4:
			fmt.Fprintf(&sql, "DELETE FROM blobs WHERE id%%%d=%d;", r.IntN(5)+2, r.IntN(2))
		case 5:
			fmt.Fprintf(&sql, "UPDATE blobs SET tag=hex(randomblob(3)) WHERE id%%%d=1;", r.IntN(9)+1)
		}
	}
	for range r.IntN(3) + 1 {
		change()
	}
	if r.IntN(4) == 0 {
		sql.WriteString("SAVEPOINT s;")
		change()
		change()
		if r.IntN(2) == 0 {
			sql.WriteString("ROLLBACK TO s;")
		}
		sql.WriteString("RELEASE s;")
	}
	return sql.String()
}

// upkeep is something that is no transaction of the workload.
func (w *work) upkeep(r *rand.Rand, c *sqlite3.SQLiteConn) error {
	switch r.IntN(8) {
	case 0:
		return execute(c, "VACUUM")
	case 1:
		_, err := query(c, "PRAGMA incremental_vacuum(20)", nil)
		return err
	}
	return w.checkpoint(c, []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[r.IntN(4)])
}

// execute runs a script; a transaction that an error left open is rolled back.
func execute(c *sqlite3.SQLiteConn, sql string) error {
	_, err := c.Exec(sql, nil)
	if err != nil && !c.AutoCommit() {
		_, e := c.Exec("ROLLBACK", nil)
		err = errors.Join(err, e)
	}
	return err
}

func text(c *sqlite3.SQLiteConn, sql string) (string, error) {
	rows, err := query(c, sql, nil)
	if err != nil {
		return "", err
	}
	return rows[0][0], nil
}

func busy(err error) bool {
	e := sqlite3.Error{}
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}
