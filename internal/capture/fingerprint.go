package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// fingerprint of a database file: if it is the same, nobody wrote to the file in
// between, as far as the file system's clock and SQLite's own counters can tell:
// those of the header (https://sqlite.org/fileformat2.html#file_change_counter)
// tell transactions in rollback-journal modes apart that share a tick of the clock.
func fingerprint(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	var h [100]byte
	if _, err := f.ReadAt(h[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d:%x:%x", fileNumber(fi), fi.Size(), fi.ModTime().UnixNano(), h[24:32], h[92:96])
}
