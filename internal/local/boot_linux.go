package local

import (
	"os"
	"strings"
)

// BootID names the machine's run since it was started: what was written in this
// run is still there, synced or not. "" if it can't be had: then nothing is
// concluded.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
