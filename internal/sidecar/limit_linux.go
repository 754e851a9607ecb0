package sidecar

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

const (
	// filesEach is how many files a database keeps open: itself, its log, their
	// locks, the local state's lock and spool.
	filesEach = 8
	// filesRest is for everything else: connections of databases that are being
	// started or closed, and to stores.
	filesRest = 256
	// restEach is how much of that one database may need.
	restEach = 16
)

// fileLimit warns when there are more databases than files can be opened for. Go has
// raised the limit to the hard one when the program began (package os, since 1.19).
type fileLimit struct{ told bool }

func (l *fileLimit) check(databases int, log *slog.Logger) {
	if l.told {
		return
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	if need := filesNeeded(databases); need > limit.Cur {
		l.told = true
		log.Warn("too few files can be opened for so many databases: raise the limit (ulimit -Hn, LimitNOFILE= in a systemd unit, --ulimit nofile= of a container)",
			"databases", databases, "needed", need, "limit", limit.Cur)
	}
}

func filesNeeded(databases int) uint64 {
	return uint64(databases*filesEach + min(filesRest, databases*restEach))
}
