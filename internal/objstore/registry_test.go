package objstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

func TestOpenErrors(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"", "not a replica URL"},
		{"/var/backup", "expected s3://BUCKET/PATH or file:///DIRECTORY"},
		{"file:rel", "not a replica URL"},
		{"file:/abs", "not a replica URL"},
		{"://x", "not a replica URL"},
		{"file://rel/dir", "three slashes"},
		{"file:///dir?x=1", "take none"},
		{"file:///dir#x", "take none"},
		{"file:///dir%zz", "can't be parsed"},
		{"file://", "not an absolute path"},
		{"mem://", "mem://NAME"},
		{"gopher://hole", `unknown scheme "gopher" (known: file, mem`},
		{"s3://bucket/path", `import _ "github.com/outwash/outwash/s3store"`},
		{"mem://user:hunter2@host/x", "user name or password"},
		{"mem://AKID:hun/ter2@bucket/x", "user name or password"},
		{"mem://x?endpoint=https://user:hunter2@host", "user name or password"},
		{"mem://x?endpoint=https%3A%2F%2Fuser%3Ahunter2%40host", "user name or password"},
		{"mem://x?endpoint=user:hunter2@host", "user name or password"},
		{"gopher://user:hunter2@hole", "unknown scheme"},
		{"user:hunter2@host/path", "not a replica URL"},
		{"gopher://x?secret=hunter2", "unknown scheme"},
		{"file://user:hunter2@host/%zz", "user name or password"},
		{"file:///a%zz?secret=hunter2", "can't be parsed"},
	} {
		_, err := objstore.Open(context.Background(), tt.url, nil)
		if !errors.Is(err, objstore.ErrConfig) {
			t.Errorf("%q: %v, want ErrConfig", tt.url, err)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v\ndoes not say %q", tt.url, err, tt.want)
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") || !strings.HasPrefix(err.Error(), "objstore: ") {
			t.Errorf("%q: %v", tt.url, err)
		}
	}
}

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ url, want string }{
		{"file://" + dir, "file://" + dir},
		{"FILE://" + dir + "/", "file://" + dir},
		{"file://localhost" + dir + "/a%20b@c/", "file://" + dir + "/a%20b@c"},
	} {
		s, err := objstore.Open(context.Background(), tt.url, nil)
		if err != nil {
			t.Errorf("%q: %v", tt.url, err)
		} else if s.String() != tt.want {
			t.Errorf("%q opened %s, want %s", tt.url, s, tt.want)
		}
	}
}

func TestMemIsSharedByName(t *testing.T) {
	ctx := context.Background()
	a, err := objstore.Open(ctx, "mem://TestMemIsSharedByName/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := objstore.Open(ctx, "mem://TestMemIsSharedByName/b", nil)
	again, _ := objstore.Open(ctx, "mem://TestMemIsSharedByName/a", nil)
	if err := a.Create(ctx, "k", nil); err != nil {
		t.Fatal(err)
	}
	if err := again.Create(ctx, "k", nil); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("the same name: %v, want ErrExist", err)
	}
	if err := b.Create(ctx, "k", nil); err != nil {
		t.Errorf("another name: %v", err)
	}
}

func TestRegisterTwicePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	objstore.Register("file", objstore.Scheme{})
}
