//go:build !driver35

package main

import (
	"math/bits"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed" // the library leaves this to programs
	"github.com/tetratelabs/wazero"
)

// setupDriver keeps the compiled SQLite in the user's cache directory: compiling
// it takes a second, each time. Where that isn't possible, so be it.
func setupDriver() {
	dir, err := os.UserCacheDir()
	if err != nil {
		return
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(dir, "outwash"))
	if err != nil {
		return
	}
	// What the driver does where it isn't told.
	pages := uint32(4096)
	if bits.UintSize < 64 {
		pages = 512
	}
	sqlite3.RuntimeConfig = wazero.NewRuntimeConfig().WithMemoryLimitPages(pages).WithCompilationCache(cache)
}
