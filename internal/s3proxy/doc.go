// Package s3proxy stands between S3 clients and a real server in tests. A Proxy
// knows which S3 operation a request is, keeps a record, and refuses what a rule
// says in AWS's words; it can speak TLS with a certificate of the test's own CA,
// have another clock than this machine, and be slow. A Tunnel is an HTTP proxy
// through which clients find any host name without DNS: those of AWS, for example.
package s3proxy
