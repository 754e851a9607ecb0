package objstore

import (
	"context"
	"slices"
)

// Settings describe a store beyond its URL's host and path, by name: what a
// configuration file says. They may hold secrets, which URLs must not, and are
// never shown. A URL's parameters win over them.
type Settings map[string]string

// A Setting is one that a scheme knows: a parameter of its URLs and a key of
// configuration files.
type Setting struct {
	Name   string
	Doc    string // one line for people
	Secret bool   // refused in URLs
}

// A SettingError says that a setting's value is wrong. It wraps ErrConfig.
type SettingError struct {
	Name string
	Err  error
}

func (e *SettingError) Error() string { return e.Err.Error() }
func (e *SettingError) Unwrap() error { return e.Err }

// A Scheme opens the stores of one kind.
type Scheme struct {
	// Open gets the URL unparsed: access point ARNs in s3 URLs are nothing that
	// net/url accepts. Every name in settings is one that the scheme knows.
	Open     func(ctx context.Context, rawURL string, settings Settings) (Store, error)
	Settings []Setting // sorted by name
}

// SettingsOf returns what settings a scheme knows, sorted by name; nil if it knows
// none or is not registered.
func SettingsOf(scheme string) []Setting {
	registry.RLock()
	defer registry.RUnlock()
	return slices.Clone(registry.schemes[scheme].Settings)
}
