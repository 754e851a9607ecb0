package main

import (
	"flag"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/outwash/outwash/internal/shell"
)

// docCommand finds what a line of documentation has people run.
var docCommand = regexp.MustCompile(`(?:^|&& |time |^    |=/usr/local/bin/)outwash ([a-z]+ [^#&|]*)`)

// checkCommand parses a command as outwash would, and doesn't run it.
func checkCommand(t *testing.T, where, line string, args []string) {
	t.Helper()
	i := slices.IndexFunc(verbs(), func(v *verb) bool { return v.name == args[0] })
	if i < 0 {
		t.Errorf("%s: %s: there is no verb %s", where, line, args[0])
		return
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	verbs()[i].flags(fs)
	pos, err := parseFlags(fs, args[1:])
	if err != nil {
		t.Errorf("%s: %s: %v", where, line, err)
	}
	if len(pos) > 2 {
		t.Errorf("%s: %s: arguments %q", where, line, pos)
	}
}

// The commands of docs/operations.md, docs/service.md and docs/outwash.service are
// such as outwash understands.
func TestServiceDoc(t *testing.T) {
	n := 0
	for _, name := range []string{"operations.md", "service.md", "outwash.service"} {
		b, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			line = strings.TrimRight(line, "\n")
			if name != "outwash.service" && !strings.HasPrefix(line, "    ") {
				continue
			}
			for _, m := range docCommand.FindAllStringSubmatch(line, -1) {
				n++
				args, err := shell.Split(m[1])
				if err != nil {
					t.Errorf("%s: %s: %v", name, line, err)
					continue
				}
				checkCommand(t, name, line, args)
			}
		}
	}
	if n < 8 {
		t.Errorf("%d commands found", n)
	}

	// Those in YAML and in the Dockerfile.
	b, err := os.ReadFile("../../docs/service.md")
	if err != nil {
		t.Fatal(err)
	}
	var lists int
	for _, m := range regexp.MustCompile(`(?m)(?:args: |command: |ENTRYPOINT )(.*replicate.*)$`).FindAllStringSubmatch(string(b), -1) {
		var args []string
		if err := yaml.Unmarshal([]byte(m[1]), &args); err != nil {
			args = strings.Fields(m[1]) // Compose splits a string
		}
		if args[0] == "outwash" {
			args = args[1:]
		}
		checkCommand(t, "service.md", m[0], args)
		lists++
	}
	if lists != 3 {
		t.Errorf("%d lists of arguments found", lists)
	}
}

// docs/outwash.service leaves more time for the end than outwash replicate takes by
// itself, and lets it do what it must.
func TestServiceUnit(t *testing.T) {
	b, err := os.ReadFile("../../docs/outwash.service")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			if _, twice := settings[k]; twice {
				t.Errorf("%s is there twice", k)
			}
			settings[k] = v
		} else if line != "" && line[0] != '#' && line[0] != '[' {
			t.Errorf("what is %q?", line)
		}
	}
	for k, v := range map[string]string{
		"Type": "notify", "TimeoutStopSec": "60", "RuntimeDirectory": "outwash", "Restart": "always", "ProtectSystem": "strict", "MemoryDenyWriteExecute": "",
	} {
		if settings[k] != v {
			t.Errorf("%s=%s", k, settings[k])
		}
	}
	if drainTime.Seconds() >= 60 {
		t.Errorf("TimeoutStopSec= is not more than %s", drainTime)
	}
	if !strings.Contains(settings["RestrictAddressFamilies"], "AF_UNIX") {
		t.Error("without Unix sockets it can't tell that it is ready")
	}
}
