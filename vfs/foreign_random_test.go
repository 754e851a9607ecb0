package vfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

// TestForeignRandom mixes at random what we and another program do, in WAL mode
// and without, with checkpoints of every kind, closes, crashes and outages. What
// is in the replica can be restored after all of it, and is the database.
func TestForeignRandom(t *testing.T) {
	rounds := max(2, *flagRounds*3)
	for i := range rounds {
		seed := *flagSeed + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { foreignRandom(t, rand.New(rand.NewPCG(seed, 77))) })
	}
}

// foreignOnce runs SQL on a connection of another program that is open no longer.
func (w *world) foreignOnce(sql string) {
	w.t.Helper()
	f := w.foreign()
	if err := f.Exec("PRAGMA busy_timeout=1; " + sql); err != nil && !errors.Is(err, sqlite3.BUSY) {
		w.t.Error(sql, err)
	}
	must(w.t, f.Close())
}

func foreignRandom(t *testing.T, r *rand.Rand) {
	w := newWorld(t, Options{CloseTimeout: -1})
	c := w.open()
	exec(t, c, "PRAGMA journal_mode="+pick(r, "wal", "wal", "delete", "truncate", "persist")+"; CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY, b)")
	w.sync()
	var f *sqlite3.Conn
	var did []string
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(did, "\n"))
		}
	}()
	var still []func()
	// run reports whether the connection can be used on. One that switched to WAL
	// mode and isn't let out of it again answers I/O errors afterwards, with the
	// driver alone as well.
	run := func(who string, c *sqlite3.Conn, sql string) (sound bool) {
		did = append(did, who+" "+sql)
		err := c.Exec(sql)
		if err != nil {
			did = append(did, "  "+err.Error())
			if !errors.Is(err, sqlite3.BUSY) && !errors.Is(err, sqlite3.LOCKED) {
				t.Fatal(err)
			}
		}
		return err == nil || !strings.Contains(sql, "journal_mode")
	}
	sql := func() string {
		table := pick(r, "t", "u")
		switch r.IntN(12) {
		case 0, 1, 2:
			return fmt.Sprintf("INSERT INTO %s(b) VALUES(randomblob(%d))", table, r.IntN(6000))
		case 3, 4:
			return fmt.Sprintf("UPDATE %s SET b=randomblob(%d) WHERE a%%3=%d", table, r.IntN(300), r.IntN(3))
		case 5:
			return fmt.Sprintf("DELETE FROM %s WHERE a%%4=%d", table, r.IntN(4))
		case 6, 7, 8:
			return "PRAGMA wal_checkpoint(" + pick(r, "PASSIVE", "FULL", "RESTART", "TRUNCATE") + ")"
		case 9:
			return "BEGIN; DELETE FROM " + table + "; INSERT INTO " + table + "(b) VALUES(zeroblob(50000)); ROLLBACK"
		case 10:
			return pick(r, "VACUUM", "PRAGMA incremental_vacuum", "CREATE TABLE IF NOT EXISTS x(a)", "DROP TABLE IF EXISTS x")
		}
		return "PRAGMA journal_mode=" + pick(r, "wal", "wal", "delete", "truncate", "persist")
	}
	for range 60 {
		switch n := r.IntN(20); {
		case n < 7:
			if !run("us", c, sql()) {
				must(t, c.Close())
				c = w.open()
			}
		case n < 13:
			if f == nil {
				f = w.foreign()
				exec(t, f, "PRAGMA busy_timeout=1")
			}
			for range 1 + r.IntN(4) { // faster than they are looked at
				if !run("they", f, sql()) {
					must(t, f.Close())
					f = nil
					break
				}
			}
		case n < 15 && f != nil:
			did = append(did, "they close")
			must(t, f.Close())
			f = nil
		case n < 16:
			did = append(did, "we close")
			must(t, c.Close())
			if r.IntN(2) == 0 {
				did = append(did, "we shut down")
				w.heal()
				w.shutdown()
			}
			if r.IntN(2) == 0 {
				w.foreignOnce(sql())
			}
			c = w.open()
		case n < 17 && f == nil: // its connection would keep the WAL-index
			did = append(did, "we crash")
			w.crash(c)
			w.heal()
			c = w.open()
		case n < 18:
			did = append(did, "outage")
			w.stall()
		default:
			did = append(did, "sync")
			w.heal()
			txid := w.sync()
			image := w.restore(txid)
			const query = "SELECT ifnull(group_concat(a||':'||hex(b)),'') FROM (SELECT * FROM t UNION ALL SELECT -a,b FROM u ORDER BY 1)"
			must(t, queryImage(image, query, text(t, c, query)))
			if len(still) < 4 {
				still = append(still, func() {
					t.Helper()
					if string(w.restore(txid)) != string(image) {
						t.Errorf("TXID %d is restored to something else now", txid)
					}
				})
			}
		}
	}
	w.heal()
	if f != nil {
		must(t, f.Close())
	}
	exec(t, c, "INSERT INTO t(b) VALUES('end')")
	w.finish(c)
	for _, f := range still {
		f()
	}
}
