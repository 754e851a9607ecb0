package vfs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/embed" // SQLite itself, for drivers before v0.33

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// folder makes a temporary folder and the file:// URL of a replica in it.
func folder() (dir, replica string) {
	dir, err := os.MkdirTemp("", "outwash-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir, (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(dir, "replica"))}).String()
}

// The whole way: a commit, its replica, the database restored from it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, replica := folder() // in production s3://bucket/path, with package s3store imported
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")

	db, err := sql.Open("sqlite3", vfs.DSN(path, replica))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE users(name); INSERT INTO users VALUES('ada'), ('grace')`); err != nil {
		log.Fatal(err)
	}
	if err := db.Close(); err != nil {
		log.Fatal(err)
	}
	if err := vfs.Shutdown(ctx); err != nil {
		log.Print(err) // what is not uploaded yet goes with the next open
	}

	// The machine is lost. Elsewhere: outwash restore -o copy.db URL, or
	copied := filepath.Join(dir, "copy.db")
	if _, err := replicate.Restore(ctx, replicate.RestoreOptions{URL: replica, Output: copied}); err != nil {
		log.Fatal(err)
	}
	restored, err := sql.Open("sqlite3", "file:"+copied)
	if err != nil {
		log.Fatal(err)
	}
	defer restored.Close()
	var users int
	if err := restored.QueryRow(`SELECT count(*) FROM users`).Scan(&users); err != nil {
		log.Fatal(err)
	}
	fmt.Println(users, "users restored")
	// Output: 2 users restored
}

// The replica's URL may have parameters of its own: DSN escapes it.
func ExampleDSN() {
	fmt.Println(vfs.DSN("app.db", "s3://bucket/app"))
	fmt.Println(vfs.DSN("app.db", "s3://bucket/app?region=eu-1", "replica_restore=auto"))
	// Output:
	// file:app.db?vfs=replicated&replica=s3%3A%2F%2Fbucket%2Fapp&_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)
	// file:app.db?vfs=replicated&replica=s3%3A%2F%2Fbucket%2Fapp%3Fregion%3Deu-1&_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&replica_restore=auto
}

// An application's own tests replicate to memory, and look at what arrived
// there. Each test registers a VFS of its own.
func ExampleRegister_test() {
	ctx := context.Background()
	dir, _ := folder()
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")

	store := replicate.NewMemStore()
	vfs.Register("test", vfs.Options{
		Store:  func(string) (replicate.Store, error) { return store, nil },
		MaxLag: replicate.AsFast, // tests need not wait for company
	})
	db, err := sql.Open("sqlite3", "file:"+path+"?vfs=test&_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE t(a); INSERT INTO t VALUES(1)`); err != nil {
		log.Fatal(err)
	}
	txid, err := vfs.Sync(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	h, err := replicate.ReadHistory(ctx, store)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("everything is in the replica:", h.TXID == txid)
	// Output: everything is in the replica: true
}

// With replica=off a database is opened as without Outwash: for tests and
// development that don't care.
func ExampleDSN_off() {
	dir, _ := folder()
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")

	db, err := sql.Open("sqlite3", vfs.DSN(path, "off"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE t(a)`); err != nil {
		log.Fatal(err)
	}
	_, err = vfs.Stat(path)
	fmt.Println(errors.Is(err, vfs.ErrNotReplicated))
	// Output: true
}

// Sync is for the few commits that must be in the bucket before the program
// says so, Stat for monitoring.
func ExampleSync() {
	dir, replica := folder()
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")
	db, err := sql.Open("sqlite3", vfs.DSN(path, replica))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE orders(id)`); err != nil {
		log.Fatal(err)
	}

	if _, err := db.Exec(`INSERT INTO orders VALUES(4711)`); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	txid, err := vfs.Sync(ctx, path)
	if err != nil {
		log.Fatal(err) // committed here, and in doubt there
	}

	s, err := vfs.Stat(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.State, s.TXID >= txid, s.LagSeconds)
	// Output: replicating true 0
}

// A program that starts on an empty machine goes on where the last one ended.
func ExampleDSN_restore() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, replica := folder()
	defer os.RemoveAll(dir)

	for _, machine := range []string{"first", "second"} {
		path := filepath.Join(dir, machine+".db")
		db, err := sql.Open("sqlite3", vfs.DSN(path, replica, "replica_restore=auto", "replica_open_timeout=1m"))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS starts(machine)`); err != nil {
			log.Fatal(err)
		}
		if _, err := db.Exec(`INSERT INTO starts VALUES(?)`, machine); err != nil {
			log.Fatal(err)
		}
		var n int
		if err := db.QueryRow(`SELECT count(*) FROM starts`).Scan(&n); err != nil {
			log.Fatal(err)
		}
		fmt.Println(machine, "machine: start number", n)
		if err := db.Close(); err != nil {
			log.Fatal(err)
		}
		if err := vfs.Shutdown(ctx); err != nil {
			log.Print(err)
		}
	}
	// Output:
	// first machine: start number 1
	// second machine: start number 2
}

// A service that is told to end (SIGTERM by systemd, Docker, Kubernetes) closes
// its databases and gives the store some seconds. What it doesn't take in time
// stays on the machine and goes with the next start.
func ExampleShutdown() {
	dir, replica := folder()
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.db")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	db, err := sql.Open("sqlite3", vfs.DSN(path, replica))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE t(a)`); err != nil {
		log.Fatal(err)
	}
	serve(ctx, db)

	if err := db.Close(); err != nil {
		log.Fatal(err)
	}
	limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := vfs.Shutdown(limit); err != nil {
		log.Print(err) // it names the databases of which something is left
	}
	fmt.Println("ended in order")
	// Output: ended in order
}

// serve works until it is told to end; here it tells itself.
func serve(ctx context.Context, db *sql.DB) {
	if _, err := db.ExecContext(ctx, `INSERT INTO t VALUES(1)`); err != nil {
		log.Fatal(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		log.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		log.Fatal(err)
	}
	<-ctx.Done()
}
