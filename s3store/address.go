package s3store

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
)

// A Target says where objects lie and how the server wants to be spoken to. Locate
// makes it.
type Target struct {
	Bucket      string // a name, or an access point's ARN
	AccessPoint bool
	Prefix      string // without slashes at its ends

	Endpoint  string // URL with scheme; "" is AWS's own
	Region    string // requests are signed for it
	PathStyle bool   // https://server/bucket/key, not https://bucket.server/key

	regionGiven bool // by the URL: not followed elsewhere
	styleGiven  bool

	// checksumsRequired: send and check the SDK's checksums only where S3
	// demands it. Many other servers refuse or mangle them.
	checksumsRequired bool
}

// An address is what a URL and the settings beside it say: where the objects are,
// as far as that is known without the environment, and how to deal with them.
type address struct {
	Target
	wishes wishes
}

// parseURL reads an s3 URL and the settings beside it. It is a pure function:
// settle adds what the environment says.
func parseURL(rawURL string, given objstore.Settings) (address, error) {
	fail := func(format string, args ...any) (address, error) {
		return address{}, fmt.Errorf("s3store: %q: %w: "+format,
			append([]any{objstore.Redact(rawURL), objstore.ErrConfig}, args...)...)
	}
	rest, ok := strings.CutPrefix(rawURL, "s3://")
	if !ok {
		return fail("does not start with s3://")
	}
	if objstore.HasUserinfo(rawURL) {
		return fail("credentials don't belong into the URL: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
	}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.Contains(rest, "#") {
		return fail("a # is not supported in the path")
	}
	var t Target
	var path string
	var err error
	if strings.HasPrefix(rest, "arn:") {
		if t, path, err = parseARN(rest); err != nil {
			return address{}, fmt.Errorf("s3store: %q: %w", objstore.Redact(rawURL), err)
		}
	} else {
		t.Bucket, path, _ = strings.Cut(rest, "/")
		if strings.Contains(t.Bucket, ":") {
			return fail("a bucket was expected where %q stands; a server is named by ?endpoint=HOST:PORT", t.Bucket)
		}
		if err := checkBucket(t.Bucket); err != nil {
			return address{}, fmt.Errorf("s3store: %q: %w", objstore.Redact(rawURL), err)
		}
	}
	if t.Prefix, err = cleanPrefix(path); err != nil {
		return address{}, fmt.Errorf("s3store: %q: %w", objstore.Redact(rawURL), err)
	}

	a := address{Target: t}
	if a.wishes, err = parseSettings(objstore.Redact(rawURL), query, given); err != nil {
		return address{}, err
	}
	return a.apply(), nil
}

// apply enters what the settings say of the target.
func (a address) apply() address {
	if a.wishes.region != "" {
		a.Region, a.regionGiven = a.wishes.region, true
	}
	if a.wishes.pathStyle != nil {
		a.PathStyle, a.styleGiven = *a.wishes.pathStyle, true
	}
	a.Endpoint = a.wishes.endpoint
	return a
}

// settle fills in what t leaves open, from the endpoint and region in force.
func (t Target) settle(endpoint, region string) (Target, error) {
	var err error
	t.Endpoint = ""
	if endpoint != "" {
		if t.Endpoint, err = cleanEndpoint(endpoint); err != nil {
			return t, fmt.Errorf("s3store: %w: endpoint %w", objstore.ErrConfig, err)
		}
	}
	t.checksumsRequired = t.Endpoint != ""
	if t.Region == "" {
		t.Region = region
	}
	if t.Region == "" {
		// What servers other than AWS expect; AWS says where the bucket really is.
		t.Region = "us-east-1"
	}
	switch {
	case t.AccessPoint && t.styleGiven && t.PathStyle:
		return t, fmt.Errorf("s3store: bucket %q: %w: an access point can't be reached with force-path-style", t.Bucket, objstore.ErrConfig)
	case !t.styleGiven && !t.AccessPoint:
		t.PathStyle = strings.ContainsAny(t.Bucket, ".ABCDEFGHIJKLMNOPQRSTUVWXYZ_") || isLocal(t.Endpoint)
	}
	return t, nil
}

// parseARN splits an ARN, followed by a path, into what it names and the path.
func parseARN(s string) (Target, string, error) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[2] != "s3" {
		service := ""
		if len(parts) > 2 {
			service = " of service " + strconv.Quote(parts[2])
		}
		return Target{}, "", fmt.Errorf("%w: ARNs%s are not supported: only those of buckets (arn:aws:s3:::BUCKET) and access points (arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME)",
			objstore.ErrUnsupported, service)
	}
	region, account, resource := parts[3], parts[4], parts[5]
	if region == "" && account == "" {
		bucket, path, _ := strings.Cut(resource, "/")
		return Target{Bucket: bucket}, path, checkBucket(bucket)
	}
	kind, rest, ok := strings.Cut(strings.Replace(resource, ":", "/", 1), "/")
	if !ok || kind != "accesspoint" {
		return Target{}, "", fmt.Errorf("%w: the ARN names no bucket and no access point", objstore.ErrUnsupported)
	}
	name, path, _ := strings.Cut(rest, "/")
	if region == "" {
		return Target{}, "", fmt.Errorf("%w: multi-region access points are not supported: use one of a region", objstore.ErrUnsupported)
	}
	if !isHostLabel(name) || !isHostLabel(region) || !isHostLabel(account) {
		return Target{}, "", fmt.Errorf("%w: not an access point's ARN: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME", objstore.ErrConfig)
	}
	return Target{
		Bucket:      strings.Join(parts[:5], ":") + ":accesspoint/" + name,
		AccessPoint: true,
		Region:      region,
	}, path, nil
}

func checkBucket(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: no bucket is named: s3://BUCKET/PATH", objstore.ErrConfig)
	case strings.HasSuffix(name, "--x-s3"):
		return fmt.Errorf("%w: S3 Express directory buckets list without order, which restores rely on: use a general purpose bucket", objstore.ErrUnsupported)
	case len(name) > 255 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "" || name == "." || name == "..":
		return fmt.Errorf("%w: %q is not a bucket's name: letters, digits, dots and hyphens", objstore.ErrConfig, name)
	}
	return nil
}

// cleanPrefix allows slashes around a path; inside it each must mean something.
func cleanPrefix(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return "", nil
	}
	if err := objstore.CheckKey(path); err != nil {
		return "", fmt.Errorf("%w: the path must not contain //, /./ or /../, nor characters that are not UTF-8", objstore.ErrConfig)
	}
	for _, r := range path {
		if r < ' ' || r == 0x7f {
			return "", fmt.Errorf("%w: the path contains a control character", objstore.ErrConfig)
		}
	}
	return path, nil
}

// cleanEndpoint completes an endpoint to a URL that the SDK takes.
func cleanEndpoint(s string) (string, error) {
	bad := func(what string) error {
		return fmt.Errorf("%q %s", objstore.Redact(s), what)
	}
	full := s
	if !strings.Contains(full, "://") {
		full = "https://" + full
		if isPrivate(full) {
			full = "http://" + s
		}
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Hostname() == "":
		return "", bad("is not a server's URL, like https://s3.example.com")
	case u.User != nil:
		return "", bad("contains credentials: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", bad("is neither http nor https")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", bad("must not have parameters")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func hostOf(endpoint string) (host string, addr netip.Addr, isIP bool) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", addr, false
	}
	host = strings.ToLower(u.Hostname())
	addr, err = netip.ParseAddr(host)
	return host, addr, err == nil
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// isPrivate: an address at which https would be a surprise.
func isPrivate(endpoint string) bool {
	host, addr, isIP := hostOf(endpoint)
	if isIP {
		return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
	}
	return isLocalhost(host)
}

// isLocal: a host below which no bucket can be a subdomain.
func isLocal(endpoint string) bool {
	host, _, isIP := hostOf(endpoint)
	return isIP || isLocalhost(host)
}

func isHostLabel(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && net.ParseIP(s) == nil
}
