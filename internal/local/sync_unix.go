//go:build !windows

package local

import "os"

func openToSync(path string) (*os.File, error) { return os.Open(path) }
