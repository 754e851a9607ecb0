package s3store

import (
	"fmt"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
)

// An address is what a URL and the settings beside it say: where the objects are,
// as far as that is known without the environment, and how to deal with them.
type address struct {
	Target
	wishes wishes
	// inAWS: the URL names a server of AWS, whatever endpoint the environment
	// knows.
	inAWS bool
}

// parseURL reads an s3 URL and the settings beside it. It is a pure function, and
// so is settle, which adds what the environment says.
func parseURL(rawURL string, given objstore.Settings) (address, error) {
	where := objstore.Redact(rawURL)
	fail := func(format string, args ...any) (address, error) {
		return address{}, fmt.Errorf("s3store: %q: %w: "+format, append([]any{where, objstore.ErrConfig}, args...)...)
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
	var a address
	var err error
	if a.wishes, err = parseSettings(where, query, given); err != nil {
		return address{}, err
	}
	var path string
	if strings.HasPrefix(rest, "arn:") {
		a.Target, path, err = parseARN(rest)
	} else {
		var authority string
		authority, path, _ = strings.Cut(rest, "/")
		path, err = a.readAuthority(authority, path)
	}
	if err == nil {
		err = checkBucket(a.Bucket, a.AccessPoint)
	}
	if err == nil {
		a.Prefix, err = cleanPrefix(path)
	}
	if err == nil {
		err = a.apply()
	}
	if err != nil {
		return address{}, wrapSetting(err, "s3store: %q: %w", where, err)
	}
	return a, nil
}

// addressOf is parseURL for programs that have no URL.
func addressOf(bucket, prefix string, given objstore.Settings) (address, error) {
	var a address
	where := objstore.Redact(bucket)
	fail := func(what string, err error) (address, error) {
		return address{}, wrapSetting(err, "s3store: %s %q: %w", what, where, err)
	}
	var err error
	if a.wishes, err = parseSettings(where, "", given); err != nil {
		return address{}, err
	}
	if a.wishes.profile != "" {
		return fail("bucket", settingError("profile", "the aws.Config has been loaded already: use config.WithSharedConfigProfile"))
	}
	a.Bucket = bucket
	if strings.HasPrefix(bucket, "arn:") {
		var path string
		if a.Target, path, err = parseARN(bucket); err == nil && path != "" {
			err = fmt.Errorf("%w: the path %q belongs into prefix", objstore.ErrConfig, path)
		}
	}
	if err == nil {
		err = checkBucket(a.Bucket, a.AccessPoint)
	}
	if err != nil {
		return fail("bucket", err)
	}
	if a.Prefix, err = cleanPrefix(prefix); err != nil {
		where = prefix
		return fail("prefix", err)
	}
	if err := a.apply(); err != nil {
		return fail("bucket", err)
	}
	return a, nil
}

// apply enters what the settings say of the target.
func (a *address) apply() error {
	w := a.wishes
	if w.endpoint != "" {
		server, inAWS := a.Endpoint, a.inAWS
		region, given := a.Region, a.regionGiven
		if err := a.useEndpoint(w.endpoint); err != nil {
			return asSetting("endpoint", err)
		}
		a.regionGiven = a.regionGiven || given && a.inAWS // s3.amazonaws.com leaves it open
		if named := server != "" || inAWS; named && (a.Endpoint != server || a.inAWS != inAWS || region != a.Region && region != "") {
			return settingError("endpoint", "%q contradicts the server that the URL names: write s3://BUCKET/PATH with an endpoint, or leave the endpoint out", objstore.Redact(w.endpoint))
		}
		a.EndpointFrom = w.source("endpoint")
	}
	if w.region != "" {
		if a.inAWS && !a.AccessPoint && a.Region != "" && a.Region != w.region {
			return settingError("region", "%s contradicts the server's host, which is in %s: leave one out", w.region, a.Region)
		}
		if a.AccessPoint {
			a.moveAccessPoint(w.region)
		}
		a.Region, a.RegionFrom, a.regionGiven = w.region, w.source("region"), true
	}
	if w.pathStyle != nil {
		if a.AccessPoint && *w.pathStyle {
			return settingError("force-path-style", "an access point can't be reached with force-path-style: leave it out")
		}
		a.PathStyle = *w.pathStyle
	}
	return nil
}

// parseARN splits an ARN, followed by a path, into what it names and the path
// (S3 User Guide, "Access points naming rules, restrictions, and limitations",
// "Multi-Region Access Point ARNs").
func parseARN(s string) (Target, string, error) {
	refuse := func(what, instead string) (Target, string, error) {
		return Target{}, "", fmt.Errorf("%w: %s: %s", objstore.ErrUnsupported, what, instead)
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 {
		return refuse("the ARN is not complete", arnForms)
	}
	partition, service, region, account, resource := parts[1], parts[2], parts[3], parts[4], parts[5]
	switch service {
	case "s3":
	case "s3-outposts":
		return refuse("Outposts (ARNs of service \"s3-outposts\") are not supported", "use a bucket, or an access point of a bucket, in a region")
	case "s3-object-lambda":
		return refuse("Object Lambda access points (ARNs of service \"s3-object-lambda\") change what is read", "use the access point behind it")
	case "s3express":
		return refuse(expressRefusal, "use a general purpose bucket")
	default:
		return refuse(fmt.Sprintf("ARNs of service %q are not supported", service), arnForms)
	}
	if !isHostLabel(partition) {
		return Target{}, "", fmt.Errorf("%w: %q is not a partition of AWS: aws, aws-cn, aws-us-gov", objstore.ErrConfig, partition)
	}
	if region == "" && account == "" {
		bucket, path, _ := strings.Cut(resource, "/")
		return Target{Bucket: bucket}, path, nil
	}
	kind, rest, ok := strings.Cut(strings.Replace(resource, ":", "/", 1), "/")
	if !ok || kind != "accesspoint" {
		return refuse("the ARN names no bucket and no access point", arnForms)
	}
	name, path, _ := strings.Cut(rest, "/")
	if region == "" {
		return refuse("multi-region access points are not supported: their buckets follow each other with a delay, so that two writers could both go on", "use an access point, or the bucket, of one region")
	}
	if !isHostLabel(name) || !isHostLabel(region) || !isHostLabel(account) {
		return Target{}, "", fmt.Errorf("%w: not an access point's ARN: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME", objstore.ErrConfig)
	}
	return Target{
		Bucket:      strings.Join(parts[:5], ":") + ":accesspoint/" + name,
		AccessPoint: true,
		Region:      region,
		RegionFrom:  "the access point's ARN",
	}, path, nil
}

const (
	arnForms       = "supported are those of buckets (arn:aws:s3:::BUCKET) and access points (arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME)"
	expressRefusal = "S3 Express directory buckets list without order, which restores rely on"
)

// moveAccessPoint makes an access point's ARN one of another region: the SDK takes
// host and signature from the ARN.
func (t *Target) moveAccessPoint(region string) {
	parts := strings.SplitN(t.Bucket, ":", 6)
	parts[3] = region
	t.Bucket = strings.Join(parts, ":")
}

func checkBucket(name string, accessPoint bool) error {
	switch {
	case accessPoint:
		return nil
	case name == "":
		return fmt.Errorf("%w: no bucket is named: s3://BUCKET/PATH", objstore.ErrConfig)
	case strings.HasSuffix(name, "--x-s3"):
		return fmt.Errorf("%w: %s: use a general purpose bucket", objstore.ErrUnsupported, expressRefusal)
	case strings.HasSuffix(name, "--ol-s3"):
		return fmt.Errorf("%w: Object Lambda access points change what is read: use the access point behind it", objstore.ErrUnsupported)
	case strings.HasSuffix(name, ".mrap"):
		return fmt.Errorf("%w: multi-region access points are not supported: use an access point, or the bucket, of one region", objstore.ErrUnsupported)
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
	if strings.ContainsAny(path, "?#") { // from New alone
		return "", fmt.Errorf("%w: the path contains ? or #, so that no URL leads commands to it", objstore.ErrConfig)
	}
	for _, r := range path {
		if r < ' ' || r == 0x7f {
			return "", fmt.Errorf("%w: the path contains a control character", objstore.ErrConfig)
		}
	}
	return path, nil
}
