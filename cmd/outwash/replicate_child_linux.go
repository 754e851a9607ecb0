package main

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
)

// runChild runs the program of -exec to its end.
func (r *replication) runChild(u *ui, command []string) error {
	for _, s := range r.fleet.Statuses() {
		if refused(s) {
			// It would write what can't be replicated, and make it harder to join again.
			return fmt.Errorf("%w: the program of -exec was not started", errRefused)
		}
	}
	cmd := &exec.Cmd{Path: command[0], Args: command[1:]}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = u.in, u.out, u.errOut
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("-exec: %w", err)
	}
	r.say.note("%s runs, pid %d", printable(command[1]), cmd.Process.Pid)
	r.signals.pass(cmd.Process)
	if r.signals.stop.Err() != nil { // a signal has come in between
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	err := cmd.Wait()
	r.signals.pass(nil)
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) {
		return err
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return &childError{128 + int(status.Signal()), "signal " + status.Signal().String()}
	}
	return &childError{exit.ExitCode(), fmt.Sprintf("exit code %d", exit.ExitCode())}
}
