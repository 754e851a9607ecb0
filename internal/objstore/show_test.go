package objstore_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// TestSettingsAreNotShown formats and logs settings in every way there is.
func TestSettingsAreNotShown(t *testing.T) {
	s := objstore.Settings{"secret-access-key": "hunter2", "region": "x"}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("text", "settings", s, "in", struct{ S objstore.Settings }{s})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("json", "settings", s, "in", struct{ S objstore.Settings }{s})
	for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "d"} {
		fmt.Fprintf(&b, "%"+verb+" %"+verb+"\n", s, struct{ S objstore.Settings }{s})
	}
	fmt.Fprintln(&b, s, &s)
	out := b.String()
	if strings.Contains(out, "hunter2") || strings.Contains(out, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("shown:\n%s", out)
	}
	if n := strings.Count(out, "secret-access-key"); n != 20 {
		t.Errorf("the name is shown %d times:\n%s", n, out)
	}
}
