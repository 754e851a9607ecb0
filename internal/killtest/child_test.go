package killtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// job is what a child is told to do.
type job struct {
	Path, Store, Side string // database, replica's directory, side log
	Cache             string // of compiled code
	Seed              uint64
	PageSize          int
	AutoVacuum        int
	Synchronous       string
	AutoCheckpoint    int
	JournalLimit      int
	MaxLag            time.Duration
	Fault             fault
	End               end
}

// fault is what the store does.
type fault string

const (
	healthy fault = "healthy"
	slow    fault = "slow"    // up to 80 ms a request
	flaky   fault = "flaky"   // half of the requests fail
	lossy   fault = "lossy"   // a third of the replies are lost
	away    fault = "away"    // nothing can be created
	comes   fault = "returns" // away for the first 150 ms
)

// end says how a child ends.
type end string

const (
	never   end = "killed"          // it works until it is killed
	orderly end = "closed"          // it stops by itself, in order
	synced  end = "synced, killed"  // it stops to write, syncs and waits to be killed
	shut    end = "shut down, open" // as orderly, without having closed its connections
)

const childEnv = "OUTWASH_KILLTEST_JOB"

// slowest is a time within which whatever is to happen has happened, on a machine that
// is slow and has other things to do.
const slowest = 2 * time.Minute

// worker is the child: it works on the database with several connections.
type worker struct {
	job
	side  *os.File
	store *faultstore.Store
	began time.Time
	stop  atomic.Bool
	well  atomic.Bool // the store has recovered

	commits atomic.Int64
}

func childMain(text string) {
	w := &worker{}
	if err := json.Unmarshal([]byte(text), &w.job); err != nil {
		die(err)
	}
	if err := w.run(); err != nil {
		die(err)
	}
}

// die reports what must not happen.
func die(err error) {
	say("ERR %v", err)
	os.Exit(3)
}

func say(format string, a ...any) { fmt.Printf(format+"\n", a...) }

func (w *worker) note(format string, a ...any) {
	// One write: it survives the process, which is all that a kill can end.
	if _, err := fmt.Fprintf(w.side, format+"\n", a...); err != nil {
		die(err)
	}
}

func (w *worker) run() (err error) {
	if err := setupDriver(w.Cache); err != nil {
		return err
	}
	warm, err := sqlite3.Open(":memory:")
	if err != nil {
		return err
	}
	warm.Close()
	if w.side, err = os.OpenFile(w.Side, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	s, err := replicate.OpenStore(context.Background(), (&url.URL{Scheme: "file", Path: w.Store}).String())
	if err != nil {
		return err
	}
	w.store = faultstore.New(s)
	w.inject()
	vfs.Register("kill", vfs.Options{
		Store:  func(string) (replicate.Store, error) { return w.store, nil },
		MaxLag: w.MaxLag, OpenTimeout: w.patience(2 * time.Second),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	say("START")
	w.began = time.Now()

	first, err := w.first()
	if err != nil {
		return err
	}
	say("OPEN")
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { w.work(i) })
	}
	wg.Go(w.sync)
	if w.End == never {
		wg.Wait()
		return errors.New("stopped, although told to go on")
	}
	time.Sleep(150 * time.Millisecond)
	for w.commits.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	w.stop.Store(true)
	wg.Wait()
	w.well.Store(true)
	w.store.SetHooks(faultstore.Hooks{})
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	switch w.End {
	case synced:
		ctr, err := mirror.Text(first, "SELECT v FROM meta WHERE k='ctr'")
		if err != nil {
			return fmt.Errorf("last counter: %w", err)
		}
		txid, err := vfs.Sync(ctx, w.Path)
		if err != nil {
			return fmt.Errorf("last sync: %w", err)
		}
		w.note("A %d %s", txid, ctr)
		say("SYNCED")
		select {}
	case shut:
		if err := vfs.Shutdown(ctx); err != nil {
			return err
		}
		if err := first.Close(); err != nil {
			return fmt.Errorf("close after shutdown: %w", err)
		}
	default:
		if err := first.Close(); err != nil {
			return fmt.Errorf("last close: %w", err)
		}
		if err := vfs.Shutdown(ctx); err != nil {
			return err
		}
	}
	say("DONE")
	return nil
}

// patience is how long what the store has to answer may take: with a healthy one as
// long as a machine can take, else not long.
func (w *worker) patience(faulty time.Duration) time.Duration {
	if w.Fault == healthy {
		return slowest
	}
	return faulty
}

// inject makes the store do what the job says.
func (w *worker) inject() {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(w.Seed, 7))
	chance := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	t0 := time.Now()
	var h faultstore.Hooks
	switch w.Fault {
	case slow:
		h.Latency = func(faultstore.Call) time.Duration { return time.Duration(chance(80)) * time.Millisecond }
	case flaky:
		h.Before = func(context.Context, faultstore.Call) error {
			if chance(2) == 0 {
				return faultstore.ErrInjected
			}
			return nil
		}
	case lossy:
		h.After = func(_ context.Context, _ faultstore.Call, err error) error {
			if chance(3) == 0 {
				return faultstore.ErrInjected
			}
			return err
		}
	case away, comes:
		h.Before = func(_ context.Context, c faultstore.Call) error {
			if (c.Op == faultstore.Create || c.Op == faultstore.Upload) && (w.Fault == away || time.Since(t0) < 150*time.Millisecond) {
				return faultstore.ErrInjected
			}
			return nil
		}
	}
	w.store.SetHooks(h)
}

// open opens a connection. While the store has faults an open may give up.
func (w *worker) open() (*sqlite3.Conn, error) {
	for {
		c, err := sqlite3.Open("file:" + w.Path + "?vfs=kill")
		if err == nil {
			c.BusyTimeout(time.Minute)
			if err = addFunctions(c); err == nil {
				err = c.Exec(fmt.Sprintf("PRAGMA synchronous=%s; PRAGMA cache_size=10; PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d; PRAGMA temp_store=memory",
					w.Synchronous, w.AutoCheckpoint, w.JournalLimit))
			}
			if err == nil {
				return c, nil
			}
			c.Close()
		}
		if !busy(err) && !(w.Fault != healthy && strings.Contains(err.Error(), "it is not known yet")) {
			return nil, fmt.Errorf("open: %w", err)
		}
		if w.End != never && w.Fault == away { // or what was never begun is never known
			w.store.SetHooks(faultstore.Hooks{})
		}
	}
}

func busy(err error) bool {
	return errors.Is(err, sqlite3.BUSY) || errors.Is(err, sqlite3.LOCKED)
}

// first opens the first connection and makes the tables if there are none.
func (w *worker) first() (*sqlite3.Conn, error) {
	c, err := w.open()
	for err == nil {
		if err = c.Exec(fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA journal_mode=wal", w.PageSize, w.AutoVacuum)); err == nil {
			err = createTables(c)
		}
		if err == nil {
			return c, nil
		}
		if busy(err) {
			err = nil
		}
	}
	return nil, fmt.Errorf("first: %w", err)
}

func createTables(c *sqlite3.Conn) error {
	n, err := mirror.Text(c, "SELECT count(*) FROM sqlite_schema WHERE name='meta'")
	if err != nil || n != "0" {
		return err
	}
	return execute(c, "BEGIN IMMEDIATE; "+schema+" COMMIT")
}

// work makes transactions on a connection of its own, and opens it anew at times.
func (w *worker) work(i int) {
	r := rand.New(rand.NewPCG(w.Seed, uint64(100+i)))
	c, err := w.open()
	for n := 0; err == nil && !w.stop.Load(); n++ {
		var ctr string
		switch k := r.IntN(100); {
		case k < 12:
			err = upkeep(r, c)
		case k < 15:
			if err = c.Close(); err == nil {
				c, err = w.open()
			}
		default:
			ctr, err = transaction(r, c, fmt.Sprintf("%d of %d, job %d", n, i, w.Seed))
		}
		if err != nil && busy(err) {
			err = nil
		}
		if ctr != "" && err == nil {
			w.note("C %s", ctr)
			w.commits.Add(1)
		}
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		die(fmt.Errorf("worker %d: %w", i, err))
	}
}

// sync notes which counter is at least in the replica at which TXID.
func (w *worker) sync() {
	r := rand.New(rand.NewPCG(w.Seed, 5))
	c, err := w.open()
	for err == nil && !w.stop.Load() {
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		var ctr string
		if ctr, err = mirror.Text(c, "SELECT v FROM meta WHERE k='ctr'"); err != nil {
			break
		}
		var txid uint64
		ctx, cancel := context.WithTimeout(context.Background(), w.patience(time.Second))
		txid, err = vfs.Sync(ctx, w.Path)
		cancel()
		switch {
		case err == nil:
			w.note("A %d %s", txid, ctr)
		case errors.Is(err, context.DeadlineExceeded) && w.Fault != healthy:
			err = nil
		}
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		die(fmt.Errorf("syncing: %w", err))
	}
}
