//go:build !linux

package sidecar

import (
	"context"
	"errors"

	"github.com/outwash/outwash/replicate"
)

const supported = false

var errBusy = errors.New("never")

type session struct{}

func (db *DB) runSession(context.Context, *watcher, int) error { return ErrUnsupported }

func (s *session) status() (replicate.Status, bool) { return replicate.Status{}, false }

func (s *session) sync(context.Context) (uint64, bool, error) { return 0, true, ErrUnsupported }
