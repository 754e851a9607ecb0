package config_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"
	_ "github.com/ncruces/go-sqlite3/embed" // SQLite itself, for drivers before v0.33

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
	"github.com/outwash/outwash/vfs"
)

// An application takes its replicas from the file that the outwash command uses, too.
// For replicas in S3 it imports package s3store.
func Example() {
	dir, err := os.MkdirTemp("", "outwash-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, file := filepath.Join(dir, "app.db"), filepath.Join(dir, "outwash.yml")
	yaml := fmt.Sprintf("dbs:\n  - path: %s\n    replica:\n      path: %s\n      sync-interval: 500ms\n", path, filepath.Join(dir, "replica"))
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		log.Fatal(err)
	}

	cfg, err := config.Load(file) // in production "/etc/outwash.yml"
	if err != nil {
		log.Fatal(err)
	}
	for _, w := range cfg.Warnings() {
		log.Print(w)
	}
	vfs.Register("configured", vfs.Options{Store: cfg.Store})
	app, err := cfg.Database(path)
	if err != nil {
		log.Fatal(err)
	}
	db, err := sql.Open("sqlite3", vfs.DSN(app.Path, "", "vfs=configured"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE users(name); INSERT INTO users VALUES('ada')`); err != nil {
		log.Fatal(err)
	}
	db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := vfs.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}

	store, err := cfg.Store(path)
	if err != nil {
		log.Fatal(err)
	}
	history, err := replicate.ReadHistory(ctx, store)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("something to restore:", history.TXID > 0)
	fmt.Println(app.Params())
	// Output:
	// something to restore: true
	// [replica_max_lag=500ms]
}
