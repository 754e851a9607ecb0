package policy

import (
	"fmt"
	"net/url"
	"strings"
)

// A Server is a kind of S3 server, by how it says who may do what.
type Server struct {
	Name string
	// AWS: ARNs are its own, and there are KMS and access points.
	AWS bool
	// Documents: it takes policies in the form of AWS. Where it doesn't, Advice says
	// what it has instead.
	Documents bool

	suffixes []string // of its hosts
	write    string   // what to make for replication
	read     string   // what to make for restores
}

// servers are known by their hosts. What they take is from their documentation:
// Backblaze "S3-Compatible App Keys"; Cloudflare R2 "Authentication"; Google Cloud
// "HMAC keys", "IAM roles for Cloud Storage"; DigitalOcean "spaces_key"; Linode
// "Create an Object Storage key"; Scaleway "Permission sets"; OVHcloud "Identity and
// access management"; Wasabi "Creating a Policy"; Tigris "IAM Policies".
var servers = []Server{
	{Name: "AWS", AWS: true, Documents: true, suffixes: []string{"amazonaws.com", "amazonaws.com.cn", "amazonaws.eu"}},
	{Name: "Backblaze B2", suffixes: []string{"backblazeb2.com"},
		write: "an application key for bucket %q, restricted to file names that begin with %q, with the capabilities listFiles, readFiles, writeFiles and deleteFiles",
		read:  "an application key for bucket %q, restricted to file names that begin with %q, with the capabilities listFiles and readFiles"},
	{Name: "Cloudflare R2", suffixes: []string{"r2.cloudflarestorage.com"},
		write: `an API token with "Object Read & Write" for bucket %q (it can't be restricted to the path %q)`,
		read:  `an API token with "Object Read only" for bucket %q (it can't be restricted to the path %q)`},
	{Name: "Google Cloud Storage", suffixes: []string{"storage.googleapis.com"},
		write: `an HMAC key of a service account that has the role "Storage Object User" on bucket %q (a condition can restrict it to names that begin with %q)`,
		read:  `an HMAC key of a service account that has the role "Storage Object Viewer" on bucket %q (a condition can restrict it to names that begin with %q)`},
	{Name: "DigitalOcean Spaces", suffixes: []string{"digitaloceanspaces.com"},
		write: "a Spaces access key with read and write access to bucket %q (it can't be restricted to the path %q)",
		read:  "a Spaces access key with read access to bucket %q (it can't be restricted to the path %q)"},
	{Name: "Linode", suffixes: []string{"linodeobjects.com"},
		write: "a limited access key with read/write access to bucket %q (it can't be restricted to the path %q)",
		read:  "a limited access key with read-only access to bucket %q (it can't be restricted to the path %q)"},
	{Name: "Scaleway", suffixes: []string{"scw.cloud"},
		write: "an API key of an application that has the permission sets ObjectStorageObjectsRead, ObjectStorageObjectsWrite and ObjectStorageObjectsDelete in the project of bucket %q (a bucket policy can restrict it to the path %q)",
		read:  "an API key of an application that has the permission set ObjectStorageObjectsRead in the project of bucket %q (a bucket policy can restrict it to the path %q)"},
	{Name: "OVHcloud", Documents: true, suffixes: []string{"io.cloud.ovh.net", "io.cloud.ovh.us"}},
	{Name: "Wasabi", Documents: true, suffixes: []string{"wasabisys.com"}},
	{Name: "Tigris", Documents: true, suffixes: []string{"fly.storage.tigris.dev", "t3.storage.dev"}},
}

// ServerOf returns what is known of the server at an endpoint; "" is AWS. One that
// is not known counts as one that takes policies, as MinIO and Ceph do.
func ServerOf(endpoint string) Server {
	if endpoint == "" {
		return servers[0]
	}
	host := ""
	if u, err := url.Parse(endpoint); err == nil {
		host = strings.ToLower(u.Hostname())
	}
	for _, s := range servers {
		for _, suffix := range s.suffixes {
			if host == suffix || strings.HasSuffix(host, "."+suffix) {
				return s
			}
		}
	}
	return Server{Name: host, Documents: true}
}

// Advice says what to make at a server that takes no policies.
func (s Server) Advice(r Request) string {
	text := s.write
	if r.ReadOnly {
		text = s.read
	}
	below := ""
	if r.Prefix != "" {
		below = r.Prefix + "/"
	}
	return fmt.Sprintf(text, r.Bucket, below)
}
