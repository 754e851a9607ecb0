package replicate

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestKeepDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"36h", 36 * time.Hour, "1d12h"},
		{"7d", 7 * day, "7d"},
		{"2w", 14 * day, "14d"},
		{"1w2d12h30m", 9*day + 12*time.Hour + 30*time.Minute, "9d12h30m"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"10m", 10 * time.Minute, "10m"},
		{"1d90s", day + 90*time.Second, "1d1m30s"},
		{"0.5h", 30 * time.Minute, "30m"},
		{"1h0m30s", time.Hour + 30*time.Second, "1h0m30s"},
		{"100ms", 100 * time.Millisecond, "100ms"},
		{"forever", Forever, "forever"},
	} {
		d, err := ParseKeepDuration(c.in)
		if err != nil || d != c.want {
			t.Errorf("%q: %v, %v; want %v", c.in, d, err, c.want)
		}
		if got := FormatKeepDuration(d); got != c.out {
			t.Errorf("%v is written as %q, want %q", d, got, c.out)
		}
		if again, err := ParseKeepDuration(c.out); err != nil || again != d {
			t.Errorf("%q: %v, %v; want %v", c.out, again, err, d)
		}
	}
	for _, in := range []string{
		"", "0", "0d", "-1h", "-1d", "7", "d", "1d2w", "1.5d", "1d-1h", "7 d", "7days", "Forever", "1d1d",
		"999999999w", "106751d24h", "2562047h47m17s", "99999999999999999999d",
	} {
		if d, err := ParseKeepDuration(in); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v, %v; want ErrConfig", in, d, err)
		}
	}
}

func TestEveryDuration(t *testing.T) {
	for in, out := range map[string]string{"never": "never", "1h": "1h", "90m": "1h30m", "2d": "2d"} {
		d, err := ParseEveryDuration(in)
		if got := FormatEveryDuration(d); err != nil || got != out || (d == Forever) != (in == "never") {
			t.Errorf("%q: %v, %q, %v", in, d, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1h", "forever", "always"} {
		if d, err := ParseEveryDuration(in); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "never") {
			t.Errorf("%q: %v, %v; want ErrConfig", in, d, err)
		}
	}
	// Not keeping anything isn't a way to keep all of it.
	if d, err := ParseKeepDuration("never"); err == nil {
		t.Errorf("to keep for never is %v", d)
	}
}
