package local

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if Identity(path) != "" {
		t.Error("there is no file")
	}
	must(t, os.WriteFile(path, []byte("a"), 0o600))
	id := Identity(path)
	must(t, os.WriteFile(path, []byte("bcd"), 0o600))
	if id == "" || Identity(path) != id {
		t.Errorf("written to: %q, then %q", id, Identity(path))
	}
	must(t, os.Rename(path, path+"2"))
	if Identity(path+"2") != id {
		t.Error("renamed")
	}
	then := modified(t, path+"3")
	must(t, os.Remove(path+"2"))
	// Births are told apart by the file system's clock, which goes on in steps.
	for !modified(t, path+"3").After(then) {
		time.Sleep(time.Millisecond)
	}
	must(t, os.WriteFile(path, []byte("a"), 0o600))
	if runtime.GOOS == "linux" && Identity(path) == id {
		t.Error("another file is taken for the one that was removed")
	}
}

// modified writes a file and returns when the file system says that was.
func modified(t *testing.T, path string) time.Time {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 1))
	fi, err := os.Stat(path)
	must(t, err)
	return fi.ModTime()
}
