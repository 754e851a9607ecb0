package replicate

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// TestRemedyOfFullDisk: a session that can't be recorded because the disk is full
// doesn't wait for the store.
func TestRemedyOfFullDisk(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/db-replicated/lineage.new", Err: syscall.ENOSPC}
	for _, err := range []error{fmt.Errorf("record the session: %w", full), fmt.Errorf("create log/1: %w: %w", ErrUnreachable, full)} {
		if got := remedy(err); !strings.HasPrefix(got, "make room") {
			t.Errorf("%v: %s", err, got)
		}
	}
}
