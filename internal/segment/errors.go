package segment

import (
	"errors"
	"fmt"
)

// Errors that callers decide on; the errors returned wrap them and say what was
// expected, what was found, and where.
var (
	// ErrCorrupt: the bytes are not what Outwash wrote.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion: a newer Outwash wrote this, using something that this one
	// doesn't know. The remedy is to upgrade.
	ErrVersion = errors.New("written by a newer Outwash; upgrade this one")
	// ErrChain: two log segments that should follow one another don't.
	ErrChain = errors.New("log segments do not follow one another")
	// ErrInvalid: what was to be encoded breaks a rule of the format.
	ErrInvalid = errors.New("invalid segment")
	// ErrTooLarge: the entries don't fit into an inline segment.
	ErrTooLarge = errors.New("too large for an inline segment")
)

// NeedMoreError says that a prefix was too short to hold the header.
type NeedMoreError struct {
	N int // length of a prefix that suffices to go on
}

func (e *NeedMoreError) Error() string {
	return fmt.Sprintf("header incomplete: %d bytes needed", e.N)
}

func corruptf(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, a...)...)
}

// unknownf reports something this version doesn't know.
func unknownf(format string, a ...any) error {
	return fmt.Errorf(format+": %w", append(a, ErrVersion)...)
}

func invalidf(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, a...)...)
}

// isKnown reports whether err says already what kind of error it is.
func isKnown(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) }
