//go:build unix

package killtest

import "syscall"

// pause stops the process and returns when it has stopped.
func (a *process) pause() {
	a.t.Helper()
	if err := syscall.Kill(a.pid(), syscall.SIGSTOP); err != nil {
		a.t.Fatal(err)
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(a.pid(), &status, syscall.WUNTRACED, nil)
		if err == nil && status.Stopped() {
			return
		}
		if err != syscall.EINTR {
			a.t.Fatalf("wait for the process to stop: %v, %v\n%s", status, err, &a.log)
		}
	}
}

func (a *process) wake() {
	if err := syscall.Kill(a.pid(), syscall.SIGCONT); err != nil {
		a.t.Fatal(err)
	}
}

const canPause = true
