package shell

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNeedsShell is the error for commands that mean more than words.
var ErrNeedsShell = errors.New(`only a shell can do that: write sh -c '…', or put a \ before it`)

// Split takes a command apart into words as a shell does: by quotes and backslashes.
// Nothing is replaced, and no file names are made of patterns; what would have another
// command run, or a variable replaced, is an error instead of a word that nobody meant.
func Split(command string) ([]string, error) {
	var (
		words []string
		word  strings.Builder
		in    bool // a word has begun, though it may be empty
		quote rune // that is open; 0: none
	)
	rs := []rune(command)
	for i := 0; i < len(rs); i++ {
		r := rs[i]
		next := rune(0)
		if i+1 < len(rs) {
			next = rs[i+1]
		}
		switch {
		case quote == '\'' && r != '\'':
			word.WriteRune(r)
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, in = r, true
		case r == '\\' && next == 0:
			return nil, errors.New(`it ends with a \`)
		case r == '\\' && next == '\n':
			i++ // the line goes on
		case r == '\\' && (quote == 0 || strings.ContainsRune("$`\"\\", next)):
			word.WriteRune(next)
			in = true
			i++
		case r == '`' || r == '$' && (next == '{' || next == '(' || next == '_' || next >= 'A' && next <= 'Z' || next >= 'a' && next <= 'z'):
			return nil, fmt.Errorf("%c: %w", r, ErrNeedsShell)
		case quote != 0:
			word.WriteRune(r)
		case strings.ContainsRune(" \t\r\n", r):
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		case strings.ContainsRune(";&|<>()", r):
			return nil, fmt.Errorf("%c: %w", r, ErrNeedsShell)
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is not closed", quote)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
