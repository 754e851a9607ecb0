package vfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// Steps that tests of several subjects take.

// queryImage runs a query on an image and compares what it returns.
func queryImage(image []byte, query, want string) error {
	return mirror.Query(image, func(c *sqlite3.Conn) error {
		if err := mirror.CheckConn(c, true); err != nil {
			return err
		}
		got, err := mirror.Text(c, query)
		if err == nil && got != want {
			err = fmt.Errorf("%s = %s, want %s", query, got, want)
		}
		return err
	})
}

// remember syncs and returns a function that checks that what the replica has now
// can still be restored.
func (w *world) remember() func() {
	w.t.Helper()
	txid := w.sync()
	image := w.restore(txid)
	_, size := w.mirror.Image()
	return func() {
		w.t.Helper()
		must(w.t, mirror.Compare(image, w.restore(txid), size))
	}
}

// crash ends the world's database as the end of its process would: the same files
// with the same content stay at the same path. Connections are closed.
func (w *world) crash(conns ...*sqlite3.Conn) {
	w.t.Helper()
	w.kill()
	saved := w.files()
	for _, c := range conns {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	for _, db := range w.databases() {
		db.shutdown(ctx)
	}
	for name := range w.files() {
		if _, ok := saved[name]; !ok {
			must(w.t, os.Remove(name))
		}
	}
	for name, b := range saved {
		must(w.t, os.WriteFile(name, b, 0o600)) // in place: it is still the same file
	}
}

// files are the database's files and its local state.
func (w *world) files() map[string][]byte {
	w.t.Helper()
	files := map[string][]byte{}
	names, _ := filepath.Glob(w.path + local.Suffix + "/*")
	for _, name := range append(names, w.path, w.path+"-wal", w.path+"-journal") {
		if b, err := os.ReadFile(name); err == nil {
			files[name] = b
		}
	}
	return files
}

// object reads an object of the store.
func (w *world) object(key string) []byte {
	w.t.Helper()
	r, _, err := w.store.Inner().Get(w.t.Context(), key, replicate.Range{})
	must(w.t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(w.t, err)
	return b
}

// noteReads notes the keys that are read.
func (w *world) noteReads(keys map[string]bool) func(context.Context, faultstore.Call) error {
	var mu sync.Mutex
	return func(_ context.Context, c faultstore.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Op == faultstore.Get {
			keys[c.Key] = true
		}
		return nil
	}
}
