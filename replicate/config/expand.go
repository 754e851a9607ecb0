package config

import (
	"errors"
	"regexp"
	"strings"
)

// A lookup finds environment variables, as os.LookupEnv does.
type lookup = func(name string) (value string, ok bool)

// expanded is a value with its variables replaced.
type expanded struct {
	text string
	used []string // variables that are in it
	// missing describes the first variable that is not set, empty the first that is
	// set to nothing.
	missing, empty string
}

var errBraces = errors.New("${ is not followed by a variable's name and }: only ${NAME} and $NAME are replaced, without defaults or other forms of shells")

var (
	varName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
	upperName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)
)

// expand replaces $NAME and ${NAME}. A $ that no name follows stays.
func expand(s string, env lookup) (expanded, error) {
	out := expanded{text: s}
	if env == nil || !strings.Contains(s, "$") {
		return out, nil
	}
	var b strings.Builder
	rest := s
	for {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			break
		}
		braces := strings.HasPrefix(after, "{")
		name := varName.FindString(strings.TrimPrefix(after, "{"))
		switch {
		case braces && (name == "" || !strings.HasPrefix(after[1+len(name):], "}")):
			return expanded{}, errBraces
		case braces:
			rest = after[len(name)+2:]
		case name == "":
			b.WriteByte('$')
			rest = after
			continue
		default:
			rest = after[len(name):]
		}
		value, ok := env(name)
		out.used = append(out.used, name)
		switch {
		case !ok && out.missing == "":
			out.missing = showVariable(name, braces, s)
		case ok && value == "" && out.empty == "":
			out.empty = showVariable(name, braces, s)
		}
		b.WriteString(value)
	}
	out.text = b.String()
	return out, nil
}

// showVariable names a variable for a message, unless it could be part of a
// password with a $ in it.
func showVariable(name string, braces bool, value string) string {
	switch {
	case braces:
		return "${" + name + "}"
	case value == "$"+name && upperName.MatchString(name):
		return "$" + name
	}
	return "what follows the $ (a variable's name, if the $ is not meant literally)"
}
