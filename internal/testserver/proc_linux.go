package testserver

import "syscall"

// sysProcAttr makes the child die when the test does, even by kill -9 or a panic
// at the test's time limit.
func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
