package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/outwash/outwash/replicate"
)

// ui is the only one that writes to stdout and stderr: results go to stdout,
// everything else to stderr.
type ui struct {
	in       io.Reader
	out      io.Writer
	errOut   io.Writer
	terminal bool // errOut is one
	wrote    bool // a JSON value is out
	writeErr error
}

func newUI(in io.Reader, out, errOut io.Writer) *ui {
	f, ok := errOut.(*os.File)
	return &ui{
		in: in, out: out, errOut: errOut,
		terminal: ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb",
	}
}

// print writes a result. The first failure (a full disk behind a redirection) is
// kept for err.
func (u *ui) print(s string) {
	if _, err := io.WriteString(u.out, s); err != nil && u.writeErr == nil {
		u.writeErr = fmt.Errorf("write output: %w", err)
	}
}

func (u *ui) printf(format string, a ...any) { u.print(fmt.Sprintf(format, a...)) }

func (u *ui) err() error { return u.writeErr }

// note writes a remark to stderr.
func (u *ui) note(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	if !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	io.WriteString(u.errOut, s) // nobody is left to be told of a failure
}

// interactive reports whether somebody can be asked.
func (u *ui) interactive() bool {
	f, ok := u.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks; everything but y and yes is a no.
func (u *ui) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(u.errOut, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // a read can't be interrupted
		line, _ := bufio.NewReader(u.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		return a == "y" || a == "yes", nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// json writes v as the one JSON value of this run.
func (u *ui) json(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	u.wrote = true
	u.print(string(b) + "\n")
	return nil
}

// table writes rows under a header; columns whose header begins with > are
// aligned to the right.
func (u *ui) table(indent string, header []string, rows [][]string) {
	right := make([]bool, len(header))
	width := make([]int, len(header))
	names := make([]string, len(header))
	for i, name := range header {
		names[i], right[i] = strings.CutPrefix(name, ">")
	}
	rows = append([][]string{names}, rows...)
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if right[i] {
				line += pad + cell + "  "
			} else {
				line += cell + pad + "  "
			}
		}
		u.print(strings.TrimRight(indent+line, " ") + "\n")
	}
}

// fields writes names and values in two columns; fields without value are left
// out.
func (u *ui) fields(indent string, pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			u.printf("%s%-*s  %s\n", indent, width, pairs[i], pairs[i+1])
		}
	}
}

// marks are what checks begin with: signs where they can be shown, else words.
func (u *ui) marks() map[string]string {
	f, ok := u.out.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" && showsUnicode(runtime.GOOS, os.Getenv) {
		return map[string]string{"ok": "✓", "warning": "!", "failed": "✗", "skipped": "–"}
	}
	return map[string]string{"ok": "ok  ", "warning": "warn", "failed": "FAIL", "skipped": "-   "}
}

// showsUnicode reports whether terminals show more than ASCII: by the locale, and on
// systems where they always do.
func showsUnicode(system string, env func(string) string) bool {
	locale := cmp.Or(env("LC_ALL"), env("LC_CTYPE"), env("LANG")) // the first that is set counts
	locale = strings.ToUpper(strings.ReplaceAll(locale, "-", ""))
	return strings.Contains(locale, "UTF8") || system == "windows" || system == "darwin"
}

type jsonError struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"code"`
}

// fail reports err and returns the exit code for it.
func (u *ui) fail(verb string, err error, asJSON bool) int {
	code := codeOf(err)
	if errors.As(err, new(*reported)) {
		return code
	}
	prefix := "outwash: "
	if verb != "" {
		prefix += verb + ": "
	}
	msg, hint := plainMessage(err), hintFor(err)
	u.note("%s%s", prefix, msg)
	if hint != "" {
		u.note("  hint: %s", hint)
	}
	if asJSON && !u.wrote {
		u.json(jsonError{Error: msg, Hint: hint, Code: code})
	}
	return code
}

// plainMessage is err without the names of Go packages in front, which tell a
// person nothing.
func plainMessage(err error) string {
	s := strings.TrimSpace(err.Error())
	for {
		pkg, rest, ok := strings.Cut(s, ": ")
		switch {
		case ok && (pkg == "replicate" || pkg == "objstore" || pkg == "s3store" || pkg == "segment" ||
			pkg == "vfs" || pkg == "status" || pkg == "local" || pkg == "capture" || pkg == "sidecar" || pkg == "service"):
			s = rest
		default:
			// What this means, the exit code says.
			return strings.TrimSuffix(s, ": "+replicate.ErrConfig.Error())
		}
	}
}

// progress shows how far something has come, on a terminal only.
type progress struct {
	u   *ui
	bar *progressbar.ProgressBar
}

// progress starts a bar that counts bytes; off suppresses it.
func (u *ui) progress(what string, off bool) *progress {
	p := &progress{u: u}
	if !off && u.terminal {
		p.bar = u.newBar(what, true)
	}
	return p
}

func (u *ui) newBar(what string, bytes bool) *progressbar.ProgressBar {
	count := progressbar.OptionShowBytes(false)
	if bytes {
		count = progressbar.OptionShowCount() // how many of how many; rate and time left come by themselves
	}
	return progressbar.NewOptions64(-1,
		count,
		progressbar.OptionSetWriter(u.errOut),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(bytes),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30),
		// Otherwise it draws itself, even after its end.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)
}

func (p *progress) set(done, total int64, what string) {
	if p.bar == nil {
		return
	}
	if total > 0 && p.bar.GetMax64() != total {
		p.bar.ChangeMax64(total)
	}
	if what != "" {
		p.bar.Describe(what)
	}
	// Totals are estimates: a bar that is full would take itself for finished.
	if total > 0 {
		done = min(done, total-1)
	}
	p.bar.Set64(done)
}

// stage goes on with something whose end can't be told.
func (p *progress) stage(what string) {
	if p.bar != nil {
		p.bar.Clear()
		p.bar = p.u.newBar(what, false)
		p.bar.Set64(1)
	}
}

// done removes the bar.
func (p *progress) done() {
	if p.bar != nil {
		p.bar.Clear()
		p.bar = nil
	}
}

// size formats a number of bytes.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB", "PB"} {
		f /= 1000
		if f < 999.5 || unit == "PB" {
			if f < 9.95 {
				return fmt.Sprintf("%.1f %s", f, unit)
			}
			return fmt.Sprintf("%.0f %s", f, unit)
		}
	}
	panic("unreachable")
}

// count formats a number with separators: 1,234,567.
func count[T int | int64 | uint64 | uint32](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is count with a noun.
func plural[T int | int64 | uint64 | uint32](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// moment formats a time so that -timestamp takes it back unchanged.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// seconds formats a duration.
func seconds(s float64) string {
	switch {
	case s < 0.9995:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 60:
		return fmt.Sprintf("%.2f s", s)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}
