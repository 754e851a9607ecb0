//go:build !unix

package killtest

const canPause = false

func (a *process) pause() { a.t.Fatal("processes can't be paused here") }

func (a *process) wake() { a.t.Fatal("processes can't be paused here") }
