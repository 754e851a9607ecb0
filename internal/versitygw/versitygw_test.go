package versitygw

import (
	"errors"
	"net/http"
	"os"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/s3store"
)

func TestStartStopRestart(t *testing.T) {
	s := Start(t)
	if os.Getenv("AWS_ACCESS_KEY_ID") != s.AccessKey {
		t.Error("the environment does not have the server's credentials")
	}
	get := func() error {
		resp, err := http.Get(s.Endpoint + s.health)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	before := s.Endpoint
	s.Stop()
	if get() == nil {
		t.Error("it answers after Stop")
	}
	s.Restart()
	if err := get(); err != nil || s.Endpoint != before {
		t.Errorf("after Restart at %s (was %s): %v", s.Endpoint, before, err)
	}
	other := Start(t)
	if other.Endpoint == s.Endpoint || other.SecretKey == s.SecretKey {
		t.Error("two servers are the same")
	}
}

// Users may do what they were given, and nothing else.
func TestUsers(t *testing.T) {
	s := StartWith(t, Options{Users: true})
	open := func(access, secret string) objstore.Store {
		t.Setenv("AWS_ACCESS_KEY_ID", access)
		t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
		store, err := s3store.Open(t.Context(), s.URL("p"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	all := []string{"s3:GetObject", "s3:PutObject", "s3:ListBucket"}
	if err := open(s.AddUser(all...)).Create(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
	reader := open(s.AddUser("s3:GetObject", "s3:ListBucket"))
	if body, _, err := reader.Get(t.Context(), "a", objstore.Range{}); err != nil {
		t.Error(err)
	} else {
		body.Close()
	}
	for _, err := range reader.List(t.Context(), "", "") {
		if err != nil {
			t.Error(err)
		}
	}
	if err := reader.Create(t.Context(), "b", nil); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("a reader writes: %v", err)
	}
	nobody := open(s.AddUser())
	if _, _, err := nobody.Get(t.Context(), "a", objstore.Range{}); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("a user without rights reads: %v", err)
	}
}
