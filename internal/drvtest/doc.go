// Package drvtest has no code but its tests: they run what the SQLite driver
// tests itself with, mptest and wal_stress, through the VFS of this project, and
// compare the replica with the database. Nothing of the driver is copied into
// this repository: the module is copied from the module cache while the test runs
// (its tests import its internal packages, and files in the cache can't be
// overlaid), the files in testdata are added to the copy, and it is tested in the
// place of the released module.
//
// They also keep go35.mod, with which everything is built and tested against the
// driver's other generation, in step with go.mod:
//
//	go test ./internal/drvtest -run TestModFiles -update
//	go test -modfile=go35.mod -tags driver35 ./...
package drvtest
