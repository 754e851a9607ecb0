package s3store

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

const (
	credentialsRemedy = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile, or the configuration file"
	policyRemedy      = `"outwash policy" prints the one that is needed`
)

// byCode is what error codes mean that say more than their HTTP status. Where the
// target or the message say more still, judgeResponse looks at them.
//
// Sources: Amazon S3 API Reference, "Error responses"; AWS KMS API Reference,
// "Common errors"; Cloudflare R2, "Error codes"; Cloud Storage, "HTTP status and
// error codes for XML"; versitygw, s3err; MinIO, "Error codes".
var byCode = map[string]verdict{
	"NoSuchBucket":      {cause: "no-bucket", kind: objstore.ErrNoBucket, remedy: "create the bucket, or correct its name in the URL"},
	"InvalidBucketName": {cause: "bucket-name", kind: objstore.ErrConfig, remedy: "the server does not accept the bucket's name"},
	"NoSuchKey":         {cause: "no-object", kind: objstore.ErrNotExist},
	"NotFound":          {cause: "no-object", kind: objstore.ErrNotExist},
	"NoSuchUpload":      {cause: "no-upload", remedy: "the multipart upload was aborted by someone else (a lifecycle rule?)"},

	"NoSuchAccessPoint":            {cause: "no-access-point", kind: objstore.ErrNoBucket, remedy: "there is no such access point: compare its name, account and region with the ARN in the console"},
	"InvalidAccessPoint":           {cause: "no-access-point", kind: objstore.ErrNoBucket, remedy: "there is no such access point: compare its name, account and region with the ARN in the console"},
	"InvalidAccessPointAliasError": {cause: "no-access-point", kind: objstore.ErrNoBucket, remedy: "the access point's alias is not valid: copy it anew, or use the ARN"},

	"InvalidAccessKeyId":      {cause: "unknown-key", kind: objstore.ErrDenied, remedy: "the server does not know the access key: " + credentialsRemedy},
	"XAdminUserNotFound":      {cause: "unknown-key", kind: objstore.ErrDenied, remedy: "the server does not know the access key: " + credentialsRemedy},
	"InvalidClientTokenId":    {cause: "unknown-key", kind: objstore.ErrDenied, remedy: "AWS does not know the access key: " + credentialsRemedy},
	"SignatureDoesNotMatch":   {cause: "wrong-secret", kind: objstore.ErrDenied, remedy: "the secret key does not belong to the access key, or a proxy changes requests: " + credentialsRemedy},
	"AccessDenied":            {cause: "denied", kind: objstore.ErrDenied},
	"AccessDeniedException":   {cause: "denied", kind: objstore.ErrDenied},
	"AllAccessDisabled":       {cause: "account", kind: objstore.ErrDenied, remedy: "the server has disabled all access to the bucket"},
	"AccountProblem":          {cause: "account", kind: objstore.ErrDenied, remedy: "there is a problem with the account (a bill?): ask the provider"},
	"NotSignedUp":             {cause: "account", kind: objstore.ErrDenied, remedy: "the account is not signed up for object storage"},
	"NotEntitled":             {cause: "account", kind: objstore.ErrDenied, remedy: "the account has no subscription for object storage"},
	"UnauthorizedAccess":      {cause: "account", kind: objstore.ErrDenied, remedy: "the account may not use this region: AWS accounts of China and elsewhere are apart"},
	"UserProjectAccessDenied": {cause: "account", kind: objstore.ErrDenied, remedy: "the credentials may not use the project that pays for the bucket"},
	"InvalidToken":            {cause: "wrong-token", kind: objstore.ErrDenied, remedy: "the session token is malformed or not this access key's: check AWS_SESSION_TOKEN"},
	"ExpiredToken":            {cause: "expired", kind: objstore.ErrDenied, remedy: "the session token has expired: get new credentials", once: "credentials"},
	"TokenRefreshRequired":    {cause: "expired", kind: objstore.ErrDenied, remedy: "the session token has expired: get new credentials", once: "credentials"},
	"RequestTimeTooSkewed":    {cause: "clock", kind: objstore.ErrDenied, remedy: "this machine's clock and the server's differ by more than 15 minutes: set the clock", once: "clock"},
	"RequestExpired":          {cause: "clock", kind: objstore.ErrDenied, remedy: "this machine's clock and the server's differ by more than 15 minutes: set the clock", once: "clock"},
	"ExpiredRequest":          {cause: "clock", kind: objstore.ErrDenied, remedy: "this machine's clock and the server's differ by more than 15 minutes: set the clock", once: "clock"},

	"PermanentRedirect":                {cause: "region", kind: objstore.ErrConfig, remedy: "the bucket is in another region, or must be addressed through another endpoint"},
	"TemporaryRedirect":                {cause: "region", retry: true},
	"AuthorizationHeaderMalformed":     {cause: "region", kind: objstore.ErrConfig, remedy: "the region is wrong for this bucket or server"},
	"AuthorizationQueryParameterError": {cause: "region", kind: objstore.ErrConfig, remedy: "the region is wrong for this bucket or server"},
	"IllegalLocationConstraint":        {cause: "region", kind: objstore.ErrConfig, remedy: "the region is wrong for this bucket or server"},

	"KMS.NotFoundException":           {cause: "kms", kind: objstore.ErrDenied, remedy: "there is no such KMS key in the bucket's region: correct it in sse-kms-key-id or in the bucket's default encryption"},
	"KMS.DisabledException":           {cause: "kms", kind: objstore.ErrDenied, remedy: "the KMS key is disabled: enable it, or encrypt with another one"},
	"KMS.KMSInvalidStateException":    {cause: "kms", kind: objstore.ErrDenied, remedy: "the KMS key is to be deleted, or its material is missing: cancel its deletion, or encrypt with another one"},
	"KMS.InvalidKeyUsageException":    {cause: "kms", kind: objstore.ErrConfig, remedy: "the KMS key is not one for encryption: use a symmetric one"},
	"KMS.AccessDeniedException":       {cause: "kms", kind: objstore.ErrDenied, remedy: kmsRemedy},
	"KMSKeyNotConfigured":             {cause: "kms", kind: objstore.ErrUnsupported, remedy: "the server has no key service for this encryption"},
	"CloudKmsBadKey":                  {cause: "kms", kind: objstore.ErrConfig, remedy: "the bucket's Cloud KMS key is not usable"},
	"CloudKmsDisabledKey":             {cause: "kms", kind: objstore.ErrDenied, remedy: "the Cloud KMS key is disabled or destroyed: enable it"},
	"CloudKmsEncryptionKeyNotFound":   {cause: "kms", kind: objstore.ErrDenied, remedy: "the bucket's Cloud KMS key does not exist"},
	"CloudKmsDecryptionKeyNotFound":   {cause: "kms", kind: objstore.ErrDenied, remedy: "the Cloud KMS key of the object does not exist any more"},
	"InvalidEncryptionAlgorithmError": {cause: "encryption", kind: objstore.ErrConfig, remedy: "the server does not know this encryption: see sse"},
	"InvalidStorageClass":             {cause: "storage-class", kind: objstore.ErrConfig, remedy: "the server has no such storage class: see storage-class"},

	// Not Permanent: the engine goes on once there is room, and an attempt a moment
	// later is in vain.
	"QuotaExceeded":                  {cause: "quota", remedy: quotaRemedy},
	"InsufficientStorage":            {cause: "quota", remedy: quotaRemedy},
	"XMinioStorageFull":              {cause: "quota", remedy: quotaRemedy},
	"XMinioAdminBucketQuotaExceeded": {cause: "quota", remedy: quotaRemedy},
	"EntityTooLarge":                 {cause: "size", kind: objstore.ErrUnsupported, remedy: "the object is larger than the server takes"},
	"EntityTooSmall":                 {cause: "size", kind: objstore.ErrUnsupported, remedy: "the server wants larger parts: raise PartSize"},
	"KeyTooLongError":                {cause: "key", kind: objstore.ErrConfig, remedy: "the path is too long"},
	"NotImplemented":                 {cause: "not-implemented", kind: objstore.ErrUnsupported, remedy: "the server lacks something that Outwash needs; for a create that is conditional writes (If-None-Match)"},
	"NotS3":                          {cause: "not-s3", retry: true, remedy: "something other than S3 answers: is the endpoint right and complete, is there a proxy or a login page in between?"}, // errPage
	"MethodNotAllowed":               {cause: "not-s3", kind: objstore.ErrUnsupported, remedy: "is the endpoint an S3 server, and its URL complete?"},
	"InvalidObjectState":             {cause: "archived", kind: objstore.ErrUnsupported, remedy: "the object was archived (Glacier): restore it first, and exclude the replica's path from such lifecycle rules"},
	"ObjectLocked":                   {cause: "object-lock", kind: objstore.ErrDenied, remedy: lockRemedy},
	"PreconditionFailed":             {kind: objstore.ErrChanged},
	"BadDigest":                      {retry: true}, // damaged on its way
	"XAmzContentSHA256Mismatch":      {retry: true},
	"IncompleteBody":                 {retry: true},
	"RequestTimeout":                 {cause: "timeout", retry: true},
	"SlowDown":                       {cause: "throttled", retry: true, remedy: throttledRemedy},
	"Throttling":                     {cause: "throttled", retry: true, remedy: throttledRemedy},
	"ThrottlingException":            {cause: "throttled", retry: true, remedy: throttledRemedy},
	"TooManyRequests":                {cause: "throttled", retry: true, remedy: throttledRemedy},
	"RequestLimitExceeded":           {cause: "throttled", retry: true, remedy: throttledRemedy},
	"BandwidthLimitExceeded":         {cause: "throttled", retry: true, remedy: throttledRemedy},
	"KMS.ThrottlingException":        {cause: "throttled", retry: true, remedy: "requests to KMS are limited: turn the bucket key on"},
	"InternalError":                  {cause: "server", retry: true},
	"ServiceUnavailable":             {cause: "server", retry: true},
	"OperationAborted":               {retry: true},
	"ConditionalRequestConflict":     {retry: true},
}

const (
	kmsRemedy       = "writing needs kms:GenerateDataKey, large uploads and reading kms:Decrypt, on the bucket's KMS key: in the policy of the user or role, and in the key's own"
	quotaRemedy     = "the storage is full, or its quota used up: make room, or raise it"
	throttledRemedy = "the server limits requests: raise replica_max_lag, or ask the provider"
	lockRemedy      = "the bucket's object lock keeps the object: nothing was lost, and it can be deleted when its retention ends"
)

// judgeResponse says what a response of the server at t means. It is a pure
// function.
func judgeResponse(f facts, t Target) verdict {
	if v, ok := judgeMessage(f, t); ok {
		return v
	}
	if v, ok := byCode[f.code]; ok {
		return specific(v, f, t)
	}
	switch f.status {
	case http.StatusNotFound:
		return specific(byCode["NotFound"], f, t)
	case http.StatusUnauthorized, http.StatusForbidden:
		return verdict{cause: "denied", kind: objstore.ErrDenied, remedy: "the server refuses without saying why: " + credentialsRemedy + ", their permissions, and this machine's clock"}
	case http.StatusPreconditionFailed:
		return verdict{kind: objstore.ErrChanged}
	case http.StatusConflict, http.StatusRequestTimeout:
		return verdict{retry: true}
	case http.StatusTooManyRequests:
		return byCode["TooManyRequests"]
	case http.StatusInsufficientStorage:
		return byCode["InsufficientStorage"]
	case http.StatusNotImplemented:
		return byCode["NotImplemented"]
	case http.StatusProxyAuthRequired:
		return verdict{cause: "proxy", kind: objstore.ErrDenied, remedy: "the proxy wants a user name and password: " + proxyRemedy}
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return verdict{cause: "redirect", kind: objstore.ErrConfig, remedy: "the server redirects: correct the region or the endpoint"}
	case http.StatusBadRequest:
		// S3 servers give a code; what speaks https says something in prose, for which
		// the SDK takes the status's text as the code.
		if strings.HasPrefix(t.Endpoint, "http://") && (f.code == "" || f.code == "BadRequest" || strings.Contains(f.message, "HTTPS")) {
			return verdict{cause: "https", kind: objstore.ErrConfig, remedy: "the server speaks https, not http: write endpoint=https://…"}
		}
	}
	if f.status >= 400 && f.status < 500 {
		return verdict{cause: "refused-request", kind: objstore.ErrUnsupported, remedy: "the server does not accept the request"}
	}
	return verdict{cause: "server", retry: true} // 5xx, and errors within a 200
}

// specific completes what a code means by what target and request say.
func specific(v verdict, f facts, t Target) verdict {
	switch v.cause {
	case "denied":
		return judgeDenied(f, t)
	case "no-object":
		// Some servers say no more of a bucket; others are none of S3's, or none at
		// the moment.
		if a := actions[f.operation]; f.code != "NoSuchKey" && (a == "s3:PutObject" || a == "s3:ListBucket" || a == "s3:ListBucketMultipartUploads") {
			v = byCode["NoSuchBucket"]
			v.remedy += ", or the endpoint, if that is no S3 server"
		}
	case "no-bucket":
		if t.Endpoint == "" {
			v.remedy += ", or name its server by endpoint, if the bucket is not at AWS"
		} else {
			v.remedy += ", or the endpoint"
		}
	case "unknown-key":
		switch {
		case t.Endpoint == "" && f.notAWSKey:
			// The wrong-endpoint case: without an endpoint requests go to AWS.
			v.cause = "wrong-endpoint"
			v.remedy = "no endpoint was given, so AWS was asked, but the access key is not one of AWS's: name your provider's server by ?endpoint=https://HOST in the URL, by endpoint in the configuration file, or by AWS_ENDPOINT_URL_S3"
		case t.Endpoint == "":
			v.remedy = "AWS does not know the access key (was it deleted?): " + credentialsRemedy + "; if the bucket is at another provider, name its server by endpoint"
		case at(t, "backblazeb2.com"):
			v.remedy += "; it takes the keyID of an application key, not the master key's"
		case at(t, "r2.cloudflarestorage.com"):
			v.remedy += "; it takes the access key of an R2 API token, at the endpoint of its own account"
		}
	case "clock":
		// The times tell nothing if the SDK has corrected that of the request.
		if !f.date.IsZero() && !f.sent.IsZero() && f.sent.Sub(f.date).Abs() > time.Minute {
			v.remedy = fmt.Sprintf("this machine's clock says %s, the server's %s (%s apart): set the clock",
				f.sent.UTC().Format(time.RFC3339), f.date.UTC().Format(time.RFC3339), f.sent.Sub(f.date).Abs().Round(time.Second))
		}
	}
	return v
}

// judgeMessage is for what only the words of a message tell.
func judgeMessage(f facts, t Target) (verdict, bool) {
	said := strings.ToLower(f.message)
	has := func(s string) bool { return strings.Contains(said, s) }
	switch {
	// Cloudflare R2 answers InvalidArgument: "Credential access key has length 20, should be 32".
	case has("credential access key has length"):
		return verdict{cause: "unknown-key", kind: objstore.ErrDenied, remedy: "the access key is not one of this provider's: " + credentialsRemedy}, true
	// Backblaze B2 answers AccessDenied: "… cap exceeded"; InvalidAccessKeyId: "Malformed Access Key Id".
	case has("cap exceeded"):
		return verdict{cause: "quota", remedy: "a cap of the account is used up: raise it under Caps and Alerts"}, true
	// S3 User Guide, "Object Lock considerations": such a bucket takes no write without.
	case has("content-md5") && has("object lock"):
		return verdict{cause: "object-lock", kind: objstore.ErrUnsupported, remedy: "the bucket's object lock wants a checksum with every write: set put-object-content-md5=true, or use a bucket without default retention"}, true
	// DeleteObjects answers key by key, without a status.
	case (f.status == http.StatusForbidden || f.code == "AccessDenied") && (has("object lock") || has("object protected") || has("worm protected")):
		return byCode["ObjectLocked"], true
	case (f.status == http.StatusForbidden || f.code == "AccessDenied") && (has("multi-factor") || has("mfa delete")):
		return verdict{cause: "mfa", kind: objstore.ErrDenied, remedy: "a policy asks for multi-factor authentication, which a program can't give: exempt the replica's path"}, true
	}
	return verdict{}, false
}

// at reports whether t's server belongs to a domain.
func at(t Target, domain string) bool {
	host, _, _ := hostOf(t.Endpoint)
	return host == domain || strings.HasSuffix(host, "."+domain)
}
