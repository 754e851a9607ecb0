package s3proxy_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
	"github.com/outwash/outwash/s3store"
)

func open(t *testing.T, endpoint, more string) objstore.Store {
	t.Helper()
	s, err := s3store.Open(t.Context(), "s3://bucket/path?endpoint="+endpoint+more, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantObject(t *testing.T, s objstore.Store, key, want string) {
	t.Helper()
	body, _, err := s.Get(t.Context(), key, objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != want || err != nil {
		t.Fatalf("%q, %v; expected %q", got, err, want)
	}
}

// What the proxy lets through arrives unchanged, signatures intact; the rest the
// server never sees.
func TestRulesAndRecord(t *testing.T) {
	gw := versitygw.Start(t)
	p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{})
	s := open(t, p.URL, "")
	keys := []string{"a", "b c", "d+e", "ä%", "x/y=z&"}
	for _, key := range keys {
		if err := s.Create(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, key)
	}
	p.Refuse(s3proxy.Allow("s3:GetObject", "s3:ListBucket"))
	err := s.Create(t.Context(), "f", nil)
	if !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), "no identity-based policy allows the s3:PutObject action") ||
		!strings.Contains(err.Error(), `"arn:aws:s3:::bucket/path/f"`) {
		t.Errorf("refused: %v", err)
	}
	wantObject(t, s, "a", "a")
	p.Refuse(s3proxy.Deny("GetObject"))
	if _, _, err := s.Get(t.Context(), "a", objstore.Range{}); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("refused: %v", err)
	}
	p.Refuse(nil)
	p.Forget()
	wantObject(t, s, "a", "a")
	if c := p.Calls(); len(c) != 1 || c[0].Operation != "GetObject" || c[0].Bucket != "bucket" || c[0].Key != "path/a" || c[0].AccessKey != gw.AccessKey {
		t.Errorf("record: %+v", c)
	}
	if _, _, err := s.Get(t.Context(), "f", objstore.Range{}); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("the server saw what was refused: %v", err)
	}
}

func TestTLS(t *testing.T) {
	gw := versitygw.Start(t)
	ca := s3proxy.NewCA(t)
	p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Certificate: ca.Issue("127.0.0.1")})
	if err := open(t, p.URL, "").Create(t.Context(), "a", nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody's: %v", err)
	}
	t.Setenv("AWS_CA_BUNDLE", ca.File)
	if err := open(t, p.URL, "").Create(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
	for _, c := range []*s3proxy.Certificate{ca.Issue("s3.example.com"), ca.IssueExpired("127.0.0.1")} {
		p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Certificate: c})
		if err := open(t, p.URL, "").Create(t.Context(), "a", nil); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a certificate that isn't right: %v", err)
		}
	}
}

// Clients whose clock is wrong are refused; those that take the server's are not,
// and what they sign is checked.
func TestClock(t *testing.T) {
	gw := versitygw.Start(t)
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Clock: ahead, Secrets: map[string]string{gw.AccessKey: gw.SecretKey}})
		s := open(t, p.URL, "")
		key := "odd +%ä/" + ahead.String()
		if err := s.Create(t.Context(), key, []byte(ahead.String())); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, ahead.String())
		ops := []string{}
		for _, c := range p.Calls() {
			ops = append(ops, c.Operation)
		}
		if len(ops) != 3 || !slices.Equal(ops[:2], []string{"PutObject", "PutObject"}) {
			t.Errorf("calls: %v; expected one that is refused", ops)
		}
	}
	p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Clock: time.Minute, Secrets: map[string]string{gw.AccessKey: "other"}})
	if err := open(t, p.URL, "").Create(t.Context(), "c", nil); err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
		t.Errorf("wrong secret: %v", err)
	}
}
