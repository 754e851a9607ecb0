// Package s3store keeps replicas in Amazon S3 and in servers that speak its
// protocol. Importing it makes s3:// URLs work everywhere in Outwash:
//
//	import _ "github.com/outwash/outwash/s3store"
//
// # URLs
//
//	s3://BUCKET/PATH
//	s3://BUCKET/PATH?region=eu-central-1
//	s3://BUCKET/PATH?endpoint=https://minio.example.com
//	s3://BUCKET/PATH?endpoint=127.0.0.1:9000
//	s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/PATH
//	s3://arn:aws:s3:::BUCKET/PATH
//
// An access point's alias (NAME-…-s3alias) stands where a bucket does. So does a
// provider's host that begins with the bucket, or is followed by it:
//
//	s3://BUCKET.s3.REGION.amazonaws.com/PATH          Amazon S3
//	s3://BUCKET.s3.REGION.backblazeb2.com/PATH        Backblaze B2
//	s3://BUCKET.PLACE.digitaloceanspaces.com/PATH     DigitalOcean Spaces
//	s3://BUCKET.PLACE.linodeobjects.com/PATH          Linode
//	s3://BUCKET.s3.REGION.scw.cloud/PATH              Scaleway
//	s3://BUCKET.ACCOUNT.r2.cloudflarestorage.com/PATH Cloudflare R2
//	s3://BUCKET.t3.storage.dev/PATH                   Tigris (and fly.storage.tigris.dev)
//	s3://BUCKET.storage.googleapis.com/PATH           Google Cloud Storage (HMAC keys)
//	s3://BUCKET.s3.REGION.wasabisys.com/PATH          Wasabi
//	s3://BUCKET.REGION.your-objectstorage.com/PATH    Hetzner
//	s3://BUCKET.s3.REGION.io.cloud.ovh.net/PATH       OVHcloud
//	s3://BUCKET.s3.filebase.com/PATH                  Filebase
//	s3://BUCKET.BRANCH.storage.….neon.tech/PATH       Neon
//	s3://BUCKET.HOST:PORT/PATH                        a server nearby, by http: BUCKET.localhost:9000
//	s3://HOST:PORT/BUCKET/PATH                        likewise: localhost, a single name, an address
//
// PATH is taken literally (no %-decoding), as the AWS command line does.
//
// # Settings
//
// The parameters of URLs, %-encoded where they must be, are also keys of
// configuration files and of Options.Settings; a URL's win. The names are
// Litestream's where it has the setting, and its other spelling
// (forcePathStyle) is taken too. Where the objects are:
//
//	endpoint          server, if it is not AWS. Without a scheme it is https, or
//	                  http for loopback and private addresses. Default: AWS_ENDPOINT_URL_S3,
//	                  AWS_ENDPOINT_URL, or what the AWS configuration file says.
//	region            default: what the server's host says or the provider wants,
//	                  else AWS_REGION, the configuration file, us-east-1. A bucket that
//	                  turns out to be elsewhere is followed there, unless the region
//	                  was given. With an access point it replaces the ARN's.
//	force-path-style  true: https://server/bucket/key; false: https://bucket.server/key.
//	                  Default: what the provider has; true for servers of your own, and
//	                  for buckets with dots or upper-case letters.
//	dualstack, fips   true: AWS's servers with IPv6, with validated cryptography.
//	                  Default: AWS_USE_DUALSTACK_ENDPOINT, AWS_USE_FIPS_ENDPOINT.
//	profile           of the AWS configuration and credentials files. Default: AWS_PROFILE.
//
// What is written:
//
//	part-size               of large uploads, from 5MiB to 5GiB; 8MB is 8,000,000 bytes.
//	                        Default: 8MiB (Tigris: 16MiB).
//	concurrency             parts of one upload under way at a time. Default: 2.
//	storage-class           such as STANDARD_IA. Not GLACIER and DEEP_ARCHIVE, which
//	                        can't be read at once. Default: the bucket's.
//	snapshot-storage-class  of snapshots and other large data. Default: storage-class.
//	                        The small objects that describe them have the log's.
//	sse                     AES256, aws:kms or aws:kms:dsse. Default: the bucket's.
//	sse-kms-key-id          ID, ARN or alias of the KMS key; implies sse=aws:kms.
//	sse-customer-key        32 bytes in base64 (SSE-C), which S3 doesn't keep: whoever
//	                        loses it loses the replica. Not in URLs; needs https.
//	sse-customer-key-path   a file that holds it.
//	sse-customer-algorithm  AES256, the only one.
//
// How servers are spoken to, where the provider's defaults don't do:
//
//	skip-verify             true: the bucket's server may have any certificate. Better
//	                        name your CA in AWS_CA_BUNDLE.
//	sign-payload            true: signatures cover the content of writes. Default: true;
//	                        at AWS false, as checksums do. false needs https.
//	sign-accept-encoding    false (Google): proxies change it.
//	require-content-md5     deletions of many objects carry Content-MD5. Default: true;
//	                        AWS, Tigris: false, a CRC32.
//	put-object-content-md5  true: so do writes, as object lock demands on some servers.
//
// Credentials come from where the AWS SDK looks for them: environment, shared
// configuration, web identity, container and instance roles; or from the settings
// access-key-id, secret-access-key and session-token, in files alone: in a URL
// they are refused. AWS_CA_BUNDLE and the usual proxy variables are honoured.
//
// # What it needs
//
// Permissions: s3:GetObject, s3:PutObject, s3:DeleteObject on BUCKET/PATH/*,
// s3:ListBucket on BUCKET. Without s3:ListBucket S3 answers "forbidden" for objects
// that do not exist. The bucket's region is found without s3:GetBucketLocation.
//
// Conditional writes (If-None-Match: * on PUT): AWS, MinIO, R2, versitygw and
// others have them. Backblaze B2 refuses them (ErrUnsupported), some servers
// ignore them. The engine finds that out before it writes, warns, and looks
// whether a key is free before it writes there. That fence is weaker: a second
// writer that comes later is fenced all the same, and of two that begin at the
// same moment nearly always one; but a writer that is paused between look and
// write, or a request that arrives late, replaces what was written meanwhile. A
// restore then fails and names the object. S3 Express One Zone directory buckets
// list without order and are refused, as are multi-region and Object Lambda access
// points and Outposts.
//
// A crash in the middle of a large upload leaves its parts in the bucket, unseen
// by listings. The first session that writes later aborts those that are older
// than a day, if it may: s3:ListBucketMultipartUploads on BUCKET,
// s3:AbortMultipartUpload on BUCKET/PATH/*. A lifecycle rule of the bucket,
// AbortIncompleteMultipartUpload, does the same without any permission (and for
// MinIO, which lists uploads of one key only, and removes them by itself).
//
// Sources: Amazon S3 API Reference, actions PutObject, CreateMultipartUpload,
// UploadPart, CompleteMultipartUpload, ListMultipartUploads, AbortMultipartUpload,
// GetObject, ListObjectsV2, DeleteObjects, HeadBucket,
// and "Error responses"; S3 User Guide, "Conditional requests" and
// "Referencing access points".
package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
)

func init() {
	objstore.Register("s3", objstore.Scheme{Open: Open, Settings: settings})
}

// Options tune a store. The zero value means the defaults.
type Options struct {
	// PartSize is how large, in bytes, the parts of a large upload are, and up to
	// where an object is uploaded in one request. From 5 MiB (which S3 demands)
	// to 5 GiB; default 8 MiB. An upload has at most 10,000 parts.
	PartSize int64
	// Concurrency is how many parts of one upload are under way at a time.
	// Default 2. An upload holds at most (Concurrency+1) * PartSize bytes.
	Concurrency int
	// Attempts is how often one request is tried. Between attempts there is a
	// pause that doubles from 0.1 s to 5 s, with jitter. Default 8: about 10 s
	// of pauses.
	Attempts int
	// ResponseTimeout is how long a request may make no progress: neither a
	// part of its body taken nor the response begun. Default 60 s. Completing a
	// multipart upload may take five times as long, as the server may copy.
	ResponseTimeout time.Duration
	// StallTimeout is how long the body of a response may stop flowing before
	// the rest is asked for anew. Default 30 s.
	StallTimeout time.Duration
	// Settings are by name what URLs and configuration files may say (see the
	// package documentation), credentials among it.
	Settings objstore.Settings

	// client puts another HTTP client into the place of the store's own.
	client func(own s3.HTTPClient, t Target) (s3.HTTPClient, error)
}

// withDefaults: settings win over options, options over what the provider wants.
func (o Options) withDefaults(w wishes, p *provider) (Options, error) {
	o.PartSize = cmp.Or(w.partSize, o.PartSize, p.partSize, 8<<20)
	o.Concurrency = cmp.Or(w.concurrency, max(o.Concurrency, 0), p.concurrency, 2)
	if o.PartSize < minPart || o.PartSize > maxPart {
		return o, fmt.Errorf("s3store: Options.PartSize is %d, must be from %d to %d: %w", o.PartSize, int64(minPart), int64(maxPart), objstore.ErrConfig)
	}
	if o.Attempts <= 0 {
		o.Attempts = 8
	}
	if o.ResponseTimeout <= 0 {
		o.ResponseTimeout = time.Minute
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	return o, nil
}

// Open opens the store that an s3:// URL names, with what the URL and the settings
// leave open from the environment (see the package documentation). It makes no
// request to the bucket. Errors wrap ErrConfig (URL, settings, AWS configuration)
// or ErrUnsupported (S3 Express, kinds of ARN).
//
// The store is safe for concurrent use. Its errors wrap the Err values of
// package replicate's Store and say what to do.
func Open(ctx context.Context, rawURL string, settings objstore.Settings) (objstore.Store, error) {
	return open(ctx, rawURL, settings)
}

// Locate says where Open would find the store that an s3:// URL names. It makes no
// request. Errors are Open's.
func Locate(ctx context.Context, rawURL string, settings objstore.Settings) (Target, error) {
	s, err := open(ctx, rawURL, settings)
	if err != nil {
		return Target{}, err
	}
	return s.t, nil
}

func open(ctx context.Context, rawURL string, settings objstore.Settings) (*store, error) {
	a, err := parseURL(rawURL, settings)
	if err != nil {
		return nil, err
	}
	var opts []func(*config.LoadOptions) error
	if a.wishes.profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(a.wishes.profile))
	}
	cfg, err := objstore.Share(ctx, sharedConfig{a.wishes.profile}, func() (aws.Config, error) {
		return loadConfig(ctx, credentialsTimeout, opts...)
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("s3store: %w", err)
		}
		var none config.SharedConfigProfileNotExistError
		if errors.As(err, &none) && a.wishes.profile != "" {
			return nil, &objstore.SettingError{Name: "profile", Err: fmt.Errorf("s3store: %q: %w: profile %q is in no AWS configuration file (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE): %w",
				objstore.Redact(rawURL), objstore.ErrConfig, a.wishes.profile, err)}
		}
		return nil, fmt.Errorf("s3store: AWS configuration (environment, shared configuration files; AWS_CA_BUNDLE must name a file of certificates): %w: %w", objstore.ErrConfig, err)
	}
	s, err := newStore(cfg, a, Options{client: func(own s3.HTTPClient, t Target) (s3.HTTPClient, error) {
		return objstore.Share(ctx, sharedClient{a.wishes.profile, t.SkipVerify}, func() (s3.HTTPClient, error) { return own, nil })
	}})
	if err != nil {
		return nil, err
	}
	s.turns, err = objstore.Share(ctx, sharedTurns{s.t.Endpoint}, func() (chan struct{}, error) { return make(chan struct{}, maxWrites), nil })
	return s, err
}

// maxWrites is how many writes are under way at a time, to a server's stores in a
// pool: a thousand databases that are all written to in the same moment don't open a
// thousand connections. A server that hangs holds up nobody who writes to another.
const maxWrites = 64

// What stores that are opened with a pool have in common: credentials come with the
// configuration, connections with the client. The SDK makes a client for each store.
type (
	sharedTurns  struct{ endpoint string } // "": AWS
	sharedConfig struct{ profile string }
	sharedClient struct {
		profile    string // may have a CA of its own
		skipVerify bool
	}
)

// New returns a store for programs that have an aws.Config: bucket is a name or
// an access point ARN, prefix the path in it, without which keys lie at its top.
// Endpoint, region, credentials and HTTP client are cfg's; its retryer is not
// used, as the store retries by itself. It makes no request. Errors wrap
// ErrConfig or ErrUnsupported.
//
// The store is safe for concurrent use.
func New(cfg aws.Config, bucket, prefix string, opts Options) (objstore.Store, error) {
	a, err := addressOf(bucket, prefix, opts.Settings)
	if err != nil {
		return nil, err
	}
	return newStore(cfg, a, opts)
}

// store implements objstore.Store.
type store struct {
	t      Target
	opts   Options
	w      *wishes // behind a pointer, so that printing what holds a store stops there
	client *s3.Client
	creds  aws.CredentialsProvider
	// region is set once the bucket has turned out to be in another one.
	region atomic.Pointer[string]
	// worked: a request has succeeded, so the endpoint is right.
	worked atomic.Bool
	// turns is full while as many writes are under way as may be; nil: no limit.
	turns chan struct{}
	// pause waits between attempts; tests don't.
	pause func(context.Context, time.Duration) error
}

func newStore(cfg aws.Config, a address, opts Options) (*store, error) {
	if err := a.wishes.readKey(); err != nil {
		return nil, err
	}
	s := &store{w: &a.wishes, pause: sleep}
	var err error
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		if s.t, err = a.settle(environmentOf(cfg, o)); err != nil {
			return
		}
		if s.opts, err = opts.withDefaults(*s.w, s.t.provider); err != nil {
			return
		}
		if err = s.t.connect(o); err != nil {
			return
		}
		if opts.client != nil {
			if o.HTTPClient, err = opts.client(o.HTTPClient, s.t); err != nil {
				return
			}
		}
		if s.w.keyID != "" {
			o.Credentials = aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(s.w.keyID, s.w.secretKey, s.w.token))
		}
		o.APIOptions = append(o.APIOptions, tellRegion, checkAnswer, s.shape)
		// We retry by ourselves: the SDK's retryer stops at its token bucket's
		// end, and does not retry 409 and bare 429.
		o.Retryer = aws.NopRetryer{}
		o.RetryMaxAttempts = 0
		s.creds = o.Credentials
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// String is the store's URL, so that commands in messages work as they stand.
func (s *store) String() string { return s.t.url(*s.w) }

// GoString keeps %#v from showing credentials.
func (s *store) GoString() string { return s.String() }

// name is an object in messages.
func (s *store) name(key string) string { return "s3://" + s.t.Bucket + "/" + s.fullKey(key) }

func (s *store) fullKey(key string) string {
	if s.t.Prefix == "" {
		return key
	}
	return s.t.Prefix + "/" + key
}

// environmentOf is what the SDK found. Of what it loaded itself the variables that
// it prefers are known by name.
func environmentOf(cfg aws.Config, o *s3.Options) environment {
	env := environment{
		endpoint: aws.ToString(o.BaseEndpoint), endpointFrom: "the aws.Config",
		region: o.Region, regionFrom: "the aws.Config",
		dualStack: o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled,
		fips:      o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled,
	}
	if len(cfg.ConfigSources) == 0 {
		return env
	}
	source := func(value string, names ...string) string {
		for _, name := range names {
			if v := os.Getenv(name); v != "" && v == value {
				return name
			}
		}
		return "the AWS configuration file"
	}
	env.endpointFrom = source(env.endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	env.regionFrom = source(env.region, "AWS_REGION", "AWS_DEFAULT_REGION")
	return env
}

// call is what every request is made with.
func (s *store) call(o *s3.Options) {
	if r := s.region.Load(); r != nil {
		o.Region = *r
	}
}

// backoff is the pause after the nth failure in a row, counting from 1.
func backoff(n int) time.Duration {
	d := min(100*time.Millisecond<<min(n-1, 10), 5*time.Second)
	return d/2 + rand.N(d/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
