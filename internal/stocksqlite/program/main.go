// Command stock is a program that knows nothing of Outwash: SQLite as the C
// library that most programs link, told by a test what to do. Package stocksqlite
// builds it and speaks with it.
//
//	stock PATH BUSY_MS    runs the commands that come as lines of JSON
//	stock work JSON       works by itself, and says what it committed
//
// It ends when its standard input does, so it never outlives the test.
package main

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/mattn/go-sqlite3"
)

// A command is a line of the input. A connection is opened by its first one.
type command struct {
	Conn int    `json:"conn"`
	Op   string `json:"op"` // exec, query, close
	SQL  string `json:"sql"`
	Args []any  `json:"args"`
}

// A reply is a line of the output: values as text, NULL as "".
type reply struct {
	Rows  [][]string `json:"rows,omitempty"`
	Error *failure   `json:"error,omitempty"`
}

// failure is an error of SQLite's.
type failure struct {
	Code     int    `json:"code"`
	Extended int    `json:"extended"`
	Text     string `json:"text"`
}

func fail(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	if e := (sqlite3.Error{}); errors.As(err, &e) {
		f.Code, f.Extended = int(e.Code), int(e.ExtendedCode)
	}
	return f
}

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "work":
		err = workMain(os.Args[2])
	case len(os.Args) == 3:
		err = serve(os.Args[1], os.Args[2])
	default:
		err = errors.New("usage: stock PATH BUSY_MS, or stock work JSON")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stock:", err)
		os.Exit(1)
	}
}

// serve does what the input says, until it ends.
func serve(path, busy string) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	in.UseNumber() // 64 bits wide integers
	conns := map[int]*sqlite3.SQLiteConn{}
	for {
		var c command
		if err := in.Decode(&c); errors.Is(err, io.EOF) {
			for _, conn := range conns {
				if err := conn.Close(); err != nil {
					return fmt.Errorf("close: %w", err)
				}
			}
			return nil
		} else if err != nil {
			return err
		}
		var r reply
		var err error
		r.Rows, err = do(conns, c, path, busy)
		r.Error = fail(err)
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

func do(conns map[int]*sqlite3.SQLiteConn, c command, path, busy string) ([][]string, error) {
	conn := conns[c.Conn]
	if c.Op == "close" {
		delete(conns, c.Conn)
		if conn == nil {
			return nil, nil
		}
		return nil, conn.Close()
	}
	if conn == nil {
		var err error
		if conn, err = open(path, busy); err != nil {
			return nil, err
		}
		conns[c.Conn] = conn
	}
	args, err := values(c.Args)
	if err != nil {
		return nil, err
	}
	if c.Op == "exec" {
		_, err := conn.Exec(c.SQL, args)
		return nil, err
	}
	return query(conn, c.SQL, args)
}

func open(path, busy string) (*sqlite3.SQLiteConn, error) {
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "_busy_timeout=" + busy}).String()
	c, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	conn := c.(*sqlite3.SQLiteConn)
	if err := conn.RegisterFunc("rowhash", rowhash, true); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func values(args []any) ([]driver.Value, error) {
	var vs []driver.Value
	for _, a := range args {
		switch v := a.(type) {
		case json.Number:
			if i, err := v.Int64(); err == nil {
				vs = append(vs, i)
			} else if f, err := v.Float64(); err == nil {
				vs = append(vs, f)
			} else {
				return nil, err
			}
		case string, bool, nil:
			vs = append(vs, v)
		default:
			return nil, fmt.Errorf("argument %T: numbers, texts and null only", a)
		}
	}
	return vs, nil
}

// query runs one statement to its end.
func query(c *sqlite3.SQLiteConn, sql string, args []driver.Value) (rows [][]string, err error) {
	rs, err := c.Query(sql, args)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rs.Close()) }()
	row := make([]driver.Value, len(rs.Columns()))
	for {
		switch err := rs.Next(row); {
		case errors.Is(err, io.EOF):
			return rows, nil
		case err != nil:
			return nil, err
		}
		texts := make([]string, len(row))
		for i, v := range row {
			switch v := v.(type) {
			case nil:
			case []byte:
				texts[i] = string(v)
			default:
				texts[i] = fmt.Sprint(v)
			}
		}
		rows = append(rows, texts)
	}
}

// rowhash is the function of the same name that package stocksqlite gives to the
// connections that check: of types and bytes of its arguments.
func rowhash(args ...any) int64 {
	h := fnv.New64a()
	for _, a := range args {
		var kind byte
		var b []byte
		switch v := a.(type) {
		case int64:
			kind, b = 1, strconv.AppendInt(nil, v, 10)
		case string:
			kind, b = 3, []byte(v)
		case []byte:
			kind, b = 4, v
		case nil:
			kind = 5
		default:
			panic(fmt.Sprintf("rowhash of %T", a))
		}
		h.Write(bytes.Join([][]byte{{kind}, b, {0}}, nil))
	}
	return int64(h.Sum64() >> 24) // sums of millions of them fit
}
