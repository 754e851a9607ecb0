//go:build !linux

package main

import (
	"context"
	"fmt"
	"runtime"
)

func (f *replicateFlags) run(ctx context.Context, _ *ui, args []string) error {
	if _, err := f.plan(ctx, args); err != nil {
		return err
	}
	return fmt.Errorf("not supported on %s: it needs locks that only Linux has; a Go program replicates by itself, through package vfs", runtime.GOOS)
}
