package objstore

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// registry is the only global of this package: the schemes that Open knows.
var registry = struct {
	sync.RWMutex
	schemes map[string]Scheme
}{schemes: map[string]Scheme{"file": {Open: openFile}, "mem": {Open: openMem}}}

// Register makes Open know a scheme. It panics if the scheme is taken, as two
// packages then claim it.
func Register(scheme string, s Scheme) {
	registry.Lock()
	defer registry.Unlock()
	if _, dup := registry.schemes[scheme]; dup {
		panic("objstore: scheme " + scheme + " registered twice")
	}
	registry.schemes[scheme] = s
}

// Schemes lists what Open knows, sorted.
func Schemes() []string {
	registry.RLock()
	defer registry.RUnlock()
	var list []string
	for s := range registry.schemes {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// Open opens the store named by rawURL: s3://bucket/path (if s3store is
// imported), file:///directory, mem://name. Errors that wrap ErrConfig say what
// is wrong with the URL, or with a setting (a SettingError); no error shows a
// password that was put into one.
func Open(ctx context.Context, rawURL string, settings Settings) (Store, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok || scheme == "" || strings.ContainsAny(scheme, "/?#@ ") {
		return nil, configError(rawURL, "is not a replica URL: expected s3://BUCKET/PATH or file:///DIRECTORY")
	}
	scheme = strings.ToLower(scheme)
	registry.RLock()
	s, ok := registry.schemes[scheme]
	registry.RUnlock()
	if !ok {
		hint := "known: " + strings.Join(Schemes(), ", ")
		if scheme == "s3" {
			hint += `; a Go program adds s3 with: import _ "github.com/outwash/outwash/s3store"`
		}
		return nil, configError(rawURL, fmt.Sprintf("has the unknown scheme %q (%s)", scheme, hint))
	}
	if HasUserinfo(rawURL) {
		return nil, configError(rawURL, "contains a user name or password, which would end up in logs and process lists: "+
			"give credentials by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a profile")
	}
	for name := range settings {
		if !slices.ContainsFunc(s.Settings, func(k Setting) bool { return k.Name == name }) {
			return nil, &SettingError{name, fmt.Errorf("objstore: %s:// stores have no setting %q: %w", scheme, name, ErrConfig)}
		}
	}
	return s.Open(ctx, scheme+"://"+rest, settings)
}

// HasUserinfo reports whether an authority in rawURL, or in one of its
// parameters, carries a user name or password.
func HasUserinfo(rawURL string) bool {
	main, query, _ := strings.Cut(rawURL, "?")
	if authorityHasUser(main) {
		return true
	}
	for _, param := range strings.Split(query, "&") {
		_, value, _ := strings.Cut(param, "=")
		if plain, err := url.QueryUnescape(value); err == nil {
			value = plain
		}
		// An endpoint may come without its scheme.
		if authorityHasUser(value) || !strings.Contains(value, "://") && authorityHasUser("//"+value) {
			return true
		}
	}
	return false
}

func authorityHasUser(rawURL string) bool {
	_, rest, ok := strings.Cut(rawURL, "//")
	if !ok {
		return false
	}
	authority, path, _ := strings.Cut(rest, "/")
	if strings.Contains(authority, "@") {
		return true
	}
	// Secret keys may contain slashes: KEY:SEC/RET@bucket.
	return strings.Contains(authority, ":") && !strings.HasPrefix(authority, "arn:") && strings.Contains(path, "@")
}

// Redact makes rawURL fit for a message: without parameters, and without
// whatever stands before an @, since that may be a password. It is meant for URLs
// that were refused; a store's String says which store it is.
func Redact(rawURL string) string {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		scheme, rest = "", rawURL
	} else {
		scheme += "://"
	}
	if strings.Contains(scheme, "@") {
		return "…"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "…" + rest[i:]
	}
	rest, _, hadQuery := strings.Cut(rest, "?")
	if hadQuery {
		rest += "?…"
	}
	return scheme + rest
}

func configError(rawURL, what string) error {
	return fmt.Errorf("objstore: %q %s: %w", Redact(rawURL), what, ErrConfig)
}
