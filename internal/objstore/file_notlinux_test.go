//go:build !linux

package objstore

var renameNewForTest = linkNew
