package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/outwash/outwash/vfs"
)

// demoWriterVerb is the program that the demo kills: an application like any
// other, which says on stdout how far it is.
var demoWriterVerb = &verb{
	name:   "demo-writer",
	hidden: true,
	brief:  "the program that the demo kills",
	flags: func(fs *flag.FlagSet) runner {
		var w demoWriter
		fs.StringVar(&w.db, "db", "", "database")
		fs.StringVar(&w.replica, "replica", "", "replica's URL")
		fs.StringVar(&w.source, "source", "", "source tree")
		fs.StringVar(&w.copyTo, "copy", "", "copy the database to this path midway")
		fs.IntVar(&w.copyAt, "copy-at", 0, "after this many files")
		fs.BoolVar(&w.endless, "endless", false, "go on until killed")
		fs.DurationVar(&w.budget, "budget", 0, "stop loading after this time")
		return w.run
	},
}

// event is a line of a writer's output.
type event struct {
	Files        int            `json:"files"`
	Transactions int64          `json:"transactions"` // of this process
	Bytes        int64          `json:"bytes"`        // of text
	Reads        int64          `json:"reads"`
	Lags         []float64      `json:"lags,omitempty"` // seconds, new ones
	Mark         *mark          `json:"mark,omitempty"`
	Done         *writerSummary `json:"done,omitempty"`
}

// mark is a moment whose state was kept, to be compared with a restored one.
type mark struct {
	TXID uint64 `json:"txid"`
	Copy string `json:"copy"`
}

type writerSummary struct {
	TXID  uint64 `json:"txid"`
	Total int64  `json:"total"` // transactions in the database, those before the kill included
	Early bool   `json:"early"` // the time was up
}

type demoWriter struct {
	db, replica, source, copyTo string
	copyAt                      int
	endless                     bool
	budget                      time.Duration

	conn  *sql.DB
	out   *json.Encoder
	files []sourceFile
	lag   lagMeter
	reads atomic.Int64
	// pause is held for reading by whoever reads: a checkpoint that is to empty
	// the WAL waits for readers.
	pause sync.RWMutex
	now   event
}

const demoSchema = `
	CREATE TABLE IF NOT EXISTS files(
		id INTEGER PRIMARY KEY, path TEXT NOT NULL, package TEXT NOT NULL, size INTEGER NOT NULL, text TEXT NOT NULL);
	CREATE INDEX IF NOT EXISTS files_package ON files(package, size);
	CREATE VIRTUAL TABLE IF NOT EXISTS search USING fts5(path, text, content='files', content_rowid='id');
	CREATE TABLE IF NOT EXISTS state(one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL, transactions INTEGER NOT NULL);
	INSERT OR IGNORE INTO state VALUES (1, 0, 0);`

func (w *demoWriter) run(ctx context.Context, u *ui, args []string) (err error) {
	if w.files, err = walkSource(w.source); err != nil {
		return err
	}
	w.out = json.NewEncoder(u.out)
	w.conn, err = sql.Open("sqlite3", vfs.DSN(w.db, w.replica, "_pragma=busy_timeout(10000)", "_pragma=synchronous(normal)", "_txlock=immediate"))
	if err != nil {
		return err
	}
	if _, err := w.conn.ExecContext(ctx, demoSchema); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}

	work, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	var readErr error
	background.Go(func() { readErr = w.read(work) })
	background.Go(func() { w.watch(work) })
	sum, err := w.load(ctx)
	stop()
	background.Wait()
	if err = errors.Join(err, readErr, w.conn.Close()); err != nil {
		return err
	}

	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := vfs.Shutdown(limit); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	w.now.Done = sum
	return w.say()
}

// say writes a line about where the writer is.
func (w *demoWriter) say() error {
	w.now.Lags, w.now.Reads = w.lag.take(), w.reads.Load()
	err := w.out.Encode(w.now)
	w.now.Mark = nil
	return err
}

// load inserts the files, a few in each transaction, from where the database
// stands.
func (w *demoWriter) load(ctx context.Context) (*writerSummary, error) {
	sum := &writerSummary{}
	var next int
	if err := w.conn.QueryRowContext(ctx, `SELECT next, transactions FROM state`).Scan(&next, &sum.Total); err != nil {
		return nil, err
	}
	first, err := w.sync(ctx)
	if err != nil {
		return nil, err
	}
	w.lag.begin(first)
	begin, said := time.Now(), time.Time{}
	for w.endless || next < len(w.files) {
		if w.budget > 0 && time.Since(begin) > w.budget {
			sum.Early = true
			break
		}
		if next, err = w.transaction(ctx, next); err != nil {
			return nil, err
		}
		w.lag.committed(time.Now())
		sum.Total++
		w.now.Transactions++
		w.now.Files = min(next, len(w.files))
		if w.copyTo != "" && next >= w.copyAt {
			if err := w.keep(ctx); err != nil {
				return nil, err
			}
		}
		if time.Since(said) > 100*time.Millisecond {
			said = time.Now()
			if err := w.say(); err != nil {
				return nil, err
			}
		}
	}
	if sum.TXID, err = w.sync(ctx); err != nil {
		return nil, err
	}
	w.lag.acknowledged(sum.TXID, time.Now())
	return sum, nil
}

// transaction loads up to filesPerTransaction files from number next on. Beyond
// the last one (an endless writer) it writes some again.
func (w *demoWriter) transaction(ctx context.Context, next int) (int, error) {
	const filesPerTransaction = 2
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return next, err
	}
	defer tx.Rollback()
	for range filesPerTransaction {
		if next >= len(w.files) && !w.endless {
			break
		}
		f := w.files[next%len(w.files)]
		id := next + 1
		next++
		text, ok := readSource(w.source, f)
		if !ok {
			continue
		}
		name := f.path
		if id > len(w.files) {
			name = fmt.Sprintf("%s (copy %d)", f.path, id/len(w.files))
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO files VALUES (?, ?, ?, ?, ?)`, id, name, path.Dir(f.path), len(text), text); err != nil {
			return next, err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO search(rowid, path, text) VALUES (?, ?, ?)`, id, name, text); err != nil {
			return next, err
		}
		w.now.Bytes += int64(len(text))
	}
	if _, err := tx.ExecContext(ctx, `UPDATE state SET next = ?, transactions = transactions + 1`, next); err != nil {
		return next, err
	}
	return next, tx.Commit()
}

// sync waits until everything committed is in the replica.
func (w *demoWriter) sync(ctx context.Context) (txid uint64, err error) {
	err = w.conn.QueryRowContext(ctx, `PRAGMA replicated_sync`).Scan(&txid)
	return txid, err
}

// keep notes the newest TXID and copies the database as it is then. Only this
// goroutine writes, so that both are the same state.
func (w *demoWriter) keep(ctx context.Context) error {
	txid, err := w.sync(ctx)
	if err != nil {
		return err
	}
	w.lag.acknowledged(txid, time.Now())
	w.pause.Lock()
	defer w.pause.Unlock()
	var busy, log, done int
	if err := w.conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &log, &done); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if busy != 0 {
		return errors.New("checkpoint: the database is busy")
	}
	if err := copyFile(w.copyTo, w.db); err != nil {
		return err
	}
	w.now.Mark = &mark{txid, w.copyTo}
	w.copyTo = ""
	return nil
}

// read queries the database all the time, as an application's users would, and
// checks that it is always consistent.
func (w *demoWriter) read(ctx context.Context) error {
	words := []string{"error", "reader", "context", "parse", "slice", "unsafe", "handle", "buffer"}
	for n := 0; ctx.Err() == nil; n++ {
		if err := w.query(ctx, words[n%len(words)]); err != nil && ctx.Err() == nil {
			return fmt.Errorf("read while writing: %w", err)
		}
		w.reads.Add(1)
		select { // users pause, too
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (w *demoWriter) query(ctx context.Context, word string) error {
	w.pause.RLock()
	defer w.pause.RUnlock()
	tx, err := w.conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var last, next int
	if err := tx.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(id), 0) FROM files), next FROM state`).Scan(&last, &next); err != nil {
		return err
	}
	if last > next {
		return fmt.Errorf("file %d is there, but only %d were loaded", last, next)
	}
	var found sql.NullString
	err = tx.QueryRowContext(ctx, `SELECT path FROM search WHERE search MATCH ? LIMIT 1`, word).Scan(&found)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return nil
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
