package s3store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

var (
	atAWS   = Target{Bucket: "my-bucket", Prefix: "app", Region: "us-east-2"}
	atPoint = Target{Bucket: "arn:aws:s3:us-east-2:123456789012:accesspoint/ap", Prefix: "app", Region: "us-east-2", AccessPoint: true}
	atMinIO = Target{Bucket: "my-bucket", Prefix: "app", Endpoint: "http://127.0.0.1:9000", PathStyle: true}
	atB2    = Target{Bucket: "my-bucket", Prefix: "app", Endpoint: "https://s3.us-west-004.backblazeb2.com", PathStyle: true}
	atR2    = Target{Bucket: "my-bucket", Prefix: "app", Endpoint: "https://0123.r2.cloudflarestorage.com"}
	atGCS   = Target{Bucket: "my-bucket", Prefix: "app", Endpoint: "https://storage.googleapis.com"}
)

// awsSays is AWS's message for a denied request.
func awsSays(action, why string) string {
	return "User: arn:aws:iam::123456789012:user/app is not authorized to perform: " + action +
		` on resource: "arn:aws:s3:::my-bucket/app/log/0000000000000001" ` + why
}

// What a response means, and what its reader is told to do.
func TestCauses(t *testing.T) {
	at := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	none := func(kind string) string { return "because no " + kind + " policy allows the s3:PutObject action" }
	for _, tt := range []struct {
		f      facts
		t      Target
		cause  string
		kind   error
		action string
		remedy string // contains; several: separated by …
	}{
		// The guide's rows.
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", none("identity-based")), operation: "PutObject"}, atAWS,
			"denied-identity", objstore.ErrDenied, "s3:PutObject", `no policy of the user or role allows s3:PutObject…"outwash policy"`},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", none("identity-based"))}, atPoint,
			"denied-identity", objstore.ErrDenied, "s3:PutObject", "both the access point and the bucket"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "with an explicit deny in a resource-based policy")}, atAWS,
			"denied-resource", objstore.ErrDenied, "s3:PutObject", "the bucket's policy denies s3:PutObject"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "with an explicit deny in a resource-based policy")}, atPoint,
			"denied-resource", objstore.ErrDenied, "s3:PutObject", "access point…look at both…delegate"},
		{facts{status: 403, code: "AccessDenied", message: "Access Denied", operation: "PutObject"}, atPoint,
			"denied-access-point", objstore.ErrDenied, "s3:PutObject", "VPC endpoint for S3…route table"},
		{facts{status: 403, code: "InvalidAccessKeyId", message: "The AWS Access Key Id you provided does not exist in our records.", notAWSKey: true}, atAWS,
			"wrong-endpoint", objstore.ErrDenied, "", "no endpoint was given…?endpoint=https://HOST…AWS_ENDPOINT_URL_S3"},

		// The other kinds of policies.
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:GetObject", "with an explicit deny in an identity-based policy")}, atAWS, "denied-identity", objstore.ErrDenied, "s3:GetObject", "denies s3:GetObject"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", none("resource-based"))}, atAWS, "denied-resource", objstore.ErrDenied, "s3:PutObject", "another account"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", none("VPC endpoint"))}, atAWS, "denied-vpc-endpoint", objstore.ErrDenied, "s3:PutObject", "policy of the VPC endpoint…does not allow"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "with an explicit deny in a VPC endpoint policy")}, atAWS, "denied-vpc-endpoint", objstore.ErrDenied, "s3:PutObject", "policy of the VPC endpoint…denies"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "with an explicit deny in a service control policy: arn:aws:organizations::1:policy/o-1/p-1")}, atAWS, "denied-organization", objstore.ErrDenied, "s3:PutObject", "service control policy"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", none("service control"))}, atAWS, "denied-organization", objstore.ErrDenied, "s3:PutObject", "no service control policy"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "with an explicit deny in a resource control policy")}, atAWS, "denied-organization", objstore.ErrDenied, "s3:PutObject", "resource control policy"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "because no permissions boundary allows the s3:PutObject action")}, atAWS, "denied-boundary", objstore.ErrDenied, "s3:PutObject", "permissions boundary"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:PutObject", "because no session policy allows the s3:PutObject action")}, atAWS, "denied-session", objstore.ErrDenied, "s3:PutObject", "session policy"},
		{facts{status: 403, code: "AccessDenied", message: awsSays("s3:ListBucket", "because public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.")}, atAWS, "denied", objstore.ErrDenied, "s3:ListBucket", "Block Public Access"},

		// No more than "Access Denied": the request tells what was denied.
		{facts{status: 403, code: "AccessDenied", message: "Access Denied", operation: "GetObject"}, atAWS, "denied", objstore.ErrDenied, "s3:GetObject", "s3:GetObject on s3://my-bucket/app/*, or, if there is no such object, s3:ListBucket"},
		{facts{status: 403, code: "AccessDenied", operation: "ListObjectsV2"}, atAWS, "denied", objstore.ErrDenied, "s3:ListBucket", "s3:ListBucket on the bucket"},
		{facts{status: 403, code: "AccessDenied", operation: "UploadPart"}, atMinIO, "denied", objstore.ErrDenied, "s3:PutObject", "s3:PutObject on s3://my-bucket/app/*"},
		{facts{status: 403, code: "AccessDenied", operation: "DeleteObjects"}, Target{Bucket: "my-bucket"}, "denied", objstore.ErrDenied, "s3:DeleteObject", "s3:DeleteObject on s3://my-bucket/*"},
		{facts{status: 403, code: "AccessDenied"}, atAWS, "denied", objstore.ErrDenied, "", "s3:GetObject, s3:PutObject, s3:DeleteObject on s3://my-bucket/app/*, s3:ListBucket on the bucket"},
		{facts{status: 403, code: "AccessDenied", message: "not entitled", operation: "PutObject"}, atB2, "denied", objstore.ErrDenied, "s3:PutObject", "capability (writeFiles)"},
		{facts{status: 403, code: "AccessDenied", operation: "PutObject"}, atR2, "denied", objstore.ErrDenied, "s3:PutObject", "Object Read & Write"},
		{facts{status: 403, code: "AccessDenied", operation: "PutObject"}, atGCS, "denied", objstore.ErrDenied, "s3:PutObject", "service account"},
		{facts{status: 403}, atAWS, "denied", objstore.ErrDenied, "", "without saying why"},

		{facts{status: 403, code: "AccessDenied", message: "User: a is not authorized to perform: kms:GenerateDataKey on resource: b because no identity-based policy allows the kms:GenerateDataKey action", operation: "PutObject"}, atAWS,
			"kms", objstore.ErrDenied, "kms:GenerateDataKey", "kms:GenerateDataKey is not allowed…kms:Decrypt"},
		{facts{status: 403, code: "AccessDenied", message: "The ciphertext refers to a customer master key that does not exist, KMS", operation: "GetObject"}, atAWS, "kms", objstore.ErrDenied, "s3:GetObject", "kms:Decrypt"},
		{facts{status: 400, code: "KMS.DisabledException"}, atAWS, "kms", objstore.ErrDenied, "", "is disabled"},
		{facts{status: 400, code: "KMS.NotFoundException"}, atAWS, "kms", objstore.ErrDenied, "", "no such KMS key"},

		{facts{status: 403, code: "InvalidAccessKeyId"}, atAWS, "unknown-key", objstore.ErrDenied, "", "AWS does not know the access key…endpoint"},
		{facts{status: 403, code: "InvalidAccessKeyId", notAWSKey: true}, atMinIO, "unknown-key", objstore.ErrDenied, "", "the server does not know the access key"},
		{facts{status: 403, code: "InvalidAccessKeyId", message: "Malformed Access Key Id", notAWSKey: true}, atB2, "unknown-key", objstore.ErrDenied, "", "keyID of an application key"},
		{facts{status: 400, code: "InvalidArgument", message: "Credential access key has length 20, should be 32"}, atR2, "unknown-key", objstore.ErrDenied, "", "not one of this provider's"},
		{facts{status: 401, code: "Unauthorized"}, atR2, "denied", objstore.ErrDenied, "", "without saying why"},
		{facts{status: 403, code: "SignatureDoesNotMatch"}, atAWS, "wrong-secret", objstore.ErrDenied, "", "secret key"},
		{facts{status: 400, code: "ExpiredToken"}, atAWS, "expired", objstore.ErrDenied, "", "get new credentials"},
		{facts{status: 403, code: "RequestTimeTooSkewed", sent: at, date: at.Add(20*time.Minute + 3*time.Second)}, atAWS, "clock", objstore.ErrDenied, "",
			"this machine's clock says 2026-05-04T12:00:00Z, the server's 2026-05-04T12:20:03Z (20m3s apart)"},
		{facts{status: 403, code: "RequestTimeTooSkewed"}, atAWS, "clock", objstore.ErrDenied, "", "set the clock"},

		{facts{status: 404, code: "NoSuchBucket"}, atAWS, "no-bucket", objstore.ErrNoBucket, "", "create the bucket…name its server by endpoint"},
		{facts{status: 404, code: "NoSuchBucket"}, atB2, "no-bucket", objstore.ErrNoBucket, "", "or the endpoint"},
		{facts{status: 404, code: "NoSuchAccessPoint"}, atPoint, "no-access-point", objstore.ErrNoBucket, "", "account and region"},
		{facts{status: 400, code: "InvalidAccessPoint"}, atPoint, "no-access-point", objstore.ErrNoBucket, "", "account and region"},
		{facts{status: 301, code: "PermanentRedirect"}, atAWS, "region", objstore.ErrConfig, "", "another region"},

		{facts{status: 503, code: "SlowDown"}, atAWS, "throttled", nil, "", "limits requests"},
		{facts{status: 503, code: "RequestLimitExceeded"}, atAWS, "throttled", nil, "", "limits requests"},
		{facts{status: 429}, atAWS, "throttled", nil, "", "limits requests"},
		{facts{status: 403, code: "QuotaExceeded"}, atMinIO, "quota", nil, "", "make room"},
		{facts{status: 507}, atMinIO, "quota", nil, "", "make room"},
		{facts{status: 403, code: "AccessDenied", message: "Cannot upload files, storage cap exceeded. See the Caps & Alerts page to increase your cap."}, atB2, "quota", nil, "", "Caps and Alerts"},
		{facts{status: 403, code: "AccountProblem"}, atAWS, "account", objstore.ErrDenied, "", "a problem with the account"},
		{facts{status: 403, code: "NotEntitled"}, atR2, "account", objstore.ErrDenied, "", "subscription"},
		{facts{status: 403, code: "InvalidObjectState"}, atAWS, "archived", objstore.ErrUnsupported, "", "Glacier"},
		{facts{status: 403, code: "AccessDenied", message: "Access Denied because object protected by object lock.", operation: "DeleteObject"}, atAWS, "object-lock", objstore.ErrDenied, "", "retention"},
		{facts{status: 400, code: "InvalidRequest", message: "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"}, atB2, "object-lock", objstore.ErrUnsupported, "", "default retention"},
		{facts{status: 501, code: "NotImplemented"}, atB2, "not-implemented", objstore.ErrUnsupported, "", "conditional writes"},
		{facts{status: 405, code: "MethodNotAllowed"}, atMinIO, "not-s3", objstore.ErrUnsupported, "", "S3 server"},
		{facts{status: 400, message: "Client sent an HTTP request to an HTTPS server."}, atMinIO, "https", objstore.ErrConfig, "", "endpoint=https://"},
		{facts{status: 407}, atAWS, "proxy", objstore.ErrDenied, "", "HTTPS_PROXY"},
		{facts{status: 500, code: "InternalError"}, atAWS, "server", nil, "", ""},
	} {
		got := judgeResponse(tt.f, tt.t)
		if got.cause != tt.cause || got.kind != tt.kind || got.action != tt.action || !hasAll(got.remedy, tt.remedy) {
			t.Errorf("%d %s %q at %s%s, %s:\n got %+v\nwant %s, %v, %s, %q", tt.f.status, tt.f.code, tt.f.message, tt.t.Bucket, tt.t.Endpoint, tt.f.operation, got, tt.cause, tt.kind, tt.action, tt.remedy)
		}
	}
}

// hasAll reports whether text has the pieces, which … separates, in this order.
func hasAll(text, pieces string) bool {
	for piece := range strings.SplitSeq(pieces, "…") {
		_, after, ok := strings.Cut(text, piece)
		if !ok {
			return false
		}
		text = after
	}
	return true
}

// No code has a remedy for nothing to be told: what fails for good says what to do.
func TestEveryCauseHasARemedy(t *testing.T) {
	for code := range byCode {
		v := judgeResponse(facts{status: 400, code: code, operation: "PutObject"}, atAWS)
		quiet := v.kind == objstore.ErrNotExist || v.kind == objstore.ErrChanged || v.retry
		if !quiet && (v.remedy == "" || v.cause == "") {
			t.Errorf("%s: %+v", code, v)
		}
	}
}

func TestConnectionCauses(t *testing.T) {
	sent := func(err error) error { return &url.Error{Op: "Put", URL: "https://host/", Err: err} }
	dial := func(err error) error { return sent(&net.OpError{Op: "dial", Net: "tcp", Err: err}) }
	refused := dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	missing := dial(&net.DNSError{Err: "no such host", Name: "host", IsNotFound: true})
	expired := &x509.Certificate{NotBefore: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		err    error
		t      Target
		cause  string
		kind   error
		remedy string
	}{
		// The guide's row: could not connect to the endpoint.
		{refused, atPoint, "refused", nil, "restricted to a VPC…VPC endpoint for S3…route table"},
		{sent(context.DeadlineExceeded), atPoint, "timeout", nil, "restricted to a VPC"},
		{errNoProgress, atPoint, "timeout", nil, "restricted to a VPC"},
		{missing, atPoint, "dns", nil, "access point's name, account and region"},

		{refused, atMinIO, "refused", nil, "is the server running"},
		{refused, atB2, "refused", nil, "firewall or a proxy"},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), atAWS, "unreachable", nil, "VPC without an endpoint"},
		{sent(os.ErrDeadlineExceeded), atAWS, "timeout", nil, "does not answer"},
		{missing, atAWS, "dns", nil, "is the region right"},
		{missing, atR2, "dns", nil, "force-path-style=true"},
		{missing, atB2, "dns", nil, "endpoint or region"},
		{dial(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), atAWS, "dns-away", nil, "at the moment"},

		{sent(x509.UnknownAuthorityError{}), atMinIO, "certificate-authority", objstore.ErrConfig, "AWS_CA_BUNDLE"},
		{sent(&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"s3.example.com"}}, Host: "bucket.s3.example.com"}}), atMinIO,
			"certificate-host", objstore.ErrConfig, "for s3.example.com, not for bucket.s3.example.com…force-path-style=true"},
		{sent(&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Cert: expired, Reason: x509.Expired}}), atMinIO,
			"certificate-expired", objstore.ErrConfig, "2024-01-01 to 2025-01-01…clock"},
		{sent(&tls.CertificateVerificationError{Err: errors.New("?")}), atMinIO, "certificate", objstore.ErrConfig, "AWS_CA_BUNDLE"},
		{sent(errors.New("http: server gave HTTP response to HTTPS client")), atMinIO, "http", objstore.ErrConfig, "endpoint=http://"},
		{sent(&net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}), atAWS, "proxy", nil, "HTTPS_PROXY"},
		{sent(errors.New("Proxy Authentication Required")), atAWS, "proxy", objstore.ErrDenied, "user name and password"},
		{errors.New("?"), atAWS, "connection", nil, ""},
	} {
		got := judgeConnection(tt.err, tt.t)
		if got.cause != tt.cause || got.kind != tt.kind || got.retry != (tt.kind == nil) || !hasAll(got.remedy, tt.remedy) {
			t.Errorf("%v at %s%s:\n got %+v\nwant %s, %v, %q", tt.err, tt.t.Bucket, tt.t.Endpoint, got, tt.cause, tt.kind, tt.remedy)
		}
	}
}

// An error's text has the remedy, and Explain has it apart.
func TestExplain(t *testing.T) {
	says := awsSays("s3:PutObject", "because no identity-based policy allows the s3:PutObject action")
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 403, "AccessDenied", says) })
	err := s.Create(t.Context(), "log/1", nil)
	p, ok := Explain(fmt.Errorf("wrapped: %w", err))
	if !ok || p.Cause != "denied-identity" || p.Action != "s3:PutObject" || p.Status != 403 || p.Code != "AccessDenied" ||
		!strings.Contains(p.Said, says) || p.Remedy == "" || !strings.Contains(err.Error(), p.Remedy+": "+p.Said) {
		t.Errorf("%+v, %v\nof %v", p, ok, err)
	}
	if _, ok := Explain(errors.New("?")); ok {
		t.Error("a foreign error is explained")
	}
	if p := ExplainConnection(atMinIO, syscall.ECONNREFUSED); p.Cause != "refused" || p.Remedy == "" || p.Said == "" {
		t.Errorf("%+v", p)
	}
}

// Without an endpoint AWS is asked, which doesn't know another provider's keys.
func TestWrongEndpoint(t *testing.T) {
	for key, cause := range map[string]string{"AKIAIOSFODNN7EXAMPLE": "unknown-key", "0045f0571db506a0000000007": "wrong-endpoint"} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
		})
		t.Setenv("AWS_ACCESS_KEY_ID", key)
		s = openTest(t, s.String())
		s.t.Endpoint = "" // the server plays AWS
		err := s.Create(t.Context(), "log/1", nil)
		checkText(t, "create", err)
		if p, _ := Explain(err); p.Cause != cause || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %+v\nof %v", key, p, err)
		}
	}
}
