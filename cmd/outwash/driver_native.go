//go:build driver35

package main

import (
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/fts5"
)

// setupDriver adds full-text search, which the driver from v0.33 on leaves to
// programs. There is nothing to compile: it is plain Go.
func setupDriver() {
	sqlite3.AutoExtension(fts5.Register)
}
