package main

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/outwash/outwash/replicate"
)

// consentStore writes nothing before somebody has agreed. An engine that wants to
// write unasked has found that the database continues the replica.
type consentStore struct {
	replicate.Store
	file  string // configuration file that lists database and replica
	given atomic.Bool
}

// ListedIn implements objstore.Listed.
func (s *consentStore) ListedIn() string { return s.file }

func (s *consentStore) allowed() error {
	if s.given.Load() {
		return nil
	}
	return fmt.Errorf("%w: %w", errContinues, replicate.ErrConfig) // which no engine retries
}

// Create implements replicate.Store.
func (s *consentStore) Create(ctx context.Context, key string, data []byte) error {
	if err := s.allowed(); err != nil {
		return err
	}
	return s.Store.Create(ctx, key, data)
}

// Put implements replicate.Store.
func (s *consentStore) Put(ctx context.Context, key string, data []byte) error {
	if err := s.allowed(); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, data)
}

// Upload implements replicate.Store.
func (s *consentStore) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	if err := s.allowed(); err != nil {
		return 0, err
	}
	return s.Store.Upload(ctx, key, r)
}

// Delete implements replicate.Store.
func (s *consentStore) Delete(ctx context.Context, keys ...string) error {
	if err := s.allowed(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, keys...)
}
