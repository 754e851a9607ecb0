//go:build !windows

package capture

import "os"

func openToSync(path string) (*os.File, error) { return os.Open(path) }
