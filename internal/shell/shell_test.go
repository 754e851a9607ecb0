package shell

import "testing"

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/data/app.db":             "/data/app.db",
		"s3://b/p?endpoint=x&r=eu": "'s3://b/p?endpoint=x&r=eu'",
		"/my data/it's.db":         `'/my data/it'\''s.db'`,
		"/données/app.db":          "/données/app.db",
		"file:///r/$HOME/`x`":      "'file:///r/$HOME/`x`'",
	} {
		if got := Quote(in); got != want {
			t.Errorf("%q: %s, expected %s", in, got, want)
		}
	}
	if got, want := Quote("-config", "my file.yml", "app.db"), "-config 'my file.yml' app.db"; got != want {
		t.Errorf("%s, expected %s", got, want)
	}
}
