//go:build !driver35

package killtest

import (
	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
	"github.com/tetratelabs/wazero"
)

// setupDriver keeps the compiled SQLite in dir: each child would need a second
// for it otherwise.
func setupDriver(dir string) error {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return err
	}
	sqlite3.RuntimeConfig = wazero.NewRuntimeConfig().WithMemoryLimitPages(4096).WithCompilationCache(cache)
	return nil
}
