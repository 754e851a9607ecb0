//go:build driver35

package killtest

// setupDriver: there is nothing to compile.
func setupDriver(string) error { return nil }
