package s3store

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/outwash/outwash/internal/objstore"
)

// A declaration is one setting: a parameter of URLs and a key of configuration
// files.
type declaration struct {
	name, doc string
	secret    bool // refused in URLs, and shown nowhere
	tuning    bool // finding and reading the objects works without it: not in String
	resolved  bool // part of Target, which puts it into String
	set       func(w *wishes, value string) error
}

// declared is the one list of settings, sorted by name. The names are those of
// Litestream's configuration where it has the setting.
var declared = []declaration{
	{name: "access-key-id", secret: true, doc: "access key, with secret-access-key",
		set: text(func(w *wishes) *string { return &w.keyID })},
	{name: "concurrency", tuning: true, doc: "parts of one upload under way at a time, such as 4",
		set: func(w *wishes, v string) (err error) { w.concurrency, err = parseCount(v); return err }},
	{name: "dualstack", resolved: true, doc: "true: AWS's servers with IPv6 and IPv4",
		set: flag(func(w *wishes) **bool { return &w.dualStack })},
	{name: "endpoint", resolved: true, doc: "server, if it is not AWS",
		set: func(w *wishes, v string) (err error) { w.endpoint, err = cleanEndpoint(v); return err }},
	{name: "fips", resolved: true, doc: "true: AWS's servers with FIPS 140 validated cryptography",
		set: flag(func(w *wishes) **bool { return &w.fips })},
	{name: "force-path-style", resolved: true, doc: "true: https://server/bucket/key; false: https://bucket.server/key",
		set: flag(func(w *wishes) **bool { return &w.pathStyle })},
	{name: "part-size", tuning: true, doc: "size of the parts of large uploads, such as 16MiB",
		set: func(w *wishes, v string) (err error) { w.partSize, err = parsePartSize(v); return err }},
	{name: "profile", doc: "profile of the AWS configuration and credentials files",
		set: text(func(w *wishes) *string { return &w.profile })},
	{name: "put-object-content-md5", doc: "true: writes carry a Content-MD5, as some servers with object lock demand",
		set: flag(func(w *wishes) **bool { return &w.putMD5 })},
	{name: "region", resolved: true, doc: "the bucket's region",
		set: func(w *wishes, v string) error {
			if !isHostLabel(v) {
				return fmt.Errorf("%q is not a region's name, like eu-central-1", v)
			}
			w.region = v
			return nil
		}},
	{name: "require-content-md5", doc: "true: deletions of many objects carry a Content-MD5; false: a CRC32",
		set: flag(func(w *wishes) **bool { return &w.deleteMD5 })},
	{name: "secret-access-key", secret: true, doc: "secret of access-key-id",
		set: text(func(w *wishes) *string { return &w.secretKey })},
	{name: "session-token", secret: true, doc: "session token of temporary credentials",
		set: text(func(w *wishes) *string { return &w.token })},
	{name: "sign-accept-encoding", doc: "false: Accept-Encoding is not signed, for servers behind proxies that change it",
		set: flag(func(w *wishes) **bool { return &w.signAcceptEncoding })},
	{name: "sign-payload", doc: "true: signatures cover the content of writes; false: they don't (https only)",
		set: flag(func(w *wishes) **bool { return &w.signPayload })},
	{name: "skip-verify", doc: "true: any TLS certificate is accepted; better name your CA in AWS_CA_BUNDLE",
		set: flag(func(w *wishes) **bool { return &w.skipVerify })},
	{name: "snapshot-storage-class", tuning: true, doc: "storage class of snapshots and other large data, if not storage-class",
		set: func(w *wishes, v string) error { w.snapshotClass = v; return checkStorageClass(v) }},
	{name: "sse", doc: "encryption by the server: AES256, aws:kms or aws:kms:dsse",
		set: func(w *wishes, v string) error {
			if !slices.Contains([]string{sseS3, sseKMS, sseDSSE}, v) {
				return fmt.Errorf("%q is unknown: it must be %s, %s or %s", v, sseS3, sseKMS, sseDSSE)
			}
			w.sse = v
			return nil
		}},
	{name: "sse-customer-algorithm", doc: "AES256, the only one, for sse-customer-key",
		set: func(w *wishes, v string) error {
			if v != sseS3 {
				return fmt.Errorf("%q is unknown: it must be %s", v, sseS3)
			}
			w.customerAlgorithm = v
			return nil
		}},
	{name: "sse-customer-key", secret: true, doc: "key of your own (SSE-C): 32 bytes in base64",
		set: func(w *wishes, v string) (err error) { w.customerKey, err = checkCustomerKey(v); return err }},
	{name: "sse-customer-key-path", doc: "file that holds the sse-customer-key",
		set: text(func(w *wishes) *string { return &w.customerKeyPath })},
	{name: "sse-kms-key-id", doc: "KMS key: its ID, ARN or alias",
		set: text(func(w *wishes) *string { return &w.kmsKey })},
	{name: "storage-class", tuning: true, doc: "storage class of what is written, such as STANDARD_IA",
		set: func(w *wishes, v string) error { w.class = v; return checkStorageClass(v) }},
}

const (
	sseS3   = "AES256"
	sseKMS  = "aws:kms"
	sseDSSE = "aws:kms:dsse"
)

// settings are what URLs and configuration files may say.
var settings = func() []objstore.Setting {
	list := make([]objstore.Setting, len(declared))
	for i, d := range declared {
		list[i] = objstore.Setting{Name: d.name, Doc: d.doc, Secret: d.secret}
	}
	return list
}()

// wishes are the settings of one store, parsed; zero means not given. They hold
// secrets: never print them.
type wishes struct {
	endpoint, region             string
	pathStyle, dualStack, fips   *bool
	profile                      string
	keyID, secretKey, token      string
	partSize                     int64
	concurrency                  int
	class, snapshotClass         string
	sse, kmsKey                  string
	customerAlgorithm            string
	customerKey, customerKeyPath string
	skipVerify                   *bool
	signPayload                  *bool
	signAcceptEncoding           *bool
	deleteMD5, putMD5            *bool

	repeated []setting       // what String says as it was given
	inURL    map[string]bool // where settings come from
}

type setting struct{ name, value string }

// source is who gave a setting, for people.
func (w *wishes) source(name string) string {
	if w.inURL[name] {
		return "the URL"
	}
	return "the settings"
}

// String and GoString keep secrets out of whatever prints them.
func (wishes) String() string   { return "(settings)" }
func (wishes) GoString() string { return "(settings)" }

func text(field func(*wishes) *string) func(*wishes, string) error {
	return func(w *wishes, v string) error { *field(w) = v; return nil }
}

func flag(field func(*wishes) **bool) func(*wishes, string) error {
	return func(w *wishes, v string) error {
		b, err := parseBool(v)
		*field(w) = &b
		return err
	}
}

// is reports what a setting says, or otherwise.
func is(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

// parseSettings reads a URL's parameters and the settings beside it, over which
// parameters win. where is what errors name. An error is a SettingError unless
// the parameters can't even be taken apart.
func parseSettings(where, query string, given objstore.Settings) (wishes, error) {
	w := wishes{inURL: map[string]bool{}}
	bad := func(name string, err error) (wishes, error) {
		return w, &objstore.SettingError{Name: name, Err: fmt.Errorf("s3store: %q: %w: %w", where, objstore.ErrConfig, err)}
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return w, fmt.Errorf("s3store: %q: %w: the parameters can't be parsed (is a %% not followed by two hex digits, or a ; between them?)", where, objstore.ErrConfig)
	}
	values := map[string]string{}
	names := slices.Sorted(maps.Keys(params))
	for _, raw := range names {
		if secret := secretIn(raw); secret != "" {
			return bad(secret, fmt.Errorf("parameter %s: credentials and keys don't belong into a URL, which ends up in logs and process lists: "+
				"write %[1]s into the configuration file, or use %s", secret, elsewhere(secret)))
		}
	}
	for _, raw := range names {
		name, list := kebab(raw), params[raw]
		if !slices.ContainsFunc(declared, func(d declaration) bool { return d.name == name }) {
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_-") != "" {
				name, raw = "…", "…" // no name, but perhaps a secret where one was expected
			}
			return bad(name, fmt.Errorf("unknown parameter %q (known: %s)", raw, parameters()))
		}
		if _, twice := values[name]; twice || len(list) > 1 {
			return bad(name, fmt.Errorf("parameter %q is given more than once", name))
		}
		if list[0] == "" {
			return bad(name, fmt.Errorf("parameter %q has no value", raw))
		}
		values[name], w.inURL[name] = list[0], true
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		if !slices.ContainsFunc(declared, func(d declaration) bool { return d.name == name }) {
			return bad(name, fmt.Errorf("unknown setting %q", name))
		}
		if _, over := values[name]; !over && value != "" {
			values[name] = value
		}
	}
	for _, d := range declared {
		v, ok := values[d.name]
		if !ok {
			continue
		}
		if err := d.set(&w, v); err != nil {
			return bad(d.name, fmt.Errorf("%s: %w", d.name, err))
		}
		if !d.secret && !d.tuning && !d.resolved {
			w.repeated = append(w.repeated, setting{d.name, v})
		}
	}
	if name, err := w.check(); err != nil {
		return bad(name, err)
	}
	return w, nil
}

// check refuses settings that don't go together, and names the one to change.
func (w *wishes) check() (name string, err error) {
	switch {
	case w.keyID != "" && w.secretKey == "":
		return "secret-access-key", errors.New("access-key-id is given without secret-access-key")
	case w.keyID == "" && w.secretKey != "":
		return "access-key-id", errors.New("secret-access-key is given without access-key-id")
	case w.keyID == "" && w.token != "":
		return "access-key-id", errors.New("session-token is given without access-key-id and secret-access-key")
	case w.sse == sseS3 && w.kmsKey != "":
		return "sse", fmt.Errorf("sse-kms-key-id needs sse: %s (or no sse)", sseKMS)
	case w.customerKey != "" && w.customerKeyPath != "":
		return "sse-customer-key-path", errors.New("sse-customer-key and sse-customer-key-path can't both be given")
	case w.customerAlgorithm != "" && !w.customerEncrypted():
		return "sse-customer-key", errors.New("sse-customer-algorithm is given without sse-customer-key")
	case w.customerEncrypted() && (w.sse != "" || w.kmsKey != ""):
		return "sse-customer-key", errors.New("encryption with a key of your own excludes sse and sse-kms-key-id")
	}
	if w.kmsKey != "" && w.sse == "" {
		w.sse = sseKMS
	}
	return "", nil
}

// customerEncrypted: the objects are encrypted with a key that S3 doesn't keep.
func (w *wishes) customerEncrypted() bool { return w.customerKey != "" || w.customerKeyPath != "" }

// readKey fetches sse-customer-key from its file.
func (w *wishes) readKey() error {
	if w.customerKeyPath == "" {
		return nil
	}
	bad := func(err error) error {
		return &objstore.SettingError{Name: "sse-customer-key-path", Err: fmt.Errorf("s3store: %w: sse-customer-key-path: %w", objstore.ErrConfig, err)}
	}
	path := w.customerKeyPath
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return bad(err)
		}
		path = filepath.Join(home, rest)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return bad(err)
	}
	if w.customerKey, err = checkCustomerKey(strings.TrimSpace(string(data))); err != nil {
		return bad(fmt.Errorf("%s: the key %w", path, err))
	}
	return nil
}

// secretIn names the secret setting that a URL's parameter stands for, however
// it is spelled: AWS_SECRET_ACCESS_KEY, secretAccessKey, Secret-Access-Key=…
func secretIn(param string) string {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '=' {
			return unicode.ToLower(r)
		}
		return -1
	}, param)
	plain, _, _ = strings.Cut(plain, "=")
	for _, d := range declared {
		if d.secret && strings.HasSuffix(plain, strings.ReplaceAll(d.name, "-", "")) {
			return d.name
		}
	}
	return ""
}

// elsewhere is where a secret goes when there is no configuration file.
func elsewhere(secret string) string {
	switch secret {
	case "sse-customer-key":
		return "sse-customer-key-path"
	case "session-token":
		return "AWS_SESSION_TOKEN"
	}
	return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
}

// kebab turns forcePathStyle, which Litestream's URLs may say, into
// force-path-style.
func kebab(name string) string {
	var b strings.Builder
	upper := false
	for _, r := range name {
		if unicode.IsUpper(r) && !upper {
			b.WriteByte('-')
		}
		upper = unicode.IsUpper(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// parameters are the names of what may stand in a URL.
func parameters() string {
	var names []string
	for _, d := range declared {
		if !d.secret {
			names = append(names, d.name)
		}
	}
	return strings.Join(names, ", ")
}
