// Package vfs replicates SQLite databases from inside the process that writes
// them.
//
// It wraps the VFS of github.com/ncruces/go-sqlite3. Importing it registers the
// VFS "replicated"; a program adds two imports and a name:
//
//	import (
//		_ "github.com/outwash/outwash/s3store" // for s3:// replicas
//		"github.com/outwash/outwash/vfs"
//	)
//
//	db, err := sql.Open("sqlite3", vfs.DSN("app.db", "s3://bucket/app"))
//	…
//	db.Close()
//	vfs.Shutdown(ctx)
//
// DSN makes file:app.db?vfs=replicated&replica=…&_pragma=busy_timeout(60000)&_pragma=journal_mode(wal); the
// replica's URL must be escaped if it has parameters of its own. Keys:
//
//   - replica: URL of the replica (s3://, file://, mem://), or off. Without it:
//     Options.Store, Options.Replica, then $OUTWASH_REPLICA; none is an error.
//   - replica_restore: never (default), or auto: a missing database file is
//     restored when it is opened, and one that was replicated from here is brought
//     forward when another machine has gone on.
//   - replica_max_lag: least time between two uploads, e.g. 1s (default);
//     0: as fast as the store answers.
//   - replica_open_timeout: how long an open waits to find out how database and
//     replica relate (5s).
//   - replica_close_timeout: how long the last close waits for the store (5s);
//     0: not at all.
//   - replica_keep_log, replica_keep_pages, replica_keep_snapshots: how long every
//     transaction (24h), the ends of page segments (7d) and snapshots (30d) stay
//     restorable: 36h, 7d, 2w, or forever.
//   - replica_pages_every, replica_snapshot_every: how often, while there are
//     commits, page segments (1h) and snapshots (24h) are written; or never. See
//     [replicate.Keep] and docs/history.md.
//
// What the first open of a database says counts until it is closed: of later ones
// only replica_open_timeout does, and another replica is an error.
//
// Every commit becomes a transaction of the replica, whichever connection of the
// process makes it, in every journal mode. A name without URI parameters (ATTACH,
// VACUUM INTO) is not replicated, unless the same file is already. Read-only
// opens don't replicate.
//
// # Encryption
//
// A VFS registered over one that encrypts, such as the driver's adiantum and xts,
// replicates encrypted databases; the replica is plain:
//
//	vfs.Register("secure", vfs.Options{Base: "adiantum"})
//	sql.Open("sqlite3", vfs.DSN("app.db", "s3://…", "vfs=secure", "hexkey=…"))
//
// The key must be in the DSN. The other way round is refused. See
// docs/encryption.md.
//
// # Caveats
//
// In rollback-journal modes a transaction is read back and compressed while its
// COMMIT holds the lock; WAL mode costs less. locking_mode=exclusive waits until
// replication has begun. Databases with the driver's page checksums are refused.
// One process replicates a database; another that opens it through this VFS
// meanwhile is refused. Commits by programs without this VFS are found and replicated, but
// not always one by one. When another session extends the replica, writes fail
// with SQLITE_READONLY and Stat says who: see [replicate.ErrFenced].
package vfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// Name is the VFS that importing this package registers.
const Name = "replicated"

// Env names the environment variable with the default replica URL.
const Env = "OUTWASH_REPLICA"

// ErrNotReplicated means that no database with this path is being replicated.
var ErrNotReplicated = errors.New("vfs: database is not being replicated")

// RestoreMode says what an open does when the database file is missing and the
// replica is not empty.
type RestoreMode string

// The restore modes; the zero value is RestoreNever.
const (
	RestoreNever RestoreMode = "never" // the open fails
	RestoreAuto  RestoreMode = "auto"  // the newest state is restored first
)

// Options of Register. The zero value works for databases whose DSN, or the
// environment, names the replica. What a DSN says wins over Options; so does what the
// configuration file of a Store says, which the DSN wins over.
type Options struct {
	// Base is the name of the VFS to wrap; "" is the driver's default. It must keep
	// databases in files of their name and size, and may encrypt them.
	Base string
	// Replica returns the replica URL of the database with this absolute path;
	// "" is none. nil: none.
	Replica func(path string) string
	// Store returns the store of a database, such as s3store.New makes from an
	// aws.Config; it comes before Replica. nil, or a nil store: none.
	Store func(path string) (replicate.Store, error)

	Restore RestoreMode // "": RestoreNever
	// MaxLag is the least time between two uploads; 0: replicate.DefaultMaxLag;
	// replicate.AsFast: as fast as the store answers.
	MaxLag time.Duration
	// Keep says how history is condensed, and how long it is kept; zero fields are
	// the defaults.
	Keep replicate.Keep
	// OpenTimeout bounds the first open of a database; 0: 5s.
	OpenTimeout time.Duration
	// CloseTimeout bounds how long the last close of a database waits for the
	// store; 0: 5s, negative: not at all.
	CloseTimeout time.Duration
	// IdleTimeout is how long a database stays ready after its last close;
	// 0: 1 minute.
	IdleTimeout time.Duration

	// StatusSocket is the path of a Unix socket over which "outwash status" can ask
	// this process about its databases; only its user and root can. SocketAuto: one
	// that "outwash status" finds by itself. "": none. It is there from the first
	// database to Shutdown, and a failure to make it is logged.
	StatusSocket string

	Logger *slog.Logger // nil: slog.Default()
	// OnState is called when a database's State changes; it must not use the
	// database.
	OnState func(replicate.Status)

	hooks hooks
}

// registry has the VFSes by name.
var registry struct {
	sync.Mutex
	byName  map[string]*replicated
	sockets map[string]*status.Server // by StatusSocket
}

func init() { Register(Name, Options{}) }

// Register makes a VFS with these options known to SQLite under a name, in the
// place of one that was registered with Register before. Databases that are open
// keep the options they were opened with.
func Register(name string, opts Options) {
	v := newReplicated(opts)
	registry.Lock()
	defer registry.Unlock()
	if registry.byName == nil {
		registry.byName = map[string]*replicated{}
	}
	if old := registry.byName[name]; old != nil {
		v.databases = old.databases
	}
	registry.byName[name] = v
	vfs.Register(name, v)
}

// DSN returns the data source name of a replicated database, for database/sql
// and sqlite3.Open. params are further "key=value" pairs, such as
// "replica_restore=auto", "_pragma=synchronous(full)" or "vfs=" and a name that was
// registered; values must not be escaped. With replica "" the DSN names none: Options or the environment do.
//
// It turns WAL mode on, and keeps the busy timeout of a minute that the driver
// gives to DSNs without pragmas, unless params have another one.
func DSN(path, replica string, params ...string) string {
	timeout := "_pragma=busy_timeout(60000)"
	if i := slices.IndexFunc(params, isBusyTimeout); i >= 0 {
		timeout = params[i]
	}
	all := []string{"vfs=" + Name}
	if i := slices.IndexFunc(params, isVFS); i >= 0 {
		all[0] = params[i]
	}
	if replica != "" {
		all = append(all, "replica="+replica)
	}
	// The driver runs pragmas in this order, and going to WAL mode may have to
	// wait for another connection.
	all = append(all, timeout, "_pragma=journal_mode(wal)")
	all = append(all, slices.DeleteFunc(slices.Clone(params), func(p string) bool { return isVFS(p) || isBusyTimeout(p) })...)
	for i, p := range all {
		k, v, _ := strings.Cut(p, "=")
		all[i] = url.QueryEscape(k) + "=" + parentheses.Replace(url.QueryEscape(v))
	}
	return "file:" + (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath() + "?" + strings.Join(all, "&")
}

// parentheses needn't be escaped, and pragmas are easier to read with them; a space
// must not be a +, which SQLite leaves as it is.
var parentheses = strings.NewReplacer("%28", "(", "%29", ")", "+", "%20")

func isVFS(param string) bool { return strings.HasPrefix(param, "vfs=") }

func isBusyTimeout(param string) bool { return strings.HasPrefix(param, "_pragma=busy_timeout") }

// Sync waits until every transaction of the database that was committed before
// the call is in its replica, and returns the replica's TXID. Errors:
// [ErrNotReplicated], ctx's, and those that stop replication
// ([replicate.ErrFenced] and others).
func Sync(ctx context.Context, path string) (txid uint64, err error) {
	db, err := find(path)
	if err != nil {
		return 0, err
	}
	return db.sync(ctx)
}

// Stat tells how replication of a database stands. Errors: [ErrNotReplicated].
func Stat(path string) (replicate.Status, error) {
	db, err := find(path)
	if err != nil {
		return replicate.Status{}, err
	}
	return db.status(), nil
}

// Shutdown ends the replication of all databases: what is committed is uploaded
// until ctx ends; what is left then stays in WAL and spool, and the next open
// uploads it. The error names the databases of which something is left. Close
// all connections before: writes of those still open fail afterwards.
func Shutdown(ctx context.Context) error {
	registry.Lock()
	var all []*database
	for _, v := range registry.byName {
		all = append(all, v.databases.all()...)
	}
	registry.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, db := range all {
		wg.Go(func() { errs[i] = db.shutdown(ctx) })
	}
	wg.Wait()
	return errors.Join(append(errs, closeSockets())...)
}

// find returns the running database with this path.
func find(path string) (*database, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("vfs: %w", err)
	}
	real, err := filepath.EvalSymlinks(full)
	if err != nil {
		real = full
	}
	registry.Lock()
	defer registry.Unlock()
	for _, v := range registry.byName {
		for _, p := range []string{full, real} {
			if db := v.databases.running(p); db != nil {
				return db, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNotReplicated, path)
}
