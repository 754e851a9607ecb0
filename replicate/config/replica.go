package config

import (
	"cmp"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// replica reads where a database's replica lies, and its settings.
func (r *reader) replica(d *Database, n *node) bool {
	before := len(r.problems)
	scheme, ok := r.where(d, n)
	if scheme != "" {
		r.keys(n, inReplica, settingNames(scheme))
	}
	if !ok {
		return false
	}
	r.settings(d, n, scheme)
	for _, at := range []*node{n, r.root} {
		v, ok := r.text(at, "sync-interval", false)
		if !ok || v.text == "" {
			continue
		}
		if d.MaxLag, ok = interval(v.text); !ok {
			r.problem(v.pos, "sync-interval: a duration like 500ms or 10s is expected")
		}
		break
	}
	return len(r.problems) == before
}

// where makes the replica's URL from url: or from the fields, and returns its
// scheme, if that is clear.
func (r *reader) where(d *Database, n *node) (scheme string, ok bool) {
	typ, ok1 := r.text(n, "type", true)
	addr, ok2 := r.text(n, "url", true)
	bucket, ok3 := r.text(n, "bucket", true)
	dir, ok4 := r.text(n, "path", true)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return "", false
	}
	typ.text = strings.ToLower(typ.text)
	if instead, ok := replicaTypes[typ.text]; ok {
		r.problem(typ.pos, "type: %s", instead)
		return "", false
	}
	if addr.text != "" {
		return r.atURL(d, typ, addr, bucket, dir)
	}
	switch typ.text {
	case "s3":
		return r.inBucket(d, n, bucket, dir)
	case "file", "":
		return r.inDirectory(d, typ, bucket, dir)
	}
	r.problem(typ.pos, "type: s3 or file is expected")
	return "", false
}

func (r *reader) atURL(d *Database, typ, addr, bucket, dir value) (string, bool) {
	before := len(r.problems)
	scheme, rest, found := strings.Cut(addr.text, "://")
	scheme = strings.ToLower(scheme)
	if !found {
		r.problem(addr.pos, "url: s3://BUCKET/PATH or file:///DIRECTORY is expected; a directory can be written as path:, too")
		return "", false
	}
	if instead, ok := replicaTypes[scheme]; ok {
		r.problem(addr.pos, "url: %s", instead)
		return "", false
	}
	if !r.known(scheme, addr.pos) {
		return "", false
	}
	if objstore.HasUserinfo(addr.text) {
		r.problem(addr.pos, "url: it contains a user name or password: write access-key-id: and secret-access-key: instead")
		return "", false
	}
	_, query, _ := strings.Cut(rest, "?")
	for _, s := range objstore.SettingsOf(scheme) {
		if s.Secret && parameter(query, s.Name) != "" {
			r.problem(addr.pos, "url: %s must not be in it, since URLs are shown: write it as a key of its own", s.Name)
		}
	}
	if typ.text != "" && typ.text != scheme {
		r.problem(typ.pos, "type: it contradicts the url:, which begins with %s://: remove it", scheme)
	}
	if bucket.text != "" {
		r.problem(bucket.pos, "bucket: and url: exclude each other: the bucket is in the url")
	}
	if dir.text != "" {
		r.problem(dir.pos, "path: and url: exclude each other: write the path behind the bucket in the url")
	}
	d.URL = scheme + "://" + rest
	d.Sources = append(d.Sources, Source{Name: "url", Line: addr.line, Column: addr.column, Variables: addr.vars})
	return scheme, len(r.problems) == before
}

func (r *reader) inBucket(d *Database, n *node, bucket, dir value) (string, bool) {
	shared := bucket.text == ""
	if shared {
		var ok bool
		if bucket, ok = r.text(r.root, "bucket", true); !ok {
			return "", false
		}
	}
	switch {
	case bucket.text == "":
		r.problem(n.pos, "bucket: is missing")
		return "s3", false
	case strings.ContainsAny(bucket.text, "?#@") || strings.Contains(bucket.text, "://"):
		r.problem(bucket.pos, "bucket: a bucket's name or an access point's ARN is expected; a URL is written as url:, a server as endpoint:")
		return "", false
	case strings.Contains(dir.text, "://"):
		r.problem(dir.pos, "path: it is a URL: write it as url:")
		return "", false
	case strings.ContainsAny(dir.text, "?#"):
		r.problem(dir.pos, "path: it must not contain ? and #")
		return "", false
	}
	if !r.known("s3", n.pos) {
		return "", false
	}
	d.URL = "s3://" + strings.TrimRight(bucket.text, "/")
	if p := strings.Trim(dir.text, "/"); p != "" {
		d.URL += "/" + p
	}
	d.Sources = append(d.Sources, Source{
		Name: "url", Line: bucket.line, Column: bucket.column, Shared: shared,
		Variables: append(slices.Clone(bucket.vars), dir.vars...),
	})
	return "s3", true
}

func (r *reader) inDirectory(d *Database, typ, bucket, dir value) (string, bool) {
	switch {
	case typ.text == "" && bucket.text != "":
		r.problem(bucket.pos, "bucket: write type: s3, too: without it the replica would be a directory")
		return "", false
	case bucket.text != "":
		r.problem(bucket.pos, "bucket: a replica of type: file has none: write type: s3, or remove it")
		return "", false
	case dir.text == "":
		r.problem(typ.pos, "the replica has no place: write url:, or type: s3 with bucket: and path:, or path: of a directory")
		return "", false
	case strings.Contains(dir.text, "://"):
		r.problem(dir.pos, "path: it is a URL: write it as url:")
		return "", false
	}
	path, err := absolute(dir.text)
	if err != nil {
		r.problem(dir.pos, "path: %v", err)
		return "", false
	}
	if path == d.Path {
		r.problem(dir.pos, "path: the replica is a directory, and can't be where the database is")
		return "", false
	}
	// Three slashes, also before the C: of Windows.
	d.URL = (&url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(path), "/")}).String()
	d.Sources = append(d.Sources, Source{Name: "url", Line: dir.line, Column: dir.column, Variables: dir.vars})
	return "file", true
}

// known reports whether there are stores of this kind in the program.
func (r *reader) known(scheme string, at pos) bool {
	if slices.Contains(objstore.Schemes(), scheme) {
		return true
	}
	if scheme == "s3" {
		r.problem(at, `replicas in S3 need package s3store: import _ "github.com/outwash/outwash/s3store"`)
	} else {
		r.problem(at, "unknown kind of replica: s3:// and file:// are known")
	}
	return false
}

// settings collects what the store's scheme knows: the replica's own, or else the
// file's.
func (r *reader) settings(d *Database, n *node, scheme string) {
	_, query, _ := strings.Cut(d.URL, "?")
	d.Settings = replicate.Settings{}
	for _, s := range objstore.SettingsOf(scheme) {
		credential := s.Secret || slices.Contains(groups[0], s.Name)
		from := n
		if n.get(s.Name) == nil {
			if ownGroup(n, s.Name) {
				continue
			}
			from = r.root
		}
		if from.get(s.Name) == nil {
			continue
		}
		inURL := parameter(query, s.Name)
		if from == r.root && inURL != "" {
			continue
		}
		v, ok := r.text(from, s.Name, credential || s.Name == "endpoint")
		switch {
		case !ok:
			continue
		case v.text == "" && credential:
			r.problem(v.pos, "%s: it is empty%s: remove it to take credentials from the environment", s.Name, inVariables(v.vars))
			continue
		case v.text == "":
			continue
		case inURL != "" && inURL != v.text:
			r.problem(v.pos, "%s: it contradicts the parameter of the same name in url:, remove one", s.Name)
			continue
		}
		if b, ok := boolean(v.text); ok && v.plain && !credential {
			v.text = map[bool]string{true: "true", false: "false"}[b]
		}
		d.Settings[s.Name] = v.text
		d.Sources = append(d.Sources, Source{
			Name: s.Name, Line: v.line, Column: v.column, Shared: from == r.root, Variables: v.vars, Secret: s.Secret,
		})
		r.c.secrets = r.c.secrets || s.Secret && len(v.vars) == 0
	}
	r.pair(d, "access-key-id", "secret-access-key")
	r.pair(d, "secret-access-key", "access-key-id")
}

func inVariables(vars []string) string {
	if len(vars) == 0 {
		return ""
	}
	return " (the environment's " + strings.Join(vars, ", ") + ")"
}

// ownGroup reports whether a replica has a setting of the group that name is in.
func ownGroup(n *node, name string) bool {
	for _, g := range groups {
		if slices.Contains(g, name) && slices.ContainsFunc(g, func(s string) bool { return n.get(s) != nil }) {
			return true
		}
	}
	return false
}

// pair wants a second setting where there is a first.
func (r *reader) pair(d *Database, one, other string) {
	at, ok := d.source(one)
	if _, both := d.source(other); !ok || both {
		return
	}
	here := pos{at.Line, at.Column}
	for _, p := range r.problems {
		if p.Line == here.line || strings.HasPrefix(p.Msg, other+":") {
			return // it is there, and wrong
		}
	}
	r.problem(here, "%s: %s is missing beside it; a replica with credentials of its own inherits none", one, other)
}

// parameter returns a parameter of a URL's query, however it is written: some say
// forcePathStyle for force-path-style.
func parameter(query, name string) string {
	values, _ := url.ParseQuery(query)
	for k := range values {
		if plainName(k) == plainName(name) {
			return values.Get(k)
		}
	}
	return ""
}

func plainName(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
}

// place is where a replica is, to compare it with others: however it is written,
// with the server before the bucket's name or as endpoint, an ARN or a name.
type place string

var bucketARN = regexp.MustCompile(`^s3://arn:[a-z-]+:s3:::`)

func (d *Database) place() place {
	base, query, _ := strings.Cut(d.URL, "?")
	server := cmp.Or(parameter(query, "endpoint"), d.Settings["endpoint"])
	if _, host, ok := strings.Cut(server, "://"); ok {
		server = host
	}
	base = bucketARN.ReplaceAllString(strings.TrimRight(base, "/"), "s3://")
	if rest, ok := strings.CutPrefix(base, "s3://"); ok {
		bucket, path, _ := strings.Cut(rest, "/")
		if server = strings.TrimRight(server, "/"); server != "" {
			bucket += "." + strings.ToLower(server)
		}
		base = "s3://" + bucket + "/" + path
	}
	return place(strings.TrimRight(base, "/"))
}

// owner returns the database in whose replica's own objects a place is, nil if there
// is none: a replica may lie below another one elsewhere.
func (p place) owner(all map[place]*Database) *Database {
	own := []string{segment.InfoKey + "/", segment.LogPrefix, segment.PagesPrefix, segment.SnapshotPrefix, segment.DataPrefix}
	for i := len(p) - 1; i > 0; i-- {
		if p[i] != '/' {
			continue
		}
		first, _, _ := strings.Cut(string(p[i+1:]), "/")
		if above := all[p[:i]]; above != nil && slices.Contains(own, first+"/") {
			return above
		}
	}
	return nil
}
