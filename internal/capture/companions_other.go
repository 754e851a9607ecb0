//go:build !unix

package capture

// Companions has nothing to do: files get their owner and rights from the directory.
func Companions(string) {}
