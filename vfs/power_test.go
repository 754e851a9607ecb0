package vfs

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/outwash/outwash/replicate"
)

// TestPowerLoss: what a loss of power takes, the database goes on where it was,
// without a question, if SQLite has kept everything: with synchronous=FULL.
func TestPowerLoss(t *testing.T) {
	for _, tt := range []struct {
		name string
		work func(l *life, c *conn) error
	}{
		// The note that was made on the way to WAL mode must not come back.
		{"note", func(l *life, c *conn) error {
			return l.all(l.sync(), l.insert(c), l.sync(), l.hold(), l.insert(c))
		}},
		// The file is not what the log began with any more: the join must be there.
		{"checkpoint", func(l *life, c *conn) error {
			return l.all(l.insert(c), l.sync(), l.run(c, "PRAGMA wal_checkpoint(RESTART)"), l.hold(), l.insert(c), l.run(c, "PRAGMA wal_checkpoint"))
		}},
		// The position that was adopted must be known to have been this file's.
		{"adopted", func(l *life, c *conn) error {
			return l.all(l.sync(), l.hold(), l.insert(c), l.run(c, "PRAGMA wal_checkpoint(TRUNCATE)"))
		}},
	} {
		for seed := range uint64(20) {
			t.Run(fmt.Sprint(tt.name, "/", seed), func(t *testing.T) {
				l := &life{seed: seed, slot: &slot{dir: t.TempDir(), name: "power"}, counts: &counts{}, history: newHistory(true)}
				l.verbose = func(s string) { t.Log(s) }
				l.r = rand.New(rand.NewPCG(seed, 7))
				l.bucket = replicate.NewMemStore()
				l.conf = conf{pageSize: 1024, journal: "wal", synchronous: "FULL", closeTimeout: -1, maxLag: replicate.AsFast, begin: "PRAGMA synchronous=EXTRA;", setup: "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0", smooth: true, steady: true}
				var err error
				l.m, err = l.newMachine("a")
				must(t, err)
				if tt.name == "adopted" {
					must(t, l.bring())
				}
				must(t, l.start(nil))
				defer l.end()
				must(t, tt.work(l, l.m.p.conns[0]))
				l.end()
				must(t, l.powerLoss())
				must(t, l.sync())
				must(t, l.checkSame())
			})
		}
	}
}

func (l *life) all(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *life) insert(c *conn) error { return l.run(c, "BEGIN IMMEDIATE;"+l.body(3)+"COMMIT") }

// hold keeps the store from taking anything more.
func (l *life) hold() error {
	l.m.p.setWeather(held)
	return nil
}
