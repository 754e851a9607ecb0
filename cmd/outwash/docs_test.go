package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate/config"
	"github.com/outwash/outwash/s3store"
)

// TestS3Doc holds docs/s3.md against the code: every setting is described, and no
// other; policies are what outwash policy prints; messages are those of s3store;
// URLs and configuration files can be used.
func TestS3Doc(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	doc := readDoc(t)
	t.Run("settings", func(t *testing.T) {
		var described, declared []string
		_, section, _ := strings.Cut(doc, "\n## Settings\n")
		section, _, _ = strings.Cut(section, "\n## ")
		for line := range strings.Lines(section) {
			if cell, ok := strings.CutPrefix(line, "| `"); ok {
				cell, _, _ = strings.Cut(cell, " |")
				described = append(described, strings.Split(strings.TrimSuffix(cell, "`"), "`, `")...)
			}
		}
		for _, s := range objstore.SettingsOf("s3") {
			declared = append(declared, s.Name)
		}
		slices.Sort(described)
		slices.Sort(declared)
		if !slices.Equal(described, declared) || len(declared) == 0 {
			t.Errorf("described are %v, declared %v", described, declared)
		}
	})
	t.Run("policies", func(t *testing.T) {
		// A command, then what it prints.
		re := regexp.MustCompile("(?m)^    outwash policy (.*)\n\n```json\n((?s:.*?))```$")
		found := re.FindAllStringSubmatch(doc, -1)
		for _, m := range found {
			code, out, text := cli(append([]string{"policy"}, strings.Fields(m[1])...)...)
			if code != codeOK || out != m[2] {
				t.Errorf("outwash policy %s: %d, %s\n%s\ndocs/s3.md has\n%s", m[1], code, text, out, m[2])
			}
		}
		if len(found) != 5 {
			t.Errorf("%d policies found", len(found))
		}
	})
	t.Run("messages", func(t *testing.T) {
		var code strings.Builder
		files, err := filepath.Glob("../../s3store/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				code.Write(b)
			}
		}
		_, section, _ := strings.Cut(doc, "| message | cause | remedy |\n|---|---|---|\n")
		rows := 0
		for line := range strings.Lines(section) {
			cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			rows++
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				for _, part := range strings.Split(m[1], "…") {
					if part = strings.TrimSpace(part); !strings.Contains(code.String(), part) {
						t.Errorf("no message of s3store has %q", part)
					}
				}
			}
		}
		if rows < 30 {
			t.Errorf("%d messages found", rows)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		found := regexp.MustCompile("(?m)^```yaml\n((?s:.*?))```$").FindAllStringSubmatch(doc, -1)
		databases := 0
		for _, m := range found {
			if strings.HasPrefix(m[1], "Resources:") {
				continue // CloudFormation's
			}
			c, err := config.Parse("docs/s3.md", []byte(m[1]), func(name string) (string, bool) { return "value of " + name, true })
			if err != nil {
				t.Errorf("%v\n%s", err, m[1])
				continue
			}
			if w := c.Warnings(); len(w) > 0 {
				t.Errorf("warnings: %v", w)
			}
			for _, d := range c.Databases {
				databases++
				if _, err := s3store.Locate(t.Context(), d.URL, d.Settings); err != nil {
					t.Error(err)
				}
			}
		}
		if databases != 5 {
			t.Errorf("%d databases found", databases)
		}
	})
	t.Run("urls", func(t *testing.T) {
		found := regexp.MustCompile("s3://[^\\s`'\")]+").FindAllString(doc, -1)
		for _, u := range found {
			if _, err := s3store.Locate(t.Context(), u, nil); err != nil {
				t.Error(err)
			}
		}
		if len(found) < 30 {
			t.Errorf("%d URLs found", len(found))
		}
	})
}

func readDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/s3.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
