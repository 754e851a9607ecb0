package s3store

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/smithy-go/logging"

	"github.com/outwash/outwash/internal/objstore"
)

// credentialsTimeout bounds a request for credentials: to STS, a container's agent,
// an SSO portal. The SDK fetches them apart from the request that needs them, for
// all that do, and without a limit: one that is never answered would hold up
// everything until the process ends.
const credentialsTimeout = 15 * time.Second

// loadConfig reads the AWS configuration of environment and files. Requests for
// credentials may take as long as limit; those to S3 have limits of their own.
// Nothing is logged: the SDK's logs can show requests with session tokens.
func loadConfig(ctx context.Context, limit time.Duration, opts ...func(*config.LoadOptions) error) (aws.Config, error) {
	// The SDK's own kind of client: where AWS_CA_BUNDLE is set, it takes no other.
	client := awshttp.NewBuildableClient().WithTransportOptions(nameProxy).WithTimeout(limit)
	opts = append(opts, config.WithHTTPClient(client), config.WithLogger(logging.Nop{}), config.WithClientLogMode(0),
		// Containers' credentials are fetched by a client of their own.
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }))
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return cfg, err
	}
	if c, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		cfg.HTTPClient = c.WithTimeout(0).WithTransportOptions(keepConnections)
	}
	switch c, ok := cfg.Credentials.(*aws.CredentialsCache); {
	case ok && c.IsCredentialsProvider(credentials.StaticCredentialsProvider{}):
		cfg.Credentials = aws.NewCredentialsCache(writtenKeys{opts})
	case ok && isLast(c):
		cfg.Credentials = &lateKeys{role: c, opts: opts}
	}
	return cfg, nil
}

// isLast reports whether c asks the machine's role, which the SDK takes where nothing
// else says where credentials come from.
func isLast(c *aws.CredentialsCache) bool { return c.IsCredentialsProvider(&ec2rolecreds.Provider{}) }

// lateKeys are those of the machine's role or, if it has none, what has come since to
// where credentials come from: a file that is written after the process began, say. The
// SDK looks there once.
type lateKeys struct {
	role *aws.CredentialsCache
	opts []func(*config.LoadOptions) error
	late atomic.Pointer[aws.CredentialsCache] // nil: nothing has come
}

// Retrieve implements aws.CredentialsProvider.
func (k *lateKeys) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c := k.late.Load(); c != nil {
		return c.Retrieve(ctx)
	}
	found, err := k.role.Retrieve(ctx)
	if err == nil {
		return found, nil
	}
	cfg, late := config.LoadDefaultConfig(ctx, k.opts...)
	if late != nil {
		return found, err
	}
	c, ok := cfg.Credentials.(*aws.CredentialsCache)
	if !ok || isLast(c) {
		return found, err
	}
	k.late.Store(c)
	return c.Retrieve(ctx)
}

// forget has them looked for again; denied: though they weren't said to have expired.
func (k *lateKeys) forget(denied bool) {
	if k.late.Swap(nil) == nil && !denied {
		k.role.Invalidate()
	}
}

// writtenKeys are keys that are written in environment or shared files. The SDK reads
// them once for all time; here a file is read again when they were refused, so that a
// process that runs for months needn't be started anew when somebody changes them.
type writtenKeys struct {
	opts []func(*config.LoadOptions) error
}

// Retrieve implements aws.CredentialsProvider.
func (k writtenKeys) Retrieve(ctx context.Context) (aws.Credentials, error) {
	cfg, err := config.LoadDefaultConfig(ctx, k.opts...)
	if err != nil {
		return aws.Credentials{}, err
	}
	return cfg.Credentials.Retrieve(ctx)
}

// forgetCredentials has them fetched, or read, again by the next request.
func (s *store) forgetCredentials(v verdict) {
	expired, denied := v.once == "credentials", v.kind == objstore.ErrDenied
	switch c := s.creds.(type) {
	case *aws.CredentialsCache:
		if expired || denied && c.IsCredentialsProvider(writtenKeys{}) {
			c.Invalidate()
		}
	case *lateKeys:
		if expired || denied {
			c.forget(!expired)
		}
	}
}

// keepConnections lets as many connections wait for the next request as a restore
// has requests at a time. The SDK's client keeps 10 and closes the others, each of
// which takes a TLS handshake to replace: of 1800 requests, 64 at a time, a thousand.
func keepConnections(tr *http.Transport) { tr.MaxIdleConnsPerHost = 64 }

// noCredentials says that a request was not made for want of credentials.
type noCredentials struct{ err error }

func (e *noCredentials) Error() string { return "no credentials: " + e.err.Error() }
func (e *noCredentials) Unwrap() error { return e.err }

// withoutOutput is err without what a credential_process printed: the SDK quotes
// that where it is no JSON, and it may well be half of what was wanted.
func withoutOutput(err error) error {
	if !errors.As(err, new(*processcreds.ProviderError)) {
		return err
	}
	if before, _, cut := strings.Cut(err.Error(), "process output:"); cut {
		return errors.New(before + "credential_process output: not the JSON that is expected")
	}
	return err
}

// judgeCredentials: where credentials come from is a server like others, which may
// be away for a while; or it refuses; or nothing says where they come from.
func judgeCredentials(err *noCredentials) verdict {
	status := 0
	var answered interface{ HTTPStatusCode() int }
	if errors.As(err, &answered) {
		status = answered.HTTPStatusCode()
	}
	switch {
	case strings.Contains(err.Error(), "EC2 IMDS"), strings.Contains(err.Error(), "/latest/meta-data/"):
		// The last that the SDK asks. A machine without metadata is one that has none.
		return verdict{cause: "no-credentials", kind: objstore.ErrDenied, remedy: "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role" + litestreams()}
	case status == http.StatusTooManyRequests, status >= 500, isNetError(err):
		return verdict{cause: "credentials-away", retry: true, remedy: "credentials can't be fetched at the moment"}
	case status >= 400:
		return verdict{cause: "credentials-refused", kind: objstore.ErrDenied, remedy: "credentials were refused where they come from: check the role, profile or token"}
	}
	return verdict{cause: "no-credentials", kind: objstore.ErrDenied, remedy: "credentials can't be had as the profile or the environment says: correct it, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}
}

// litestreams helps who comes from Litestream, which reads variables of its own
// (https://litestream.io/reference/config/, as of v0.5.18).
func litestreams() string {
	if os.Getenv("LITESTREAM_ACCESS_KEY_ID") == "" {
		return ""
	}
	return " (LITESTREAM_ACCESS_KEY_ID is set, but read only where a configuration file names it: access-key-id: ${LITESTREAM_ACCESS_KEY_ID}, and the secret likewise)"
}
