package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/wal"
)

// syncs is a file system that notes what is synced, and fails as told.
type syncs struct {
	local.OS
	root string
	done []string
	fail map[string]error
	// during is called while something is synced.
	during func()
}

func (s *syncs) note(name string) error {
	what := "directory"
	if name != s.root {
		what = strings.TrimPrefix(name, filepath.Join(s.root, "t.db"))
	}
	s.done = append(s.done, what)
	if f := s.during; f != nil {
		s.during = nil
		f()
	}
	return s.fail[what]
}

func (s *syncs) SyncFile(name string) error { return s.note(name) }

func (s *syncs) SyncDir(name string) error {
	if name != s.root {
		return s.OS.SyncDir(name)
	}
	return s.note(name)
}

// take returns what was synced since it was last called.
func (s *syncs) take() string {
	defer func() { s.done = nil }()
	return strings.Join(s.done, " ")
}

// secured is a capture of which nothing but Durable is used.
type secured struct {
	*DB
	t  *testing.T
	fs *syncs
}

func newSecured(t *testing.T, guarded bool) *secured {
	s := &secured{t: t, fs: &syncs{root: t.TempDir(), fail: map[string]error{}}}
	path := filepath.Join(s.fs.root, "t.db")
	dir, err := local.OpenFS(path, s.fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	if s.DB, err = Open(Options{Path: path, Dir: dir, Guarded: guarded}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.durable.unknown()
	s.fs.take()
	return s
}

const page = 512

// header is that of a frame.
func header(salt uint32, commits bool) []byte {
	b := make([]byte, wal.FrameHeaderSize)
	b[3], b[11], b[15] = 1, byte(salt), byte(salt)
	if commits {
		b[7] = 1
	}
	return b
}

// frames writes frames from to last, of which the last one commits.
func (s *secured) frames(salt uint32, from, last int) {
	for n := from; n <= last; n++ {
		off := wal.FrameOffset(uint32(n), page)
		s.LogWritten(header(salt, n == last), off)
		s.LogWritten(make([]byte, page), off+wal.FrameHeaderSize)
	}
}

func at(salt uint32, frame int) segment.WALPosition {
	return segment.WALPosition{Salt: [2]uint32{salt, salt}, Frame: uint64(frame)}
}

// want has the state at pos made durable, and says which syncs that took.
func (s *secured) want(pos segment.WALPosition, syncs string) {
	s.t.Helper()
	if err := s.Durable(pos); err != nil {
		s.t.Fatal(err)
	}
	if got := s.fs.take(); got != syncs {
		s.t.Errorf("position %v took the syncs %q, not %q", pos, got, syncs)
	}
}

func (s *secured) connectionSyncs(err error) {
	if got := s.LogSync(func() error { return err }); !errors.Is(got, err) {
		s.t.Errorf("the connection was told %v", got)
	}
}

// TestDurableLog: what connections have synced is not synced again, and nothing else
// is taken to be durable.
func TestDurableLog(t *testing.T) {
	const everything = " -wal directory" // of a log that was there before
	for name, f := range map[string]func(*secured){
		"NORMAL": func(s *secured) {
			s.LogBegun([2]uint32{1, 1}, false)
			s.frames(1, 1, 3)
			s.want(at(1, 3), everything)
			s.want(at(1, 3), "")
			s.want(at(1, 2), "")
			s.frames(1, 4, 5)
			s.frames(1, 6, 6)
			s.want(at(1, 5), "-wal")
			s.want(at(1, 6), "") // was written before that sync began
			s.frames(1, 7, 7)
			s.want(at(1, 7), "-wal")
		},
		"FULL": func(s *secured) {
			s.LogBegun([2]uint32{1, 1}, false)
			s.frames(1, 1, 3)
			s.connectionSyncs(nil)
			s.want(at(1, 3), " directory")
			for n := 4; n < 8; n++ {
				s.frames(1, n, n)
				s.connectionSyncs(nil)
				s.want(at(1, n), "")
			}
		},
		"log that was there": func(s *secured) {
			s.want(at(1, 3), everything)
			s.want(at(1, 3), "")
			s.frames(1, 4, 4)
			s.connectionSyncs(nil)
			s.want(at(1, 4), "")
		},
		"restart": func(s *secured) {
			s.frames(1, 1, 3)
			s.connectionSyncs(nil)
			s.want(at(1, 3), " directory")
			s.LogBegun([2]uint32{2, 2}, false)
			s.frames(2, 1, 2)
			s.want(at(2, 2), "-wal")
		},
		"a new file's name": func(s *secured) {
			s.want(at(1, 1), everything)
			s.LogBegun([2]uint32{2, 2}, true)
			s.frames(2, 1, 1)
			s.connectionSyncs(nil)
			s.want(at(2, 1), "directory")
			s.want(at(2, 1), "")
		},
		"another program's frames": func(s *secured) {
			s.frames(1, 1, 3)
			s.connectionSyncs(nil)
			s.want(at(1, 3), " directory")
			s.want(at(1, 5), "-wal")
			s.frames(1, 6, 6)
			s.want(at(1, 6), "-wal")
		},
		"another program's generation": func(s *secured) {
			s.frames(1, 1, 3)
			s.connectionSyncs(nil)
			s.want(at(1, 3), " directory")
			s.want(at(2, 1), "-wal")
			s.want(at(2, 2), "-wal")
			s.want(at(2, 2), "-wal") // whose it is, is not known
		},
		"a transaction under way": func(s *secured) {
			s.frames(1, 1, 3)
			s.LogWritten(header(1, false), wal.FrameOffset(4, page)) // spilled; rolled back later
			s.LogWritten(make([]byte, page), wal.FrameOffset(4, page)+wal.FrameHeaderSize)
			s.connectionSyncs(nil) // another one's checkpoint
			s.want(at(1, 3), " directory")
			s.frames(1, 4, 4)
			s.want(at(1, 4), "-wal")
		},
		"a commit while it syncs": func(s *secured) {
			s.frames(1, 1, 3)
			s.LogSync(func() error { s.frames(1, 4, 4); return nil })
			s.want(at(1, 3), " directory")
			s.want(at(1, 4), "-wal")
			s.fs.during = func() { s.frames(1, 6, 6) }
			s.frames(1, 5, 5)
			s.want(at(1, 5), "-wal")
			s.want(at(1, 6), "-wal")
		},
		"checksums rewritten while it syncs": func(s *secured) {
			s.frames(1, 1, 3)
			s.LogSync(func() error {
				s.LogWritten(make([]byte, 8), wal.FrameOffset(2, page))
				return nil
			})
			s.want(at(1, 3), everything)
		},
		"a commit frame without its page": func(s *secured) {
			s.frames(1, 1, 3)
			s.LogWritten(header(1, true), wal.FrameOffset(4, page))
			s.connectionSyncs(nil)
			s.want(at(1, 3), " directory")
			s.want(at(1, 4), "-wal")
		},
	} {
		t.Run(name, func(t *testing.T) { f(newSecured(t, false)) })
	}
	t.Run("guarded", func(t *testing.T) { // other programs write, and nobody says what
		s := newSecured(t, true)
		s.want(at(1, 3), everything)
		s.want(at(1, 3), "")
		s.want(at(1, 4), "-wal")
		s.want(at(2, 1), "-wal")
		s.want(at(2, 1), "")
	})
}

// TestDurableJournal: without a log the file is made durable before what ends its
// journal, which could undo it.
func TestDurableJournal(t *testing.T) {
	none := segment.WALPosition{}
	commit := func(s *secured, end func()) {
		s.durable.started()
		if end != nil {
			end()
		}
		s.durable.ended()
		s.emitted.Add(1)
		s.settled.Store(s.emitted.Load())
	}
	gone := func(s *secured, durable bool) func() { return func() { s.JournalDeleted(durable) } }
	s := newSecured(t, false)
	s.want(none, " -journal directory")
	s.want(none, "")
	commit(s, nil) // TRUNCATE, PERSIST
	s.want(none, " -journal")
	commit(s, gone(s, false)) // DELETE
	s.want(none, " directory")
	commit(s, gone(s, true)) // DELETE with EXTRA
	s.want(none, "")
	if s.fs.take(); s.Durable(none) != nil || s.fs.take() != "" {
		t.Error("synced twice")
	}
	commit(s, gone(s, false))
	commit(s, gone(s, true))
	commit(s, nil)
	s.want(none, " -journal directory")
	s.JournalDeleted(false) // of a transaction that was rolled back
	commit(s, nil)
	s.want(none, " -journal directory")
}

// TestDurableFails: a sync that has failed is not made good by another one.
func TestDurableFails(t *testing.T) {
	fails := func(s *secured, pos segment.WALPosition) {
		t.Helper()
		if err := s.Durable(pos); !errors.Is(err, syscall.EIO) {
			t.Errorf("position %v: %v", pos, err)
		}
	}
	broken := &fs.PathError{Op: "sync", Path: "x", Err: syscall.EIO}
	heal := func(s *secured) { clear(s.fs.fail) }
	for name, f := range map[string]func(*secured){
		"log": func(s *secured) {
			s.frames(1, 1, 2)
			s.connectionSyncs(nil)
			s.want(at(1, 2), " directory")
			s.frames(1, 3, 3)
			s.fs.fail["-wal"] = broken
			fails(s, at(1, 3))
			heal(s)
			s.fs.take()
			fails(s, at(1, 3))
			s.frames(1, 4, 4)
			s.connectionSyncs(nil)
			fails(s, at(1, 4))
			s.want(at(1, 2), "") // was durable before
			// A checkpoint has written it all once more.
			s.LogBegun([2]uint32{2, 2}, false)
			s.frames(2, 1, 1)
			s.want(at(2, 1), "-wal")
		},
		"log, a connection": func(s *secured) {
			s.frames(1, 1, 2)
			s.connectionSyncs(syscall.EIO)
			s.connectionSyncs(nil)
			fails(s, at(1, 2))
		},
		"log of another program": func(s *secured) {
			s.frames(1, 1, 2)
			s.want(at(1, 2), " -wal directory")
			s.fs.fail["-wal"] = broken
			fails(s, at(2, 2))
			heal(s)
			fails(s, at(2, 2))
		},
		"file": func(s *secured) {
			s.fs.fail[""] = broken
			fails(s, segment.WALPosition{})
			heal(s)
			fails(s, segment.WALPosition{})
			if err := s.SyncFile(); !errors.Is(err, syscall.EIO) {
				t.Error("another sync counts:", err)
			}
		},
		"journal": func(s *secured) {
			s.fs.fail["-journal"] = broken
			fails(s, segment.WALPosition{})
			heal(s)
			fails(s, segment.WALPosition{})
		},
		"directory": func(s *secured) {
			s.fs.fail["directory"] = broken
			fails(s, at(1, 1))
			heal(s)
			fails(s, at(1, 1))
		},
	} {
		t.Run(name, func(t *testing.T) { f(newSecured(t, false)) })
	}
	t.Run("not tried", func(t *testing.T) { // too few files, say
		s := newSecured(t, false)
		s.fs.fail["-wal"] = &fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}
		if err := s.Durable(at(1, 1)); !errors.Is(err, syscall.EMFILE) {
			t.Error(err)
		}
		heal(s)
		s.fs.take()
		s.want(at(1, 1), "-wal directory")
	})
	t.Run("gone", func(t *testing.T) { // checkpointed and closed, or never there
		s := newSecured(t, false)
		for _, f := range []string{"", "-wal", "-journal"} {
			s.fs.fail[f] = fmt.Errorf("sync: %w", os.ErrNotExist)
		}
		s.want(at(1, 1), " -wal directory")
		s.want(segment.WALPosition{}, "-journal")
	})
}
