package capture

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// quietFor is how long the same complaint isn't repeated.
const quietFor = time.Minute

// quiet keeps complaints from flooding a log: what goes wrong with one commit, such as
// a disk that is full, mostly goes wrong with the next thousand. What is the same in
// every word is told once in a while, with how often it wasn't.
type quiet struct {
	slog.Handler
	said *said
}

type said struct {
	mu   sync.Mutex
	last map[string]*complaint // by message
}

type complaint struct {
	text   string
	at     time.Time
	silent int
}

func newQuiet(h slog.Handler) slog.Handler { return quiet{h, &said{}} }

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a), q.said} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name), q.said} }

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		n, ok := q.said.again(r)
		if !ok {
			return nil
		}
		if n > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("repeated", n))
		}
	}
	return q.Handler.Handle(ctx, r)
}

// again reports whether r is to be told, and how often that was omitted before.
func (s *said) again(r slog.Record) (omitted int, tell bool) {
	var text strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		text.WriteString(a.String())
		text.WriteByte('\n')
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.last[r.Message]
	if c != nil && c.text == text.String() && r.Time.Sub(c.at) < quietFor {
		c.silent++
		return 0, false
	}
	if c != nil {
		omitted = c.silent
	}
	if s.last == nil {
		s.last = map[string]*complaint{}
	}
	s.last[r.Message] = &complaint{text: text.String(), at: r.Time}
	return omitted, true
}
