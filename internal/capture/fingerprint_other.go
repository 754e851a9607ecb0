//go:build !unix || darwin || freebsd || netbsd

package capture

import "io/fs"

// fileNumber is what else the system knows: nothing here.
func fileNumber(fs.FileInfo) string { return "" }
