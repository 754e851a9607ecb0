package main

import (
	"context"
	"flag"

	"github.com/outwash/outwash/replicate"
)

// replicaFlags are the flags by which a verb's argument names a replica.
type replicaFlags struct{}

// declare adds the flags to a verb's.
func (f *replicaFlags) declare(_ *flag.FlagSet) {}

// locate returns the URL and the settings of the replica that arg names.
func (f *replicaFlags) locate(arg string) (url string, settings replicate.Settings, err error) {
	return arg, nil, nil
}

// open opens the replica that arg names.
func (f *replicaFlags) open(ctx context.Context, arg string) (replicate.Store, error) {
	url, settings, err := f.locate(arg)
	if err != nil {
		return nil, err
	}
	return replicate.OpenStoreWith(ctx, url, settings)
}
