package sidecar

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNotWritable: a database of another user is refused before SQLite puts a log and
// a WAL-index beside it that its owner couldn't write.
func TestNotWritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	if err := os.WriteFile(path, []byte(empty), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with the goroutine
		if os.Geteuid() == 0 {
			const nobody, same = 65534, ^uintptr(0)
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, nobody, same); e != 0 {
				got <- e
				return
			}
		}
		got <- writable(path)
	}()
	err := <-got
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) || !strings.Contains(remedy(err), "let this process write") {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writable(path); err != nil {
		t.Error(err)
	}
	if err := writable(path + "-nosuch"); err != nil {
		t.Errorf("one that will be: %v", err)
	}
}
