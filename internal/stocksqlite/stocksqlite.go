// Package stocksqlite runs programs that know nothing of Outwash, for tests:
// SQLite as the C library that most programs link, in a process of its own that
// does what a test tells it, or works by itself, and can be killed.
//
// The program is a module of its own in directory program, so that no C compiler
// is needed for anything but tests. It is built at its first use and kept in the
// user's cache directory.
package stocksqlite

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/testserver"
)

// BusyTimeout is how long statements wait for locks, unless SQL says otherwise: longer
// than anybody holds one, on the slowest machine.
const BusyTimeout = time.Minute

// Build returns the program's executable.
func Build() (string, error) {
	dir, err := source()
	if err != nil {
		return "", err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return "", err
	}
	files, sum := map[string]string{}, sha256.New()
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		files[filepath.Base(name)] = string(text)
		sum.Write(fmt.Appendf(nil, "%s %d\n%s", filepath.Base(name), len(text), text))
	}
	p := testserver.Program{
		Name: "stock", Version: hex.EncodeToString(sum.Sum(nil)[:8]), Files: files,
		// A third of the time that -O2 -g takes.
		Env: []string{"CGO_ENABLED=1", "CGO_CFLAGS=-O1"},
	}
	bin, err := p.Build()
	if err != nil {
		return "", fmt.Errorf("stock SQLite, for which a C compiler is needed: %w", err)
	}
	return bin, nil
}

// source finds the program's module: tests run in the directory of their package.
func source() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		text, e := os.ReadFile(filepath.Join(dir, "go.mod"))
		if e == nil && bytes.HasPrefix(text, []byte("module github.com/outwash/outwash\n")) {
			return filepath.Join(dir, "internal", "stocksqlite", "program"), nil
		}
		if up := filepath.Dir(dir); up != dir {
			dir = up
			continue
		}
		err = errors.New("stock SQLite: the test doesn't run inside the repository")
	}
	return "", err
}

// Error is what SQLite answered.
type Error struct {
	Code     int    `json:"code"`     // 5: busy
	Extended int    `json:"extended"` // extended result code
	Text     string `json:"text"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("stock SQLite: %s (%d)", e.Text, e.Extended)
}

// child is a process of the program.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
	log *bytes.Buffer // its standard error

	once sync.Once
	err  error
}

// launch starts the program. It ends with the test, which closes its input even
// when it dies.
func launch(t testing.TB, args ...string) *child {
	t.Helper()
	bin, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(bin, args...), log: &bytes.Buffer{}}
	c.cmd.Stderr = c.log
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		if c.out, err = c.cmd.StdoutPipe(); err == nil {
			err = c.cmd.Start()
		}
	}
	if err != nil {
		t.Fatal("stock SQLite: ", err)
	}
	t.Cleanup(c.Kill)
	return c
}

// wait reaps the process. What it still prints must have been read before.
func (c *child) wait() error {
	c.once.Do(func() {
		if c.err = c.cmd.Wait(); c.err != nil {
			c.err = fmt.Errorf("stock SQLite: %w: %s", c.err, bytes.TrimSpace(c.log.Bytes()))
		}
	})
	return c.err
}

// Kill ends the process by SIGKILL, if it still runs, and waits until it is gone.
func (c *child) Kill() {
	_ = c.cmd.Process.Kill()
	_ = c.wait()
}

// PID is the process's.
func (c *child) PID() int { return c.cmd.Process.Pid }

// A Process does what it is told, through as many connections as it is asked for.
// It is itself the first of them. It isn't safe for concurrent use: what is to
// happen at the same time takes several processes, or a [Worker].
type Process struct {
	*child
	*Conn
	enc *json.Encoder
	dec *json.Decoder
}

// Start starts a process that works on the database at path. No file is opened
// before the first command.
func Start(t testing.TB, path string) *Process {
	t.Helper()
	p := &Process{child: launch(t, path, strconv.FormatInt(BusyTimeout.Milliseconds(), 10))}
	p.enc, p.dec = json.NewEncoder(p.in), json.NewDecoder(p.out)
	p.Conn = p.Connection(0)
	return p
}

// Connection returns one of the process's connections. It is opened by its first
// command.
func (p *Process) Connection(n int) *Conn { return &Conn{p: p, n: n} }

// Close closes all connections and ends the process.
func (p *Process) Close() error {
	if err := p.in.Close(); err != nil {
		return fmt.Errorf("stock SQLite: %w", err)
	}
	return p.wait()
}

// A Conn is a connection of a [Process].
type Conn struct {
	p *Process
	n int
}

type command struct {
	Conn int    `json:"conn"`
	Op   string `json:"op"`
	SQL  string `json:"sql,omitempty"`
	Args []any  `json:"args,omitempty"`
}

type reply struct {
	Rows  [][]string `json:"rows"`
	Error *Error     `json:"error"`
}

func (c *Conn) do(cmd command) ([][]string, error) {
	cmd.Conn = c.n
	if err := c.p.enc.Encode(cmd); err != nil {
		return nil, fmt.Errorf("stock SQLite: %w", err)
	}
	var r reply
	if err := c.p.dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("stock SQLite: the process ended: %w", errors.Join(err, c.p.wait()))
	}
	if r.Error != nil {
		return nil, r.Error
	}
	return r.Rows, nil
}

// Exec runs statements, with arguments (numbers, texts, nil) for the first. Of
// those that return rows it does the first row only: see Query.
func (c *Conn) Exec(sql string, args ...any) error {
	_, err := c.do(command{Op: "exec", SQL: sql, Args: args})
	return err
}

// Must is Exec that fails the test.
func (c *Conn) Must(sql string, args ...any) {
	c.p.t.Helper()
	if err := c.Exec(sql, args...); err != nil {
		c.p.t.Fatalf("%v: %.200s", err, sql)
	}
}

// Query runs one statement to its end and returns its rows as text, NULL as "".
func (c *Conn) Query(sql string, args ...any) ([][]string, error) {
	return c.do(command{Op: "query", SQL: sql, Args: args})
}

// Text returns the first value of a query, or fails the test.
func (c *Conn) Text(sql string, args ...any) string {
	c.p.t.Helper()
	rows, err := c.Query(sql, args...)
	if err != nil || len(rows) == 0 || len(rows[0]) == 0 {
		c.p.t.Fatalf("%v, %d rows: %.200s", err, len(rows), sql)
	}
	return rows[0][0]
}

// Checkpoint runs PRAGMA wal_checkpoint in a mode (PASSIVE, FULL, RESTART,
// TRUNCATE) and returns its three numbers.
func (c *Conn) Checkpoint(mode string) (ck Checkpoint, err error) {
	began := time.Now()
	rows, err := c.Query("PRAGMA wal_checkpoint(" + mode + ")")
	if err != nil {
		return ck, err
	}
	ck.Mode, ck.Took = mode, time.Since(began)
	_, err = fmt.Sscan(rows[0][0]+" "+rows[0][1]+" "+rows[0][2], &ck.Busy, &ck.Log, &ck.Done)
	return ck, err
}

// CloseConn closes the connection alone. Its next command opens it anew.
func (c *Conn) CloseConn() error {
	_, err := c.do(command{Op: "close"})
	return err
}

// Checkpoint is what one returned: https://www.sqlite.org/pragma.html#pragma_wal_checkpoint
type Checkpoint struct {
	Mode string
	Busy int // 1: it could not do all it was to do
	Log  int // frames in the log; -1: no WAL mode
	Done int // frames of it that are in the database
	Took time.Duration
}
