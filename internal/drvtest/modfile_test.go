//go:build !driver35

package drvtest

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	nativeVersion = "v0.35.6"
	nativeGo      = "1.26.0" // what it asks for
	// wazeroModule runs the first generation; the second has no use for it.
	wazeroModule = "github.com/tetratelabs/wazero"
)

var flagUpdate = flag.Bool("update", false, "make go35.mod and go35.sum anew from go.mod")

// TestModFiles: go35.mod is what go.mod becomes with the other driver.
func TestModFiles(t *testing.T) {
	made := filepath.Join(t.TempDir(), "go35.mod")
	copyModFile(t, "go.mod", made)
	goRun(t, repo, "mod", "edit", "-go="+nativeGo, "-require="+module+"@"+nativeVersion, "-droprequire="+wazeroModule, made)
	goRun(t, repo, "list", "-mod=mod", "-modfile="+made, "-tags="+native.tags, "-deps", "-test", "./...")
	if *flagUpdate {
		for _, ext := range []string{".mod", ".sum"} {
			b, err := os.ReadFile(made[:len(made)-len(".mod")] + ext)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(repo, "go35"+ext), b, 0o666))
		}
	}
	want, got, first := requires(t, made), requires(t, "go35.mod"), requires(t, "go.mod")
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			t.Errorf("go35.mod has %s %q, go.mod and the driver ask for %q", path, got[path], want[path])
		} else if first[path] != want[path] {
			t.Logf("%s: %q in go.mod, %q in go35.mod", path, first[path], want[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if want[path] == "" {
			t.Errorf("go35.mod has %s, which go.mod does not lead to", path)
		}
	}
	if t.Failed() {
		t.Log("to make it anew: go test ./internal/drvtest -run TestModFiles -update")
	}
	// Readonly: every sum that is needed must be there.
	goRun(t, repo, "list", "-mod=readonly", "-modfile=go35.mod", "-tags="+native.tags, "-deps", "-test", "./...")
}

// requires returns the versions that a mod file asks for.
func requires(t *testing.T, file string) map[string]string {
	t.Helper()
	var mod struct {
		Go      string
		Require []struct{ Path, Version string }
	}
	must(t, json.Unmarshal([]byte(goRun(t, repo, "mod", "edit", "-json", file)), &mod))
	versions := map[string]string{}
	for _, r := range mod.Require {
		versions[r.Path] = r.Version
	}
	return versions
}
