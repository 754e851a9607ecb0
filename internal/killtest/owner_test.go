package killtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// machine is a computer with a copy of a database: it commits, until it is told
// that another one has taken over.
type machine struct {
	who, path string
	store     replicate.Store
	conn      *sqlite3.Conn
	rows      int // committed by it
}

// said is how a step ended.
type said struct {
	Rows    int    // that the machine has committed
	TXID    uint64 // that the replica acknowledged
	Session string // of the machine
	How     string // it was told: refused, fenced
	Told    string // in which words
	By      string // the session that is named, if it was fenced
	PID     int    // of its owner
	Wrong   string // what must not happen
}

func (m *machine) told(err error) (s said) {
	s.Rows, s.Told = m.rows, err.Error()
	var fenced *replicate.FencedError
	switch {
	case errors.As(err, &fenced):
		s.How, s.By = "fenced", fenced.Session.String()
		if fenced.Owner != nil {
			s.PID = fenced.Owner.PID
		}
	case errors.Is(err, replicate.ErrMissing), errors.Is(err, replicate.ErrDiverged):
		s.How = "refused"
	default:
		s.Wrong = err.Error()
	}
	return s
}

func (m *machine) open(restore vfs.RestoreMode) said {
	vfs.Register(m.who, vfs.Options{
		Store:  func(string) (replicate.Store, error) { return m.store, nil },
		MaxLag: replicate.AsFast, OpenTimeout: slowest, CloseTimeout: slowest,
		IdleTimeout: time.Millisecond, Restore: restore, Logger: slog.New(slog.DiscardHandler),
	})
	c, err := sqlite3.Open("file:" + m.path + "?vfs=" + m.who)
	if err != nil {
		return m.told(err)
	}
	m.conn = c
	c.BusyTimeout(time.Minute)
	if err := c.Exec("PRAGMA journal_mode=wal; CREATE TABLE IF NOT EXISTS t(who, n, data)"); err != nil {
		return m.failed(err)
	}
	return m.state()
}

func (m *machine) state() said {
	s, err := vfs.Stat(m.path)
	if err != nil {
		return said{Wrong: fmt.Sprint("stat: ", err)}
	}
	return said{Rows: m.rows, TXID: s.TXID, Session: s.Session}
}

// failed deals with a write or a sync that failed: nothing more may be written
// then, and everybody can find out why.
func (m *machine) failed(err error) said {
	wrong := func(format string, a ...any) said { return said{Wrong: fmt.Sprintf(format, a...)} }
	if !errors.Is(err, sqlite3.READONLY) && !errors.Is(err, replicate.ErrFenced) {
		return wrong("write or sync: %v", err)
	}
	if err := m.conn.Exec("INSERT INTO t VALUES('nobody',0,0)"); !errors.Is(err, sqlite3.READONLY) {
		return wrong("a write after it was fenced: %v", err)
	}
	_, err = vfs.Sync(context.Background(), m.path)
	if !errors.Is(err, replicate.ErrFenced) {
		return wrong("a sync after it was fenced: %v", err)
	}
	s := m.told(err)
	if st, err := vfs.Stat(m.path); err != nil || st.State != replicate.StateFenced || st.Remedy == "" || st.FencedBy == nil || st.FencedBy.Session != s.By {
		return wrong("status after it was fenced: %+v %v", st, err)
	}
	return s
}

// commit commits n times, and waits for the replica or doesn't.
func (m *machine) commit(n int, sync bool) said {
	for range n {
		if err := m.conn.Exec(fmt.Sprintf("INSERT INTO t VALUES('%s',%d,randomblob(400))", m.who, m.rows)); err != nil {
			return m.failed(err)
		}
		m.rows++
	}
	if !sync {
		return m.state()
	}
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	txid, err := vfs.Sync(ctx, m.path)
	if err != nil {
		return m.failed(err)
	}
	s := m.state()
	s.TXID = txid
	return s
}

// work commits until the machine is told something; note gets each number of
// rows that the replica acknowledged.
func (m *machine) work(most int, note func(rows int)) said {
	for i := range most {
		sync := i%3 != 1
		if s := m.commit(1, sync); s.How != "" || s.Wrong != "" {
			return s
		}
		if sync {
			note(m.rows)
		}
	}
	return said{Wrong: fmt.Sprintf("it was not told anything within %d commits", most)}
}

// close ends the session in order; what a fenced one can't upload is its error,
// which it has told already.
func (m *machine) close(fenced bool) said {
	if m.conn != nil {
		if err := m.conn.Close(); err != nil && !fenced {
			return said{Wrong: fmt.Sprint("close: ", err)}
		}
		m.conn = nil
	}
	for end := time.Now().Add(slowest); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := vfs.Stat(m.path); errors.Is(err, vfs.ErrNotReplicated) {
			return said{Rows: m.rows}
		}
	}
	return said{Wrong: "the session doesn't end"}
}

// idle opens the database and does nothing: the session has no claim.
func (m *machine) idle() said {
	for _, step := range []func() said{
		func() said { return m.open(vfs.RestoreNever) },
		func() said { return m.commit(1, true) },
		func() said { return m.close(false) },
		func() said { return m.open(vfs.RestoreNever) },
	} {
		if s := step(); s.Wrong != "" || s.How != "" {
			return s
		}
	}
	return m.state()
}

// stale opens the file of a machine that was told, as its operator would.
func (m *machine) stale() said {
	c, err := sqlite3.Open("file:" + m.path + "?vfs=" + m.who)
	if err == nil {
		c.Close()
		return said{Wrong: "the stale file could be opened"}
	}
	s := m.told(err)
	for _, must := range []string{m.path, m.store.String(), "session ", "outwash restore "} {
		if !strings.Contains(s.Told, must) {
			s.Wrong = fmt.Sprintf("the refusal doesn't say %q: %v", must, err)
		}
	}
	if s.How != "refused" {
		s.Wrong = fmt.Sprint("not refused: ", err)
	}
	return s
}

// rowsOf reads how many rows a machine has in a database, which must be its first ones.
func rowsOf(path, who string) (int, error) {
	c, err := sqlite3.Open("file:" + path)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := mirror.CheckConn(c, true); err != nil {
		return 0, err
	}
	s, err := mirror.Text(c, "SELECT count(*)||' '||ifnull(max(n)+1,0)||' '||count(DISTINCT n) FROM t WHERE who='"+who+"'")
	if err != nil {
		return 0, err
	}
	var n, last, distinct int
	if _, err := fmt.Sscan(s, &n, &last, &distinct); err != nil || n != last || n != distinct {
		return 0, fmt.Errorf("%d rows of %s, %d different, the last is %d: %w", n, who, distinct, last, errors.Join(err, os.ErrInvalid))
	}
	return n, nil
}
