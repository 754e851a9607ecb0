//go:build unix

package replicate

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The file gets the mode that SQLite would give it.
func TestOutputMode(t *testing.T) {
	mc := replica(t)
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	out := filepath.Join(t.TempDir(), "db")
	if _, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: out}); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(out); fi.Mode().Perm() != 0o640 {
		t.Fatal(fi.Mode())
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root writes everywhere")
	}
	mc := replica(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: filepath.Join(dir, "db")}); !os.IsPermission(err) && err == nil {
		t.Fatal(err)
	}
}
