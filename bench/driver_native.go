//go:build driver35

package main

// setupDriver has nothing to do: the driver from v0.33 on is plain Go.
func setupDriver() {}
