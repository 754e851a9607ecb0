//go:build !linux

package killtest

const sidecarEnv = "OUTWASH_KILLTEST_SIDECAR"

func sidecarMain(string) {}
