// Package shell writes commands that people can paste, and takes apart those that they
// write.
package shell

import "strings"

// Quote writes arguments as words of a shell's command, with spaces between them.
func Quote(args ...string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; a == "" || strings.ContainsAny(a, " \t\n'\"\\&?*[]$;()<>|`#~!{}") {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
