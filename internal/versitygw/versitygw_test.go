package versitygw

import (
	"net/http"
	"os"
	"testing"
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
