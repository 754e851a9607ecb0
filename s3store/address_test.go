package s3store

import (
	"errors"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

func TestAddress(t *testing.T) {
	const ap = "arn:aws:s3:us-east-2:123456789012:accesspoint/myap"
	for _, tt := range []struct {
		url              string
		endpoint, region string // the environment's
		want             Target
	}{
		{url: "s3://bucket", want: Target{Bucket: "bucket", Region: "us-east-1"}},
		{url: "s3://bucket/", want: Target{Bucket: "bucket", Region: "us-east-1"}},
		{url: "s3://bucket/a/b/", region: "eu-west-1", want: Target{Bucket: "bucket", Prefix: "a/b", Region: "eu-west-1"}},
		{url: "s3://bucket/a%20b", want: Target{Bucket: "bucket", Prefix: "a%20b", Region: "us-east-1"}},
		{url: "s3://bucket/a@b", want: Target{Bucket: "bucket", Prefix: "a@b", Region: "us-east-1"}},
		{url: "s3://bucket/p?region=eu-central-1", region: "eu-west-1",
			want: Target{Bucket: "bucket", Prefix: "p", Region: "eu-central-1", regionGiven: true}},
		{url: "s3://my.bucket/p", want: Target{Bucket: "my.bucket", Prefix: "p", Region: "us-east-1", PathStyle: true}},
		{url: "s3://MyBucket/p", want: Target{Bucket: "MyBucket", Prefix: "p", Region: "us-east-1", PathStyle: true}},
		{url: "s3://my.bucket?force-path-style=false", want: Target{Bucket: "my.bucket", Region: "us-east-1", styleGiven: true}},
		{url: "s3://b/p?endpoint=https://s3.example.com/", want: Target{Bucket: "b", Prefix: "p", Endpoint: "https://s3.example.com", Region: "us-east-1", checksumsRequired: true}},
		{url: "s3://b/p?endpoint=s3.example.com", want: Target{Bucket: "b", Prefix: "p", Endpoint: "https://s3.example.com", Region: "us-east-1", checksumsRequired: true}},
		{url: "s3://b/p?endpoint=minio:9000", want: Target{Bucket: "b", Prefix: "p", Endpoint: "https://minio:9000", Region: "us-east-1", checksumsRequired: true}},
		{url: "s3://b/p?endpoint=s3.example.com/storage/v1/s3&force-path-style=true",
			want: Target{Bucket: "b", Prefix: "p", Endpoint: "https://s3.example.com/storage/v1/s3", Region: "us-east-1", PathStyle: true, styleGiven: true, checksumsRequired: true}},
		{url: "s3://b/p?endpoint=127.0.0.1:9000", want: Target{Bucket: "b", Prefix: "p", Endpoint: "http://127.0.0.1:9000", Region: "us-east-1", PathStyle: true, checksumsRequired: true}},
		{url: "s3://b/p?endpoint=localhost:9000", want: Target{Bucket: "b", Prefix: "p", Endpoint: "http://localhost:9000", Region: "us-east-1", PathStyle: true, checksumsRequired: true}},
		{url: "s3://b/p?endpoint=10.1.2.3", want: Target{Bucket: "b", Prefix: "p", Endpoint: "http://10.1.2.3", Region: "us-east-1", PathStyle: true, checksumsRequired: true}},
		{url: "s3://b/p?endpoint=[::1]:9000", want: Target{Bucket: "b", Prefix: "p", Endpoint: "http://[::1]:9000", Region: "us-east-1", PathStyle: true, checksumsRequired: true}},
		{url: "s3://b/p?endpoint=8.8.8.8", want: Target{Bucket: "b", Prefix: "p", Endpoint: "https://8.8.8.8", Region: "us-east-1", PathStyle: true, checksumsRequired: true}},
		{url: "s3://b/p?endpoint=https%3A%2F%2F127.0.0.1%3A9000&force-path-style=0",
			want: Target{Bucket: "b", Prefix: "p", Endpoint: "https://127.0.0.1:9000", Region: "us-east-1", styleGiven: true, checksumsRequired: true}},
		{url: "s3://b/p", endpoint: "http://127.0.0.1:9", region: "auto", want: Target{Bucket: "b", Prefix: "p", Endpoint: "http://127.0.0.1:9", Region: "auto", PathStyle: true, checksumsRequired: true}},
		{url: "s3://" + ap + "/db/one", region: "eu-west-1", want: Target{Bucket: ap, AccessPoint: true, Prefix: "db/one", Region: "us-east-2"}},
		{url: "s3://arn:aws:s3:us-east-2:123456789012:accesspoint:myap", want: Target{Bucket: ap, AccessPoint: true, Region: "us-east-2"}},
		{url: "s3://" + ap + "?region=us-west-1", want: Target{Bucket: ap, AccessPoint: true, Region: "us-west-1", regionGiven: true}},
		{url: "s3://arn:aws:s3:::bucket/p", want: Target{Bucket: "bucket", Prefix: "p", Region: "us-east-1"}},
	} {
		a, err := parseURL(tt.url, nil)
		got := a.Target
		if err == nil {
			endpoint := tt.endpoint
			if got.Endpoint != "" {
				endpoint = got.Endpoint
			}
			got, err = got.settle(endpoint, tt.region)
		}
		if err != nil || got != tt.want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", tt.url, got, err, tt.want)
		}
	}
}

func TestAddressErrors(t *testing.T) {
	for _, tt := range []struct {
		url, want string
		kind      error
	}{
		{"http://bucket", "does not start with s3://", objstore.ErrConfig},
		{"s3://", "no bucket is named", objstore.ErrConfig},
		{"s3:///path", "no bucket is named", objstore.ErrConfig},
		{"s3://buc ket/p", "not a bucket's name", objstore.ErrConfig},
		{"s3://localhost:9000/bucket", "?endpoint=HOST:PORT", objstore.ErrConfig},
		{"s3://AKID:hunter2@bucket/p", "credentials don't belong", objstore.ErrConfig},
		{"s3://AKID:hun/ter2@bucket/p", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?endpoint=https://u:hunter2@host", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?endpoint=https%3A%2F%2Fu%3Ahunter2%40host", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?endpoint=u:hunter2@host", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?secret-access-key=hunter2", "parameter secret-access-key: credentials and keys don't belong", objstore.ErrConfig},
		{"s3://b/p?Region=x", `unknown parameter "Region"`, objstore.ErrConfig},
		{"s3://b/p?region=a&region=b", "given more than once", objstore.ErrConfig},
		{"s3://b/p?region=", "has no value", objstore.ErrConfig},
		{"s3://b/p?region=EU.x", "not a region's name", objstore.ErrConfig},
		{"s3://b/p?force-path-style=maybe", "neither true nor false", objstore.ErrConfig},
		{"s3://b/p?endpoint=ftp://host", "neither http nor https", objstore.ErrConfig},
		{"s3://b/p?endpoint=https://", "not a server's URL", objstore.ErrConfig},
		{"s3://b/p?endpoint=https://h/?x=hunter2", "must not have parameters", objstore.ErrConfig},
		{"s3://b/p?x=%zz", "can't be parsed", objstore.ErrConfig},
		{"s3://b/p?region=a;endpoint=b", "can't be parsed", objstore.ErrConfig},
		{"s3://b/a//b", "must not contain //", objstore.ErrConfig},
		{"s3://b/a/../b", "must not contain //", objstore.ErrConfig},
		{"s3://b/a\nb", "control character", objstore.ErrConfig},
		{"s3://b/a#b", "# is not supported", objstore.ErrConfig},
		{"s3://b--use1-az4--x-s3/p", "S3 Express", objstore.ErrUnsupported},
		{"s3://arn:aws:s3-outposts:us-east-1:123456789012:outpost/op/accesspoint/ap", `of service "s3-outposts"`, objstore.ErrUnsupported},
		{"s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap", "multi-region", objstore.ErrUnsupported},
		{"s3://arn:aws:s3:us-east-1:123456789012:something/else", "no access point", objstore.ErrUnsupported},
		{"s3://arn:aws:s3:us-east-1:123456789012:accesspoint/", "not an access point's ARN", objstore.ErrConfig},
		{"s3://arn:aws:s3", "not supported", objstore.ErrUnsupported},
		{"s3://arn:aws:s3:us-east-2:123456789012:accesspoint/myap?force-path-style=true", "can't be reached with force-path-style", objstore.ErrConfig},
	} {
		got, err := parseURL(tt.url, nil)
		if err == nil {
			_, err = got.settle(got.Endpoint, "")
		}
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v\nwant %v: %s", tt.url, err, tt.kind, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") || !strings.HasPrefix(err.Error(), "s3store: ") {
			t.Errorf("%q: %v", tt.url, err)
		}
	}
}

func TestPartSize(t *testing.T) {
	o, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ hint, want int64 }{
		{0, 8 << 20}, {1 << 30, 8 << 20}, {9000 * (8 << 20), 8 << 20}, {9000*(8<<20) + 1, 8<<20 + 1},
		{1 << 40, (1<<40 + 8999) / 9000}, {1 << 62, 5 << 30},
	} {
		if got := o.partSize(tt.hint); got != tt.want {
			t.Errorf("hint %d: %d, want %d", tt.hint, got, tt.want)
		}
	}
	for _, bad := range []int64{1, 5<<20 - 1, 5<<30 + 1, -1} {
		if _, err := (Options{PartSize: bad}).withDefaults(); !errors.Is(err, objstore.ErrConfig) {
			t.Errorf("PartSize %d: %v", bad, err)
		}
	}
}
