package s3store

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
)

// resolve is the whole of addressing: URL, settings and environment to a target.
func resolve(rawURL string, given objstore.Settings, env environment) (Target, wishes, error) {
	a, err := parseURL(rawURL, given)
	if err != nil {
		return Target{}, wishes{}, err
	}
	t, err := a.settle(env)
	return t, a.wishes, err
}

const accessPoint = "arn:aws:s3:us-east-2:123456789012:accesspoint/myap"

func TestAddress(t *testing.T) {
	env := func(endpoint, region string) environment {
		return environment{endpoint: endpoint, endpointFrom: "ENV", region: region, regionFrom: "ENV"}
	}
	const urlHost, host, def = "the URL's host", "the server's host", "default"
	for _, tt := range []struct {
		url   string
		given objstore.Settings
		env   environment
		want  string // bucket prefix | provider | endpoint | host | region source | style
		says  string // String, if not the URL
	}{
		// Plain.
		{url: "s3://bucket", want: "bucket|Amazon S3||bucket.s3.us-east-1.amazonaws.com|us-east-1 default|host"},
		{url: "s3://bucket/", want: "bucket|Amazon S3||bucket.s3.us-east-1.amazonaws.com|us-east-1 default|host", says: "s3://bucket"},
		{url: "s3://bucket/a/b/", env: env("", "eu-west-1"), want: "bucket a/b|Amazon S3||bucket.s3.eu-west-1.amazonaws.com|eu-west-1 ENV|host", says: "s3://bucket/a/b"},
		{url: "s3://bucket/a%20b", want: "bucket a%20b|Amazon S3||bucket.s3.us-east-1.amazonaws.com|us-east-1 default|host"},
		{url: "s3://bucket/a@b", want: "bucket a@b|Amazon S3||bucket.s3.us-east-1.amazonaws.com|us-east-1 default|host"},
		{url: "s3://bucket/p?region=eu-central-1", env: env("", "eu-west-1"), want: "bucket p|Amazon S3||bucket.s3.eu-central-1.amazonaws.com|eu-central-1 the URL|host"},
		{url: "s3://bucket/p?region=eu-central-1", given: objstore.Settings{"region": "eu-north-1"}, want: "bucket p|Amazon S3||bucket.s3.eu-central-1.amazonaws.com|eu-central-1 the URL|host"},
		{url: "s3://bucket/p", given: objstore.Settings{"region": "eu-north-1"}, env: env("", "eu-west-1"),
			want: "bucket p|Amazon S3||bucket.s3.eu-north-1.amazonaws.com|eu-north-1 the settings|host", says: "s3://bucket/p?region=eu-north-1"},
		{url: "s3://bucket?region=cn-north-1", want: "bucket|Amazon S3||bucket.s3.cn-north-1.amazonaws.com.cn|cn-north-1 the URL|host"},
		{url: "s3://bucket?region=us-gov-west-1", want: "bucket|Amazon S3||bucket.s3.us-gov-west-1.amazonaws.com|us-gov-west-1 the URL|host"},
		{url: "s3://my.bucket/p", want: "my.bucket p|Amazon S3||s3.us-east-1.amazonaws.com|us-east-1 default|path"},
		{url: "s3://MyBucket/p", want: "MyBucket p|Amazon S3||s3.us-east-1.amazonaws.com|us-east-1 default|path"},
		{url: "s3://bucket?force-path-style=true", want: "bucket|Amazon S3||s3.us-east-1.amazonaws.com|us-east-1 default|path"},
		{url: "s3://bucket?forcePathStyle=1", want: "bucket|Amazon S3||s3.us-east-1.amazonaws.com|us-east-1 default|path", says: "s3://bucket?force-path-style=true"},
		{url: "s3://bucket?region=eu-west-1&dualstack=true", want: "bucket|Amazon S3||bucket.s3.dualstack.eu-west-1.amazonaws.com|eu-west-1 the URL|host"},
		{url: "s3://bucket?region=us-west-2&fips=true", want: "bucket|Amazon S3||bucket.s3-fips.us-west-2.amazonaws.com|us-west-2 the URL|host"},
		{url: "s3://bucket", env: environment{region: "us-west-2", regionFrom: "ENV", fips: true, dualStack: true},
			want: "bucket|Amazon S3||bucket.s3-fips.dualstack.us-west-2.amazonaws.com|us-west-2 ENV|host", says: "s3://bucket?dualstack=true&fips=true"},
		{url: "s3://bucket?dualstack=false", env: environment{dualStack: true}, want: "bucket|Amazon S3||bucket.s3.us-east-1.amazonaws.com|us-east-1 default|host"},
		{url: "s3://myap-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias/p?region=us-west-2",
			want: "myap-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias p|Amazon S3||myap-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias.s3.us-west-2.amazonaws.com|us-west-2 the URL|host"},

		// ARNs.
		{url: "s3://arn:aws:s3:::bucket/p", want: "bucket p|Amazon S3||bucket.s3.us-east-1.amazonaws.com|us-east-1 default|host", says: "s3://bucket/p"},
		{url: "s3://arn:aws-cn:s3:::bucket?region=cn-northwest-1", want: "bucket|Amazon S3||bucket.s3.cn-northwest-1.amazonaws.com.cn|cn-northwest-1 the URL|host", says: "s3://bucket?region=cn-northwest-1"},
		{url: "s3://" + accessPoint, want: accessPoint + "|Amazon S3||myap-123456789012.s3-accesspoint.us-east-2.amazonaws.com|us-east-2 the access point's ARN|host"},
		{url: "s3://" + accessPoint + "/db/one", env: env("", "eu-west-1"),
			want: accessPoint + " db/one|Amazon S3||myap-123456789012.s3-accesspoint.us-east-2.amazonaws.com|us-east-2 the access point's ARN|host"},
		{url: "s3://arn:aws:s3:us-east-2:123456789012:accesspoint:myap/x", want: accessPoint + " x|Amazon S3||myap-123456789012.s3-accesspoint.us-east-2.amazonaws.com|us-east-2 the access point's ARN|host",
			says: "s3://" + accessPoint + "/x"},
		{url: "s3://" + accessPoint + "?region=us-west-1", want: "arn:aws:s3:us-west-1:123456789012:accesspoint/myap|Amazon S3||myap-123456789012.s3-accesspoint.us-west-1.amazonaws.com|us-west-1 the URL|host",
			says: "s3://arn:aws:s3:us-west-1:123456789012:accesspoint/myap?region=us-west-1"},
		{url: "s3://" + accessPoint + "/backups", given: objstore.Settings{"region": "us-east-2"},
			want: accessPoint + " backups|Amazon S3||myap-123456789012.s3-accesspoint.us-east-2.amazonaws.com|us-east-2 the settings|host",
			says: "s3://" + accessPoint + "/backups?region=us-east-2"},
		{url: "s3://arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/myap", want: "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/myap|Amazon S3||myap-123456789012.s3-accesspoint.cn-north-1.amazonaws.com.cn|cn-north-1 the access point's ARN|host"},
		{url: "s3://arn:aws-us-gov:s3:us-gov-east-1:123456789012:accesspoint/myap", want: "arn:aws-us-gov:s3:us-gov-east-1:123456789012:accesspoint/myap|Amazon S3||myap-123456789012.s3-accesspoint.us-gov-east-1.amazonaws.com|us-gov-east-1 the access point's ARN|host"},
		{url: "s3://" + accessPoint + "?dualstack=true", want: accessPoint + "|Amazon S3||myap-123456789012.s3-accesspoint.dualstack.us-east-2.amazonaws.com|us-east-2 the access point's ARN|host"},
		{url: "s3://" + accessPoint, env: env("https://gw.example.com", ""), want: accessPoint + "|?|https://gw.example.com ENV|myap-123456789012.gw.example.com|us-east-2 the access point's ARN|host",
			says: "s3://" + accessPoint + "?endpoint=https://gw.example.com"},

		// Hosts of AWS.
		{url: "s3://bucket.s3.eu-west-3.amazonaws.com/p", env: env("", "eu-west-1"), want: "bucket p|Amazon S3||bucket.s3.eu-west-3.amazonaws.com|eu-west-3 " + host + "|host", says: "s3://bucket/p?region=eu-west-3"},
		{url: "s3://bucket.s3.amazonaws.com/p", env: env("", "eu-west-1"), want: "bucket p|Amazon S3||bucket.s3.eu-west-1.amazonaws.com|eu-west-1 ENV|host", says: "s3://bucket/p"},
		{url: "s3://my.bucket.s3.eu-west-3.amazonaws.com/p", want: "my.bucket p|Amazon S3||s3.eu-west-3.amazonaws.com|eu-west-3 " + host + "|path", says: "s3://my.bucket/p?region=eu-west-3"},
		{url: "s3://s3.eu-west-3.amazonaws.com/bucket/p", want: "bucket p|Amazon S3||bucket.s3.eu-west-3.amazonaws.com|eu-west-3 " + host + "|host", says: "s3://bucket/p?region=eu-west-3"},
		{url: "s3://bucket.s3.dualstack.eu-west-3.amazonaws.com", want: "bucket|Amazon S3||bucket.s3.dualstack.eu-west-3.amazonaws.com|eu-west-3 " + host + "|host", says: "s3://bucket?region=eu-west-3&dualstack=true"},
		{url: "s3://bucket.s3-fips.us-west-2.amazonaws.com", want: "bucket|Amazon S3||bucket.s3-fips.us-west-2.amazonaws.com|us-west-2 " + host + "|host", says: "s3://bucket?region=us-west-2&fips=true"},
		{url: "s3://bucket.s3.cn-north-1.amazonaws.com.cn/p", want: "bucket p|Amazon S3||bucket.s3.cn-north-1.amazonaws.com.cn|cn-north-1 " + host + "|host", says: "s3://bucket/p?region=cn-north-1"},
		{url: "s3://bucket.s3.eu-west-3.amazonaws.com", env: env("http://127.0.0.1:9", ""), want: "bucket|Amazon S3||bucket.s3.eu-west-3.amazonaws.com|eu-west-3 " + host + "|host",
			says: "s3://bucket?endpoint=https://s3.eu-west-3.amazonaws.com&region=eu-west-3"},
		{url: "s3://bucket?endpoint=s3.eu-west-3.amazonaws.com", want: "bucket|Amazon S3||bucket.s3.eu-west-3.amazonaws.com|eu-west-3 " + host + "|host", says: "s3://bucket?region=eu-west-3"},
		{url: "s3://bucket.s3.eu-west-3.amazonaws.com?endpoint=https://s3.eu-west-3.amazonaws.com", want: "bucket|Amazon S3||bucket.s3.eu-west-3.amazonaws.com|eu-west-3 " + host + "|host", says: "s3://bucket?region=eu-west-3"},
		{url: "s3://bucket?endpoint=https://bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com",
			want: "bucket|Amazon S3|https://bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com the URL|bucket.bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com|eu-west-1 " + host + "|host"},
		{url: "s3://" + accessPoint + "?endpoint=https://accesspoint.vpce-1a2b.s3.us-east-2.vpce.amazonaws.com",
			want: accessPoint + "|Amazon S3|https://accesspoint.vpce-1a2b.s3.us-east-2.vpce.amazonaws.com the URL|myap-123456789012.accesspoint.vpce-1a2b.s3.us-east-2.vpce.amazonaws.com|us-east-2 the access point's ARN|host"},

		// Hosts of others: as in the guide, and of the table.
		{url: "s3://bucket.s3.us-west-004.backblazeb2.com/p", want: "bucket p|Backblaze B2|https://s3.us-west-004.backblazeb2.com " + urlHost + "|s3.us-west-004.backblazeb2.com|us-west-004 " + host + "|path",
			says: "s3://bucket/p?endpoint=https://s3.us-west-004.backblazeb2.com"},
		{url: "s3://s3.us-west-004.backblazeb2.com/bucket/p", env: env("", "eu-west-1"), want: "bucket p|Backblaze B2|https://s3.us-west-004.backblazeb2.com " + urlHost + "|s3.us-west-004.backblazeb2.com|us-west-004 " + host + "|path",
			says: "s3://bucket/p?endpoint=https://s3.us-west-004.backblazeb2.com"},
		{url: "s3://space.sgp1.digitaloceanspaces.com/p", want: "space p|DigitalOcean Spaces|https://sgp1.digitaloceanspaces.com " + urlHost + "|space.sgp1.digitaloceanspaces.com|us-east-1 what DigitalOcean Spaces wants|host",
			says: "s3://space/p?endpoint=https://sgp1.digitaloceanspaces.com"},
		{url: "s3://bucket.eu-central-1.linodeobjects.com", want: "bucket|Linode Object Storage|https://eu-central-1.linodeobjects.com " + urlHost + "|bucket.eu-central-1.linodeobjects.com|us-east-1 what Linode Object Storage wants|host",
			says: "s3://bucket?endpoint=https://eu-central-1.linodeobjects.com"},
		{url: "s3://bucket.s3.fr-par.scw.cloud/p", want: "bucket p|Scaleway Object Storage|https://s3.fr-par.scw.cloud " + urlHost + "|bucket.s3.fr-par.scw.cloud|fr-par " + host + "|host",
			says: "s3://bucket/p?endpoint=https://s3.fr-par.scw.cloud"},
		{url: "s3://bucket.s3.filebase.com/p", want: "bucket p|Filebase|https://s3.filebase.com " + urlHost + "|s3.filebase.com|us-east-1 what Filebase wants|path", says: "s3://bucket/p?endpoint=https://s3.filebase.com"},
		{url: "s3://bucket.0123abc.r2.cloudflarestorage.com/p", want: "bucket p|Cloudflare R2|https://0123abc.r2.cloudflarestorage.com " + urlHost + "|0123abc.r2.cloudflarestorage.com|auto what Cloudflare R2 wants|path",
			says: "s3://bucket/p?endpoint=https://0123abc.r2.cloudflarestorage.com"},
		{url: "s3://0123abc.eu.r2.cloudflarestorage.com/bucket/p", want: "bucket p|Cloudflare R2|https://0123abc.eu.r2.cloudflarestorage.com " + urlHost + "|0123abc.eu.r2.cloudflarestorage.com|auto what Cloudflare R2 wants|path",
			says: "s3://bucket/p?endpoint=https://0123abc.eu.r2.cloudflarestorage.com"},
		{url: "s3://bucket.t3.storage.dev/p", want: "bucket p|Tigris|https://t3.storage.dev " + urlHost + "|bucket.t3.storage.dev|auto what Tigris wants|host", says: "s3://bucket/p?endpoint=https://t3.storage.dev"},
		{url: "s3://bucket.fly.storage.tigris.dev/p", want: "bucket p|Tigris|https://fly.storage.tigris.dev " + urlHost + "|bucket.fly.storage.tigris.dev|auto what Tigris wants|host", says: "s3://bucket/p?endpoint=https://fly.storage.tigris.dev"},
		{url: "s3://bucket.storage.googleapis.com/p", want: "bucket p|Google Cloud Storage|https://storage.googleapis.com " + urlHost + "|storage.googleapis.com|auto what Google Cloud Storage wants|path", says: "s3://bucket/p?endpoint=https://storage.googleapis.com"},
		{url: "s3://bucket.s3.eu-central-2.wasabisys.com", want: "bucket|Wasabi|https://s3.eu-central-2.wasabisys.com " + urlHost + "|s3.eu-central-2.wasabisys.com|eu-central-2 " + host + "|path", says: "s3://bucket?endpoint=https://s3.eu-central-2.wasabisys.com"},
		{url: "s3://bucket.s3.wasabisys.com", want: "bucket|Wasabi|https://s3.wasabisys.com " + urlHost + "|s3.wasabisys.com|us-east-1 what Wasabi wants|path", says: "s3://bucket?endpoint=https://s3.wasabisys.com"},
		{url: "s3://bucket.fsn1.your-objectstorage.com", want: "bucket|Hetzner Object Storage|https://fsn1.your-objectstorage.com " + urlHost + "|bucket.fsn1.your-objectstorage.com|fsn1 " + host + "|host", says: "s3://bucket?endpoint=https://fsn1.your-objectstorage.com"},
		{url: "s3://bucket.s3.gra.io.cloud.ovh.net/p", want: "bucket p|OVHcloud Object Storage|https://s3.gra.io.cloud.ovh.net " + urlHost + "|bucket.s3.gra.io.cloud.ovh.net|gra " + host + "|host", says: "s3://bucket/p?endpoint=https://s3.gra.io.cloud.ovh.net"},
		{url: "s3://my.bucket.br-cool-a1b2.storage.c-2.eu-central-1.aws.neon.tech/p", want: "my.bucket p|Neon Object Storage|https://br-cool-a1b2.storage.c-2.eu-central-1.aws.neon.tech " + urlHost + "|br-cool-a1b2.storage.c-2.eu-central-1.aws.neon.tech|eu-central-1 " + host + "|path",
			says: "s3://my.bucket/p?endpoint=https://br-cool-a1b2.storage.c-2.eu-central-1.aws.neon.tech"},
		{url: "s3://bucket.localhost:9000/p", want: "bucket p|?|http://localhost:9000 " + urlHost + "|localhost:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://localhost:9000"},
		{url: "s3://localhost:9000/bucket/p", want: "bucket p|?|http://localhost:9000 " + urlHost + "|localhost:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://localhost:9000"},
		{url: "s3://bucket.minio:9000/p", want: "bucket p|?|http://minio:9000 " + urlHost + "|minio:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://minio:9000"},
		{url: "s3://minio:9000/bucket/p", want: "bucket p|?|http://minio:9000 " + urlHost + "|minio:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://minio:9000"},
		{url: "s3://bucket.minio.local:9000/p", want: "bucket p|?|http://minio.local:9000 " + urlHost + "|minio.local:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://minio.local:9000"},
		{url: "s3://bucket.192.168.1.2:9000/p", want: "bucket p|?|http://192.168.1.2:9000 " + urlHost + "|192.168.1.2:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://192.168.1.2:9000"},
		{url: "s3://192.168.1.2:9000/bucket/p", want: "bucket p|?|http://192.168.1.2:9000 " + urlHost + "|192.168.1.2:9000|us-east-1 default|path", says: "s3://bucket/p?endpoint=http://192.168.1.2:9000"},
		{url: "s3://[::1]:9000/bucket", want: "bucket|?|http://[::1]:9000 " + urlHost + "|[::1]:9000|us-east-1 default|path", says: "s3://bucket?endpoint=http://%5B::1%5D:9000"},

		// Endpoints.
		{url: "s3://b/p?endpoint=https://s3.example.com/", want: "b p|?|https://s3.example.com the URL|s3.example.com|us-east-1 default|path", says: "s3://b/p?endpoint=https://s3.example.com"},
		{url: "s3://bkt/p?endpoint=s3.example.com&force-path-style=false", want: "bkt p|?|https://s3.example.com the URL|bkt.s3.example.com|us-east-1 default|host", says: "s3://bkt/p?endpoint=https://s3.example.com&force-path-style=false"},
		{url: "s3://b/p?endpoint=minio:9000", want: "b p|?|https://minio:9000 the URL|minio:9000|us-east-1 default|path", says: "s3://b/p?endpoint=https://minio:9000"},
		{url: "s3://b/p?endpoint=127.0.0.1:9000", want: "b p|?|http://127.0.0.1:9000 the URL|127.0.0.1:9000|us-east-1 default|path", says: "s3://b/p?endpoint=http://127.0.0.1:9000"},
		{url: "s3://b/p?endpoint=localhost:9000", want: "b p|?|http://localhost:9000 the URL|localhost:9000|us-east-1 default|path", says: "s3://b/p?endpoint=http://localhost:9000"},
		{url: "s3://b/p?endpoint=10.1.2.3", want: "b p|?|http://10.1.2.3 the URL|10.1.2.3|us-east-1 default|path", says: "s3://b/p?endpoint=http://10.1.2.3"},
		{url: "s3://b/p?endpoint=8.8.8.8", want: "b p|?|https://8.8.8.8 the URL|8.8.8.8|us-east-1 default|path", says: "s3://b/p?endpoint=https://8.8.8.8"},
		{url: "s3://b/p?endpoint=https%3A%2F%2F127.0.0.1%3A9000", want: "b p|?|https://127.0.0.1:9000 the URL|127.0.0.1:9000|us-east-1 default|path", says: "s3://b/p?endpoint=https://127.0.0.1:9000"},
		{url: "s3://mybucket/mydb", given: objstore.Settings{"endpoint": "https://minio.example.com:9000", "region": "us-east-1"},
			want: "mybucket mydb|?|https://minio.example.com:9000 the settings|minio.example.com:9000|us-east-1 the settings|path", says: "s3://mybucket/mydb?endpoint=https://minio.example.com:9000&region=us-east-1"},
		{url: "s3://b/p", env: env("http://127.0.0.1:9", "auto"), want: "b p|?|http://127.0.0.1:9 ENV|127.0.0.1:9|auto ENV|path", says: "s3://b/p?endpoint=http://127.0.0.1:9"},
		{url: "s3://bkt/p?region=eu-1", env: env("https://fly.storage.tigris.dev", "auto"), want: "bkt p|Tigris|https://fly.storage.tigris.dev ENV|bkt.fly.storage.tigris.dev|eu-1 the URL|host", says: "s3://bkt/p?endpoint=https://fly.storage.tigris.dev&region=eu-1"},
		{url: "s3://b/p", env: env("https://s3.eu-central-003.backblazeb2.com", "us-east-1"), want: "b p|Backblaze B2|https://s3.eu-central-003.backblazeb2.com ENV|s3.eu-central-003.backblazeb2.com|eu-central-003 the server's host|path",
			says: "s3://b/p?endpoint=https://s3.eu-central-003.backblazeb2.com"},
		{url: "s3://b/p?endpoint=https://acc.r2.cloudflarestorage.com/b", env: env("", "eu-west-1"), want: "b p|Cloudflare R2|https://acc.r2.cloudflarestorage.com the URL|acc.r2.cloudflarestorage.com|auto what Cloudflare R2 wants|path",
			says: "s3://b/p?endpoint=https://acc.r2.cloudflarestorage.com"},
		{url: "s3://space/p?endpoint=https://space.nyc3.digitaloceanspaces.com", want: "space p|DigitalOcean Spaces|https://nyc3.digitaloceanspaces.com the URL|space.nyc3.digitaloceanspaces.com|us-east-1 what DigitalOcean Spaces wants|host",
			says: "s3://space/p?endpoint=https://nyc3.digitaloceanspaces.com"},
		{url: "s3://b/p?endpoint=proj.storage.supabase.co/storage/v1/s3&region=eu-west-1", want: "b p|Supabase Storage|https://proj.storage.supabase.co/storage/v1/s3 the URL|proj.storage.supabase.co|eu-west-1 the URL|path",
			says: "s3://b/p?endpoint=https://proj.storage.supabase.co/storage/v1/s3&region=eu-west-1"},
		{url: "s3://b/p?endpoint=http://minio&skip-verify=false&profile=my+own&sse=aws:kms&concurrency=4&part-size=16MiB&storage-class=STANDARD_IA",
			want: "b p|?|http://minio the URL|minio|us-east-1 default|path", says: "s3://b/p?endpoint=http://minio&profile=my+own&skip-verify=false&sse=aws:kms"},
		{url: "s3://b.s3.example.com/p?endpoint=minio:9000", want: "b.s3.example.com p|?|https://minio:9000 the URL|minio:9000|us-east-1 default|path", says: "s3://b.s3.example.com/p?endpoint=https://minio:9000"},
	} {
		got, w, err := resolve(tt.url, tt.given, tt.env)
		style := "host"
		if got.PathStyle {
			style = "path"
		}
		text := strings.Join([]string{
			strings.TrimSuffix(got.Bucket+" "+got.Prefix, " "), cmp.Or(got.Provider, "?"),
			strings.TrimSpace(got.Endpoint + " " + strings.Repeat(got.EndpointFrom, min(1, len(got.Endpoint)))), got.Host, got.Region + " " + got.RegionFrom, style,
		}, "|")
		if err != nil || text != tt.want {
			t.Errorf("%s:\n got %s, %v\nwant %s", tt.url, text, err, tt.want)
			continue
		}
		says := cmp.Or(tt.says, tt.url)
		if u := got.url(w); u != says {
			t.Errorf("%s is called %s, want %s", tt.url, u, says)
			continue
		}
		// What it is called leads to the same place, whatever the environment says.
		again, _, err := resolve(says, nil, tt.env)
		if err != nil || again.Bucket != got.Bucket || again.Prefix != got.Prefix || again.Host != got.Host || again.Endpoint != got.Endpoint || again.Region != got.Region || again.PathStyle != got.PathStyle {
			t.Errorf("%s leads to %+v, %v\n%s to %+v", says, again, err, tt.url, got)
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
		{"s3://AKID:hunter2@bucket/p", "credentials don't belong", objstore.ErrConfig},
		{"s3://AKID:hun/ter2@bucket/p", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?endpoint=https://u:hunter2@host", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?endpoint=https%3A%2F%2Fu%3Ahunter2%40host", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?endpoint=u:hunter2@host", "credentials don't belong", objstore.ErrConfig},
		{"s3://b/p?Region=x", `unknown parameter "Region"`, objstore.ErrConfig},
		{"s3://b/p?regoin=x", "(known: concurrency, dualstack, endpoint, fips, force-path-style, part-size, profile, put-object-content-md5, region, ", objstore.ErrConfig},
		{"s3://b/p?region=a&region=b", "given more than once", objstore.ErrConfig},
		{"s3://b/p?force-path-style=true&forcePathStyle=true", "given more than once", objstore.ErrConfig},
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
		{"s3://b-1a2b--ol-s3/p", "Object Lambda", objstore.ErrUnsupported},
		{"s3://mfzwi23gnjvgw.mrap/p", "multi-region", objstore.ErrUnsupported},
		{"s3://arn:aws:s3-outposts:us-east-1:123456789012:outpost/op/accesspoint/ap", `of service "s3-outposts"`, objstore.ErrUnsupported},
		{"s3://arn:aws:s3-object-lambda:us-east-1:123456789012:accesspoint/ap", "Object Lambda", objstore.ErrUnsupported},
		{"s3://arn:aws:s3express:us-east-1:123456789012:bucket/b--use1-az4--x-s3", "S3 Express", objstore.ErrUnsupported},
		{"s3://arn:aws:sqs:us-east-1:123456789012:queue", `service "sqs"`, objstore.ErrUnsupported},
		{"s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap", "multi-region", objstore.ErrUnsupported},
		{"s3://arn:aws:s3:us-east-1:123456789012:something/else", "no access point", objstore.ErrUnsupported},
		{"s3://arn:aws:s3:us-east-1:123456789012:accesspoint/", "not an access point's ARN", objstore.ErrConfig},
		{"s3://arn:aws:s3", "not complete", objstore.ErrUnsupported},
		{"s3://arn:aws:s3:us-east-2:123456789012:accesspoint/myap?force-path-style=true", "can't be reached with force-path-style", objstore.ErrConfig},
		{"s3://arn:aws-cn:s3:us-east-2:123456789012:accesspoint/myap", "no region us-east-2 in partition aws-cn", objstore.ErrConfig},

		{"s3://bucket.s3-website.eu-west-1.amazonaws.com/p", "write s3://BUCKET.s3.REGION.amazonaws.com/PATH", objstore.ErrConfig},
		{"s3://myap-123456789012.s3-accesspoint.us-east-2.amazonaws.com/p", "a host of Amazon S3, but none of its S3 servers", objstore.ErrConfig},
		{"s3://space.sgp1.cdn.digitaloceanspaces.com/p", "write s3://BUCKET.PLACE.digitaloceanspaces.com/PATH", objstore.ErrConfig},
		{"s3://filebase.com/bucket/p", "write s3://BUCKET.s3.filebase.com/PATH", objstore.ErrConfig},
		{"s3://proj.supabase.co/bucket", "write s3://BUCKET/PATH?endpoint=https://SERVER", objstore.ErrConfig},
		{"s3://pub-1a2b.r2.dev/p", "a host of Cloudflare R2", objstore.ErrConfig},
		{"s3://s3.eu-west-3.amazonaws.com", "no bucket is named", objstore.ErrConfig},
		{"s3://bucket.minio.example.com:9000/p", "Write s3://BUCKET/PATH?endpoint=https://HOST:PORT", objstore.ErrConfig},
		{"s3://minio.local:9000/bucket/p", "by https, or by http?", objstore.ErrConfig},
		{"s3://localhost:/bucket", "?endpoint=HOST:PORT", objstore.ErrConfig},
		{"s3://192.168.1.2/bucket", "?endpoint=HOST:PORT", objstore.ErrConfig},
		{"s3://bucket.localhost/p", "?endpoint=HOST:PORT", objstore.ErrConfig},
		{"s3://bucket.s3.us-west-004.backblazeb2.com/p?endpoint=https://s3.us-west-002.backblazeb2.com", "contradicts the server that the URL names", objstore.ErrConfig},
		{"s3://bucket.s3.eu-west-1.amazonaws.com/p?endpoint=minio:9000", "contradicts the server that the URL names", objstore.ErrConfig},
		{"s3://bucket.s3.eu-west-1.amazonaws.com/p?region=eu-west-2", "eu-west-2 contradicts the server's host", objstore.ErrConfig},
		{"s3://space/p?endpoint=https://other.nyc3.digitaloceanspaces.com", `names the bucket "other", the URL "space"`, objstore.ErrConfig},
		{"s3://b/p?endpoint=https://acc.r2.cloudflarestorage.com/c", `names the bucket "c", the URL "b"`, objstore.ErrConfig},
		{"s3://b/p?endpoint=https://minio&dualstack=true", "https://minio is the endpoint", objstore.ErrConfig},
		{"s3://b/p?endpoint=https://minio&fips=true", "https://minio is the endpoint", objstore.ErrConfig},
	} {
		_, _, err := resolve(tt.url, nil, environment{})
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v\nwant %v: %s", tt.url, err, tt.kind, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") || !strings.HasPrefix(err.Error(), "s3store: ") {
			t.Errorf("%q: %v", tt.url, err)
		}
	}
}

// The environment's endpoint is looked at as closely, and named.
func TestEndpointOfTheEnvironment(t *testing.T) {
	for endpoint, want := range map[string]string{
		"ftp://host":                            "the endpoint of AWS_ENDPOINT_URL",
		"https://u:hunter2@host":                "contains credentials",
		"https://x.nyc3.digitaloceanspaces.com": `names the bucket "x"`,
	} {
		_, _, err := resolve("s3://b/p", nil, environment{endpoint: endpoint, endpointFrom: "AWS_ENDPOINT_URL"})
		if !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// What the SDK finds in the environment arrives, with the name of who said it.
func TestEnvironment(t *testing.T) {
	for _, tt := range []struct {
		url  string
		env  map[string]string
		want string // endpoint, its source, host, region, its source
	}{
		{"s3://bucket", map[string]string{"AWS_REGION": "eu-west-2"}, "||bucket.s3.eu-west-2.amazonaws.com|eu-west-2|AWS_REGION"},
		{"s3://bucket", map[string]string{"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-3"}, "||bucket.s3.eu-west-3.amazonaws.com|eu-west-3|AWS_DEFAULT_REGION"},
		{"s3://bucket", map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"}, "||bucket.s3-fips.dualstack.us-east-1.amazonaws.com|us-east-1|AWS_REGION"},
		{"s3://bucket?fips=false", map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, "||bucket.s3.us-east-1.amazonaws.com|us-east-1|AWS_REGION"},
		{"s3://bucket", map[string]string{"AWS_ENDPOINT_URL": "https://t3.storage.dev"}, "https://t3.storage.dev|AWS_ENDPOINT_URL|bucket.t3.storage.dev|auto|what Tigris wants"},
		{"s3://bucket", map[string]string{"AWS_ENDPOINT_URL": "https://a.example", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "http://127.0.0.1:9|AWS_ENDPOINT_URL_S3|127.0.0.1:9|us-east-1|AWS_REGION"},
		{"s3://bucket.s3.eu-west-1.amazonaws.com", map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "|the URL's host|bucket.s3.eu-west-1.amazonaws.com|eu-west-1|the server's host"},
		{"s3://bucket?endpoint=http://127.0.0.1:8", map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:8|the URL|127.0.0.1:8|us-east-1|AWS_REGION"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			testEnv(t)
			for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
				os.Unsetenv(name) // testEnv puts it back
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			got, err := Locate(t.Context(), tt.url, nil)
			if text := strings.Join([]string{got.Endpoint, got.EndpointFrom, got.Host, got.Region, got.RegionFrom}, "|"); err != nil || text != tt.want {
				t.Errorf("%s %v:\n got %s, %v\nwant %s", tt.url, tt.env, text, err, tt.want)
			}
			// Requests go there.
			s, err := open(t.Context(), tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			rec := &recorder{}
			o := s.client.Options()
			o.HTTPClient = &http.Client{Transport: rec}
			s.client = s3.New(o)
			if err := s.Create(t.Context(), "log/1", nil); err != nil || len(rec.sent) != 1 || rec.sent[0].host != got.Host {
				t.Errorf("%v: requests go to %v, not to %s", err, rec.sent, got.Host)
			}
		})
	}
	// The environment's choice of AWS's servers doesn't go with another server.
	testEnv(t)
	t.Setenv("AWS_USE_FIPS_ENDPOINT", "true")
	if _, err := Locate(t.Context(), "s3://bucket?endpoint=http://127.0.0.1:9", nil); !errors.Is(err, objstore.ErrConfig) || !strings.Contains(err.Error(), "AWS_USE_FIPS_ENDPOINT") {
		t.Errorf("FIPS elsewhere: %v", err)
	}
}

func TestPartSize(t *testing.T) {
	o, err := Options{}.withDefaults(wishes{}, unknown)
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
		if _, err := (Options{PartSize: bad}).withDefaults(wishes{}, unknown); !errors.Is(err, objstore.ErrConfig) {
			t.Errorf("PartSize %d: %v", bad, err)
		}
	}
}
