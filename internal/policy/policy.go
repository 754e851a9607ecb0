// Package policy writes the IAM policies that replicas need, and no more than
// that: pure functions from what a replica's URL says to a document to paste.
//
// Replication lists, reads, creates and deletes objects below the replica's path
// (s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject); a restore lists and
// reads. That is all: multipart uploads are s3:PutObject, and where a bucket is S3
// says by itself, so that s3:GetBucketLocation is never asked for. Uploads that a
// crash left unfinished are swept where that is permitted, which takes two actions
// more (Request.Sweep); a lifecycle rule does the same without them.
//
// Sources: Amazon S3 User Guide, "Required permissions for Amazon S3 API
// operations" (using-with-s3-policy-actions.html), "Configuring IAM policies for
// using access points" (access-points-policies.html), "Bucket policy examples using
// condition keys" (amazon-s3-policy-keys.html).
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// A Request says for which replica a policy is, and what shall be possible.
type Request struct {
	Bucket      string // its name; with AccessPoint the one behind it
	AccessPoint string // ARN, without objects; "" for a bucket
	Prefix      string // the path in the bucket, without slashes at its ends; "" is all of it
	Region      string
	Account     string // of AWS, where AccessPoint doesn't say it

	ReadOnly bool // restore, not replicate
	Sweep    bool // the two actions more by which unfinished uploads are found and aborted
	// Delegated: the bucket's own policy leaves access to its access points, as
	// Delegation has it, so that the access point's ARN suffices.
	Delegated bool
	// KMSKey is the key with which objects are encrypted, an ID, an alias or the ARN
	// of either; "" if they aren't, or with AWS's own key, which needs no permission.
	KMSKey string
}

// Errors of Identity and Delegation that the caller can do something about.
var (
	ErrNoBucket  = errors.New("the bucket behind the access point has to be named")
	ErrNoAccount = errors.New("the AWS account has to be named")
)

// A Document is a policy.
type Document struct {
	Version   string
	Statement []Statement
}

// A Statement allows something.
type Statement struct {
	Sid       string
	Effect    string
	Principal map[string]string `json:",omitempty"` // in a bucket's policy
	Action    Strings
	Resource  Strings
	Condition Conditions `json:",omitempty"`
}

// Conditions are values, by operator and key.
type Conditions map[string]map[string]Strings

// Strings is written as a string if it has one element.
type Strings []string

// MarshalJSON implements json.Marshaler.
func (s Strings) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return marshal(s[0], "")
	}
	return marshal([]string(s), "")
}

// String is the document as JSON that can be pasted into a console or a file.
func (d Document) String() string {
	b, err := marshal(d, "    ")
	if err != nil {
		panic(err) // strings alone
	}
	return string(ascii(b)) + "\n"
}

func marshal(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// ascii escapes what is not ASCII: IAM takes no characters beyond U+00FF in a
// document (IAM API Reference, PutUserPolicy, PolicyDocument).
func ascii(b []byte) []byte {
	var out bytes.Buffer
	for _, r := range string(b) {
		switch {
		case r < 0x80:
			out.WriteByte(byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes()
}

// A resource is something that has objects: its ARN, and what stands before keys.
type resource struct{ bucket, objects string }

// Identity is the policy for the user or role with whose credentials a program
// replicates or restores. Errors wrap ErrNoBucket or ErrNoAccount.
func Identity(r Request) (Document, error) {
	var all []resource
	if r.AccessPoint != "" {
		all = append(all, resource{r.AccessPoint, r.AccessPoint + "/object/"})
	}
	if r.AccessPoint == "" || !r.Delegated {
		if r.Bucket == "" {
			return Document{}, ErrNoBucket
		}
		arn := bucketARN(r.partition(), r.Bucket)
		all = append(all, resource{arn, arn + "/"})
	}
	below := "*"
	if r.Prefix != "" {
		below = Literal(r.Prefix) + "/*"
	}
	var buckets, objects Strings
	for _, a := range all {
		buckets, objects = append(buckets, a.bucket), append(objects, a.objects+below)
	}

	list := Statement{Sid: "OutwashList", Effect: "Allow", Action: Strings{"s3:ListBucket"}, Resource: buckets}
	if r.Prefix != "" {
		// Listings ask for PATH/ and what follows. When an object is missing, S3 says
		// so ("404") only to whom it would list it, and looks at the condition with the
		// object's key: ceph/ceph pull request 68577 follows AWS in that. Where a server
		// doesn't, s3store asks a listing instead.
		list.Condition = Conditions{"StringLike": {"s3:prefix": {below}}}
	}
	act := Statement{Sid: "OutwashReplicate", Effect: "Allow", Action: Strings{"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}, Resource: objects}
	if r.ReadOnly {
		act.Sid, act.Action = "OutwashRestore", Strings{"s3:GetObject"}
	}
	d := Document{Version: "2012-10-17", Statement: []Statement{list, act}}
	if r.Sweep && !r.ReadOnly {
		// s3:ListBucketMultipartUploads knows no s3:prefix (Service Authorization
		// Reference, Amazon S3): whoever has it sees the keys of all unfinished uploads.
		d.Statement = append(d.Statement,
			Statement{Sid: "OutwashUploads", Effect: "Allow", Action: Strings{"s3:ListBucketMultipartUploads"}, Resource: buckets},
			Statement{Sid: "OutwashAbort", Effect: "Allow", Action: Strings{"s3:AbortMultipartUpload"}, Resource: objects})
	}
	if r.KMSKey != "" {
		kms, err := r.kms()
		if err != nil {
			return Document{}, err
		}
		d.Statement = append(d.Statement, kms)
	}
	return d, nil
}

// Delegation is the policy of a bucket that leaves it to the access points of an
// account who may do what (S3 User Guide, "Delegating access control to access
// points"). With it Identity needs the access point alone. Errors wrap ErrNoBucket
// or ErrNoAccount.
func Delegation(r Request) (Document, error) {
	if r.Bucket == "" {
		return Document{}, ErrNoBucket
	}
	account := r.account()
	if account == "" {
		return Document{}, ErrNoAccount
	}
	arn := bucketARN(r.partition(), r.Bucket)
	return Document{Version: "2012-10-17", Statement: []Statement{{
		Sid: "OutwashDelegate", Effect: "Allow", Principal: map[string]string{"AWS": "*"}, Action: Strings{"*"},
		Resource:  Strings{arn, arn + "/*"},
		Condition: Conditions{"StringEquals": {"s3:DataAccessPointAccount": {account}}},
	}}}, nil
}

// kms allows what S3 does with a key on behalf of who asks: make a key for a new
// object; open it for reading, and for putting the parts of an upload together.
// Policies name keys by their ARNs alone, aliases are a condition (KMS Developer
// Guide, "Specifying KMS keys in IAM policy statements", "Use aliases to control
// access to KMS keys"; "kms:Decrypt for multipart uploads": AWS re:Post,
// s3-multipart-kms-decrypt).
func (r Request) kms() (Statement, error) {
	s := Statement{Sid: "OutwashKey", Effect: "Allow", Action: Strings{"kms:GenerateDataKey", "kms:Decrypt"}}
	if r.ReadOnly {
		s.Action = Strings{"kms:Decrypt"}
	}
	base, key := "", r.KMSKey
	if strings.HasPrefix(key, "arn:") {
		parts := strings.SplitN(key, ":", 6)
		if len(parts) < 6 {
			return s, fmt.Errorf("%q is not the ARN of a KMS key: arn:aws:kms:REGION:ACCOUNT:key/ID", key)
		}
		base, key = strings.Join(parts[:5], ":"), strings.TrimPrefix(parts[5], "key/")
	} else {
		if r.account() == "" {
			return s, ErrNoAccount
		}
		base = "arn:" + r.partition() + ":kms:" + r.Region + ":" + r.account()
	}
	if strings.HasPrefix(key, "alias/") {
		s.Condition = Conditions{"ForAnyValue:StringEquals": {"kms:ResourceAliases": {key}}}
		key = "*"
	}
	s.Resource = Strings{base + ":key/" + key}
	return s, nil
}

// account is the one that the access point is in, or the one given.
func (r Request) account() string {
	if parts := strings.Split(r.AccessPoint, ":"); len(parts) > 4 {
		return parts[4]
	}
	return r.Account
}

// partition is the part of AWS that ARNs begin with.
func (r Request) partition() string {
	if parts := strings.Split(r.AccessPoint, ":"); len(parts) > 1 {
		return parts[1]
	}
	// AWS General Reference, "Amazon Resource Names"; the SDK's partitions.json.
	for prefix, partition := range map[string]string{
		"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "eusc-": "aws-eusc",
	} {
		if strings.HasPrefix(r.Region, prefix) {
			return partition
		}
	}
	return "aws"
}

func bucketARN(partition, name string) string { return "arn:" + partition + ":s3:::" + name }

// Literal writes a path so that policies take it literally (IAM User Guide, "IAM
// policy elements: Variables and tags", special characters).
func Literal(path string) string {
	return strings.NewReplacer("$", "${$}", "*", "${*}", "?", "${?}").Replace(path)
}
