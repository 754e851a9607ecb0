package local

import "golang.org/x/sys/unix"

// BootID names the machine's run since it was started: what was written in this
// run is still there, synced or not. "" if it can't be had: then nothing is
// concluded.
func BootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}
