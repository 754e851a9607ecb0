package s3store

import "strings"

// A provider is a service that speaks S3's protocol, and how it differs from what
// the SDK expects.
//
// Sources: the providers' pages on S3 compatibility, and what their users report;
// of AWS, the AWS General Reference, "Amazon S3 endpoints and quotas".
type provider struct {
	name string
	// hosts are its S3 servers. {region} is what requests are signed for; other
	// names in braces stand for any label.
	hosts []string
	// domains are what all its hosts end in.
	domains []string
	// region is what requests are signed for where the host doesn't say; "": the
	// environment's, else us-east-1.
	region string
	// pathStyle: buckets are not looked for in host names.
	pathStyle bool
	// checksums: the SDK's checksums, also as trailers (aws-chunked), are
	// understood on every request. Elsewhere they are refused, or stored with the
	// object, and the signature covers the content instead.
	checksums bool
	// deleteCRC: DeleteObjects comes with the SDK's CRC32; else with the
	// Content-MD5 that the protocol demanded before.
	deleteCRC bool
	// changesEncoding: proxies on the way change Accept-Encoding, which therefore
	// must not be signed.
	changesEncoding bool
	// header is sent with every request.
	header [2]string
	// partSize and concurrency of uploads, where Outwash's defaults aren't good.
	partSize    int64
	concurrency int
	// noConditions: known to ignore or refuse If-None-Match. The engine probes all
	// the same.
	noConditions bool
}

var aws3 = &provider{
	name: "Amazon S3",
	hosts: []string{
		"s3.{region}.amazonaws.com", "s3.amazonaws.com", "s3.dualstack.{region}.amazonaws.com",
		"s3-fips.{region}.amazonaws.com", "s3-fips.dualstack.{region}.amazonaws.com",
		"s3.{region}.amazonaws.com.cn", "s3.dualstack.{region}.amazonaws.com.cn",
		// Interface endpoints of VPCs (S3 User Guide, "AWS PrivateLink for Amazon S3").
		"bucket.{id}.s3.{region}.vpce.amazonaws.com", "accesspoint.{id}.s3.{region}.vpce.amazonaws.com",
	},
	domains:   []string{"amazonaws.com", "amazonaws.com.cn"},
	checksums: true,
	deleteCRC: true,
}

// unknown is a server that nobody has heard of: one of one's own, most of the
// time. Those all have path style; host names of buckets need DNS entries.
var unknown = &provider{pathStyle: true}

var providers = []*provider{
	aws3,
	{
		name:    "Backblaze B2",
		hosts:   []string{"s3.{region}.backblazeb2.com"},
		domains: []string{"backblazeb2.com"}, pathStyle: true,
		noConditions: true, // 501 NotImplemented
	},
	{
		name:    "DigitalOcean Spaces",
		hosts:   []string{"{place}.digitaloceanspaces.com"},
		domains: []string{"digitaloceanspaces.com"}, region: "us-east-1",
	},
	{
		name:    "Linode Object Storage",
		hosts:   []string{"{place}.linodeobjects.com"},
		domains: []string{"linodeobjects.com"}, region: "us-east-1",
	},
	{
		name:    "Scaleway Object Storage",
		hosts:   []string{"s3.{region}.scw.cloud"},
		domains: []string{"scw.cloud"},
	},
	{
		// Jurisdictions have servers of their own (R2 docs, "Data location").
		name: "Cloudflare R2",
		hosts: []string{
			"{account}.r2.cloudflarestorage.com", "{account}.eu.r2.cloudflarestorage.com",
			"{account}.us.r2.cloudflarestorage.com", "{account}.fedramp.r2.cloudflarestorage.com",
		},
		domains: []string{"r2.cloudflarestorage.com", "r2.dev"}, region: "auto", pathStyle: true,
		concurrency: 2,
	},
	{
		// Conditions are evaluated at one place only for requests that ask for it
		// (Tigris docs, "Conditional Operations": X-Tigris-Consistent).
		name:    "Tigris",
		hosts:   []string{"fly.storage.tigris.dev", "t3.storage.dev"},
		domains: []string{"storage.tigris.dev", "t3.storage.dev"}, region: "auto",
		deleteCRC: true, header: [2]string{"X-Tigris-Consistent", "true"},
		partSize: 16 << 20, concurrency: 2,
	},
	{
		// With HMAC keys. Google's front ends add gzip(gfe) to Accept-Encoding.
		name:    "Google Cloud Storage",
		hosts:   []string{"storage.googleapis.com"},
		domains: []string{"googleapis.com"}, region: "auto", pathStyle: true,
		changesEncoding: true, noConditions: true,
	},
	{
		name:    "Wasabi",
		hosts:   []string{"s3.{region}.wasabisys.com", "s3.wasabisys.com"},
		domains: []string{"wasabisys.com"}, region: "us-east-1", pathStyle: true,
	},
	{
		name:    "Hetzner Object Storage",
		hosts:   []string{"{region}.your-objectstorage.com"},
		domains: []string{"your-objectstorage.com"},
	},
	{
		name: "OVHcloud Object Storage",
		hosts: []string{
			"s3.{region}.io.cloud.ovh.net", "s3.{region}.perf.cloud.ovh.net", "s3.{region}.cloud.ovh.net",
			"s3.{region}.io.cloud.ovh.us", "s3.{region}.perf.cloud.ovh.us",
		},
		domains: []string{"cloud.ovh.net", "cloud.ovh.us"},
	},
	{
		name:    "Filebase",
		hosts:   []string{"s3.filebase.com"},
		domains: []string{"filebase.com"}, region: "us-east-1", pathStyle: true,
	},
	{
		// Its S3 server lies below a path: https://PROJECT.storage.supabase.co/storage/v1/s3
		name:    "Supabase Storage",
		domains: []string{"supabase.co"}, pathStyle: true,
	},
	{
		name:    "Neon Object Storage",
		hosts:   []string{"{branch}.storage.{cell}.{region}.{cloud}.neon.tech"},
		domains: []string{"neon.tech"}, pathStyle: true,
	},
}

// A match is a host name taken apart.
type match struct {
	provider *provider
	server   string // "": none of the provider's S3 servers
	bucket   string // what stands before the server
	region   string // what {region} stands for
}

// matchHost finds out whose a host is; the provider is unknown if nobody's. Of
// several patterns that fit, the longest tells most.
func matchHost(host string) match {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	labels := strings.Split(host, ".")
	best, length := match{provider: unknown}, 0
	for _, p := range providers {
		for _, pattern := range p.hosts {
			parts := strings.Split(pattern, ".")
			rest := len(labels) - len(parts)
			if rest < 0 || len(parts) <= length {
				continue
			}
			if region, ok := fits(parts, labels[rest:]); ok {
				best, length = match{p, strings.Join(labels[rest:], "."), strings.Join(labels[:rest], "."), region}, len(parts)
			}
		}
	}
	if length > 0 {
		return best
	}
	for _, p := range providers {
		for _, d := range p.domains {
			if host == d || strings.HasSuffix(host, "."+d) {
				return match{provider: p}
			}
		}
	}
	return best
}

func fits(pattern, labels []string) (region string, ok bool) {
	for i, part := range pattern {
		switch {
		case part == "{region}" || part == "{place}":
			if labels[i] == "cdn" { // caches, which take no writes
				return "", false
			}
			if part == "{region}" {
				region = labels[i]
			}
		case strings.HasPrefix(part, "{"):
		case part != labels[i]:
			return "", false
		}
	}
	return region, true
}

// example is how to write a bucket of the provider as a URL.
func (p *provider) example() string {
	if len(p.hosts) == 0 {
		return "s3://BUCKET/PATH?endpoint=https://SERVER&region=REGION"
	}
	var labels []string
	for _, part := range strings.Split(p.hosts[0], ".") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			part = strings.ToUpper(strings.TrimSuffix(name, "}"))
		}
		labels = append(labels, part)
	}
	return "s3://BUCKET." + strings.Join(labels, ".") + "/PATH"
}
