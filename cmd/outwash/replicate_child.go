package main

import (
	"fmt"
	"os/exec"

	"github.com/outwash/outwash/internal/shell"
)

// childError is how the program of -exec ended: with this code, which becomes ours.
type childError struct {
	code int
	how  string
}

func (e *childError) Error() string { return "the program of -exec ended with " + e.how }

// parseCommand takes the command of -exec apart, and finds its program: before
// anything has begun. "" is none.
func parseCommand(command string) ([]string, error) {
	words, err := shell.Split(command)
	if err != nil {
		return nil, usagef("-exec: %v", err)
	}
	if len(words) == 0 {
		if command != "" {
			return nil, usagef("-exec: the command is empty")
		}
		return nil, nil
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return nil, fmt.Errorf("-exec: %w", usagef("%v", err))
	}
	return append([]string{path}, words...), nil
}
