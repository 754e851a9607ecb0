// Command gorm shows a gorm application whose database is replicated. It makes
// a database, changes it, loses it, and opens it again from the replica:
//
//	go -C examples/gorm run .
//
// The replica is a temporary folder; -replica s3://bucket/path is the real thing.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "github.com/ncruces/go-sqlite3/embed" // SQLite itself
	"github.com/ncruces/go-sqlite3/gormlite"
	"gorm.io/gorm"

	_ "github.com/outwash/outwash/s3store" // for s3:// replicas
	"github.com/outwash/outwash/vfs"
)

// Note is what the application stores.
type Note struct {
	ID        uint
	Text      string
	CreatedAt time.Time
}

func main() {
	replica := flag.String("replica", "", "`URL` of an empty replica; by default a temporary folder")
	flag.Parse()
	if err := run(*replica); err != nil {
		fmt.Fprintln(os.Stderr, "gorm:", err)
		os.Exit(1)
	}
}

func run(replica string) error {
	dir, err := os.MkdirTemp("", "outwash-gorm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if replica == "" {
		replica = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(dir, "replica"))}).String()
	}

	if err := use(filepath.Join(dir, "first.db"), replica, func(db *gorm.DB) error {
		notes := []Note{{Text: "hello"}, {Text: "world"}}
		if err := db.Create(&notes).Error; err != nil {
			return err
		}
		return db.Model(&notes[1]).Update("text", "bucket").Error
	}); err != nil {
		return err
	}

	// Another machine: there is no file, so the replica's newest state is restored.
	return use(filepath.Join(dir, "second.db"), replica, func(db *gorm.DB) error {
		var notes []Note
		if err := db.Order("id").Find(&notes).Error; err != nil {
			return err
		}
		for _, n := range notes {
			fmt.Println(n.ID, n.Text)
		}
		return nil
	})
}

// use opens the database at path, gives it to f, and ends in order.
func use(path, replica string, f func(*gorm.DB) error) (err error) {
	dsn := vfs.DSN(path, replica, "replica_restore=auto", "_pragma=busy_timeout(10000)")
	db, err := gorm.Open(gormlite.Open(dsn), &gorm.Config{})
	if err != nil {
		return err
	}
	defer func() {
		pool, perr := db.DB()
		if perr == nil {
			perr = pool.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if serr := vfs.Shutdown(ctx); err == nil {
			err = serr
		}
		if err == nil {
			err = perr
		}
	}()
	if err := db.AutoMigrate(&Note{}); err != nil {
		return err
	}
	return f(db)
}
