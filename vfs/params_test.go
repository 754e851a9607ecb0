package vfs

import (
	"net/url"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	_ "github.com/outwash/outwash/s3store"
)

// A replica's URL that was not escaped leaves its parameters in the DSN, whichever
// settings s3 has; a secret among them is not shown.
func TestStrayParameters(t *testing.T) {
	settings := objstore.SettingsOf("s3")
	if len(settings) < 10 {
		t.Fatalf("%d settings", len(settings))
	}
	for _, s := range settings {
		_, err := parseParams(url.Values{"replica": {"s3://b/p"}, s.Name: {"hunter2"}}, Options{})
		want := "must be escaped"
		if s.Secret {
			want = "is a secret"
		}
		if err == nil || !strings.Contains(err.Error(), s.Name) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want: %s", s.Name, err, want)
		}
	}
	if _, err := parseParams(url.Values{"replica": {"s3://b/p"}, "textkey": {"x"}, "_pragma": {"y"}}, Options{}); err != nil {
		t.Errorf("parameters of others: %v", err)
	}
}
