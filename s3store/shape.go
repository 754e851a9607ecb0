package s3store

import (
	"context"
	"crypto/md5" // the protocol names it
	"crypto/tls"
	"encoding/base64"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// connect makes the SDK speak to the target.
func (t Target) connect(o *s3.Options) error {
	o.BaseEndpoint = nil
	if t.Endpoint != "" {
		o.BaseEndpoint = &t.Endpoint
	}
	o.Region = t.Region
	o.UsePathStyle = t.PathStyle
	o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
	if t.DualStack {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateDisabled
	if t.FIPS {
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if t.checksumsRequired {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	} else {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
	}
	o.DisableLogOutputChecksumValidationSkipped = true
	if t.SkipVerify {
		// For this bucket's server alone: whoever gives out credentials is
		// verified, by AWS_CA_BUNDLE if that is set.
		client, ok := o.HTTPClient.(*awshttp.BuildableClient)
		if !ok && o.HTTPClient != nil {
			return settingError("skip-verify", "the aws.Config has an HTTP client of its own: set its TLSClientConfig")
		}
		if client == nil {
			client = awshttp.NewBuildableClient()
		}
		o.HTTPClient = client.WithTransportOptions(func(tr *http.Transport) {
			if tr.TLSClientConfig == nil {
				tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
			}
			tr.TLSClientConfig.InsecureSkipVerify = true
		})
	}
	return nil
}

// shape makes every request one that the server takes and the settings ask for. It
// is in one place so that no operation is forgotten.
func (s *store) shape(stack *middleware.Stack) error {
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	try(stack.Initialize.Add(middleware.InitializeMiddlewareFunc("OutwashSettings", s.fill), middleware.Before))

	const payload = "ComputePayloadHash" // signs or leaves out the body; the SDK's ID
	if has(stack.Finalize.Get(payload)) {
		var m middleware.FinalizeMiddleware = &v4.ComputePayloadSHA256{}
		if !s.t.SignPayload {
			m = nil
			if s.w.signPayload != nil {
				m = &v4.UnsignedPayload{}
			}
		}
		if m != nil {
			_, err := stack.Finalize.Swap(payload, m)
			try(err)
		}
	}
	switch op := stack.ID(); {
	case op == "DeleteObjects" && s.t.deleteMD5:
		// AWS SDK for Go Developer Guide, "Data Integrity Protection with Checksums":
		// the fallback to MD5.
		if id := "AWSChecksum:SetupInputContext"; has(stack.Initialize.Get(id)) {
			_, err := stack.Initialize.Remove(id)
			try(err)
		}
		for _, id := range []string{"AWSChecksum:ComputeInputPayloadChecksum", "addInputChecksumTrailer"} {
			if has(stack.Finalize.Get(id)) {
				_, err := stack.Finalize.Remove(id)
				try(err)
			}
		}
		try(smithyhttp.AddContentChecksumMiddleware(stack))
	case (op == "PutObject" || op == "UploadPart") && s.t.putMD5:
		try(smithyhttp.AddContentChecksumMiddleware(stack))
	}
	if h := s.t.provider.header; h[0] != "" {
		try(smithyhttp.SetHeaderValue(h[0], h[1])(stack))
	}
	if s.t.hideEncoding {
		try(hideEncoding(stack))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func has[M any](_ M, ok bool) bool { return ok }

// hideEncoding keeps Accept-Encoding out of the signature. It is still sent, or Go
// would ask for gzip by itself.
func hideEncoding(stack *middleware.Stack) error {
	header := func(id string, change func(http.Header)) middleware.FinalizeMiddleware {
		return middleware.FinalizeMiddlewareFunc(id, func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if r, ok := in.Request.(*smithyhttp.Request); ok {
				change(r.Header)
			}
			return next.HandleFinalize(ctx, in)
		})
	}
	const name = "Accept-Encoding"
	if err := stack.Finalize.Insert(header("OutwashHideEncoding", func(h http.Header) { h.Del(name) }), "Signing", middleware.Before); err != nil {
		return err
	}
	return stack.Finalize.Insert(header("OutwashShowEncoding", func(h http.Header) { h.Set(name, "identity") }), "Signing", middleware.After)
}

type uploading struct{}

// forUpload marks the requests of Upload, which have a storage class of their own.
func forUpload(ctx context.Context) context.Context { return context.WithValue(ctx, uploading{}, true) }

// fill enters encryption and storage class into a request (API Reference: PutObject,
// CreateMultipartUpload; "Specifying server-side encryption with customer-provided
// keys" names what each operation takes).
func (s *store) fill(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	var algorithm, key, sum, kms *string
	if s.w.customerKey != "" {
		raw, err := base64.StdEncoding.DecodeString(s.w.customerKey)
		if err != nil {
			return middleware.InitializeOutput{}, middleware.Metadata{}, err
		}
		digest := md5.Sum(raw)
		algorithm, key, sum = aws.String(sseS3), &s.w.customerKey, aws.String(base64.StdEncoding.EncodeToString(digest[:]))
	}
	if s.w.kmsKey != "" {
		kms = &s.w.kmsKey
	}
	sse := types.ServerSideEncryption(s.w.sse)
	class := types.StorageClass(s.t.StorageClass)
	switch p := in.Parameters.(type) {
	case *s3.PutObjectInput:
		if ctx.Value(uploading{}) != nil {
			class = types.StorageClass(s.t.SnapshotStorageClass)
		}
		p.StorageClass, p.ServerSideEncryption, p.SSEKMSKeyId = class, sse, kms
		p.SSECustomerAlgorithm, p.SSECustomerKey, p.SSECustomerKeyMD5 = algorithm, key, sum
	case *s3.CreateMultipartUploadInput:
		p.StorageClass, p.ServerSideEncryption, p.SSEKMSKeyId = types.StorageClass(s.t.SnapshotStorageClass), sse, kms
		p.SSECustomerAlgorithm, p.SSECustomerKey, p.SSECustomerKeyMD5 = algorithm, key, sum
	case *s3.UploadPartInput:
		p.SSECustomerAlgorithm, p.SSECustomerKey, p.SSECustomerKeyMD5 = algorithm, key, sum
	case *s3.CompleteMultipartUploadInput:
		p.SSECustomerAlgorithm, p.SSECustomerKey, p.SSECustomerKeyMD5 = algorithm, key, sum
	case *s3.GetObjectInput:
		p.SSECustomerAlgorithm, p.SSECustomerKey, p.SSECustomerKeyMD5 = algorithm, key, sum
	case *s3.HeadObjectInput:
		p.SSECustomerAlgorithm, p.SSECustomerKey, p.SSECustomerKeyMD5 = algorithm, key, sum
	}
	return next.HandleInitialize(ctx, in)
}
