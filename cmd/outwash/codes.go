package main

import (
	"context"
	"errors"
	"net"
	"net/url"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/service"
	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
)

// Exit codes. Scripts depend on them: their meaning never changes.
const (
	codeOK          = 0
	codeFailed      = 1
	codeUsage       = 2
	codeNothing     = 3
	codeExists      = 4
	codeCorrupt     = 5
	codeAccess      = 6
	codeVersion     = 7
	codeUnconfirmed = 8
	codeBusy        = 9
	codeDiffers     = 10
	codeBehind      = 11
	codeRefused     = 12
	codeInterrupted = 130
)

// Errors of the command line itself.
var (
	errInterrupted = errors.New("interrupted")
	errNotEmpty    = errors.New("not empty")
	errCheck       = errors.New("integrity check failed")
	errNoDatabase  = errors.New("there is no such database")
	errNoProcess   = errors.New("no process that this user can ask replicates a database")
	errUnconfirmed = errors.New("not confirmed")
	errDiffers     = errors.New("the database is another one than its replica") // verify's
	errUnfit       = errors.New("not usable")                                   // doctor's verdict
	errBehind      = errors.New("not everything is in the replica yet")
	errRefused     = errors.New("not replicated")
)

// exitCodes gives each code its meaning, for the help, and the errors that lead
// to it. The first match counts: a missing object that makes a replica corrupt
// is both ErrCorrupt and ErrNotExist.
var exitCodes = []struct {
	code    int
	meaning string
	errs    []error
}{
	{codeOK, "success", nil},
	{codeInterrupted, "interrupted by a signal; nothing half-done is left", []error{errInterrupted}},
	{codeUsage, "wrong usage: command line, URL, configuration file or environment", []error{replicate.ErrConfig, service.ErrAddr}},
	{codeExists, "the output, or the demo's replica or directory, exists already", []error{replicate.ErrOutputExists, errNotEmpty}},
	{codeVersion, "a newer outwash wrote this: upgrade", []error{replicate.ErrVersion}},
	{codeCorrupt, "the replica is damaged, or has foreign objects where its own should be", []error{replicate.ErrCorrupt, segment.ErrChain, replicate.ErrForeign, errCheck}},
	{codeAccess, "no access: credentials, bucket, endpoint or network", []error{replicate.ErrDenied, replicate.ErrNoBucket, replicate.ErrUnreachable, replicate.ErrUnsupported, context.DeadlineExceeded, errUnfit}},
	{codeNothing, "nothing there: no replica, no database, no process that tells of it, or the state asked for can't be restored", []error{replicate.ErrNoReplica, replicate.ErrNotRestorable, replicate.ErrNotExist, errNoDatabase, errNoProcess, status.ErrNobody}},
	{codeUnconfirmed, "not confirmed: nothing was changed", []error{errUnconfirmed}},
	{codeBusy, "the database is in use: another process replicates it, or has it open", []error{local.ErrBusy, local.ErrInUse}},
	{codeDiffers, "the replica is whole, and the database that it was compared with is another state", []error{errDiffers}},
	{codeRefused, "a database is not replicated: refused by its replica, fenced, or failed", []error{errRefused}},
	{codeBehind, "not everything is in the replica yet; what is missing is kept on this machine", []error{errBehind}},
	{codeFailed, "failed for any other reason", nil},
}

func codeOf(err error) int {
	if err == nil {
		return codeOK
	}
	if child := (*childError)(nil); errors.As(err, &child) {
		return child.code
	}
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return codeUsage
	}
	for _, c := range exitCodes {
		for _, e := range c.errs {
			if errors.Is(err, e) {
				return c.code
			}
		}
	}
	// Not net.Error: plain system errors satisfy that interface, too.
	var (
		dial *net.OpError
		dns  *net.DNSError
		http *url.Error
	)
	if errors.As(err, &dial) || errors.As(err, &dns) || errors.As(err, &http) {
		return codeAccess
	}
	return codeFailed
}

// hints say what to do next, where that is something about the command line,
// which the packages below know nothing of. The first match counts.
var hints = []struct {
	err  error
	text string
}{
	{replicate.ErrVersion, "install a newer outwash; \"outwash version\" tells which one this is"},
	{replicate.ErrCorrupt, "\"outwash verify URL\" says what is broken, which states can still be restored (restore's -txid and -timestamp), and what to do"},
	{replicate.ErrForeign, "\"outwash inspect OBJECT\" shows what it is; nothing was changed"},
	{replicate.ErrNoReplica, "check the path: a replica has an object called \"outwash\" directly below it"},
	{replicate.ErrNotRestorable, "\"outwash ls URL\" shows what can be restored"},
}

func hintFor(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	return ""
}
