//go:build driver35

package main

// setupDriver has nothing to do: from v0.33 on the driver is plain Go.
func setupDriver() {}
