package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/ncruces/go-sqlite3"
)

// The ways to check a database.
const (
	checkNone  = "none"
	checkQuick = "quick"
	checkFull  = "full"
)

// errUncheckable: the database uses what only its application has.
var errUncheckable = errors.New("SQLite can't check this database alone")

// checkDatabase asks SQLite whether the database in path is sound. It opens the
// file immutable: nobody else has it, and no -wal or -shm shall appear beside it.
func checkDatabase(path, how string) error { return checkFile(path, how, "mode=ro&immutable=1") }

// checkLive does a quick check of a database that others may be using.
func checkLive(path string) error {
	return checkFile(path, checkQuick, "mode=ro&_pragma=busy_timeout(10000)")
}

func checkFile(path, how, params string) error {
	if how == checkNone {
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	name := (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(abs), RawQuery: params}).String()
	db, err := sqlite3.OpenFlags(name, sqlite3.OPEN_READONLY|sqlite3.OPEN_URI)
	if errors.Is(err, sqlite3.NOTADB) || errors.Is(err, sqlite3.CORRUPT) {
		return fmt.Errorf("%w: %w", errCheck, err)
	}
	if err != nil {
		return fmt.Errorf("open %s for its check: %w", path, err)
	}
	defer db.Close()
	pragma := `PRAGMA quick_check(20)`
	if how == checkFull {
		pragma = `PRAGMA integrity_check(20)`
	}
	out, err := queryText(db, pragma)
	switch {
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB):
		return fmt.Errorf("%w: %w", errCheck, err)
	case errors.Is(err, sqlite3.ERROR):
		// "no such collation sequence", for instance: nothing is wrong with the
		// database, but only its application can look into it.
		return fmt.Errorf("%w: %w", errUncheckable, err)
	case err != nil:
		return fmt.Errorf("check %s: %w", path, err)
	case out != "ok":
		return fmt.Errorf("%w: %s", errCheck, strings.ReplaceAll(out, "\n", "; "))
	}
	return nil
}

// queryText returns the first column of all rows, a line each.
func queryText(db *sqlite3.Conn, sql string) (string, error) {
	st, _, err := db.Prepare(sql)
	if err != nil {
		return "", err
	}
	defer st.Close()
	var lines []string
	for st.Step() {
		lines = append(lines, st.ColumnText(0))
	}
	return strings.Join(lines, "\n"), st.Err()
}
