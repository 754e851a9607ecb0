package policy

import "fmt"

// A Server is a kind of S3 server, by how it says who may do what.
type Server struct {
	Name string
	// AWS: ARNs are its own, and there are KMS and access points.
	AWS bool
	// Documents: it takes policies in the form of AWS. Where it doesn't, Advice says
	// what it has instead.
	Documents bool

	write string // what to make for replication
	read  string // what to make for restores
}

// servers are known by the names that s3store gives their providers. What they take is from their documentation:
// Backblaze "S3-Compatible App Keys"; Cloudflare R2 "Authentication"; Google Cloud
// "HMAC keys", "IAM roles for Cloud Storage"; DigitalOcean "spaces_key"; Linode
// "Create an Object Storage key"; Scaleway "Permission sets"; OVHcloud "Identity and
// access management"; Wasabi "Creating a Policy"; Tigris "IAM Policies".
var servers = []Server{
	{Name: "Amazon S3", AWS: true, Documents: true},
	{Name: "Backblaze B2",
		write: "an application key for bucket %q, restricted to file names that begin with %q, with the capabilities listFiles, readFiles, writeFiles and deleteFiles",
		read:  "an application key for bucket %q, restricted to file names that begin with %q, with the capabilities listFiles and readFiles"},
	{Name: "Cloudflare R2",
		write: `an API token with "Object Read & Write" for bucket %q (it can't be restricted to the path %q)`,
		read:  `an API token with "Object Read only" for bucket %q (it can't be restricted to the path %q)`},
	{Name: "Google Cloud Storage",
		write: `an HMAC key of a service account that has the role "Storage Object User" on bucket %q (a condition can restrict it to names that begin with %q)`,
		read:  `an HMAC key of a service account that has the role "Storage Object Viewer" on bucket %q (a condition can restrict it to names that begin with %q)`},
	{Name: "DigitalOcean Spaces",
		write: "a Spaces access key with read and write access to bucket %q (it can't be restricted to the path %q)",
		read:  "a Spaces access key with read access to bucket %q (it can't be restricted to the path %q)"},
	{Name: "Linode Object Storage",
		write: "a limited access key with read/write access to bucket %q (it can't be restricted to the path %q)",
		read:  "a limited access key with read-only access to bucket %q (it can't be restricted to the path %q)"},
	{Name: "Scaleway Object Storage",
		write: "an API key of an application that has the permission sets ObjectStorageObjectsRead, ObjectStorageObjectsWrite and ObjectStorageObjectsDelete in the project of bucket %q (a bucket policy can restrict it to the path %q)",
		read:  "an API key of an application that has the permission set ObjectStorageObjectsRead in the project of bucket %q (a bucket policy can restrict it to the path %q)"},
	{Name: "OVHcloud Object Storage", Documents: true},
	{Name: "Wasabi", Documents: true},
	{Name: "Tigris", Documents: true},
}

// ServerOf returns what is known of a provider's servers, by its name in s3store; host
// is the name of one that is not known. Those count as servers that take policies,
// as MinIO and Ceph do.
func ServerOf(provider, host string) Server {
	for _, s := range servers {
		if s.Name == provider {
			return s
		}
	}
	if provider == "" {
		provider = host
	}
	return Server{Name: provider, Documents: true}
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
