package killtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
)

// The database: every transaction adds one to the counter and a row to log, with
// a hash over the content of all other tables. The hash is a sum over rows that
// triggers keep up to date. So a database says which commit it is, and whether
// its content is that commit's and no other's.
const schema = `
CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER);
INSERT INTO meta VALUES('ctr',0),('hash',0);
CREATE TABLE acc(id INTEGER PRIMARY KEY, bal INTEGER, pad TEXT);
CREATE TABLE blobs(id INTEGER PRIMARY KEY, data BLOB, tag TEXT);
CREATE INDEX blobs_tag ON blobs(tag);
CREATE TABLE log(seq INTEGER PRIMARY KEY, who TEXT, hash INTEGER);
CREATE INDEX log_who ON log(who);
CREATE TRIGGER acc_i AFTER INSERT ON acc BEGIN UPDATE meta SET v=v+rowhash(1,new.id,new.bal,new.pad) WHERE k='hash'; END;
CREATE TRIGGER acc_u AFTER UPDATE ON acc BEGIN UPDATE meta SET v=v+rowhash(1,new.id,new.bal,new.pad)-rowhash(1,old.id,old.bal,old.pad) WHERE k='hash'; END;
CREATE TRIGGER blobs_i AFTER INSERT ON blobs BEGIN UPDATE meta SET v=v+rowhash(2,new.id,new.data,new.tag) WHERE k='hash'; END;
CREATE TRIGGER blobs_u AFTER UPDATE ON blobs BEGIN UPDATE meta SET v=v+rowhash(2,new.id,new.data,new.tag)-rowhash(2,old.id,old.data,old.tag) WHERE k='hash'; END;
CREATE TRIGGER blobs_d AFTER DELETE ON blobs BEGIN UPDATE meta SET v=v-rowhash(2,old.id,old.data,old.tag) WHERE k='hash'; END;
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<100) INSERT INTO acc SELECT x,0,hex(randomblob(20)) FROM c;
`

// invariants are queries that must return 0 after every commit.
var invariants = []string{
	"SELECT total(bal) FROM acc",
	"SELECT (SELECT v FROM meta WHERE k='ctr') - (SELECT ifnull(max(seq),0) FROM log)",
	"SELECT (SELECT v FROM meta WHERE k='ctr') - (SELECT count(*) FROM log)",
	"SELECT (SELECT v FROM meta WHERE k='hash')" +
		" - (SELECT ifnull(sum(rowhash(1,id,bal,pad)),0) FROM acc) - (SELECT ifnull(sum(rowhash(2,id,data,tag)),0) FROM blobs)",
	"SELECT ifnull((SELECT hash FROM log ORDER BY seq DESC LIMIT 1) - (SELECT v FROM meta WHERE k='hash'),0)",
}

// addFunctions adds rowhash to a connection.
func addFunctions(c *sqlite3.Conn) error {
	return c.CreateFunction("rowhash", -1, sqlite3.DETERMINISTIC|sqlite3.INNOCUOUS, func(ctx sqlite3.Context, arg ...sqlite3.Value) {
		d := xxhash.New()
		for _, a := range arg {
			fmt.Fprintf(d, "%d/", a.Type())
			d.Write(a.RawBlob())
			d.Write([]byte{0})
		}
		ctx.ResultInt64(int64(d.Sum64() >> 24)) // sums of millions of them fit
	})
}

// execute runs a script whose last transaction may be left open by an error.
func execute(c *sqlite3.Conn, sql string) error {
	err := c.Exec(sql)
	if err != nil {
		c.Exec("ROLLBACK")
	}
	return err
}

// transaction makes a random one; it returns the counter if it was committed.
func transaction(r *rand.Rand, c *sqlite3.Conn, who string) (ctr string, err error) {
	if err := execute(c, "BEGIN IMMEDIATE"); err != nil {
		return "", err
	}
	if err := execute(c, body(r, who)); err != nil {
		return "", err
	}
	if r.IntN(8) == 0 {
		return "", execute(c, "ROLLBACK")
	}
	if ctr, err = mirror.Text(c, "SELECT v FROM meta WHERE k='ctr'"); err != nil {
		c.Exec("ROLLBACK")
		return "", err
	}
	if err := execute(c, "COMMIT"); err != nil {
		return "", err // busy, if the log could not start over: it is rolled back
	}
	return ctr, nil
}

func body(r *rand.Rand, who string) string {
	var sql bytes.Buffer
	change := func() {
		switch r.IntN(6) {
		case 0, 1, 2:
			a, b, m := r.IntN(100)+1, r.IntN(100)+1, r.IntN(1000)
			fmt.Fprintf(&sql, "UPDATE acc SET bal=bal-%d WHERE id=%d; UPDATE acc SET bal=bal+%d WHERE id=%d;", m, a, m, b)
		case 3: // large: the cache spills, frames are rewritten
			fmt.Fprintf(&sql, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<%d) INSERT INTO blobs(data,tag) SELECT randomblob(%d),hex(randomblob(4)) FROM c;",
				r.IntN(30)+1, r.IntN(4000)+1)
			fmt.Fprintf(&sql, "UPDATE acc SET pad=hex(randomblob(%d)) WHERE id%%%d=0;", r.IntN(40), r.IntN(20)+2)
		case 4:
			fmt.Fprintf(&sql, "DELETE FROM blobs WHERE id%%%d=%d;", r.IntN(5)+2, r.IntN(2))
		case 5:
			fmt.Fprintf(&sql, "UPDATE blobs SET tag=hex(randomblob(3)) WHERE id%%%d=1;", r.IntN(9)+1)
		}
	}
	for range r.IntN(3) + 1 {
		change()
	}
	if r.IntN(4) == 0 {
		sql.WriteString("SAVEPOINT s;")
		change()
		change()
		if r.IntN(2) == 0 {
			sql.WriteString("ROLLBACK TO s;")
		}
		sql.WriteString("RELEASE s;")
	}
	fmt.Fprintf(&sql, "UPDATE meta SET v=v+1 WHERE k='ctr'; INSERT INTO log SELECT (SELECT v FROM meta WHERE k='ctr'),'%s',(SELECT v FROM meta WHERE k='hash');", who)
	return sql.String()
}

// upkeep is something that is no transaction of the workload.
func upkeep(r *rand.Rand, c *sqlite3.Conn) error {
	switch r.IntN(8) {
	case 0:
		return execute(c, "VACUUM")
	case 1:
		return execute(c, "PRAGMA incremental_vacuum(20)")
	}
	_, _, err := c.WALCheckpoint("main", pick(r, sqlite3.CHECKPOINT_PASSIVE, sqlite3.CHECKPOINT_FULL, sqlite3.CHECKPOINT_RESTART, sqlite3.CHECKPOINT_TRUNCATE))
	return err
}

func pick[T any](r *rand.Rand, a ...T) T { return a[r.IntN(len(a))] }
