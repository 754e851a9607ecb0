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
	must(t, os.Remove(path+"2"))
	time.Sleep(20 * time.Millisecond) // births are told apart by the file system's clock
	must(t, os.WriteFile(path, []byte("a"), 0o600))
	if runtime.GOOS == "linux" && Identity(path) == id {
		t.Error("another file is taken for the one that was removed")
	}
}
