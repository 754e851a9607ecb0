package status

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

// Clients that connect and don't read, or go away, hold up nobody while there are fewer
// than turns, and for longer than patience otherwise; Close doesn't wait for them at all.
func TestSlowClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	big := make([]replicate.Status, 1000) // more than the system keeps for who doesn't read
	for i := range big {
		big[i].Error = strings.Repeat("x", 1000)
	}
	var asked atomic.Int32
	// Nobody's patience ends in this test: what waited for it would not end, either.
	s, err := serveWith(path, func() []replicate.Status { asked.Add(1); return big }, time.Hour)
	must(t, err)
	defer s.Close()
	for range mostClients - 1 {
		conn, err := net.Dial("unix", path)
		must(t, err)
		defer conn.Close()
	}
	for range 3 { // come and go
		conn, err := net.Dial("unix", path)
		must(t, err)
		conn.Close()
	}
	r, err := Query(t.Context(), path)
	must(t, err)
	if len(r.Databases) != len(big) {
		t.Errorf("%d databases", len(r.Databases))
	}
	for range 2 * mostClients { // all turns are taken
		conn, err := net.Dial("unix", path)
		must(t, err)
		defer conn.Close()
	}
	must(t, s.Close())
	if asked.Load() < mostClients {
		t.Error("the test tests nothing")
	}
}

// What answers may be anything.
func TestHostileReports(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":        "",
		"half":           `{"version":1,"databases":[{"data`,
		"not JSON":       "HTTP/1.1 400 Bad Request\r\n\r\n",
		"list":           `[1,2]`,
		"no version":     `{}`,
		"newer":          `{"version":2,"databases":"another thing"}`,
		"other types":    `{"version":1,"databases":[{"txid":"seven"}]}`,
		"negative":       `{"version":1,"databases":[{"txid":-1}]}`,
		"two documents":  `{"version":1,"databases":[]}{"version":1}`,
		"deeply nested":  strings.Repeat("[", 1_000_000),
		"too long":       `{"version":1,"databases":[],"x":"` + strings.Repeat("x", maxReport) + `"}`,
		"endless":        strings.Repeat(" ", maxReport+1<<20),
		"not a database": `{"version":1,"databases":[7]}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := answering(t, func(conn net.Conn) { conn.Write([]byte(answer)) })
			if r, err := Query(t.Context(), path); !errors.Is(err, ErrInvalid) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	t.Run("unknown fields", func(t *testing.T) {
		path := answering(t, func(conn net.Conn) {
			conn.Write([]byte(`{"version":1,"weather":"fine","databases":[{"database":"/a","state":"resting","new":{"a":[1]}}]}`))
		})
		if r, err := Query(t.Context(), path); err != nil || len(r.Databases) != 1 || r.Databases[0].State != "resting" {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("silent", func(t *testing.T) {
		hold := make(chan struct{})
		path := answering(t, func(net.Conn) { <-hold })
		defer close(hold)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := Query(ctx, path); !errors.Is(err, ErrSilent) {
			t.Error(err)
		}
	})
	t.Run("dripping", func(t *testing.T) {
		path := answering(t, func(conn net.Conn) {
			for range 10_000 {
				if _, err := conn.Write([]byte(" ")); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := Query(ctx, path); !errors.Is(err, ErrSilent) {
			t.Error(err)
		}
	})
}

// answering listens as another program would.
func answering(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	return path
}
