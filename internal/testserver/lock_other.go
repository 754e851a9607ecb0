//go:build !unix || solaris || aix

package testserver

// lock does nothing: several test binaries may then build the same server, and
// the rename at the end makes that harmless.
func lock(string) (unlock func(), err error) { return func() {}, nil }
