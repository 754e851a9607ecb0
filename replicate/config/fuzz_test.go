package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/replicate/config"
)

// FuzzParse damages files in which secrets stand where they belong: nothing panics,
// and no message shows one, whatever became of the file around it.
func FuzzParse(f *testing.F) {
	const secret = "wJa1rXUtnF3MI"
	files, err := filepath.Glob("testdata/*/*.yml")
	if err != nil || len(files) < 6 {
		f.Fatal(files, err)
	}
	for _, file := range append(files, "testdata/all-honoured-or-ignored.yml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), 17)
	}
	for _, s := range []string{"history: {keep-log: 1d, pages-every: never}\nsnapshot: {interval: 1h}\nretention: {enabled: false}\ndbs: [{path: /a, history: {keep-pages: 2w}, replica: {path: /r, retention: 1h}}]", "a: &a [*a]", "a: &a {<<: *a}", "? {a: b}\n: c", "!!binary x: y", "dbs: [{path: *x}]", "%YAML 9\n---\n", "a: |9\n  b", "\"", "a: 'b\n", strings.Repeat("- ", 500), strings.Repeat("a:\n ", 50)} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, yaml string, at int) {
		// The secret as a value anywhere.
		if len(yaml) > 1<<16 {
			return
		}
		if i := at % (len(yaml) + 1); i >= 0 {
			yaml = yaml[:i] + "\nsecret-access-key: " + secret + "\n" + yaml[i:]
		}
		for _, env := range []func(string) (string, bool){nil, func(name string) (string, bool) { return secret + ": [{\"", name < "M" }} {
			c, err := config.Parse("file.yml", []byte(yaml), env)
			said := ""
			if err != nil {
				said = err.Error()
			} else {
				said = fmt.Sprint(c.Warnings(), c.Ignored)
				if _, err := c.Database("/nowhere"); err == nil {
					continue
				}
				for _, d := range c.Databases {
					if !strings.Contains(d.URL, secret) && !strings.Contains(d.Path, secret) {
						said += fmt.Sprintf("%+v", d)
					}
				}
			}
			if strings.Contains(said, secret) && !strings.Contains(said, "the database ") {
				t.Errorf("%s\n%s", yaml, said)
			}
		}
	})
}
