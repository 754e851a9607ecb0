package s3store

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/storetest"
	"github.com/outwash/outwash/internal/versitygw"
)

// paths gives every test of one server a path of its own; a and a-b are there
// so that one path is the beginning of another.
var paths atomic.Int64

func nextPath() string {
	n := paths.Add(1)
	return fmt.Sprintf("tests/%d/a", n) + []string{"", "-b"}[n%2]
}

func TestConforms(t *testing.T) {
	gw := versitygw.Start(t)
	storetest.Suite{
		Open: func(t *testing.T) objstore.Store {
			t1, err := parseURL(gw.URL(nextPath()), nil)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := config.LoadDefaultConfig(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			s, err := newStore(cfg, t1, Options{PartSize: 5 << 20})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		PartSize: 5 << 20,
		Keys:     2300,
	}.Run(t)
}

// What AWS gets: checksums on every request and part. The server checks them.
func TestConformsWithChecksums(t *testing.T) {
	gw := versitygw.Start(t)
	storetest.Suite{
		Open: func(t *testing.T) objstore.Store {
			s := openTest(t, gw.URL(nextPath()))
			s.t.checksumsRequired = false
			o := s.client.Options()
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
			o.HTTPClient = sumsChecker{t, o.HTTPClient}
			s.client = s3.New(o)
			return s
		},
		PartSize: 8 << 20,
		Keys:     300,
	}.Run(t)
}

// sumsChecker makes sure that the test tests what it says.
type sumsChecker struct {
	t    *testing.T
	next s3.HTTPClient
}

func (c sumsChecker) Do(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && r.Header.Get("X-Amz-Checksum-Crc32") == "" && r.Header.Get("X-Amz-Trailer") == "" {
		c.t.Errorf("PUT %s without a checksum", r.URL)
	}
	return c.next.Do(r)
}

// At the bucket's top, through the registry.
func TestConformsWithoutPath(t *testing.T) {
	gw := versitygw.Start(t)
	s, err := objstore.Open(t.Context(), gw.URL(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "outwash", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil || info.Key != "outwash" {
			t.Errorf("listed %+v, %v", info, err)
		}
	}
	if want := "s3://bucket?endpoint=" + gw.Endpoint; s.String() != want {
		t.Errorf("String is %q, want %q", s, want)
	}
}
