package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// litestreamResult is what Litestream needs for databases that nobody writes to.
type litestreamResult struct {
	start    float64 // seconds until something of each was uploaded
	resident int64
	cpu      float64 // seconds, in the time that follows
	calls    []call
}

// litestreamIdle has Litestream replicate a directory of databases.
func litestreamIdle(ctx context.Context, b *bench, dir string) (r litestreamResult, err error) {
	replica, calls, stop, err := b.counted(b.replica("s3", dir, "litestream"))
	if err != nil {
		return r, err
	}
	defer stop()
	l, err := b.litestreamOf(fmt.Sprintf("dir: %s\n    pattern: '*.db'\n    watch: true", dir), dir, "idle", endpoint(replica))
	if err != nil {
		return r, err
	}
	began := time.Now()
	end, err := l.start(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, end()) }()
	uploaded := map[string]bool{}
	for len(uploaded) < b.many {
		if time.Since(began) > 2*time.Minute {
			return r, fmt.Errorf("litestream: only %d of %d databases uploaded anything in two minutes", len(uploaded), b.many)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return r, err
		}
		for _, c := range calls.forget() {
			if name := tenant(c.Key); c.Operation == "PutObject" && name != "" {
				uploaded[name] = true
			}
		}
	}
	r.start = time.Since(began).Seconds()
	if err := pause(ctx, 10*time.Second); err != nil { // what has begun ends
		return r, err
	}
	calls.forget()
	used := processorTimeOf(l.pid)
	if err := pause(ctx, b.idleFor); err != nil {
		return r, err
	}
	r.calls = calls.forget()
	r.cpu = (processorTimeOf(l.pid) - used).Seconds()
	r.resident = procBytes(fmt.Sprintf("/proc/%d/status", l.pid), "VmRSS")
	return r, nil
}

// tenant is the database's name in a key; "": none.
func tenant(key string) string {
	for part := range strings.SplitSeq(key, "/") {
		if strings.HasPrefix(part, "tenant-") {
			return part
		}
	}
	return ""
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// processorTimeOf is what another process has used so far; 0: unknown. See
// proc_pid_stat(5), fields 14 and 15; the unit is a hundredth of a second.
func processorTimeOf(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// endpoint is the server of a replica's URL.
func endpoint(replica string) string {
	u, err := url.Parse(replica)
	if err != nil {
		return ""
	}
	return u.Query().Get("endpoint")
}
