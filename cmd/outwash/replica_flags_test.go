package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// TestOneWarning: verbs ask twice where a replica is; people are told once what was
// ignored.
func TestOneWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yml")
	if err := os.WriteFile(file, []byte("levels: []\ndbs: [{path: /a, replica: {path: /r}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	var f replicaFlags
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	f.declare(fs)
	told := 0
	configOf(fs).note = func(string, ...any) { told++ }
	if err := fs.Parse([]string{"-config", file}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if url, _, err := f.locate("/a"); err != nil || url != "file:///r" {
			t.Errorf("%s, %v", url, err)
		}
	}
	if told != 1 {
		t.Errorf("warned %d times", told)
	}
}
