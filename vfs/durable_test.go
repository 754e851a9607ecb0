package vfs

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// The modes in which a loss of power leaves a state that was committed. teeth: what is
// uploaded would not survive it without the syncs before uploads. (The disk of these
// tests keeps names in order, so that DELETE's other syncs keep them, too: see
// internal/capture's TestDurableJournal.)
var promising = []struct {
	synchronous, journal string
	teeth                bool
}{
	{"NORMAL", "wal", true},
	{"FULL", "wal", false},
	{"FULL", "delete", false},
	{"FULL", "truncate", false},
	{"FULL", "persist", false},
	// SQLite syncs these journals once, so that they can be torn, in theory: see
	// https://sqlite.org/pragma.html#pragma_synchronous.
	{"NORMAL", "delete", false},
	{"NORMAL", "truncate", true},
	{"NORMAL", "persist", false},
}

// powerLife is a life that begins in one of the modes.
func powerLife(t *testing.T, seed uint64, synchronous, journal string) *life {
	l := &life{seed: seed, slot: &slot{dir: t.TempDir(), name: "durable"}, counts: &counts{}, history: newHistory(true)}
	l.verbose = func(s string) { t.Log(s) }
	l.r = rand.New(rand.NewPCG(seed, 7))
	l.bucket = replicate.NewMemStore()
	l.conf = conf{
		pageSize: 1024, journal: journal, synchronous: synchronous, closeTimeout: -1, maxLag: replicate.AsFast,
		setup: "PRAGMA synchronous=" + synchronous + "; PRAGMA wal_autocheckpoint=0", smooth: true, steady: true,
	}
	if journal != "wal" { // so that what precedes is synced as the rest is
		l.conf.begin = "PRAGMA synchronous=" + synchronous + "; "
	}
	return l
}

// TestUploadedSurvivesPowerLoss: a commit, its upload, perhaps another commit that is
// not uploaded, a loss of power. The database has what was uploaded, goes on by itself,
// and a restore gives what it is.
func TestUploadedSurvivesPowerLoss(t *testing.T) {
	for _, mode := range promising {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%s/%s/%d", mode.journal, mode.synchronous, seed), func(t *testing.T) {
				l := powerLife(t, seed, mode.synchronous, mode.journal)
				must(t, l.uploadAndLosePower(t))
				must(t, l.sync())
				must(t, l.checkSame())
			})
		}
	}
}

// TestUploadedSurvivesPowerLossHasTeeth: without the syncs before uploads the replica is
// ahead of the database.
func TestUploadedSurvivesPowerLossHasTeeth(t *testing.T) {
	for _, mode := range promising {
		if !mode.teeth {
			continue
		}
		t.Run(mode.journal+"/"+mode.synchronous, func(t *testing.T) {
			for seed := range uint64(50) {
				l := powerLife(t, seed, mode.synchronous, mode.journal)
				l.verbose = nil
				l.teeth.off = map[string]bool{"durable": true}
				if err := l.uploadAndLosePower(t); err != nil {
					if !strings.Contains(err.Error(), "behind its replica") {
						t.Error(err)
					}
					return
				}
			}
			t.Error("nobody notices")
		})
	}
}

// uploadAndLosePower leaves the next process running.
func (l *life) uploadAndLosePower(t *testing.T) (err error) {
	if l.m, err = l.newMachine("a"); err != nil {
		return err
	}
	t.Cleanup(func() { // before the directory is removed
		if l.m.p != nil {
			l.end()
		}
	})
	if err := l.start(nil); err != nil {
		return err
	}
	c := l.m.p.conns[0]
	if err := l.all(l.insert(c), l.sync(), l.insert(c), l.sync(), l.hold()); err != nil {
		return err
	}
	uploaded := l.cur
	if l.seed%2 == 0 {
		if err := l.insert(c); err != nil {
			return err
		}
	}
	l.end()
	l.lost, l.sure = true, uploaded
	return l.powerLoss()
}

// syncCounts counts what Outwash syncs.
type syncCounts struct {
	local.FS
	mu   sync.Mutex
	logs int
}

func (s *syncCounts) SyncFile(name string) error {
	if strings.HasSuffix(name, "-wal") {
		s.mu.Lock()
		s.logs++
		s.mu.Unlock()
	}
	return s.FS.SyncFile(name)
}

func (s *syncCounts) take() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.logs = 0 }()
	return s.logs
}

// TestLogSyncs: an upload syncs the log once, if SQLite has not: over a base that
// encrypts, too.
func TestLogSyncs(t *testing.T) {
	for _, base := range []string{"", "adiantum"} {
		for synchronous, want := range map[string]int{"NORMAL": 10, "FULL": 0, "OFF": 10} {
			t.Run(base+synchronous, func(t *testing.T) {
				fs := &syncCounts{FS: local.OS{}}
				opts := Options{Base: base}
				opts.hooks.files = fs
				w := newWorld(t, opts)
				if base != "" {
					overBase(w, base)
				}
				c := w.open("_pragma=journal_mode(wal)", "_pragma=synchronous("+synchronous+")")
				exec(t, c, "CREATE TABLE t(a)")
				w.sync()
				exec(t, c, "INSERT INTO t VALUES(0)")
				w.sync()
				fs.take()
				for range 10 {
					exec(t, c, "INSERT INTO t VALUES(1)")
					w.sync()
				}
				if got := fs.take(); got != want {
					t.Errorf("10 uploads synced the log %d times, not %d", got, want)
				}
				// Nothing to upload: nothing to sync.
				exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
				w.sync()
				if got := fs.take(); got != 0 {
					t.Errorf("a checkpoint synced the log %d times more", got)
				}
				must(t, c.Close())
				w.shutdown()
			})
		}
	}
}
