// Package capture turns the commits of one SQLite database in WAL mode into
// entries: what was committed, complete and in order, or nothing.
//
// Truth is the WAL-index header (how far the log is committed); content is the
// log itself, whose checksum chain must end where the WAL-index says; gates are
// the moments before log content is destroyed, at which everything committed has
// been captured and everything unacknowledged is made durable in the spool.
// Whenever that can't be proven the database is compared with the page hashes of
// what was emitted, and the pages that differ go as one repair entry.
//
//	Signal ─→ Run ─→ capture: walk the log ─→ encode ─→ queue ─→ Take (engine)
//	gates ───────────┘             │                       └→ spool
//	                               └→ page-hash table: checksum, patch bases, repair
//
// Nothing here waits for the network, and no SQLite lock is held but a read
// transaction while pages are read ("pin").
package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// Errors that callers decide on.
var (
	// ErrUndecided: nothing may be destroyed before it is known how database and
	// replica relate; try again.
	ErrUndecided = errors.New("capture: not yet known how database and replica relate")
	// ErrReplaced: another file took the database's name while it was replicated.
	ErrReplaced = errors.New("the database file was replaced by another one while it was being replicated: " +
		"close all connections and open it again")
	// ErrChecksums: the driver keeps checksums in the pages.
	ErrChecksums = errors.New("databases with page checksums (8 reserved bytes, EnableChecksums) can't be replicated: " +
		"the driver puts the checksums in behind the WAL")
	// ErrBroken: the log's checksums don't lead to its committed end, as those of
	// SQLite versions before 3.45 may not after ROLLBACK TO. A checkpoint mends it:
	// the database file has everything then.
	ErrBroken = errors.New("capture: the WAL doesn't lead to its committed end")
	// errFailpoint stands for a crash: nothing goes on from there.
	errFailpoint = errors.New("capture: failpoint")
	errSpoolFull = errors.New("capture: spool is full")
	// errLost: changes went by unseen while an export relied on seeing them.
	errLost = errors.New("capture: lost track of changes")
)

// checksumBytes is how many reserved bytes make the driver keep checksums in
// them (https://sqlite.org/cksumvfs.html), which it writes at a checkpoint: frames
// of the WAL don't have them, and a page of the file never equals its last frame.
const checksumBytes = 8

// Options of Open. Path and Dir are necessary.
type Options struct {
	Path string     // of the database file, as SQLite knows it
	Dir  *local.Dir // its local state
	// VFS pins the database: the name of a registered VFS that opens it without
	// capture. "" is the driver's default.
	VFS string
	// OpenFile opens the database or its log to read it, if they can't be read as
	// they are on disk; Params are what VFS needs to know of them. nil: os.Open.
	OpenFile func(name string) (File, error)
	Params   url.Values
	Logger   *slog.Logger // nil: none
	// MemoryLimit bounds the stored bytes of entries waiting in memory, beyond it
	// they wait in the spool. 0: 8 MiB.
	MemoryLimit int64
	// SpoolLimit bounds the spool file, EntryLimit the number of entries that
	// wait; beyond them those that wait are given up, and replaced by a repair
	// once the store answers. 0: 4 GiB, 1,000,000.
	SpoolLimit int64
	EntryLimit int
	// Guarded: gates are not called, because other programs write the database.
	// Somebody keeps locks so that no log content is destroyed before LetGo says
	// that it may be, and signals when something may have been committed: see
	// LetGo and Hold.
	Guarded bool
	// Held reports whether these locks are on the files that the database has now:
	// they are worth nothing when -wal and -shm were deleted by hand, and made anew.
	// nil: they are.
	Held func() bool
	// Yield is called between two passes that read the database, without a pin: who
	// waits for readers to go may be let through. nil: no need.
	Yield func(context.Context)
	// CopyBytes is how much a pass of Copy reads. 0: 8 MiB, or 2 MiB in
	// rollback-journal modes. For tests.
	CopyBytes int
	// MergeAtGate is how many commits get an entry each while the application waits at
	// a gate. 0: 64. For tests: how many there are depends on the machine.
	MergeAtGate int
	// Failpoint, if set, is called with the name of each step that writes; its
	// error becomes the step's. For tests.
	Failpoint func(name string) error
	// Now is the clock. nil: time.Now.
	Now func() time.Time
	// Off names gates that do nothing ("checkpoint", "restart", "truncate",
	// "delete"; "durable": syncs before uploads), to prove that tests notice. For tests.
	Off map[string]bool
}

type phase int

const (
	idle      phase = iota // not begun: nothing may be destroyed
	tracking               // an export runs: changes are noted by page number
	rebasing               // a single pinned pass decides what the database is
	live                   // entries are emitted
	repairing              // something was lost: nothing is emitted until repaired
	behind                 // entries were given up: nothing is emitted until Begin
)

// mark is how far the log was read.
type mark struct {
	salt     [2]uint32
	bigEnd   bool
	frame    uint32
	checksum [2]uint32
}

// DB captures one database. Its methods are safe for concurrent use.
type DB struct {
	opts Options
	log  *slog.Logger
	enc  *segment.BlockEncoder

	signal  chan struct{}
	pending atomic.Int64 // raw time (µs) of the oldest signal not yet captured

	// passes is held by whoever looks at the whole database, and before mu: what
	// one finds must not be put in the place of what another began from.
	passes sync.Mutex

	mu    sync.Mutex // held for one capture or gate, never across a pass over the database
	cond  *sync.Cond // phase changed
	phase phase
	pass  bool // a pinned pass reads the state at mark: mark must not move

	// identity is that of the file whose state table is; "": there was none yet.
	identity    string
	noted       bool    // a repair is pending, durably
	writing     bool    // a transaction of this process is writing the database file
	leftover    Written // what transactions wrote that were rolled back
	opened      time.Time
	unreachable bool // nobody waits for a decision

	private          atomic.Uint32 // last committed frame, by a connection that has no WAL-index; 0: there is none
	emitted, settled atomic.Uint64 // TXIDs since Begin; see Settled

	mark     mark
	next     [2]uint32         // salts that a restart gate has let through; 0,0: none
	secured  mark              // guarded: what was captured up to here is durable
	free     bool              // guarded: the log may be restarted, but nothing is lost by it; see LetGo
	last     map[uint32]uint32 // last frame of each page in mark's generation
	emptied  string            // fingerprint of the database when the WAL was last seen empty or let go; "": it has content
	table    table
	lastPos  segment.WALPosition // of the last entry
	lastMono int64
	lastRaw  int64
	copying  *copying       // a Copy under way
	dirty    *local.PageSet // tracking: pages changed since they were copied; nil: lost track
	smallest uint64         // tracking: fewest pages after any commit since
	failed   error          // why capture can't go on
	credit   float64        // commits that may still get an entry each
	credited time.Time

	gates      atomic.Int32 // the application waits for mu at so many of them
	trouble    atomic.Pointer[trouble]
	remembered *remembered // of Waiting; the engine's goroutine's

	unseen atomic.Int64 // raw time (µs) since when commits may have no entry, until a pass has found them; 0: all have

	durable durable

	wal, shm, file File
	spool          *local.Spool
	queue          queue
	found          found // by Evidence, for Begin

	bufs *buffers // see buffers()

	stats stats
}

// Open prepares the capture of a database; nothing is captured before Begin or
// Export.
func Open(opts Options) (*DB, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.MemoryLimit <= 0 {
		opts.MemoryLimit = 8 << 20
	}
	if opts.SpoolLimit <= 0 {
		opts.SpoolLimit = 4 << 30
	}
	if opts.EntryLimit <= 0 {
		opts.EntryLimit = 1_000_000
	}
	if opts.MergeAtGate <= 0 {
		opts.MergeAtGate = 64
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	d := &DB{
		opts:   opts,
		log:    slog.New(newQuiet(opts.Logger.Handler())),
		enc:    segment.NewBlockEncoder(),
		signal: make(chan struct{}, 1),
		last:   map[uint32]uint32{},
		opened: opts.Now(),
	}
	d.cond = sync.NewCond(&d.mu)
	d.queue.ready = make(chan struct{}, 1)
	err := opts.Dir.RemoveScratch()
	if err == nil {
		err = opts.Dir.PreparePending()
	}
	if err == nil {
		d.noted, err = opts.Dir.Pending()
	}
	if err == nil {
		d.spool, err = opts.Dir.OpenSpool()
	}
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return d, nil
}

// Close releases the files. After an orderly end (everything captured is
// acknowledged) it writes the clean-close record, so that the next Begin need
// not read the database.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.phase == live && d.queue.backlog().Entries == 0 {
		err = d.writeClean()
	}
	if err == nil && d.phase == live && !d.writing && d.noted && d.queue.backlog().Entries == 0 {
		_ = d.opts.Dir.SetPending(false) // a note too many costs a comparison
	}
	d.setPhase(idle)
	d.fail(fmt.Errorf("capture: %w", os.ErrClosed))
	d.closeFiles()
	d.cond.Broadcast()
	return errors.Join(err, d.spool.Close())
}

func (d *DB) closeFiles() {
	for _, f := range []*File{&d.wal, &d.shm, &d.file} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// Signal says that a commit may have happened. It costs a few nanoseconds and
// never waits.
func (d *DB) Signal() {
	if d.pending.Load() == 0 {
		d.pending.CompareAndSwap(0, d.now())
	}
	select {
	case d.signal <- struct{}{}:
	default:
	}
}

const (
	// Foreign writers don't signal: look now and then.
	pollInterval = time.Second
	// While commits keep coming, capture takes several at a time.
	coalesce = 5 * time.Millisecond
)

// Run captures what is signalled, until ctx ends.
func (d *DB) Run(ctx context.Context) error {
	var poll <-chan time.Time
	if !d.opts.Guarded { // else all commits are signalled
		t := time.NewTicker(pollInterval)
		defer t.Stop()
		poll = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.signal:
		case <-poll:
		}
		n, err := d.capture()
		if d.needsRepair() {
			if err = d.repair(ctx); err != nil && ctx.Err() == nil {
				err = fmt.Errorf("repair: %w", err)
			}
		}
		if old, _ := d.Trouble(); err != nil && ctx.Err() == nil && (old == nil || old.Error() != err.Error()) {
			d.log.Warn("capture failed, trying on", "database", d.opts.Path, "error", err)
		}
		d.note(err)
		if n > 1 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(coalesce):
			}
		}
	}
}

// Capture takes everything that is committed now. It waits until entries are
// emitted at all: until Begin, Export or a repair under way has ended.
func (d *DB) Capture(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cond.Broadcast()
	})()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if _, err := d.captureLocked(false); err != nil {
			return err
		}
		switch {
		case d.failed != nil:
			return d.failed
		case d.phase == live:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("capture: %w", context.Cause(ctx))
		case d.phase == repairing && !d.pass:
			d.Signal()
		}
		d.cond.Wait()
	}
}

// Trouble says why nothing is captured at the moment, and whether that will last
// until somebody helps; nil if all is well.
func (d *DB) Trouble() (err error, lasting bool) {
	if p := d.trouble.Load(); p != nil {
		return p.err, p.lasting
	}
	return nil, false
}

type trouble struct {
	err     error
	lasting bool
	since   int64 // raw time, µs; 0: lasting
}

// fail ends capture: what the database has become can't be captured.
func (d *DB) fail(err error) error {
	d.failed = err
	d.loseCopy(err)
	d.trouble.Store(&trouble{err: err, lasting: true})
	d.cond.Broadcast()
	return err
}

// note keeps the last error until something succeeds.
func (d *DB) note(err error) {
	switch p := d.trouble.Load(); {
	case p != nil && p.lasting:
	case err != nil && p != nil:
		d.trouble.Store(&trouble{err: err, since: p.since})
	case err != nil:
		d.trouble.Store(&trouble{err: err, since: d.now()})
	case p != nil:
		d.trouble.Store(nil)
	}
}

// Ready is signalled when entries wait to be taken.
func (d *DB) Ready() <-chan struct{} { return d.queue.ready }

// Take removes the oldest waiting entries, at most limit stored bytes, but one
// at least if any waits.
func (d *DB) Take(limit int64) []*segment.Entry { return d.queue.take(limit) }

// Backlog counts what is captured and not acknowledged. Oldest is that of commits that
// couldn't be captured, too, or were given up.
func (d *DB) Backlog() local.Backlog {
	b := d.queue.backlog()
	times := []int64{b.Oldest, d.unseen.Load()}
	if p := d.trouble.Load(); p != nil {
		times = append(times, p.since)
	}
	for _, t := range times {
		if t != 0 && (b.Oldest == 0 || t < b.Oldest) {
			b.Oldest = t
		}
	}
	return b
}

func (d *DB) needsRepair() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == repairing && d.failed == nil
}

func (d *DB) now() int64 { return d.opts.Now().UnixMicro() }

func (d *DB) failpoint(name string) error {
	if d.opts.Failpoint == nil {
		return nil
	}
	if err := d.opts.Failpoint(name); err != nil {
		return fmt.Errorf("%w: %w", errFailpoint, err)
	}
	return nil
}
