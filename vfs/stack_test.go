package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
	_ "github.com/ncruces/go-sqlite3/vfs/memdb"
	_ "github.com/ncruces/go-sqlite3/vfs/readervfs"
	"github.com/ncruces/go-sqlite3/vfs/xts"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
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
		if err != nil || d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) { // replaced just now
			return nil
		}
		must(w.t, err)
		for _, s := range []string{testKey, text} {
			if bytes.Contains(b, []byte(s)) {
				w.t.Errorf("%s has %q in it", path, s)
			}
		}
		return nil
	})
}

// wholeVFS reads and writes as if each were one step. The driver's encrypting VFSes
// need that: they read and write whole blocks, and connections that read one while
// another writes it get noise, which SQLite calls malformed or no database at all.
// It happens every few thousand transactions, and without replication, too.
type wholeVFS struct{ vfs.VFS }

type wholeFile struct{ vfs.File }

var whole sync.RWMutex

func (v wholeVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, name, flags)
	if err != nil {
		return nil, out, err
	}
	return wholeFile{f}, out, nil
}

func (f wholeFile) SharedMemory() vfs.SharedMemory { return vfsutil.WrapSharedMemory(f.File) }

func (f wholeFile) ReadAt(b []byte, off int64) (int, error) {
	whole.RLock()
	defer whole.RUnlock()
	return f.File.ReadAt(b, off)
}

func (f wholeFile) WriteAt(b []byte, off int64) (int, error) {
	whole.Lock()
	defer whole.Unlock()
	return f.File.WriteAt(b, off)
}

// TestStackRandom is the random workload, on several connections, over VFSes that
// encrypt.
func TestStackRandom(t *testing.T) {
	vfs.Register("t_whole_adiantum", adiantum.Wrap(wholeVFS{vfs.Find("")}, nil))
	vfs.Register("t_whole_xts", xts.Wrap(wholeVFS{vfs.Find("")}, nil))
	for _, base := range []string{"t_whole_adiantum", "t_whole_xts"} {
		for _, mode := range []string{"wal", "delete", "switching"} {
			t.Run(base+"/"+mode, func(t *testing.T) {
				rw, err := runRandom(t, *flagSeed, *flagTime/2, mode, nil, base)
				t.Logf("%d operations (%d rolled back, %d busy), %d entries checked; %v", rw.ops.Load(), rw.rolled.Load(), rw.busy.Load(), rw.checked, rw.mirror)
				must(t, err)
				rw.shutdown()
				rw.same()
			})
		}
	}
}

// TestStackModes: every journal mode, with and without EXCLUSIVE locking.
func TestStackModes(t *testing.T) {
	for _, base := range encrypting {
		for _, journal := range []string{"wal", "truncate", "persist", "memory"} {
			for _, locking := range []string{"normal", "exclusive"} {
				t.Run(base+"/"+journal+"/"+locking, func(t *testing.T) {
					r := rand.New(rand.NewPCG(*flagSeed, 8))
					modesRound(t, r, journal, locking, pick(r, 512, 1024, 4096, 65536), base)
				})
			}
		}
	}
}

// TestStackFirstContact takes over encrypted databases with content, large enough
// for a snapshot, while they are written to.
func TestStackFirstContact(t *testing.T) {
	for _, base := range encrypting {
		for _, journal := range []string{"delete", "wal"} {
			t.Run(base+"/"+journal, func(t *testing.T) {
				w := newStackWorld(t, base)
				w.existing(journal, 8000)
				c := w.open("_pragma=busy_timeout(60000)", "_pragma=journal_mode(wal)")
				exec(t, c, "PRAGMA wal_autocheckpoint=50; CREATE TABLE new(v)")
				for i := range 100 {
					exec(t, c, fmt.Sprintf("INSERT INTO new VALUES(%d); UPDATE old SET v=randomblob(900) WHERE id=%d", i, 1+i*37%8000))
				}
				w.finish(c)
				if w.store.Count(faultstore.Upload) == 0 {
					t.Error("there was no export")
				}
			})
		}
	}
}

// TestStackCrash kills the process with commits in the WAL alone, and with some in
// the spool: the next one proves what the database is and goes on.
func TestStackCrash(t *testing.T) {
	for _, base := range encrypting {
		for _, sql := range []string{
			"SELECT 1",
			"PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES('again')",
			"PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES('again')",
			"PRAGMA journal_mode=delete; INSERT INTO t VALUES('again')",
		} {
			t.Run(base+"/"+sql, func(t *testing.T) {
				opts := Options{Base: base, CloseTimeout: -1}
				w := overBase(newWorld(t, opts), base)
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
				w.sync()
				w.stall()
				exec(t, c, "INSERT INTO t VALUES('this must not be on disk in plain: "+strings.Repeat("x", 3000)+"'); "+sql)
				w.secrets("must not be on disk")
				n := w.clone(opts)
				n.heal()
				c = n.open()
				exec(t, c, "INSERT INTO t VALUES('after')")
				n.finish(c)
				must(t, mirror.Check(n.restore(0), true, "SELECT count(*)-(SELECT count(*) FROM t WHERE a='again')-2 FROM t"))
			})
		}
	}
}

// TestStackForeign: a program without replication writes, with the key.
func TestStackForeign(t *testing.T) {
	for _, base := range encrypting {
		for _, sql := range []string{
			"INSERT INTO t VALUES(2,'x')",
			"INSERT INTO t VALUES(2,'x'); PRAGMA wal_checkpoint(RESTART); INSERT INTO u VALUES(1)",
			"INSERT INTO u VALUES(2); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO u VALUES(3)",
			"VACUUM",
		} {
			t.Run(base+"/"+sql, func(t *testing.T) {
				w := newStackWorld(t, base)
				c := w.open()
				exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a, b); CREATE TABLE u(a); INSERT INTO t VALUES(1,'us')")
				w.sync()
				f := w.foreign()
				exec(t, f, sql)
				must(t, f.Close())
				exec(t, c, "INSERT INTO t VALUES(3,'y')")
				w.finish(c)
			})
		}
	}
}

// TestStackReopen: the clean-close record counts, so that an open reads nothing;
// changes meanwhile are noticed.
func TestStackReopen(t *testing.T) {
	for _, base := range encrypting {
		t.Run(base, func(t *testing.T) {
			w := newStackWorld(t, base)
			for i := range 3 {
				c := w.open()
				exec(t, c, fmt.Sprintf("PRAGMA journal_mode=wal; CREATE TABLE t%d(a); INSERT INTO t%d VALUES(randomblob(20000))", i, i))
				w.finish(c)
			}
			f := w.foreign()
			exec(t, f, "INSERT INTO t0 VALUES(1)")
			must(t, f.Close())
			if c, err := w.tryOpen(); err == nil {
				c.Close()
				w.sync()
			} else if !errors.Is(err, sqlite3.CANTOPEN) {
				t.Error(err)
			}
		})
	}
}

// TestStackRestore: the replica is plain, and VACUUM INTO makes an encrypted
// database of it.
func TestStackRestore(t *testing.T) {
	for _, base := range encrypting {
		t.Run(base, func(t *testing.T) {
			w := newStackWorld(t, base)
			c := w.open()
			exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('back again')")
			w.finish(c)
			if bytes.Equal(w.restore(0), must2(os.ReadFile(w.path))) {
				t.Error("nothing is encrypted")
			}
			plain := filepath.Join(t.TempDir(), "plain.db")
			must(t, os.WriteFile(plain, w.restore(0), 0o600))
			p, err := sqlite3.Open("file:" + plain)
			must(t, err)
			back := filepath.Join(t.TempDir(), "back.db")
			exec(t, p, "VACUUM INTO '"+w.without(back)+"'")
			must(t, p.Close())
			if b := must2(os.ReadFile(back)); bytes.Contains(b, []byte("back again")) {
				t.Error("VACUUM INTO has not encrypted")
			}
			e, err := sqlite3.Open(w.without(back))
			must(t, err)
			if got := text(t, e, "SELECT a FROM t"); got != "back again" {
				t.Error(got)
			}
			must(t, e.Close())
		})
	}
}

func must2(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestStackRefusals: what can't be replicated is refused by name, at the open or
// at the first write, and the key is in nothing that is said.
func TestStackRefusals(t *testing.T) {
	vfs.Register("t_above_adiantum", adiantum.Wrap(vfs.Find(Name), nil))
	vfs.Register("t_above_xts", xts.Wrap(vfs.Find(Name), nil))
	for _, base := range []string{"adiantum", "xts", "memdb", "reader", "replicated", "nobody"} {
		Register("t_on_"+base, Options{Base: base})
	}
	dir := t.TempDir()
	for i, tt := range []struct{ dsn, sql, want string }{
		{"vfs=t_on_adiantum", "", "keys given by PRAGMA come too late"},
		{"vfs=t_on_xts", "", "keys given by PRAGMA come too late"},
		{"vfs=t_on_adiantum&hexkey=" + testKey[:20], "", "doesn't open files"},
		{"vfs=t_on_xts&hexkey=" + testKey[:20], "", "doesn't open files"},
		{"vfs=t_on_xts&hexkey=" + testKey, "PRAGMA hexkey='" + testKey + "'", "must be in the DSN"},
		{"vfs=t_on_adiantum&replica_restore=auto&hexkey=" + testKey, "", "writes a plain database"},
		{"vfs=t_on_memdb", "", "doesn't keep databases in files"},
		{"vfs=t_on_reader", "", `base VFS "reader" doesn't open files`},
		{"vfs=t_on_replicated", "", "replicates itself"},
		{"vfs=t_on_nobody", "", `there is no VFS "nobody"`},
		{"vfs=replicated&hexkey=" + testKey, "", "nothing encrypts this database"},
		{"vfs=t_above_adiantum&hexkey=" + testKey, "", "nothing encrypts this database"},
		{"vfs=t_above_xts&hexkey=" + testKey, "", "nothing encrypts this database"},
		{"vfs=t_above_adiantum", "PRAGMA hexkey='" + testKey + "'; CREATE TABLE t(a)", "by a VFS above"},
		{"vfs=t_above_adiantum", "PRAGMA hexkey='" + testKey + "'; PRAGMA journal_mode=wal; CREATE TABLE t(a)", "by a VFS above"},
		{"vfs=t_above_xts", "PRAGMA hexkey='" + testKey + "'; CREATE TABLE t(a)", "by a VFS above"},
		{"vfs=t_above_xts", "PRAGMA hexkey='" + testKey + "'; PRAGMA page_size=65536; PRAGMA cache_size=2; BEGIN; CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(1000000)); COMMIT", "by a VFS above"},
	} {
		t.Run(strings.ReplaceAll(tt.dsn+" "+tt.sql, testKey, "KEY"), func(t *testing.T) {
			var log bytes.Buffer
			old := slog.Default()
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			defer slog.SetDefault(old)
			path := filepath.Join(dir, fmt.Sprint(i, ".db"))
			c, err := sqlite3.Open("file:" + path + "?replica=mem://refused" + fmt.Sprint(i) + "&" + tt.dsn)
			if err == nil {
				if tt.sql == "" {
					t.Error("opened")
				} else if err = c.Exec(tt.sql); err == nil {
					t.Error("done")
				}
				c.Close()
			}
			t.Log(err)
			if said := fmt.Sprint(err, log.String()); !strings.Contains(said, tt.want) || strings.Contains(strings.ReplaceAll(said, tt.sql, ""), testKey[:20]) {
				t.Errorf("want %q, got %s", tt.want, said)
			}
			for _, db := range registryAll() {
				if db.path == path {
					if s := db.status(); s.State != replicate.StateFailed && tt.sql != "" && !strings.Contains(tt.dsn, "_on_") {
						t.Errorf("the status is %+v", s)
					}
					must(t, db.shutdown(t.Context()))
				}
			}
			st, err := replicate.OpenStore(t.Context(), fmt.Sprint("mem://refused", i))
			must(t, err)
			if h, err := replicate.ReadHistory(t.Context(), st); err == nil && h.TXID > 0 {
				t.Errorf("something was replicated: %+v", h)
			}
		})
	}
}

// registryAll returns the databases that this package's VFSes have.
func registryAll() (all []*database) {
	registry.Lock()
	defer registry.Unlock()
	for _, v := range registry.byName {
		all = append(all, v.databases.all()...)
	}
	return all
}

// TestStackWrongKey: an encrypted database that is opened with another key, or by
// another base, is refused, and so is a second connection with another key while
// the first has written nothing yet.
func TestStackWrongKey(t *testing.T) {
	w := newStackWorld(t, "adiantum")
	w.existing("wal", 10)
	for _, tt := range []struct{ params, want string }{
		{"hexkey=" + otherKey, "not an SQLite database"},
	} {
		right := w.params
		w.params = []string{tt.params}
		if c, err := w.tryOpen(); err == nil {
			c.Close()
			t.Errorf("opened with %s", tt.params)
		} else {
			t.Log(err)
		}
		w.params = right
	}
	c := w.open()
	w.params[0] = "hexkey=" + otherKey
	if c, err := w.tryOpen(); err == nil {
		c.Close()
		t.Error("opened with two keys")
	}
	w.params[0] = "hexkey=" + testKey
	w.finish(c)
	Register("t_plain", Options{})
	if c, err := sqlite3.Open("file:" + w.path + "?vfs=t_plain&replica=mem://wrong"); err == nil {
		c.Close()
		t.Error("an encrypted database was opened as a plain one")
	} else {
		t.Log(err)
	}
}

// TestStackSecrets: neither key nor content is in what lies beside the database,
// in logs, or in the status.
func TestStackSecrets(t *testing.T) {
	for _, base := range encrypting {
		t.Run(base, func(t *testing.T) {
			var log bytes.Buffer
			w := overBase(newWorld(t, Options{Base: base, CloseTimeout: -1, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}), base)
			w.params = append(w.params, "_pragma=journal_mode(wal)")
			c := w.open()
			exec(t, c, "CREATE TABLE t(a)")
			w.stall() // so that the spool has it
			exec(t, c, "INSERT INTO t VALUES('a secret that is long enough'); PRAGMA wal_checkpoint(TRUNCATE)")
			w.secrets("a secret")
			status := text(t, c, "PRAGMA replicated_status")
			w.heal()
			w.finish(c)
			w.secrets("a secret")
			if strings.Contains(status+log.String(), testKey) {
				t.Error("the key is told")
			}
		})
	}
}
