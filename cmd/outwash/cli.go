package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/suggest"
)

// usageError is a mistake in the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, a ...any) error { return &usageError{fmt.Sprintf(format, a...)} }

// parseFlags parses args, in which flags may come before and after positional
// arguments; after -- everything is positional. Errors are usage errors, or
// flag.ErrHelp.
func parseFlags(fs *flag.FlagSet, args []string) (pos []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, flagError(fs, err)
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return pos, nil
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(pos, rest...), nil
		}
		pos, args = append(pos, rest[0]), rest[1:]
	}
}

// flagError says what package flag says, and what may have been meant.
func flagError(fs *flag.FlagSet, err error) error {
	const unknown = "flag provided but not defined: -"
	name, ok := strings.CutPrefix(err.Error(), unknown)
	if !ok {
		return usagef("%v: see \"outwash help %s\"", err, fs.Name())
	}
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if n := suggest.Nearest(name, names); n != "" {
		return usagef("unknown flag -%s: did you mean -%s?", name, n)
	}
	return usagef("unknown flag -%s: see \"outwash help %s\"", name, fs.Name())
}

func boolFlag(fs *flag.FlagSet, name string) bool {
	f := fs.Lookup(name)
	return f != nil && f.Value.String() == "true"
}

// oneArg is for verbs that take exactly one argument, called what.
func oneArg(verb, what string, args []string) (string, error) {
	switch {
	case len(args) == 0 || args[0] == "":
		return "", usagef("%s is missing: see \"outwash help %s\"", what, verb)
	case len(args) > 1:
		return "", usagef("%s is expected, and there is also %q", what, args[1])
	}
	return args[0], nil
}

func noArgs(args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// txidValue is a transaction number: decimal, or hexadecimal after 0x.
type txidValue uint64

func (v *txidValue) String() string { return strconv.FormatUint(uint64(*v), 10) }

func (v *txidValue) Set(s string) error {
	digits, base := s, 10
	if h, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits, base = h, 16
	} else if len(s) > 1 && s[0] == '0' {
		// Names of objects have TXIDs in hex, which must not be read as decimal.
		return fmt.Errorf("a TXID copied from an object's name is hexadecimal: write 0x%s", s)
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n == 0 || n > 1<<63-1 {
		return errors.New("a TXID is a number from 1: decimal, or hexadecimal after 0x")
	}
	*v = txidValue(n)
	return nil
}

// timeValue is a moment in RFC 3339, with or without a fraction.
type timeValue struct{ time.Time }

func (v *timeValue) String() string {
	if v.IsZero() {
		return ""
	}
	return v.Format(time.RFC3339Nano)
}

func (v *timeValue) Set(s string) error {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return errors.New("a time is written like 2026-01-31T18:30:00Z or 2026-01-31T18:30:00.25+01:00")
	}
	v.Time = t
	return nil
}

// choiceValue is one of a few words.
type choiceValue struct {
	value   string
	allowed []string
}

func (v *choiceValue) String() string { return v.value }

func (v *choiceValue) Set(s string) error {
	if !slices.Contains(v.allowed, s) {
		return fmt.Errorf("expected %s", strings.Join(v.allowed, ", "))
	}
	v.value = s
	return nil
}
