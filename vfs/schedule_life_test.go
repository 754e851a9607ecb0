package vfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/crashdisk"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// patience is how long anything may take.
const patience = 2 * time.Minute

// life is what one seed does to a database.
type life struct {
	seed    uint64
	r       *rand.Rand
	slot    *slot
	teeth   teeth
	counts  *counts
	verbose func(string)
	story   []string

	conf       conf
	bucket     replicate.Store
	m          *machine // the one that is at work
	other      *machine // runs, too, and has been taken over from
	machines   []*machine
	history    *history
	cur        int  // the database
	acked      int  // what Sync has promised
	sure       int  // the newest state whose commit returned
	tail       int  // what was restored last
	doubt      bool // a statement runs that may have committed
	opening    bool // the database, which may restore it
	hot        bool // a transaction without a WAL was rolled back, by who came after a crash perhaps
	afterCrash bool // the process began after a crash
	placed     int  // the state that was restored over a refused database; 0: none was
	unsound    bool // synchronous=OFF and a loss of power have left something that is no committed state
	lost       bool // the power was, and the database not opened since
	token      int
	owns       bool         // another machine may have gone on
	under      []lateObject // requests that the store has still to see
}

// conf is what stays the same for a life.
type conf struct {
	pageSize, vacuum int
	synchronous      string
	journal          string // mode
	begin            string // before WAL mode
	loose            bool   // a loss of power may leave anything of the database
	setup            string
	content          bool // the database exists before it is replicated
	closeTimeout     time.Duration
	maxLag           time.Duration
	keep             replicate.Keep
	hurried          bool // by its clock sessions are long
	smooth           bool // no faults of the store
	steady           bool // processes die only when told
}

// slot is a place to live in: lives after another use its directory and names.
type slot struct {
	dir  string
	name string
}

// teeth is what a test breaks to see that somebody notices.
type teeth struct {
	off  map[string]bool
	lies func(name string) bool // syncs that do nothing
	lose func(key string) bool  // objects that the store acknowledges and loses
}

// machine is a computer with a disk.
type machine struct {
	name string
	path string
	disk *crashdisk.Disk
	p    *process // nil: none runs
}

// process is one run of the program on a machine.
type process struct {
	m     *machine
	vfs   string
	store *faultstore.Store
	conns [2]*conn

	mu      sync.Mutex
	crashAt string // failpoint
	passes  int    // that are left of it
	died    string // failpoint at which it died
	weather weather
	calls   chan struct{} // closed: held calls go on
	random  *rand.Rand
	late    []lateObject
}

type conn struct {
	*sqlite3.Conn
	writing, reading bool
}

var errDied = errors.New("the process dies here")

func (l *life) say(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	l.story = append(l.story, s)
	if l.verbose != nil {
		l.verbose(s)
	}
}

// live runs the life; its error says what went wrong.
func (l *life) live() (err error) {
	r := l.r
	l.counts.add("lives", "all")
	l.bucket = replicate.NewMemStore()
	l.history = newHistory(l.verbose != nil)
	l.conf = conf{
		pageSize: pick(r, 512, 512, 1024, 4096), vacuum: r.IntN(3), synchronous: pick(r, "OFF", "NORMAL", "NORMAL", "FULL", "FULL", "EXTRA"),
		content: r.IntN(6) == 0, closeTimeout: pick(r, -1, -1, 5*time.Second), maxLag: pick(r, replicate.AsFast, replicate.AsFast, time.Second),
		smooth: r.IntN(3) == 0,
	}
	if l.seed%2 == 0 {
		l.conf.keep = replicate.Keep{PagesEvery: time.Millisecond, SnapshotEvery: 300 * time.Millisecond}
	}
	if l.seed%4 == 0 {
		l.conf.keep, l.conf.hurried = replicate.Keep{PagesEvery: time.Second, SnapshotEvery: pick(r, replicate.Forever, replicate.Forever, time.Hour)}, true
	}
	l.conf.journal = pick(r, "wal", "wal", "wal", "wal", "delete", "truncate", "persist")
	l.conf.loose = l.conf.synchronous == "OFF" || l.conf.synchronous == "NORMAL" && l.conf.journal != "wal" ||
		l.conf.synchronous == "FULL" && l.conf.journal == "delete" // a journal may come back
	if r.IntN(10) == 0 {
		l.conf.loose = true
	} else {
		// Below EXTRA the removal of the journal with which a database goes to
		// WAL mode is not durable: a loss of power brings it back.
		l.conf.begin = "PRAGMA synchronous=EXTRA; "
	}
	l.history.ends = l.conf.loose
	l.conf.setup = fmt.Sprintf("PRAGMA synchronous=%s; PRAGMA cache_size=%d; PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d; PRAGMA temp_store=memory",
		l.conf.synchronous, pick(r, 5, 10, 100), pick(r, 0, 1, 5, 10, 30, 1000), pick(r, -1, 0, 10000))
	l.say("page_size=%d auto_vacuum=%d journal_mode=%s %s; close_timeout=%v max_lag=%v content=%v smooth=%v condensed=%v", l.conf.pageSize, l.conf.vacuum, l.conf.journal, l.conf.begin+l.conf.setup,
		l.conf.closeTimeout, l.conf.maxLag, l.conf.content, l.conf.smooth, l.conf.keep.PagesEvery > 0)
	if err := os.RemoveAll(l.slot.dir); err != nil {
		return err
	}
	defer func() {
		for _, m := range l.machines {
			if l.m = m; m.p != nil {
				l.end()
			}
		}
	}()
	if l.m, err = l.newMachine("a"); err != nil {
		return err
	}
	if l.conf.content {
		if err := l.bring(); err != nil {
			return err
		}
	}
	if err := l.start(nil); err != nil {
		return l.over(err)
	}
	for n := 8 + r.IntN(25); n > 0; n-- {
		// What one step draws does not change what the next is.
		l.r = rand.New(rand.NewPCG(l.seed, 1000+uint64(n)))
		if err := l.step(); err != nil {
			return l.over(err)
		}
	}
	return l.over(l.finish())
}

// over is how a life ends.
func (l *life) over(err error) error {
	if errors.Is(err, errTorn) {
		return nil
	}
	return err
}

func (l *life) newMachine(name string) (*machine, error) {
	dir := filepath.Join(l.slot.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m := &machine{name: name, path: filepath.Join(dir, "t.db"), disk: crashdisk.New()}
	m.disk.Lie(l.teeth.lies)
	m.disk.Register(l.slot.name + "_disk_" + name)
	l.machines = append(l.machines, m)
	return m, nil
}

const tables = "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b, c); CREATE INDEX IF NOT EXISTS tc ON t(c);"

// bring makes a database with content, before anything replicates it.
func (l *life) bring() error {
	c, err := sqlite3.Open("file:" + l.m.path + "?vfs=" + l.slot.name + "_disk_a")
	if err != nil {
		return err
	}
	err = c.Exec("PRAGMA synchronous=EXTRA; " + l.first() + pick(l.r, "; PRAGMA journal_mode=wal; ", ";") + tables + l.body(20))
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	return l.observe("brought along")
}

// first makes a new database what the life wants.
func (l *life) first() string {
	return fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d", l.conf.pageSize, l.conf.vacuum)
}

// finish syncs, compares, and closes.
func (l *life) finish() error {
	for try := 0; ; try++ {
		if l.m.p == nil {
			return errors.New("no process is left")
		}
		l.m.p.plan("", 0)
		l.m.disk.KillAt(0)
		l.m.p.setWeather(fair)
		for _, c := range l.conns() {
			c.Exec("ROLLBACK")
			c.reading, c.writing = false, false
		}
		if err := l.rolledBack(); err != nil {
			return err
		}
		dead, err := l.alive(l.sync())
		if err != nil {
			return err
		}
		if !dead {
			break
		}
		if try > 5 {
			return errors.New("the life doesn't end")
		}
	}
	if err := l.checkSame(); err != nil {
		return err
	}
	c := l.m.p.conns[0]
	if c == nil {
		c = l.m.p.conns[1]
	}
	if c != nil && !l.conf.loose {
		if err := mirror.CheckConn(c.Conn, true); err != nil {
			return err
		}
	}
	ctx, cancel := l.context(patience)
	defer cancel()
	if err := l.shutdown(ctx); err != nil {
		return err
	}
	l.end()
	image, err := committed(l.m.path, false)
	if err != nil {
		return err
	}
	if n := l.history.find(image); n != l.cur {
		return fmt.Errorf("the closed database is %s, the database was %s", l.history.text(n), l.history.text(l.cur))
	}
	h, err := replicate.ReadHistory(context.Background(), l.bucket)
	if err != nil || h.TXID == 0 {
		return err
	}
	points := []uint64{1 + l.r.Uint64N(h.TXID)}
	for _, s := range h.Snapshots {
		points = append(points, s.TXID)
	}
	for _, s := range h.PageSegments {
		points = append(points, s.TXID)
	}
	l.r.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	for _, txid := range points[:min(len(points), 8)] {
		n, _, err := l.restore(txid)
		if err == nil && n < 0 {
			err = errors.New("an older state restored is a state that never was")
		}
		if err != nil {
			return fmt.Errorf("TXID %d: %w", txid, err)
		}
	}
	if len(points) == 1 {
		return nil
	}
	v, err := replicate.Verify(context.Background(), replicate.VerifyOptions{Store: l.bucket, ReadData: true})
	if err == nil && v.Damaged() > 0 {
		err = fmt.Errorf("verify finds: %+v", v.Findings)
	}
	return err
}
