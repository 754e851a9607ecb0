package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Service is what the file says of outwash replicate as a whole. It is nothing to
// programs that replicate by themselves.
type Service struct {
	Exec      string // the command of the program to run, "": none
	Addr      string // where figures and health are served, "": nowhere
	Socket    Socket
	Logging   Logging
	Heartbeat Heartbeat
	// ShutdownTimeout is how long the end may take for what is not uploaded; nil: not
	// given.
	ShutdownTimeout *time.Duration
	Sources         []Source // where all that stands, in the file's order
}

// Socket is where outwash status asks.
type Socket struct {
	Enabled     *bool       // nil: not given
	Path        string      // "": not given
	Permissions fs.FileMode // 0: not given
}

// Logging says how outwash replicate logs; zero fields: not given.
type Logging struct {
	Level  string // debug, info, warn or error
	Format string // text or json
	Source bool   // with the place in the source
}

// Heartbeat is a URL that is asked while all is well.
type Heartbeat struct {
	URL      string // "": none. It may have secrets in it
	Interval time.Duration
}

// DefaultHeartbeat is how often a heartbeat is sent where the file says nothing else,
// as with Litestream.
const DefaultHeartbeat = 5 * time.Minute

// Format shows what is set, and no value: commands and URLs may have secrets in them.
func (s Service) Format(f fmt.State, _ rune) {
	var names []string
	for _, at := range s.Sources {
		names = append(names, at.Name)
	}
	_, _ = fmt.Fprint(f, names)
}

// Value shows the setting of a source; "set" in the place of what may be secret.
func (s Service) Value(name string) string {
	switch name {
	case "addr":
		return s.Addr
	case "socket: enabled":
		return fmt.Sprint(*s.Socket.Enabled)
	case "socket: path":
		return s.Socket.Path
	case "socket: permissions":
		return fmt.Sprintf("%#o", s.Socket.Permissions)
	case "logging: level":
		return s.Logging.Level
	case "logging: type":
		return s.Logging.Format
	case "logging: stderr":
		return "true"
	case "logging: source":
		return fmt.Sprint(s.Logging.Source)
	case "heartbeat-interval":
		return s.Heartbeat.Interval.String()
	case "shutdown-sync-timeout":
		return s.ShutdownTimeout.String()
	}
	return "set" // commands and URLs
}

// Format shows how often, whatever the verb.
func (h Heartbeat) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "every %s", h.Interval) }

// LogLevel is a level by its name; false if there is none.
func LogLevel(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "trace": // Litestream's, for what is more than debug
		return slog.LevelDebug - 4, true
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn", "warning":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	}
	return 0, false
}

// service reads what the file's top says of outwash replicate.
func (r *reader) service() {
	s := &r.c.Service
	r.each(
		setter{"", "exec", func(v string) string { s.Exec = v; return "" }},
		setter{"", "addr", func(v string) string {
			if _, port, err := net.SplitHostPort(v); err != nil || port == "" {
				return "an address like :9090 or 127.0.0.1:9090 is expected"
			}
			s.Addr = v
			return ""
		}},
		setter{"socket", "enabled", func(v string) string {
			b, ok := boolean(v)
			if !ok {
				return "true or false is expected"
			}
			s.Socket.Enabled = &b
			return ""
		}},
		setter{"socket", "path", func(v string) (problem string) {
			s.Socket.Path, problem = file(v)
			return problem
		}},
		setter{"socket", "permissions", func(v string) string {
			// As YAML has numbers: octal with a 0 in front.
			n, err := strconv.ParseUint(v, 0, 32)
			if err != nil || n == 0 || n&^0o777 != 0 || n&0o600 != 0o600 {
				return "a mode like 0600 or 0660 is expected, with which the owner may read and write"
			}
			s.Socket.Permissions = fs.FileMode(n)
			return ""
		}},
		setter{"logging", "level", func(v string) string {
			if _, ok := LogLevel(v); !ok {
				return "debug, info, warn or error is expected"
			}
			s.Logging.Level = strings.ToLower(v)
			return ""
		}},
		setter{"logging", "type", func(v string) string {
			if s.Logging.Format = strings.ToLower(v); s.Logging.Format != "text" && s.Logging.Format != "json" {
				return "text or json is expected"
			}
			return ""
		}},
		setter{"logging", "stderr", func(v string) string {
			if _, ok := boolean(v); !ok {
				return "true or false is expected"
			}
			return "" // where the log goes always: stdout is the program's of -exec
		}},
		setter{"logging", "source", func(v string) (problem string) {
			var ok bool
			if s.Logging.Source, ok = boolean(v); !ok {
				return "true or false is expected"
			}
			return ""
		}},
		setter{"", "heartbeat-url", func(v string) string {
			u, err := url.Parse(v)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return "a URL that begins with http:// or https:// is expected"
			}
			s.Heartbeat.URL = v
			return ""
		}},
		setter{"", "heartbeat-interval", func(v string) string {
			// Litestream v0.5.18 wants as much (MinHeartbeatInterval).
			if d, ok := interval(v); !ok || d < time.Minute {
				return "a duration of at least 1m is expected"
			} else {
				s.Heartbeat.Interval = d
			}
			return ""
		}},
		setter{"", "shutdown-sync-timeout", func(v string) string {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return "a duration like 30s is expected"
			}
			s.ShutdownTimeout = &d
			return ""
		}},
	)
	if s.Heartbeat.URL != "" {
		s.Heartbeat.Interval = cmp.Or(s.Heartbeat.Interval, DefaultHeartbeat)
	}
}

// setter takes the value of a key that is not empty, and says what is wrong with it.
type setter struct {
	in, key string // in: a mapping at the file's top
	set     func(v string) (problem string)
}

func (r *reader) each(setters ...setter) {
	known := map[string][]string{}
	for _, s := range setters {
		at, in, v, ok := r.root, s.key, value{}, false
		if s.in == "" {
			v, ok = r.text(at, s.key, s.key == "exec" || s.key == "addr")
		} else {
			known[s.in] = append(known[s.in], s.key)
			if at = r.root.get(s.in); at != nil {
				v, in, ok = r.inner(r.root, s.in, s.key)
			}
		}
		if !ok || v.text == "" {
			continue
		}
		if problem := s.set(v.text); problem != "" {
			r.problem(v.pos, "%s: %s", in, problem)
			continue
		}
		r.c.Service.Sources = append(r.c.Service.Sources, Source{Name: in, Line: v.line, Column: v.column, Shared: true, Variables: v.vars})
	}
	for in, keys := range known {
		r.only(r.root, in, keys...)
	}
	slices.SortFunc(r.c.Service.Sources, func(a, b Source) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
}

// file is a path that may begin with ~/.
func file(v string) (path, problem string) {
	path, err := expandHome(v)
	if err != nil {
		return "", err.Error()
	}
	if path == "" || !strings.HasPrefix(path, "/") {
		return "", "an absolute path is expected"
	}
	return path, ""
}
