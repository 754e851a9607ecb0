package replicate

import (
	"context"

	"github.com/outwash/outwash/internal/objstore"
)

type (
	// Store holds the objects of one replica: see the methods' comments for what
	// an implementation must promise.
	Store = objstore.Store
	// ObjectInfo describes an object of a [Store].
	ObjectInfo = objstore.Info
	// Settings describe a store beyond its URL, by name.
	Settings = objstore.Settings
	// SettingError says which setting of a store is wrong.
	SettingError = objstore.SettingError
	// Range selects a part of an object.
	Range = objstore.Range
)

// Errors of stores, for errors.Is.
var (
	ErrNotExist    = objstore.ErrNotExist    // no object has this key
	ErrExist       = objstore.ErrExist       // an object with this key exists already
	ErrChanged     = objstore.ErrChanged     // the object changed while it was read
	ErrDenied      = objstore.ErrDenied      // credentials are missing, wrong, or lack a permission
	ErrNoBucket    = objstore.ErrNoBucket    // the bucket does not exist
	ErrConfig      = objstore.ErrConfig      // the store was described wrongly
	ErrUnsupported = objstore.ErrUnsupported // the server lacks an operation
)

// OpenStore opens the store that url names: s3://bucket/path if the program
// imports package s3store, file:///directory, mem://name. Errors that wrap
// [ErrConfig] say what is wrong with the URL.
func OpenStore(ctx context.Context, url string) (Store, error) {
	return objstore.Open(ctx, url, nil)
}

// OpenStoreWith opens the store that url names, with settings that stand beside
// the URL in a configuration file, such as credentials. Errors are OpenStore's; one
// of a setting is a [SettingError].
func OpenStoreWith(ctx context.Context, url string, settings Settings) (Store, error) {
	return objstore.Open(ctx, url, settings)
}

// NewMemStore returns an empty store in memory, for tests.
func NewMemStore() Store { return objstore.NewMem() }
