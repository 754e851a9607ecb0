//go:build !driver35

package main

import (
	"math/bits"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
	"github.com/tetratelabs/wazero"
)

// setupDriver keeps the compiled SQLite in the user's cache directory, so that
// the processes measured don't compile it each.
func setupDriver() {
	dir, err := os.UserCacheDir()
	if err != nil {
		return
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(dir, "outwash"))
	if err != nil {
		return
	}
	pages := uint32(4096)
	if bits.UintSize < 64 {
		pages = 512
	}
	sqlite3.RuntimeConfig = wazero.NewRuntimeConfig().WithMemoryLimitPages(pages).WithCompilationCache(cache)
}
