package objstore

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Below is the URL of a store at path below that of base, for whatever names there
// are in path: no two become one. What URLs can't have there, and @, which could be
// part of a password, is written as %XX; so is %.
func Below(base, path string) string {
	base, query, ok := strings.Cut(base, "?")
	url := strings.TrimRight(base, "/") + "/" + escapePath(path)
	if ok {
		url += "?" + query
	}
	return url
}

func escapePath(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r < ' ' || r == 0x7f || strings.ContainsRune(`%?#@\`, r) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
