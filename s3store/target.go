package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/outwash/outwash/internal/objstore"
)

// A Target says where objects lie and how the server is spoken to: what a URL, the
// settings beside it and the environment come to. Locate makes it. It holds no
// secrets.
type Target struct {
	Bucket      string // a name, or an access point's ARN
	AccessPoint bool
	Prefix      string // without slashes at its ends

	Provider     string // whose server it is, such as "Amazon S3"; "" if unknown
	Endpoint     string // URL with scheme; "" is AWS's own
	EndpointFrom string // who says so
	Host         string // what is connected to
	Region       string // requests are signed for it
	RegionFrom   string // who says so
	PathStyle    bool   // https://server/bucket/key, not https://bucket.server/key
	DualStack    bool   // AWS's servers with IPv6
	FIPS         bool   // AWS's servers with validated cryptography
	SkipVerify   bool   // any TLS certificate is accepted

	// SignPayload: signatures cover the content of writes.
	SignPayload bool
	// NoConditions: the provider is known to lack conditional writes. The engine
	// probes in any case.
	NoConditions bool

	Encryption           string // by the server: AES256, aws:kms, aws:kms:dsse, "SSE-C"; "": the bucket's default
	KMSKey               string // sse-kms-key-id
	StorageClass         string // "": the bucket's default
	SnapshotStorageClass string // of what Upload writes

	regionGiven bool // by the URL or a setting: not followed elsewhere

	// checksumsRequired: send and check the SDK's checksums only where S3
	// demands it. Many other servers refuse or mangle them.
	checksumsRequired bool
	provider          *provider
	// overruled: the URL names AWS, and the environment another server: String
	// must say so.
	overruled bool

	deleteMD5, putMD5, hideEncoding bool
}

// environment is what the SDK knows apart from URL and settings.
type environment struct {
	endpoint, endpointFrom string
	region, regionFrom     string
	dualStack, fips        bool
}

// settle fills in what the address leaves open. It is a pure function.
func (a address) settle(env environment) (Target, error) {
	t, err := a.complete(env)
	if err != nil {
		return t, wrapSetting(err, "s3store: s3://%s: %w", strings.TrimSuffix(t.Bucket+"/"+t.Prefix, "/"), err)
	}
	return t, nil
}

func (a address) complete(env environment) (Target, error) {
	w := a.wishes
	if env.endpoint != "" {
		if a.Endpoint == "" && !a.inAWS {
			endpoint, err := cleanEndpoint(env.endpoint)
			if err != nil {
				return a.Target, fmt.Errorf("%w: the endpoint of %s: %w", objstore.ErrConfig, env.endpointFrom, err)
			}
			given, region, from := a.regionGiven, a.Region, a.RegionFrom
			if err := a.useEndpoint(endpoint); err != nil {
				return a.Target, fmt.Errorf("%s: %w", env.endpointFrom, err)
			}
			if given {
				a.regionGiven, a.Region, a.RegionFrom = given, region, from
			}
			a.EndpointFrom = env.endpointFrom
		}
		a.overruled = a.inAWS && a.EndpointFrom != env.endpointFrom
	}
	if a.provider == nil {
		a.provider, a.Provider = aws3, aws3.name
	}
	p := a.provider
	if a.Region == "" {
		switch {
		case p.region != "":
			a.Region, a.RegionFrom = p.region, "what "+p.name+" wants"
		case env.region != "":
			a.Region, a.RegionFrom = env.region, env.regionFrom
		default:
			// What servers other than AWS expect; AWS says where the bucket really is.
			a.Region, a.RegionFrom = "us-east-1", "default"
		}
	}
	if w.pathStyle == nil && !a.AccessPoint {
		a.PathStyle = p.pathStyle || isLocal(a.Endpoint) ||
			strings.ContainsAny(a.Bucket, ".ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
	}
	a.DualStack = is(w.dualStack, a.DualStack || env.dualStack)
	a.FIPS = is(w.fips, a.FIPS || env.fips)
	a.SkipVerify = is(w.skipVerify, false)
	a.NoConditions = p.noConditions
	a.SignPayload = is(w.signPayload, !p.checksums)
	a.putMD5 = is(w.putMD5, false)
	a.checksumsRequired = !p.checksums || a.SignPayload || a.putMD5
	a.deleteMD5 = is(w.deleteMD5, !p.deleteCRC)
	a.hideEncoding = !is(w.signAcceptEncoding, !p.changesEncoding)
	a.Encryption, a.KMSKey = w.sse, w.kmsKey
	if w.customerEncrypted() {
		a.Encryption = "SSE-C"
	}
	a.StorageClass, a.SnapshotStorageClass = w.class, cmp.Or(w.snapshotClass, w.class)
	if err := a.check(); err != nil {
		return a.Target, err
	}
	return a.locate()
}

// check refuses what this server can't do.
func (a address) check() error {
	name := cmp.Or(a.Provider, "this server")
	plain := strings.HasPrefix(a.Endpoint, "http://")
	switch {
	case a.DualStack && a.Endpoint != "":
		return settingError("dualstack", "it chooses among AWS's own servers, and %s is the endpoint: leave it out, AWS_USE_DUALSTACK_ENDPOINT too", a.Endpoint)
	case a.FIPS && a.Endpoint != "":
		return settingError("fips", "it chooses among AWS's own servers, and %s is the endpoint: leave it out, AWS_USE_FIPS_ENDPOINT too", a.Endpoint)
	case plain && a.Encryption == "SSE-C":
		return settingError("sse-customer-key", "the key is sent with every request, which takes https: the endpoint is %s", a.Endpoint)
	case plain && !a.SignPayload && a.wishes.signPayload != nil:
		return settingError("sign-payload", "false leaves the content of writes to https alone: the endpoint is %s", a.Endpoint)
	case plain && a.SkipVerify:
		return settingError("skip-verify", "there is no certificate to verify: the endpoint is %s", a.Endpoint)
	}
	for setting, class := range map[string]string{"storage-class": a.wishes.class, "snapshot-storage-class": a.wishes.snapshotClass} {
		if a.provider == aws3 && class != "" && !slices.Contains(types.StorageClass("").Values(), types.StorageClass(class)) {
			return settingError(setting, "%s has no storage class %q", name, class)
		}
	}
	return nil
}

// locate finds the host by the SDK's own rules.
func (a address) locate() (Target, error) {
	t := a.Target
	if t.AccessPoint {
		partition := strings.Split(t.Bucket, ":")[1]
		for prefix, want := range map[string]string{"cn-": "aws-cn", "us-gov-": "aws-us-gov"} {
			if strings.HasPrefix(t.Region, prefix) != (partition == want) {
				return t, fmt.Errorf("%w: there is no region %s in partition %s", objstore.ErrConfig, t.Region, partition)
			}
		}
	}
	params := s3.EndpointParameters{
		Bucket: &t.Bucket, Region: &t.Region, ForcePathStyle: &t.PathStyle,
		UseDualStack: &t.DualStack, UseFIPS: &t.FIPS, UseArnRegion: aws.Bool(true),
	}
	if t.Endpoint != "" {
		params.Endpoint = &t.Endpoint
	}
	found, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(context.Background(), params.WithDefaults())
	if err != nil {
		return t, fmt.Errorf("%w: no server can be found for this bucket and region: %w", objstore.ErrConfig, err)
	}
	t.Host = found.URI.Host
	if !t.AccessPoint { // not every bucket's name can be part of a host's
		t.PathStyle = !strings.HasPrefix(t.Host, t.Bucket+".")
	}
	return t, nil
}

// A Fact is one line of what Facts says.
type Fact struct{ Name, Value string }

// Facts describes the target to people, line by line.
func (t Target) Facts() []Fact {
	list := []Fact{{"provider", cmp.Or(t.Provider, "unknown: a server of your own?")}}
	add := func(name, value string) {
		if value != "" {
			list = append(list, Fact{name, value})
		}
	}
	from := func(value, from string) string {
		if value == "" || from == "" {
			return value
		}
		return value + " (from " + from + ")"
	}
	if t.AccessPoint {
		add("access point", t.Bucket)
	} else {
		add("bucket", t.Bucket)
	}
	add("path", cmp.Or(t.Prefix, "/ (the whole bucket)"))
	add("endpoint", from(cmp.Or(t.Endpoint, "AWS"), t.EndpointFrom))
	add("host", t.Host)
	add("region", from(t.Region, t.RegionFrom))
	style := "virtual-hosted: the bucket is part of the host"
	if t.PathStyle {
		style = "path: the bucket is part of the path"
	}
	add("style", style)
	if t.DualStack {
		add("network", "IPv6 and IPv4 (dual-stack)")
	}
	if t.FIPS {
		add("cryptography", "FIPS 140 validated")
	}
	if t.SkipVerify {
		add("certificate", "not verified (skip-verify)")
	}
	add("integrity", t.integrity())
	if t.hideEncoding {
		add("headers", "Accept-Encoding not signed")
	}
	if h := t.provider; h != nil && h.header[0] != "" {
		add("headers", h.header[0]+": "+h.header[1])
	}
	if t.NoConditions {
		add("conditional writes", "known to be missing: the fence is weak")
	}
	add("encryption", strings.TrimSpace(t.Encryption+" "+t.KMSKey))
	add("storage class", t.StorageClass)
	if t.SnapshotStorageClass != t.StorageClass {
		add("snapshots' class", t.SnapshotStorageClass)
	}
	return list
}

// integrity is how the server knows that what arrives is what was sent.
func (t Target) integrity() string {
	var how []string
	if !t.checksumsRequired {
		how = append(how, "CRC32 with every write")
	}
	if t.SignPayload {
		how = append(how, "content signed")
	}
	if t.putMD5 {
		how = append(how, "Content-MD5 with every write")
	}
	if len(how) == 0 {
		how = append(how, "https alone")
	}
	if t.deleteMD5 {
		how = append(how, "deletions with Content-MD5")
	}
	return strings.Join(how, ", ")
}

// url is the target as a URL that works in commands: bucket, path, and whichever
// settings finding and reading the objects takes.
func (t Target) url(w wishes) string {
	u := "s3://" + t.Bucket
	if t.Prefix != "" {
		u += "/" + t.Prefix
	}
	var q []string
	add := func(name, value string) { q = append(q, name+"="+escape(value)) }
	switch {
	case t.Endpoint != "":
		add("endpoint", t.Endpoint)
	case t.overruled && !t.regionGiven && t.domain() == "amazonaws.com":
		add("endpoint", "https://s3.amazonaws.com")
	case t.overruled:
		add("endpoint", "https://s3."+t.Region+"."+t.domain())
	}
	if t.regionGiven {
		add("region", t.Region)
	}
	if w.pathStyle != nil {
		add("force-path-style", strconv.FormatBool(*w.pathStyle))
	}
	if w.dualStack != nil || t.DualStack {
		add("dualstack", strconv.FormatBool(t.DualStack))
	}
	if w.fips != nil || t.FIPS {
		add("fips", strconv.FormatBool(t.FIPS))
	}
	for _, r := range w.repeated {
		add(r.name, r.value)
	}
	if len(q) == 0 {
		return u
	}
	return u + "?" + strings.Join(q, "&")
}

// domain is what hosts of AWS in the region end in.
func (t Target) domain() string {
	if strings.HasPrefix(t.Region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// settingError is the error of one setting's value.
func settingError(name, format string, args ...any) error {
	return &objstore.SettingError{Name: name, Err: fmt.Errorf("%w: %s: "+format, append([]any{objstore.ErrConfig, name}, args...)...)}
}

// asSetting makes an error one of a setting's value.
func asSetting(name string, err error) error { return &objstore.SettingError{Name: name, Err: err} }

// wrapSetting is fmt.Errorf around err, which stays a setting's error if it is one.
func wrapSetting(err error, format string, args ...any) error {
	wrapped := fmt.Errorf(format, args...)
	var setting *objstore.SettingError
	if errors.As(err, &setting) {
		return &objstore.SettingError{Name: setting.Name, Err: wrapped}
	}
	return wrapped
}
