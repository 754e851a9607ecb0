package shell

import (
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestSplit compares with what the system's shell makes of the same words.
func TestSplit(t *testing.T) {
	for _, command := range []string{
		"", "  ", "app", " app  -flag\tx ", "myapp -flag", `app 'a b' "c d"`, `app a' 'b" "c`, `app '' "" x''`, `app \  \a \' \"`,
		`app "a\"b" "a\\b" "a\$b" "a\xb" 'a\b'`, `app 'it'\''s'`, `app 5$ '$x' "5$" a$`, `app -x=1,2 --y:z @f % ^`, "app \\\n x", "app ü 日本 '日 本'",
		`sh -c 'exec app; "$1" | x'`, `app '"' "'"`,
	} {
		got, err := Split(command)
		if err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		if runtime.GOOS == "windows" {
			continue
		}
		out, err := exec.Command("sh", "-c", `for w in `+command+`
			do printf '%s\037' "$w"; done`).CombinedOutput()
		if err != nil {
			t.Fatal(err, string(out))
		}
		want := strings.Split(strings.TrimSuffix(string(out), "\x1f"), "\x1f")
		if len(out) == 0 {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, a shell has %q", command, got, want)
		}
	}
	for _, command := range []string{"a; b", "a && b", "a|b", "a >b", "a <b", "(a)", "`a`", "a $(b)", "a $B", "a ${B}", `a "$B"`, "a \"`b`\"", "a &"} {
		if got, err := Split(command); !errors.Is(err, ErrNeedsShell) {
			t.Errorf("%s: %q, %v", command, got, err)
		}
	}
	for _, command := range []string{"'a", `"a`, `a\`, `"a\`} {
		if got, err := Split(command); err == nil || errors.Is(err, ErrNeedsShell) {
			t.Errorf("%s: %q, %v", command, got, err)
		}
	}
	for _, words := range [][]string{{"a b", "", "'", `"`, `\`, "$x;`y`", "\n"}} {
		if got, err := Split(Quote(words...)); err != nil || !slices.Equal(got, words) {
			t.Errorf("%q: %q, %v", words, got, err)
		}
	}
}
