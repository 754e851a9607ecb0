package status

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/gofrs/flock"
)

// Auto is the path of a socket that gets a name of its own in Dir.
const Auto = "auto"

const (
	suffix     = ".sock"
	lockSuffix = ".lock"
)

// rootDir is root's, and that of a systemd unit with RuntimeDirectory=outwash.
const rootDir = "/run/outwash"

// Env names the environment variable with the one directory to use: one that two
// containers share, say.
const Env = "OUTWASH_SOCKET_DIR"

// Dir is where processes of this user have their sockets: $OUTWASH_SOCKET_DIR;
// /run/outwash in a systemd unit that has it; below $XDG_RUNTIME_DIR; without it
// /run/outwash for root, and the directory for temporary files for others.
func Dir() string {
	if d := os.Getenv(Env); filepath.IsAbs(d) {
		return d
	}
	// systemd.exec(5): the directories of RuntimeDirectory=, separated by colons.
	if slices.Contains(filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")), rootDir) {
		return rootDir
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		return filepath.Join(d, "outwash")
	}
	if os.Getuid() == 0 {
		return rootDir
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("outwash-%d", os.Getuid()))
}

// Dirs are the directories in which to look for processes: the user's own, that of
// services, and for root those of everybody who is logged in.
func Dirs() []string {
	if d := os.Getenv(Env); filepath.IsAbs(d) {
		return []string{d}
	}
	dirs := []string{Dir(), rootDir}
	if os.Getuid() == 0 {
		users, _ := filepath.Glob("/run/user/*/outwash") // the pattern is good
		dirs = append(dirs, users...)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Sockets lists the sockets in a directory, dead ones included; none if there is no
// such directory. One that is another user's alone is an error.
func Sockets(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	var list []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && e.Type()&fs.ModeSocket != 0 {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list, nil
}

// autoPath makes Dir, removes what dead processes left there, and returns a path
// that is free.
func autoPath() (string, error) {
	dir := Dir()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("status: make the directory of the status socket: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return "", err
	}
	if err := checkLength(filepath.Join(dir, "0123456789abcdef"+suffix)); err != nil {
		return "", err
	}
	sweep(dir)
	// Not the PID: two containers that share the directory can both have number 1.
	var b [8]byte
	rand.Read(b[:])
	return filepath.Join(dir, hex.EncodeToString(b[:])+suffix), nil
}

// sweep removes sockets whose process is gone: what nobody has locked.
func sweep(dir string) {
	locks, _ := filepath.Glob(filepath.Join(dir, "*"+suffix+lockSuffix)) // where dir has signs of patterns, nothing is swept
	for _, name := range locks {
		l := flock.New(name, flock.SetFlag(os.O_RDONLY)) // not made anew
		if ok, err := l.TryLock(); ok && err == nil && same(l) {
			os.Remove(strings.TrimSuffix(name, lockSuffix))
			os.Remove(name)
		}
		l.Close() //nolint:errcheck // only read
	}
}

// same reports whether the locked file is still the one with its name: it may have
// been removed, by who had locked it before.
func same(l *flock.Flock) bool {
	locked, err := l.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(l.Path())
	return err == nil && os.SameFile(locked, named)
}

// checkDir refuses a directory in which somebody else could put another socket in
// the place of ours.
func checkDir(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("status: the directory of the status socket: %w: make it, or choose another one", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("status: %s, where the status socket is to be, is no directory", dir)
	}
	if uid, ok := ownerOf(fi); ok && uid != 0 && uid != os.Getuid() {
		return fmt.Errorf("status: %s belongs to another user (%d), who could replace the status socket in it: choose another directory", dir, uid)
	}
	if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("status: others may write to %s and could replace the status socket in it: chmod go-w it, or choose another directory", dir)
	}
	return nil
}

// maxPath is the length of sun_path without the zero at its end: unix(7) of Linux,
// sys/un.h of macOS and the BSDs.
func maxPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

func checkLength(path string) error {
	if n := len(path); n > maxPath() {
		return fmt.Errorf("status: the path of a socket may have %d bytes, and %s has %d: choose a shorter one", maxPath(), path, n)
	}
	return nil
}
