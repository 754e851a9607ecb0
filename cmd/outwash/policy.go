package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"
	"strings"

	"github.com/outwash/outwash/internal/policy"
	"github.com/outwash/outwash/s3store"
)

var policyVerb = &verb{
	name:  "policy",
	args:  "URL|DB",
	brief: "print the permissions that a replica needs, as an IAM policy",
	help: `Prints the smallest IAM policy with which a program can replicate to the URL, or
with -read-only restore from it: what it allows ends at the URL's path. It asks
nobody: the policy follows from the URL alone. JSON goes to standard output, what
to do with it to standard error.

An access point's requests are checked twice, at the access point and at the
bucket behind it. Either the policy names both (with -bucket), or the bucket's own
policy leaves it to its access points: -bucket-policy prints that one, for the
bucket, and -delegate the one for the user or role, which then needs no more than
the access point.

Objects that are encrypted with a KMS key of yours take permissions on the key, too:
name it as the setting sse-kms-key-id, also where it is the bucket's default.

Examples:
  outwash policy s3://my-bucket/app
  outwash policy -read-only s3://my-bucket/app
  outwash policy -config /etc/outwash.yml /var/lib/app.db
  outwash policy -bucket my-bucket s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ap/app
  outwash policy -bucket-policy -bucket my-bucket s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ap
  outwash policy -delegate s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ap/app
`,
	codes: []int{codeOK, codeFailed, codeUsage},
	flags: func(fs *flag.FlagSet) runner {
		var f policyFlags
		f.declare(fs)
		fs.BoolVar(&f.readOnly, "read-only", false, "what a restore needs, not what replication needs")
		fs.StringVar(&f.bucket, "bucket", "", "the `BUCKET` behind the access point")
		fs.StringVar(&f.account, "account", "", "the AWS `ACCOUNT`, where the URL does not say it")
		fs.BoolVar(&f.delegate, "delegate", false, "the bucket's policy leaves access to its access points (see -bucket-policy)")
		fs.BoolVar(&f.bucketPolicy, "bucket-policy", false, "print the bucket's policy that leaves access to its access points")
		fs.BoolVar(&f.sweep, "sweep", false, "also allow to find and abort what unfinished uploads left in the bucket;\nwithout it a lifecycle rule does that (AbortIncompleteMultipartUpload)")
		return f.run
	},
}

type policyFlags struct {
	replicaFlags
	readOnly, delegate, bucketPolicy, sweep bool
	bucket, account                         string
}

var (
	asARN     = regexp.MustCompile(`^arn:[a-z-]+:s3:::`)
	asBucket  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	asAccount = regexp.MustCompile(`^[0-9]{12}$`)
)

// check keeps what is no name out of policies: a * in one would open other buckets.
func (f *policyFlags) check() error {
	f.bucket = asARN.ReplaceAllString(f.bucket, "")
	switch {
	case f.bucket != "" && !asBucket.MatchString(f.bucket):
		return usagef("-bucket: %q is not a bucket's name", f.bucket)
	case f.account != "" && !asAccount.MatchString(f.account):
		return usagef("-account: %q is not the number of an AWS account, which has 12 digits", f.account)
	}
	return nil
}

func (f *policyFlags) run(ctx context.Context, u *ui, args []string) error {
	arg, err := oneArg("policy", "the replica's URL", args)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	raw, settings, err := f.locate(arg)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(raw, "s3://") {
		return usagef("policies are for s3:// URLs: permissions on directories are the file system's")
	}
	target, err := s3store.Locate(ctx, raw, settings)
	if err != nil {
		return err
	}
	r, err := f.request(target)
	if err != nil {
		return err
	}
	if r.KMSKey != "" && !strings.HasPrefix(r.KMSKey, "arn:") && target.RegionFrom == "default" {
		return usagef("policies name KMS keys by their ARN: write it, arn:aws:kms:REGION:ACCOUNT:key/ID, or say the region: ?region=REGION or AWS_REGION")
	}
	server := policy.ServerOf(target.Provider, target.Host)
	if !server.Documents {
		return fmt.Errorf("%s takes no IAM policies: make %s", server.Name, server.Advice(r))
	}
	doc, err := policy.Identity(r)
	if f.bucketPolicy {
		doc, err = policy.Delegation(r)
	}
	switch {
	case errors.Is(err, policy.ErrNoBucket) && f.bucketPolicy:
		return usagef("an access point's ARN does not say which bucket is behind it: name it with -bucket")
	case errors.Is(err, policy.ErrNoBucket):
		return usagef("an access point's ARN does not say which bucket is behind it: name it with -bucket; or let the bucket's policy leave access to its access points (-bucket-policy), and print what is needed then with -delegate")
	case errors.Is(err, policy.ErrNoAccount) && f.bucketPolicy:
		return usagef("name the AWS account of the access points with -account")
	case errors.Is(err, policy.ErrNoAccount):
		return usagef("policies name KMS keys by their ARN: write it, arn:aws:kms:REGION:ACCOUNT:key/ID, or name the AWS account with -account")
	case err != nil:
		return usagef("%v", err)
	}
	u.print(doc.String())
	f.explain(u, r, server)
	return nil
}

// request is what the flags and the target come to.
func (f *policyFlags) request(t s3store.Target) (policy.Request, error) {
	r := policy.Request{
		Bucket: f.bucket, Prefix: t.Prefix, Region: t.Region, Account: f.account,
		ReadOnly: f.readOnly, Sweep: f.sweep, Delegated: f.delegate, KMSKey: t.KMSKey,
	}
	switch {
	case f.delegate && f.bucketPolicy:
		return r, usagef("-bucket-policy prints the bucket's policy, -delegate the user's that goes with it: one at a time")
	case f.readOnly && f.sweep:
		return r, usagef("-sweep is for replication, -read-only for restores")
	case f.bucketPolicy && (f.readOnly || f.sweep):
		return r, usagef("the bucket's policy leaves everything to the access points: -read-only and -sweep are for the user's policy")
	}
	if t.AccessPoint {
		r.AccessPoint = t.Bucket
		if account := strings.Split(t.Bucket, ":")[4]; f.account != "" && f.account != account {
			return r, usagef("the access point is in account %s, not in %s", account, f.account)
		}
		return r, nil
	}
	switch {
	case strings.HasSuffix(t.Bucket, "-s3alias"):
		return r, usagef("%s is an access point's alias, which policies don't take: write its ARN, s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME", t.Bucket)
	case f.delegate:
		return r, usagef("-delegate is for access points, and the URL names a bucket")
	case f.bucket != "" && f.bucket != t.Bucket:
		return r, usagef("-bucket names the bucket behind an access point, and the URL names bucket %q", t.Bucket)
	}
	r.Bucket = t.Bucket
	return r, nil
}

// explain says what to do with the policy.
func (f *policyFlags) explain(u *ui, r policy.Request, server policy.Server) {
	what, where := "replicate to", "the bucket"
	if r.ReadOnly {
		what = "restore from"
	}
	if r.Prefix != "" {
		where = "the path " + r.Prefix + "/"
	}
	switch {
	case f.bucketPolicy:
		u.note("This is a policy for bucket %s itself (S3, Permissions, Bucket policy; add the statement if there is a policy already). It lets every access point of the account decide who may do what. Next: outwash policy -delegate URL, for the user or role.", r.Bucket)
		return
	case !server.AWS:
		u.note("%s is not AWS. Servers that take policies in AWS's form (MinIO: mc admin policy create) take this one as it is; for others it says what a key must be able to do: list, read%s below %s.",
			server.Name, map[bool]string{true: "", false: ", write and delete"}[r.ReadOnly], where)
	default:
		u.note("With this policy a user or role can %s %s, and nothing else. Add it to the user or role whose credentials the program has (IAM, Permissions, Create inline policy, JSON).", what, where)
	}
	if r.AccessPoint != "" && r.Delegated {
		u.note("It works once the bucket's own policy leaves access to its access points: outwash policy -bucket-policy -bucket BUCKET URL.")
	}
	if r.Prefix == "" {
		u.note("The URL has no path, so the policy is for the whole bucket.")
	}
	if r.KMSKey != "" {
		u.note("The key's own policy must let this account use the key, too.")
	}
	if !r.ReadOnly && !r.Sweep {
		u.note("Parts of uploads that a crash interrupted stay in the bucket unless a lifecycle rule removes them (AbortIncompleteMultipartUpload), or -sweep lets replication do it.")
	}
}
