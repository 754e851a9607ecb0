package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/outwash/outwash/replicate"
)

// Error is something wrong with a configuration file. It wraps
// [replicate.ErrConfig], and never shows a secret.
type Error struct {
	File         string
	Line, Column int // 0: of the whole file
	Msg          string
	Err          error // the cause, if another package found it
}

// Error is FILE:LINE:COLUMN: what is wrong.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	if e.Line > 0 || e.Err != nil && e.Msg == "" {
		b.WriteString(":")
	}
	if e.Msg != "" {
		b.WriteString(" " + e.Msg)
	}
	if e.Err != nil {
		if e.Msg != "" {
			b.WriteString(":")
		}
		b.WriteString(" " + cause(e.Err))
	}
	return b.String()
}

// Unwrap returns replicate.ErrConfig, and the cause.
func (e *Error) Unwrap() []error {
	if e.Err != nil {
		return []error{e.Err, replicate.ErrConfig}
	}
	return []error{replicate.ErrConfig}
}

// cause is err without what its place in a configuration file says already.
func cause(err error) string {
	s := err.Error()
	for _, pkg := range []string{"objstore: ", "s3store: "} {
		s = strings.TrimPrefix(s, pkg)
	}
	return strings.TrimSuffix(s, ": "+replicate.ErrConfig.Error())
}

// Explain adds to an error about the replica's URL or settings where in the file
// they stand. Other errors are returned as they are.
func (d *Database) Explain(err error) error {
	if !errors.Is(err, replicate.ErrConfig) {
		return err
	}
	if located := (*Error)(nil); errors.As(err, &located) {
		return err
	}
	name := "url"
	if s := (*replicate.SettingError)(nil); errors.As(err, &s) {
		name = s.Name
	}
	at, ok := d.source(name)
	if !ok {
		at, _ = d.source("url")
	}
	return &Error{File: d.file, Line: at.Line, Column: at.Column, Err: err}
}

// most is how many problems are told at a time.
const most = 20

// problem notes what is wrong at a place.
func (r *reader) problem(at pos, format string, args ...any) {
	if r.full() {
		return
	}
	r.problems = append(r.problems, &Error{File: r.c.Name, Line: at.line, Column: at.column, Msg: fmt.Sprintf(format, args...)})
}

// full: there are more problems than anybody wants to read, and finding more costs.
func (r *reader) full() bool { return len(r.problems) >= 20*most }

// err joins the problems in the file's order.
func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b *Error) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	if len(r.problems) == 1 {
		return r.problems[0]
	}
	var errs []error
	for i, p := range r.problems {
		// An anchor that is used twice has its problems twice.
		if i > 0 && *p == *r.problems[i-1] {
			continue
		}
		if len(errs) == most {
			break
		}
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// readAll reads a file of reasonable size; parseYAML refuses others.
func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, maxFile+1)) }
