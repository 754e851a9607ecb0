package status

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// mostClients is how many are answered at once; others wait for their turn.
const mostClients = 8

// Server answers at a socket until it is closed.
type Server struct {
	path     string
	list     func() []replicate.Status
	owner    replicate.Owner
	listener net.Listener
	lock     *flock.Flock
	closing  context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup
	patience time.Duration

	mu    sync.Mutex
	noted map[string]bool // databases beside which the path is noted
}

// Serve answers at path what list says, which must not block for long. The socket's
// directory must exist, unless path is Auto. A socket that a dead process left is
// replaced; that of a living one never is. Its permissions are 0600.
func Serve(path string, list func() []replicate.Status) (*Server, error) {
	return serveWith(path, list, patience)
}

func serveWith(path string, list func() []replicate.Status, patience time.Duration) (*Server, error) {
	if runtime.GOOS == "windows" {
		return nil, errors.New("status: sockets have no permissions on windows: not supported")
	}
	s := &Server{list: list, owner: thisProcess(time.Now()), patience: patience, noted: map[string]bool{}}
	var err error
	if path == Auto {
		s.path, s.lock, err = lockAuto()
	} else {
		s.path, s.lock, err = lockGiven(path)
	}
	if err != nil {
		return nil, err
	}
	if s.listener, err = listen(s.path); err != nil {
		s.unlock()
		return nil, err
	}
	s.closing, s.stop = context.WithCancel(context.Background())
	s.running.Go(s.accept)
	return s, nil
}

func lockGiven(path string) (string, *flock.Flock, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = checkDir(filepath.Dir(path))
	}
	if err == nil {
		err = checkLength(path)
	}
	if err != nil {
		return path, nil, err
	}
	l, err := lockSocket(path)
	return path, l, err
}

// lockAuto looks for a name in Dir. Who sweeps there may have hold of a lock that is
// only just made; then it is another name.
func lockAuto() (path string, l *flock.Flock, err error) {
	for range 10 {
		if path, err = autoPath(); err != nil {
			return path, nil, err
		}
		if l, err = lockSocket(path); !errors.Is(err, errInUse) {
			break
		}
	}
	return path, l, err
}

// lockSocket takes the right to the path, which dies with the process.
func lockSocket(path string) (*flock.Flock, error) {
	for {
		l := flock.New(path+lockSuffix, flock.SetPermissions(0o600))
		ok, err := l.TryLock()
		if err != nil {
			return nil, fmt.Errorf("status: lock %s: %w", l.Path(), err)
		}
		if !ok {
			l.Close() //nolint:errcheck // nothing was written
			return nil, inUse(path)
		}
		if same(l) {
			return l, nil
		}
		l.Close() //nolint:errcheck // nothing was written
	}
}

var errInUse = errors.New("the socket of a process that is running")

func inUse(path string) error {
	return fmt.Errorf("status: %s is %w: choose another path, or %q", path, errInUse, Auto)
}

// listen makes the socket, with the right to it.
func listen(path string) (net.Listener, error) {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("status: %w", err)
	case fi.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("status: %s exists and is no socket: choose another path", path)
	default:
		// Nobody of ours has it. Another program that listens there keeps it.
		conn, err := net.DialTimeout("unix", path, patience)
		if err == nil {
			conn.Close()
			return nil, inUse(path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("status: %s exists, and whether it is in use can't be found out: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("status: remove the socket of a dead process: %w", err)
		}
	}
	// With the permissions of the descriptor Linux makes the file (unix_bind in
	// net/unix/af_unix.c), so that there is no moment at which others may connect.
	// Where it can't be done, the directory keeps them off until Chmod.
	c := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error { return restrict(conn) }}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("status: %w", err)
	}
	return l, nil
}

// Path is where the server answers.
func (s *Server) Path() string { return s.path }

// Announce notes beside a database that its process answers here. It is meant to be
// called often: it writes once.
func (s *Server) Announce(database string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noted[database] {
		return nil
	}
	if err := local.NoteSocket(database, s.path); err != nil {
		return err
	}
	s.noted[database] = true
	return nil
}

func (s *Server) accept() {
	turns := make(chan struct{}, mostClients)
	for {
		select {
		case turns <- struct{}{}:
		case <-s.closing.Done():
			return
		}
		conn, err := s.listener.Accept()
		if err == nil {
			s.running.Go(func() {
				defer func() { <-turns }()
				s.answer(conn)
			})
			continue
		}
		<-turns
		// No more descriptors, perhaps: that passes.
		select {
		case <-s.closing.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// answer writes the document. Who doesn't read it is dropped.
func (s *Server) answer(conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(s.closing, func() { conn.Close() })()
	b, err := encode(s.owner, time.Now().UTC(), s.list())
	if err != nil {
		return // nobody could be told: a status always has a JSON form
	}
	if conn.SetWriteDeadline(time.Now().Add(s.patience)) == nil {
		conn.Write(b) //nolint:errcheck // the client has gone away, or is too slow
	}
}

// Close ends the server; nothing of it runs afterwards, and its socket is gone.
func (s *Server) Close() error {
	s.stop()
	err := s.listener.Close() // which removes the socket
	s.running.Wait()
	s.unlock()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("status: %w", err)
	}
	return nil
}

// unlock gives the right to the path back. The file goes first: who has it open
// already sees that it is no more.
func (s *Server) unlock() {
	os.Remove(s.lock.Path())
	s.lock.Close() //nolint:errcheck // nothing was written
}
