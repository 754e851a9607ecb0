// Package status lets other processes of a machine ask a replicating one how its
// databases do: over a Unix socket, for the user who runs it and for root.
//
// The protocol: who connects gets one JSON document, a [Report], and then the end of
// the stream. Nothing is read of what clients send. docs/status.md has the document's
// fields; within a version fields are added, never changed.
//
// Each process has a socket of its own. Unless it is told another one, it lies under
// a random name in [Dir], so that listing this directory finds all processes of a
// user; beside it a lock says that its process lives. For each database the file
// "socket" in the directory beside it names the socket.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// Version is that of the document.
const Version = 1

// Errors of Query, for errors.Is.
var (
	// ErrNobody: no process answers at this socket.
	ErrNobody = errors.New("no process answers")
	// ErrInvalid: what answers is not a process of Outwash, or one that is newer.
	ErrInvalid = errors.New("not a status report")
	// ErrSilent: a process is there, and doesn't answer.
	ErrSilent = errors.New("no answer: the process hangs, or is stopped")
	// ErrForbidden: the socket is another user's.
	ErrForbidden = errors.New("the socket is another user's")
)

// Report is what a process says of itself.
type Report struct {
	Version   int                `json:"version"` // of the document
	Outwash   string             `json:"outwash"` // version of the program's Outwash
	Owner     replicate.Owner    `json:"owner"`   // the process
	Time      time.Time          `json:"time"`    // when it was asked
	Databases []replicate.Status `json:"databases"`
}

const (
	// maxReport bounds what is read: some 2 KB for each of ten thousand databases,
	// and room for long errors.
	maxReport = 64 << 20
	// patience is how long a server waits for who doesn't read, and askTime how long a
	// client waits in all: until several who don't have had their turns.
	patience = 2 * time.Second
	askTime  = 10 * time.Second
)

// Query asks the process behind a socket. It waits some seconds at most.
func Query(ctx context.Context, path string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := checkLength(path); err != nil {
		return Report{}, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return Report{}, queryError(path, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // an answer may drip
	r, err := parse(conn)
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = ErrSilent
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if err != nil {
		return Report{}, fmt.Errorf("status: %s: %w", path, err)
	}
	return r, nil
}

// parse reads a report; what sends it isn't trusted.
func parse(from io.Reader) (Report, error) {
	in := &io.LimitedReader{R: from, N: maxReport + 1}
	b, err := io.ReadAll(in)
	if err != nil {
		return Report{}, fmt.Errorf("read: %w", err)
	}
	if in.N == 0 {
		return Report{}, fmt.Errorf("more than %d bytes: %w", maxReport, ErrInvalid)
	}
	var v struct {
		Version int `json:"version"`
	}
	// The version first: what a newer one means can't be known.
	if err := json.Unmarshal(b, &v); err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if v.Version != Version {
		return Report{}, fmt.Errorf("version %d, this outwash knows %d: use that of the process: %w", v.Version, Version, ErrInvalid)
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r, nil
}

// queryError tells that nobody is there from that one may not ask.
func queryError(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded): // many wait already
		return fmt.Errorf("status: %s: %w", path, ErrSilent)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("status: %s: %w", path, ErrNobody)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("status: %s: %w: ask as the user who runs the process, or as root", path, ErrForbidden)
	}
	return fmt.Errorf("status: %s: %w", path, err)
}

// Document is the report of this process, which began to replicate at since.
func Document(since time.Time, databases []replicate.Status) ([]byte, error) {
	return encode(thisProcess(since), time.Now().UTC(), databases)
}

// encode makes the document.
func encode(owner replicate.Owner, now time.Time, databases []replicate.Status) ([]byte, error) {
	if databases == nil {
		databases = []replicate.Status{} // a list, not null
	}
	b, err := json.Marshal(Report{Version, version(), owner, now, databases})
	return append(b, '\n'), err
}

// version is that of Outwash in this program.
var version = sync.OnceValue(func() string {
	const module = "github.com/outwash/outwash"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	if info.Main.Path == module {
		return info.Main.Version
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return "(unknown)"
})

// thisProcess is the owner of the report.
func thisProcess(now time.Time) replicate.Owner {
	host, _ := os.Hostname()
	program := ""
	if len(os.Args) > 0 {
		program = filepath.Base(os.Args[0])
	}
	return replicate.Owner{Host: host, PID: os.Getpid(), Program: program, Since: now.UTC().Truncate(time.Second)}
}

// SocketOf returns the socket that the process named which replicated the database
// last; "" if none did.
func SocketOf(database string) string {
	path, err := local.Socket(database)
	if err != nil || !filepath.IsAbs(path) {
		return ""
	}
	return path
}
