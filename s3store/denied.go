package s3store

import (
	"fmt"
	"regexp"
	"strings"
)

// actions are what IAM calls what an operation needs (Service Authorization
// Reference, "Actions defined by Amazon S3"; S3 User Guide, "Required permissions
// for Amazon S3 API operations").
var actions = map[string]string{
	"PutObject": "s3:PutObject", "CreateMultipartUpload": "s3:PutObject", "UploadPart": "s3:PutObject", "CompleteMultipartUpload": "s3:PutObject",
	"GetObject": "s3:GetObject", "HeadObject": "s3:GetObject",
	"DeleteObject": "s3:DeleteObject", "DeleteObjects": "s3:DeleteObject",
	"ListObjectsV2": "s3:ListBucket", "HeadBucket": "s3:ListBucket",
	"AbortMultipartUpload": "s3:AbortMultipartUpload", "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}

// capabilities are the same at Backblaze B2 ("S3-Compatible App Keys").
var capabilities = map[string]string{
	"s3:PutObject": "writeFiles", "s3:GetObject": "readFiles", "s3:DeleteObject": "writeFiles and deleteFiles", "s3:ListBucket": "listFiles",
	"s3:AbortMultipartUpload": "writeFiles", "s3:ListBucketMultipartUploads": "listFiles",
}

var deniedAction = regexp.MustCompile(`not authorized to perform: ?((?:s3|kms)[a-z-]*:[A-Za-z]+)`)

// policies are the kinds of which AWS says that one denied a request, explicitly ("with
// an explicit deny in a … policy") or by not allowing it ("because no … policy allows the
// … action"). Source: IAM User Guide, "Troubleshoot access denied error messages"; S3 User
// Guide, "Troubleshoot access denied (403 Forbidden) errors". The first match counts.
var policies = []struct {
	says, cause string
	silent      string // no statement allows the action (%s)
	explicit    string // a statement denies it
}{
	{
		"identity-based", "denied-identity",
		"no policy of the user or role allows %s: attach one that does; " + policyRemedy,
		"a policy of the user or role denies %s: remove that Deny, or exempt the replica's path",
	},
	{
		"resource-based", "denied-resource",
		"the bucket's policy does not allow %s, which it has to for credentials of another account: add them to it",
		"the bucket's policy denies %s: remove that Deny, or exempt these credentials and the replica's path",
	},
	{
		"vpc endpoint", "denied-vpc-endpoint",
		"the policy of the VPC endpoint, through which the request went, does not allow %s: add the bucket to it",
		"the policy of the VPC endpoint, through which the request went, denies %s: remove that Deny, or exempt the bucket",
	},
	{
		"service control", "denied-organization",
		"no service control policy of the AWS organization allows %s: its administrators can change that",
		"a service control policy of the AWS organization denies %s: its administrators can exempt the bucket",
	},
	{
		"resource control", "denied-organization",
		"no resource control policy of the AWS organization allows %s: its administrators can change that",
		"a resource control policy of the AWS organization denies %s: its administrators can exempt the bucket",
	},
	{
		"permissions boundary", "denied-boundary",
		"the permissions boundary of the user or role does not allow %s: extend it; a policy alone does not suffice",
		"the permissions boundary of the user or role denies %s: remove that Deny",
	},
	{
		"session policy", "denied-session",
		"the session policy, given when the role was assumed, does not allow %s: extend it",
		"the session policy, given when the role was assumed, denies %s: remove that Deny",
	},
}

// judgeDenied says which permission is missing, and where.
func judgeDenied(f facts, t Target) verdict {
	v := byCode["AccessDenied"]
	v.action = actions[f.operation]
	if m := deniedAction.FindStringSubmatch(f.message); m != nil {
		v.action = m[1]
	}
	what := v.action
	if what == "" {
		what = "the request"
	}
	said := strings.ToLower(f.message)
	explicit := strings.Contains(said, "explicit deny in")
	for _, p := range policies {
		if !strings.Contains(said, p.says) || !explicit && !strings.Contains(said, "because no ") {
			continue
		}
		v.cause = p.cause
		switch {
		case strings.HasPrefix(v.action, "kms:"):
			v.cause, v.remedy = "kms", what+" is not allowed: "+kmsRemedy
		case explicit:
			v.remedy = fmt.Sprintf(p.explicit, what)
		default:
			v.remedy = fmt.Sprintf(p.silent, what)
		}
		if t.AccessPoint && v.cause == "denied-identity" && !explicit {
			v.remedy += ", and it must name both the access point and the bucket"
		}
		if t.AccessPoint && v.cause == "denied-resource" {
			v.remedy = fmt.Sprintf("the policy of the access point or that of the bucket does not let %s through: look at both; the bucket's must delegate to its access points, or allow it", what)
		}
		return v
	}
	switch {
	case strings.HasPrefix(v.action, "kms:") || strings.Contains(said, "kms"):
		v.cause, v.remedy = "kms", kmsRemedy
	case strings.Contains(said, "block public access"), strings.Contains(said, "blockpublic"):
		v.remedy = "the bucket's policy makes it public, which S3 Block Public Access forbids: name the principals in that policy"
	case t.AccessPoint:
		v.cause = "denied-access-point"
		v.remedy = what + " was denied at the access point: its policy and the bucket's, and that of the user or role, must all let it through (" + policyRemedy +
			"); if it is restricted to a VPC, requests must come from inside, through a VPC endpoint for S3 that the subnet's route table has"
	case at(t, "backblazeb2.com"):
		v.remedy = "the application key lacks a capability"
		if c := capabilities[v.action]; c != "" {
			v.remedy += " (" + c + ")"
		}
		v.remedy += ", or is restricted to another bucket or prefix"
	case at(t, "r2.cloudflarestorage.com"):
		v.remedy = "the API token lacks a permission (Object Read & Write), or is restricted to another bucket"
	case at(t, "storage.googleapis.com"):
		v.remedy = "the HMAC key's service account lacks a permission on the bucket: give it the role Storage Object User"
	default:
		v.remedy = "the credentials lack a permission: " + missing(v.action, t) + "; " + policyRemedy
	}
	return v
}

// missing is a permission and on what it is needed. Who may not list is denied to
// read what does not exist, too (S3 API Reference, GetObject, "Permissions").
func missing(action string, t Target) string {
	objects := "s3://" + t.Bucket + "/" + t.Prefix
	objects = strings.TrimSuffix(objects, "/") + "/*"
	switch action {
	case "s3:ListBucket", "s3:ListBucketMultipartUploads":
		return action + " on the bucket"
	case "s3:GetObject":
		return "s3:GetObject on " + objects + ", or, if there is no such object, s3:ListBucket on the bucket"
	case "":
		return "s3:GetObject, s3:PutObject, s3:DeleteObject on " + objects + ", s3:ListBucket on the bucket"
	}
	return action + " on " + objects
}
