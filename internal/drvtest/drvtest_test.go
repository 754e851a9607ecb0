//go:build !driver35

package drvtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	module = "github.com/ncruces/go-sqlite3"
	repo   = "../.." // from this directory
)

// generation is one of the two that the driver has.
type generation struct{ modfile, tags string }

var (
	wazero = generation{"go.mod", ""}
	native = generation{"go35.mod", "driver35"}
)

// TestMptest runs mptest. The first generation's is not in the module: it is a
// program compiled on its own.
func TestMptest(t *testing.T) {
	c := newCopy(t, native)
	c.add("vfs/tests/mptest", "mptest", "mptest_test.go.txt")
	c.patience("vfs/tests/mptest/testdata")
	c.test("vfs/tests/mptest", "TestReplicated/multiwrite01_wal", "TestReplicated/crash01_wal", "TestReplicated/multiwrite01_delete",
		"TestReplicated/crash01_delete", "TestReplicated/config01_delete", "TestReplicated/config02_delete")
}

// TestWALStress runs a round of wal_stress on both generations; the test came
// with the second one, and uses nothing that the first doesn't have.
func TestWALStress(t *testing.T) {
	const file = "vfs/tests/wal_stress_test.go"
	stress, err := os.ReadFile(filepath.Join(moduleDir(t, native), file))
	must(t, err)
	for _, g := range []generation{wazero, native} {
		t.Run(g.modfile, func(t *testing.T) {
			c := newCopy(t, g)
			const params = `RawQuery: url.Values{`
			if strings.Count(string(stress), params) != 1 {
				t.Fatalf("%s is not the file that was expected", file)
			}
			c.write(file, strings.Replace(string(stress), params, params+`"vfs": {"replicated"},`, 1))
			c.add("vfs/tests", "tests", "wal_stress_test.go.txt")
			if g == wazero {
				c.write("vfs/tests/embed_test.go", "package tests\n\nimport _ \""+module+"/embed\"\n")
			}
			c.test("vfs/tests", "TestReplicated")
		})
	}
}

// copied is a copy of the driver that is tested in its place.
type copied struct {
	t       *testing.T
	g       generation
	dir     string
	modfile string
}

func newCopy(t *testing.T, g generation) *copied {
	tmp := t.TempDir()
	c := &copied{t: t, g: g, dir: filepath.Join(tmp, "driver"), modfile: filepath.Join(tmp, "go.mod")}
	from := moduleDir(t, g)
	must(t, filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		c.write(rel, string(b))
		return err
	}))
	copyModFile(t, g.modfile, c.modfile)
	goRun(t, tmp, "mod", "edit", "-replace="+module+"="+c.dir, c.modfile)
	return c
}

// copyModFile copies a mod file of the repository with its sums.
func copyModFile(t *testing.T, name, to string) {
	t.Helper()
	for _, ext := range []string{".mod", ".sum"} {
		b, err := os.ReadFile(filepath.Join(repo, strings.TrimSuffix(name, ".mod")+ext))
		must(t, err)
		must(t, os.WriteFile(strings.TrimSuffix(to, ".mod")+ext, b, 0o666))
	}
}

// moduleDir is where the module cache has the driver.
func moduleDir(t *testing.T, g generation) string {
	t.Helper()
	goRun(t, repo, "mod", "download", "-modfile="+g.modfile, module)
	return strings.TrimSpace(goRun(t, repo, "list", "-modfile="+g.modfile, "-m", "-f", "{{.Dir}}", module))
}

func (c *copied) write(name, text string) {
	path := filepath.Join(c.dir, name)
	must(c.t, os.MkdirAll(filepath.Dir(path), 0o777))
	must(c.t, os.WriteFile(path, []byte(text), 0o666))
}

// add puts test files of testdata into a package of the copy.
func (c *copied) add(dir, pkg, file string) {
	for _, name := range []string{file, "compare_test.go.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		must(c.t, err)
		c.write(filepath.Join(dir, "outwash_"+strings.TrimSuffix(name, ".txt")), strings.Replace(string(b), "package PACKAGE", "package "+pkg, 1))
	}
}

// patience has mptest's scripts wait for their clients as long as a slow machine takes,
// instead of the ten seconds that are its default: https://sqlite.org/src/file/mptest/mptest.c
func (c *copied) patience(dir string) {
	c.t.Helper()
	wait := regexp.MustCompile(`(?m)^(--wait \w+)$`)
	scripts, err := filepath.Glob(filepath.Join(c.dir, dir, "*test"))
	must(c.t, err)
	n := 0
	for _, name := range scripts {
		b, err := os.ReadFile(name)
		must(c.t, err)
		n += len(wait.FindAll(b, -1))
		must(c.t, os.WriteFile(name, wait.ReplaceAll(b, []byte("$1 240000")), 0o666))
	}
	if n < 10 {
		c.t.Fatalf("%d scripts wait %d times: they are not those that were expected", len(scripts), n)
	}
}

// test runs TestReplicated of a package of the copy; each of tests must pass.
// Requirements of the driver's own tests are added to the temporary mod file.
func (c *copied) test(dir string, tests ...string) {
	c.t.Helper()
	out := goRun(c.t, repo, "test", "-mod=mod", "-modfile="+c.modfile, "-tags="+c.g.tags, "-count=1", "-v",
		"-timeout=8m", "-run=^TestReplicated$", module+"/"+dir)
	for _, name := range tests {
		if !strings.Contains(out, "--- PASS: "+name+" (") {
			c.t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "equal:") || strings.Contains(line, "--- ") {
			c.t.Log(strings.TrimSpace(line))
		}
	}
}

// goRun runs the go command and returns what it prints.
func goRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		text := ""
		if exit != nil {
			text = string(exit.Stderr)
		}
		t.Fatalf("go %s: %v\n%s%s", strings.Join(args, " "), err, out, text)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
