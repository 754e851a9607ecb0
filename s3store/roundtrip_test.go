package s3store

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/outwash/outwash/internal/objstore"
)

// String is a URL by which commands find the same objects in the same way, without
// the settings that stood beside the URL.
func TestStringRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	good := 0
	for range 20_000 {
		env := environment{
			endpoint: pick("", "", "http://127.0.0.1:9000", "https://s3.eu-west-1.amazonaws.com", "https://s3.amazonaws.com",
				"https://minio.example.com", "https://x.example.com/storage/v1/s3", "https://s3.us-west-004.backblazeb2.com", "s3.us-east-1.wasabisys.com"),
			region:    pick("", "us-east-1", "eu-central-1"),
			dualStack: pick("", "", "", "true") != "",
			fips:      pick("", "", "", "true") != "",
		}
		if env.endpoint != "" {
			env.endpointFrom = "AWS_ENDPOINT_URL_S3"
		}
		rawURL := "s3://" + pick("bucket", "my.bucket", "Buck_et", "arn:aws:s3:::bucket", "arn:aws:s3:eu-central-1:123456789012:accesspoint/ap",
			"bucket.s3.eu-central-1.amazonaws.com", "my.bucket.s3.amazonaws.com", "s3.eu-west-3.amazonaws.com/bucket",
			"bucket.s3.dualstack.eu-central-1.amazonaws.com", "bucket.s3-fips.us-east-1.amazonaws.com", "bucket.s3.cn-north-1.amazonaws.com.cn",
			"bucket.bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
			"bucket.s3.us-west-004.backblazeb2.com", "bucket.ams3.digitaloceanspaces.com", "b.acc.r2.cloudflarestorage.com", "b.t3.storage.dev",
			"b.storage.googleapis.com", "localhost:9000/bucket", "bucket.localhost:9000", "minio:9000/b") +
			pick("", "/", "/a", "/a b/c", "/a+b%20", "/ä/&=;")
		given := objstore.Settings{}
		param := "?"
		add := func(name string, values ...string) {
			switch value := pick(values...); r.IntN(8) {
			case 0:
				given[name] = value
			case 1:
				rawURL += param + name + "=" + escape(value)
				param = "&"
			}
		}
		add("endpoint", "https://s3.eu-central-1.amazonaws.com", "s3.amazonaws.com", "10.0.0.1:9000", "https://minio.example.com/x", "http://localhost:9000",
			"https://bucket.s3.eu-central-1.amazonaws.com", "https://[::1]:9000", "https://s3.eu-central-003.backblazeb2.com/bucket", "https://acc.r2.cloudflarestorage.com/bucket")
		add("region", "eu-central-1", "us-east-1", "cn-north-1", "auto")
		for _, name := range []string{"force-path-style", "dualstack", "fips", "sign-payload", "skip-verify", "require-content-md5", "put-object-content-md5", "sign-accept-encoding"} {
			add(name, "true", "no")
		}
		add("sse", "AES256", "aws:kms")
		add("sse-kms-key-id", "alias/a b", "arn:aws:kms:x:y:key/1")

		settled := func(rawURL string, given objstore.Settings) (Target, string, error) {
			a, err := parseURL(rawURL, given)
			if err != nil {
				return Target{}, "", err
			}
			t, err := a.settle(env)
			said := t.url(a.wishes)
			t.EndpointFrom, t.RegionFrom = "", "" // who said so has changed
			return t, said, err
		}
		was, said, err := settled(rawURL, given)
		if err != nil {
			continue // what is refused: TestAddressErrors
		}
		good++
		now, again, err := settled(said, nil)
		if err != nil || now != was || again != said {
			t.Fatalf("%+v: %s with %v is\n%s\n%+v\nthat is\n%s\n%+v\n%v", env, rawURL, map[string]string(given), said, was, again, now, err)
		}
	}
	if good < 1000 {
		t.Errorf("only %d of the URLs were any good", good)
	}
}

// New refuses what String couldn't say: nobody could restore by command.
func TestPathWithoutURL(t *testing.T) {
	testEnv(t)
	for _, prefix := range []string{"a?b", "a#b"} {
		if s, err := New(aws.Config{}, "bucket", prefix, Options{}); !errors.Is(err, objstore.ErrConfig) {
			t.Errorf("%q: %v, %v", prefix, s, err)
		}
	}
}
