package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// signals is what becomes of signals: the first that asks for an end ends what there
// is to do, one more the drain behind it. While a program of -exec runs it gets them
// all, and nothing ends but with it.
type signals struct {
	say        *herald
	ch         chan os.Signal
	stop, hard context.Context // end with the first, and with one more
	cancelStop context.CancelFunc
	cancelHard context.CancelFunc

	mu     sync.Mutex
	child  *os.Process
	drains bool
	done   chan struct{}
}

// watchSignals begins. Signals that mean something to programs alone do what they
// always do where there is none.
func watchSignals(say *herald, child bool) *signals {
	s := &signals{say: say, ch: make(chan os.Signal, 16), done: make(chan struct{})}
	s.stop, s.cancelStop = context.WithCancel(context.Background())
	s.hard, s.cancelHard = context.WithCancel(context.Background())
	// Who reads the log may end before us: what can't be written is lost, and the
	// databases are replicated. Without SIGPIPE here Go ends the program (os/signal).
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		list = append(list, syscall.SIGHUP)
	}
	if child {
		list = append(list, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	}
	signal.Notify(s.ch, list...)
	go func() {
		defer close(s.done)
		for sig := range s.ch {
			s.handle(sig)
		}
	}()
	return s
}

// end gives signals back what they do in programs that don't care.
func (s *signals) end() {
	signal.Stop(s.ch)
	close(s.ch)
	<-s.done
	s.cancelStop()
	s.cancelHard()
}

// draining: what asks for an end from now on ends the drain.
func (s *signals) draining() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drains = true
	s.cancelStop()
}

// pass has a program get the signals, until it is nil.
func (s *signals) pass(p *os.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = p
}

func (s *signals) handle(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case sig == syscall.SIGPIPE:
	case s.child != nil:
		if !fromTerminal(sig) {
			_ = s.child.Signal(sig) // it has just ended, perhaps
		}
	case sig == syscall.SIGHUP && !s.say.u.terminal:
		s.say.note("SIGHUP: the configuration is read at the start alone; restart to have it read again")
	case sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP:
		if !s.drains && s.stop.Err() == nil {
			s.cancelStop()
			break
		}
		s.cancelHard()
		signal.Stop(s.ch) // a third one kills
	}
}

// fromTerminal reports whether the program has got a signal already, since a terminal
// sends those of its keys to all processes in the foreground.
func fromTerminal(sig os.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP)
		return err == nil && group == unix.Getpgrp()
	}
	return false
}
