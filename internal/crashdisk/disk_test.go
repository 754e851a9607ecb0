package crashdisk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
)

// TestPowerLoss: what was synced stays, what was not may go, and over many losses
// each of the things that may happen does.
func TestPowerLoss(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(300) {
		d, dir := New(), t.TempDir()
		path := filepath.Join(dir, "f")
		f, err := d.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		must(t, err)
		synced := bytes.Repeat([]byte{'a'}, 2*sector)
		_, err = f.WriteAt(synced, 0)
		must(t, err)
		must(t, f.Sync())
		must(t, d.SyncDir(dir))
		_, err = f.WriteAt(bytes.Repeat([]byte{'b'}, 2*sector), sector)
		must(t, err)
		g, err := d.OpenFile(path+".new", os.O_RDWR|os.O_CREATE, 0o600)
		must(t, err)
		_, err = g.WriteAt([]byte("new"), 0)
		must(t, err)
		must(t, d.Rename(path+".new", path+"2"))
		d.Kill()
		if _, err := f.WriteAt([]byte{'c'}, 0); !errors.Is(err, ErrDead) {
			t.Fatal("a dead process writes:", err)
		}
		boot := d.BootID()
		must(t, d.PowerLoss(rand.New(rand.NewPCG(seed, 0))))
		if d.BootID() == boot {
			t.Fatal("the same boot")
		}
		b, err := os.ReadFile(path)
		must(t, err)
		if len(b) < len(synced) || !bytes.Equal(b[:sector], synced[:sector]) {
			t.Fatalf("what was synced is lost: %q", b)
		}
		switch {
		case bytes.Equal(b, synced):
			seen["nothing"] = true
		case len(b) == 3*sector && b[sector] == 'b' && b[2*sector] == 'b':
			seen["all"] = true
		default:
			seen["torn"] = true
		}
		b, err = os.ReadFile(path + "2")
		switch {
		case errors.Is(err, os.ErrNotExist):
			seen["renamed not"] = true
		case len(b) == 0:
			seen["renamed, empty"] = true
		case string(b) == "new":
			seen["renamed"] = true
		}
	}
	if len(seen) != 6 {
		t.Error("only", seen)
	}
}

// TestSQLite: with synchronous=FULL a commit that returned survives, if syncs don't
// lie.
func TestSQLite(t *testing.T) {
	for _, lie := range []bool{false, true} {
		lost := 0
		for seed := range uint64(20) {
			d := New()
			d.Lie(func(string) bool { return lie })
			d.Register("crashdisk_test")
			path := filepath.Join(t.TempDir(), "t.db")
			c, err := sqlite3.Open("file:" + path + "?vfs=crashdisk_test")
			must(t, err)
			must(t, c.Exec("PRAGMA synchronous=EXTRA; PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=3; CREATE TABLE t(a)"))
			for range 10 {
				must(t, c.Exec("INSERT INTO t VALUES(randomblob(500))"))
			}
			d.Kill()
			c.Close()
			must(t, d.PowerLoss(rand.New(rand.NewPCG(seed, 0))))
			os.Remove(path + "-shm")
			d.Start()
			c, err = sqlite3.Open("file:" + path + "?vfs=crashdisk_test")
			must(t, err)
			s, _, err := c.Prepare("SELECT count(*) FROM t")
			if err != nil || !s.Step() || s.ColumnInt(0) != 10 {
				lost++
			}
			s.Close()
			must(t, c.Close())
		}
		if lost > 0 != lie {
			t.Errorf("lies: %v, commits lost in %d of 20", lie, lost)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
