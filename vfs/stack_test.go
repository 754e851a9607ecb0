package vfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/ncruces/go-sqlite3/vfs/adiantum"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
	_ "github.com/ncruces/go-sqlite3/vfs/readervfs"
	_ "github.com/ncruces/go-sqlite3/vfs/xts"
)

const (
	testKey  = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"
	otherKey = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

var encrypting = []string{"adiantum", "xts"}

// overBase makes the world one over an encrypting VFS.
func overBase(w *world, base string) *world {
	w.base, w.params = base, []string{"hexkey=" + testKey}
	return w
}

func newStackWorld(t testing.TB, base string) *world {
	return overBase(newWorld(t, Options{Base: base}), base)
}

// secrets fails if something in the world's files or in what it logs has the key,
// or the files have text that only the database is to have.
func (w *world) secrets(text string) {
	w.t.Helper()
	filepath.WalkDir(filepath.Dir(w.path), func(path string, d os.DirEntry, err error) error {
		must(w.t, err)
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		must(w.t, err)
		for _, s := range []string{testKey, text} {
			if bytes.Contains(b, []byte(s)) {
				w.t.Errorf("%s has %q in it", path, s)
			}
		}
		return nil
	})
}

// TestStackRandom is the random workload over VFSes that encrypt.
func TestStackRandom(t *testing.T) {
	for _, base := range encrypting {
		for _, mode := range []string{"wal", "delete", "switching"} {
			for seed := range uint64(2) {
				t.Run(fmt.Sprint(base, "/", mode, "/seed=", *flagSeed+seed), func(t *testing.T) {
					rw, err := runRandom(t, *flagSeed+seed, *flagTime, mode, nil, base)
					t.Logf("%d operations (%d rolled back, %d busy), %d entries checked; %v", rw.ops.Load(), rw.rolled.Load(), rw.busy.Load(), rw.checked, rw.mirror)
					must(t, err)
					rw.shutdown()
					rw.same()
				})
			}
		}
	}
}

// TestStackModes: every journal mode, with and without EXCLUSIVE locking.
func TestStackModes(t *testing.T) {
	for _, base := range encrypting {
		for _, journal := range []string{"wal", "delete", "truncate", "persist", "memory"} {
			for _, locking := range []string{"normal", "exclusive"} {
				t.Run(base+"/"+journal+"/"+locking, func(t *testing.T) {
					r := rand.New(rand.NewPCG(*flagSeed, 8))
					for _, size := range []int{512, 4096, 65536} {
						modesRound(t, r, journal, locking, size, base)
					}
				})
			}
		}
	}
}
