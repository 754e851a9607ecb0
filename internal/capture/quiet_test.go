package capture

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A disk that is full is told once, not with every commit.
func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1_700_000_000, 0)
	h := newQuiet(slog.NewTextHandler(&out, nil)).WithAttrs([]slog.Attr{slog.String("database", "/app.db")})
	say := func(level slog.Level, msg string, err error) {
		r := slog.NewRecord(now, level, msg, 0)
		r.AddAttrs(slog.Any("error", err))
		if err := h.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	full := errors.New("no space")
	for i := range 150 {
		say(slog.LevelWarn, "can't write", full)
		if i == 10 {
			say(slog.LevelWarn, "another", full)
		}
		say(slog.LevelInfo, "normal", full)
	}
	say(slog.LevelWarn, "can't write", errors.New("denied"))
	for range 3 {
		say(slog.LevelWarn, "can't write", full)
	}
	text := out.String()
	for want, n := range map[string]int{`error="no space"`: 6 + 1 + 150, "denied": 1, "another": 1, "normal": 150, "repeated=29": 5, "repeated=": 5, "database=/app.db": 158} {
		if got := strings.Count(text, want); got != n {
			t.Errorf("%q is there %d times, not %d", want, got, n)
		}
	}
}
