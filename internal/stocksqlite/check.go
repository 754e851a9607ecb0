package stocksqlite

import (
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/mirror"
)

// invariants are queries that return 0 after every commit of a [Worker].
var invariants = []string{
	"SELECT total(bal) FROM acc",
	"SELECT (SELECT v FROM meta WHERE k='ctr') - (SELECT ifnull(max(seq),0) FROM log)",
	"SELECT (SELECT v FROM meta WHERE k='ctr') - (SELECT count(*) FROM log)",
	"SELECT (SELECT v FROM meta WHERE k='hash')" +
		" - (SELECT ifnull(sum(rowhash(1,id,bal,pad)),0) FROM acc) - (SELECT ifnull(sum(rowhash(2,id,data,tag)),0) FROM blobs)",
	"SELECT ifnull((SELECT hash FROM log ORDER BY seq DESC LIMIT 1) - (SELECT v FROM meta WHERE k='hash'),0)",
}

// A State is a state of a worker's database: the number of its last commit, and a
// hash of its log up to there. -1 is a database without the tables.
type State struct {
	Counter int
	Log     string
}

// Check checks an image of a worker's database, all of it, and says which state it
// is. at is the counter up to which the log is hashed, to compare states with a
// later one; below 0: the image's own.
func Check(image []byte, at int) (s State, err error) {
	err = mirror.Query(image, func(c *sqlite3.Conn) error {
		s, err = CheckConn(c, at)
		return err
	})
	return s, err
}

// CheckConn is Check for an open connection.
func CheckConn(c *sqlite3.Conn, at int) (State, error) {
	none := State{Counter: -1}
	if err := c.CreateFunction("rowhash", -1, sqlite3.DETERMINISTIC|sqlite3.INNOCUOUS, rowhash); err != nil {
		return none, err
	}
	if err := mirror.CheckConn(c, true); err != nil {
		return none, err
	}
	n, err := mirror.Text(c, "SELECT count(*) FROM sqlite_schema WHERE name='meta'")
	if err != nil || n == "0" {
		return none, err
	}
	if err := mirror.CheckConn(c, false, invariants...); err != nil {
		return none, err
	}
	ctr, err := mirror.Text(c, "SELECT v FROM meta WHERE k='ctr'")
	if err != nil {
		return none, err
	}
	var s State
	if s.Counter, err = strconv.Atoi(ctr); err != nil {
		return none, err
	}
	if at < 0 {
		at = s.Counter
	}
	s.Log, err = mirror.Text(c, fmt.Sprintf("SELECT count(*)||' '||ifnull(sum(rowhash(seq,who,hash)),0) FROM log WHERE seq<=%d", at))
	return s, err
}

// rowhash is what the program's function of this name is.
func rowhash(ctx sqlite3.Context, arg ...sqlite3.Value) {
	h := fnv.New64a()
	for _, a := range arg {
		h.Write([]byte{byte(a.Type())})
		h.Write(a.RawBlob())
		h.Write([]byte{0})
	}
	ctx.ResultInt64(int64(h.Sum64() >> 24))
}
