//go:build linux

package sidecar

import (
	"os"
	"syscall"
	"testing"
)

// TestOwner: what is made beside a database has its mode, and its owner if root runs
// the sidecar, or the application of another user could not write any more.
func TestOwner(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, Options{})
			p := w.stock()
			p.Must("PRAGMA journal_mode=" + mode)
			p.Must(table)
			must(t, p.Close())
			must(t, os.Chmod(w.path, 0o666)) // whatever the umask
			uid, gid := os.Geteuid(), os.Getegid()
			if uid == 0 {
				uid, gid = 4321, 4322
				must(t, os.Chown(w.path, uid, gid))
			}
			w.ready()
			for _, suffix := range []string{"-wal", "-shm"} {
				fi, err := os.Stat(w.path + suffix)
				must(t, err)
				st := fi.Sys().(*syscall.Stat_t)
				if fi.Mode().Perm() != 0o666 || int(st.Uid) != uid || int(st.Gid) != gid {
					t.Errorf("%s: %s, owner %d:%d", suffix, fi.Mode(), st.Uid, st.Gid)
				}
			}
		})
	}
}
