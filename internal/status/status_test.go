package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// TestMain is also the process that TestStaleSocket kills.
func TestMain(m *testing.M) {
	if path := os.Getenv("STATUS_TEST_SERVE"); path != "" {
		s, err := Serve(path, none)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.Path())
		select {}
	}
	os.Exit(m.Run())
}

func none() []replicate.Status { return nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, path string, list func() []replicate.Status) *Server {
	t.Helper()
	s, err := Serve(path, list)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// otherProcess serves at path in another process, which it returns with the path.
func otherProcess(t *testing.T, path string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STATUS_TEST_SERVE="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	b := make([]byte, 1000)
	n, err := out.Read(b)
	must(t, err)
	return cmd, strings.TrimSpace(string(b[:n]))
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := replicate.Status{
		Database: "/var/lib/app.db", Replica: "s3://b/app", State: replicate.StateFenced, TXID: 7, Captured: 9,
		Owner: replicate.Owner{Host: "h", PID: 1, Program: "p", Since: since}, LastUpload: since,
		FencedBy: &replicate.Fencer{Session: "ab", Object: "log/1"}, LagSeconds: 1.5, Error: "e", Remedy: "r",
	}
	s := serve(t, path, func() []replicate.Status { return []replicate.Status{want} })
	r, err := Query(t.Context(), path)
	must(t, err)
	if len(r.Databases) != 1 || !reflect.DeepEqual(r.Databases[0], want) {
		t.Errorf("got %+v", r.Databases)
	}
	if r.Version != Version || r.Owner.PID != os.Getpid() || r.Owner.Program == "" || r.Owner.Since.IsZero() || r.Time.IsZero() || r.Outwash == "" {
		t.Errorf("got %+v", r)
	}
	fi, err := os.Stat(path)
	must(t, err)
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %o", fi.Mode().Perm())
	}
	must(t, s.Close())
	if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if _, err := Query(t.Context(), path); !errors.Is(err, ErrNobody) {
		t.Errorf("after Close: %v", err)
	}
}

// The socket never has other permissions, not for a moment.
func TestPermissionsFromTheBeginning(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("elsewhere the directory keeps others off")
		return
	}
	path := filepath.Join(t.TempDir(), "s.sock")
	c := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error { return restrict(conn) }}
	l, err := c.Listen(t.Context(), "unix", path)
	must(t, err)
	defer l.Close()
	fi, err := os.Stat(path)
	must(t, err)
	if fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("bind makes the socket with mode %o", fi.Mode().Perm())
	}
}

func TestLiveSocketIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	t.Run("same process", func(t *testing.T) {
		serve(t, path, none)
		if _, err := Serve(path, none); !errors.Is(err, errInUse) {
			t.Error(err)
		}
	})
	t.Run("other process", func(t *testing.T) {
		cmd, _ := otherProcess(t, path)
		if _, err := Serve(path, none); !errors.Is(err, errInUse) {
			t.Error(err)
		}
		r, err := Query(t.Context(), path)
		if err != nil || r.Owner.PID != cmd.Process.Pid {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("other program", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "other.sock")
		l, err := net.Listen("unix", path)
		must(t, err)
		defer l.Close()
		if _, err := Serve(path, none); !errors.Is(err, errInUse) {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(path + lockSuffix); len(left) > 0 {
			t.Errorf("left are %v", left)
		}
	})
	t.Run("no socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(path, []byte("precious"), 0o600))
		if _, err := Serve(path, none); err == nil {
			t.Error("a file was replaced")
		}
		if b, err := os.ReadFile(path); string(b) != "precious" {
			t.Error(string(b), err)
		}
	})
}

// A killed process leaves its socket, which the next one replaces.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	cmd, _ := otherProcess(t, path)
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("the test tests nothing: ", err)
	}
	if _, err := Query(t.Context(), path); !errors.Is(err, ErrNobody) {
		t.Error(err)
	}
	serve(t, path, none)
	r, err := Query(t.Context(), path)
	if err != nil || r.Owner.PID != os.Getpid() {
		t.Errorf("%+v, %v", r, err)
	}
}

// Processes with names of their own are found in their directory, and the dead ones
// swept from it.
func TestAuto(t *testing.T) {
	t.Setenv(Env, filepath.Join(t.TempDir(), "sockets"))
	cmd, dead := otherProcess(t, Auto)
	_, other := otherProcess(t, Auto)
	must(t, cmd.Process.Kill())
	cmd.Wait()
	mine := serve(t, Auto, none).Path()
	list, err := Sockets(Dir())
	must(t, err)
	found := map[string]bool{}
	for _, s := range list {
		if _, err := Query(t.Context(), s); err != nil {
			t.Error(err)
		}
		found[s] = true
	}
	if len(list) != 2 || !found[mine] || !found[other] || found[dead] {
		t.Errorf("found are %v; expected %s and %s without %s", list, mine, other, dead)
	}
	if _, err := os.Lstat(dead + lockSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the lock of the dead process is left")
	}
	fi, err := os.Stat(Dir())
	must(t, err)
	if fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %o", fi.Mode().Perm())
	}
}

func TestDir(t *testing.T) {
	for _, name := range []string{Env, "XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"} {
		t.Setenv(name, "")
	}
	want := "/run/outwash"
	if os.Getuid() != 0 {
		want = filepath.Join(os.TempDir(), fmt.Sprintf("outwash-%d", os.Getuid()))
	}
	check := func(want string, others bool) {
		t.Helper()
		if got := Dir(); got != want {
			t.Errorf("%s, expected %s", got, want)
		}
		if dirs := Dirs(); !slices.Contains(dirs, want) || slices.Contains(dirs, "/run/outwash") != others {
			t.Errorf("looked for in %v", dirs)
		}
	}
	check(want, true)
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	check("/run/user/7/outwash", true)
	t.Setenv("RUNTIME_DIRECTORY", "/run/other:/run/outwash")
	check("/run/outwash", true)
	t.Setenv(Env, "/shared")
	check("/shared", false)
}

func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o770))
	if _, err := Serve(filepath.Join(dir, "s"), none); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Error(err)
	}
	must(t, os.Chmod(dir, 0o777|fs.ModeSticky)) // as /tmp
	serve(t, filepath.Join(dir, "s"), none)

	if _, err := Serve(filepath.Join(dir, "missing", "s"), none); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if os.Getuid() == 0 { // others can't give their directories away
		foreign := t.TempDir()
		must(t, os.Chown(foreign, 12345, -1))
		if _, err := Serve(filepath.Join(foreign, "s"), none); err == nil || !strings.Contains(err.Error(), "another user (12345)") {
			t.Error(err)
		}
	}
	long := filepath.Join(dir, strings.Repeat("x", 200))
	for _, err := range []error{
		func() error { _, err := Serve(long, none); return err }(),
		func() error { _, err := Query(t.Context(), long); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("may have %d bytes", maxPath())) {
			t.Error(err)
		}
	}
	// The longest path that is said to be possible is.
	longest := filepath.Join("/tmp", strings.Repeat("x", maxPath()-len("/tmp/")))
	serve(t, longest, none)
	_, err := Query(t.Context(), longest)
	must(t, err)
}

// Nothing runs after Close.
func TestCloseEndsGoroutines(t *testing.T) {
	dir := t.TempDir()
	before := runtime.NumGoroutine()
	for i := range 20 {
		path := filepath.Join(dir, fmt.Sprint(i))
		s, err := Serve(path, none)
		must(t, err)
		conn, err := net.Dial("unix", path)
		must(t, err)
		defer conn.Close()
		must(t, s.Close())
		must(t, s.Close()) // once more is no harm
	}
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestAnnounce(t *testing.T) {
	database := filepath.Join(t.TempDir(), "app.db")
	if SocketOf(database) != "" {
		t.Error("nobody noted anything")
	}
	s := serve(t, filepath.Join(t.TempDir(), "s"), none)
	if err := s.Announce(database); err == nil {
		t.Error("there is no directory beside it")
	}
	must(t, os.Mkdir(database+local.Suffix, 0o700))
	for range 2 {
		must(t, s.Announce(database))
		if got := SocketOf(database); got != s.Path() {
			t.Errorf("noted is %q", got)
		}
	}
	must(t, os.WriteFile(database+local.Suffix+"/socket", []byte("relative/path\n"), 0o600))
	if got := SocketOf(database); got != "" {
		t.Errorf("noted is %q", got)
	}
}

// TestDocument pins the fields: within a version they are added, never changed.
func TestDocument(t *testing.T) {
	b, err := encode(replicate.Owner{Host: "h", PID: 1, Program: "p"}, time.Unix(0, 0).UTC(), nil)
	must(t, err)
	var doc map[string]any
	must(t, json.Unmarshal(b, &doc))
	for _, field := range []string{"version", "outwash", "owner", "time", "databases"} {
		if doc[field] == nil {
			t.Errorf("%s is missing in %s", field, b)
		}
	}
	b, err = encode(replicate.Owner{}, time.Time{}, []replicate.Status{{Error: "e", Remedy: "r", Warning: "w", FencedBy: &replicate.Fencer{}}})
	must(t, err)
	var full struct{ Databases []map[string]any }
	must(t, json.Unmarshal(b, &full))
	for _, field := range []string{
		"database", "replica", "id", "session", "owner", "state", "txid", "checksum", "captured", "backlog", "backlog_bytes",
		"spooled", "lag_seconds", "last_upload", "uploads", "uploaded", "retries", "history", "fenced_by", "warning", "error", "remedy",
	} {
		if _, ok := full.Databases[0][field]; !ok {
			t.Errorf("%s is missing in %s", field, b)
		}
	}
}
