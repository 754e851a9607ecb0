package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/versitygw"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/config"
	"github.com/outwash/outwash/vfs"
)

// talkMain is an application that says all it knows: logs for debugging, status,
// errors in every form, and, with -panic, the stacks of all goroutines.
//
//	talk [-config FILE] [-panic] [-patient] DB URL SQL…
//
// It takes little time for each step, unless -patient says that all must work.
func talkMain() {
	fl := flag.NewFlagSet("talk", flag.ExitOnError)
	file := fl.String("config", "", "")
	crash := fl.Bool("panic", false, "")
	patient := fl.Bool("patient", false, "")
	_ = fl.Parse(os.Args[1:])
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	setupDriver()
	limit := 2 * time.Second
	if *patient {
		limit = longest
	}
	err := talk(limit, *file, fl.Arg(0), fl.Arg(1), fl.Args()[2:])
	if *crash {
		panic(fmt.Errorf("talk: %w", errors.Join(err, errors.New("the end"))))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "talk: %v\n%+v\n%#v\n", err, err, err)
		slog.Error("talk", "error", err)
		os.Exit(1)
	}
}

func talk(limit time.Duration, file, database, url string, sql []string) error {
	opts := vfs.Options{OpenTimeout: limit, CloseTimeout: limit, MaxLag: replicate.AsFast}
	if file != "" {
		cfg, err := config.Load(file)
		if err != nil {
			return err
		}
		fmt.Printf("config %v\n%+v\n%#v\n", cfg, cfg, cfg)
		slog.Info("config", "config", cfg)
		for _, d := range cfg.Databases {
			fmt.Printf("database %v\n%+v\n%#v\n", d, d, d)
			slog.Info("database", "settings", d.Settings, "database", d)
			_ = json.NewEncoder(os.Stdout).Encode(d)
		}
		opts.Store = func(path string) (replicate.Store, error) {
			s, err := cfg.Store(path)
			fmt.Printf("store %v\n%+v\n%#v\n", s, s, s)
			slog.Info("store", "store", s)
			return s, err
		}
		url = ""
	}
	vfs.Register("talking", opts)
	dsn := strings.Replace(vfs.DSN(database, url), "vfs="+vfs.Name, "vfs=talking", 1)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		fmt.Println("shutdown", vfs.Shutdown(ctx))
	}()
	c, err := sqlite3.Open(dsn)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, s := range sql {
		if err := c.Exec(s); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	_, err = vfs.Sync(ctx, database)
	status, serr := vfs.Stat(database)
	fmt.Printf("status %v\n%+v\n%#v\n%v\n", status, status, status, serr)
	_ = json.NewEncoder(os.Stdout).Encode(status)
	text, qerr := queryText(c, "PRAGMA replicated_status")
	fmt.Println(text, qerr)
	return err
}

// planted are the secrets of TestSecrets; each test server has its own beside them.
const (
	wrongSecret   = "wRoNgSeCrEt/PlAnTeD+0123456789abcdefghij"
	wrongToken    = "wRoNgToKeNpLaNtEd0123456789"
	agentToken    = "aGeNtToKeNpLaNtEd0123456789"
	idToken       = "iDtOkEnPlAnTeD0123456789"
	password      = "pAsSwOrDpLaNtEd0123456789"
	customerPlain = "cUsToMeRkEyPlAnTeD0123456789abcd" // 32 bytes
)

// TestSecrets asserts that no secret is in anything that is written or said: the
// output and log of applications and commands, for every source of credentials,
// working or not, in URLs, endpoints and files, whole and malformed; the files
// beside the database; the bucket.
func TestSecrets(t *testing.T) {
	gw := versitygw.Start(t)
	private, work := t.TempDir(), t.TempDir() // what holds secrets, and what must not
	n := 0
	write := func(content string) string {
		t.Helper()
		n++
		path := filepath.Join(private, fmt.Sprintf("file%d", n))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := fmt.Sprintf("aws_access_key_id=%s\naws_secret_access_key=%s\n", gw.AccessKey, gw.SecretKey)
	process := func(script string) []string {
		return []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_CONFIG_FILE=" + write("[default]\ncredential_process=sh "+write(script)+"\n")}
	}
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		switch {
		case r.Header.Get("Authorization") == agentToken:
			_ = json.NewEncoder(w).Encode(map[string]string{"AccessKeyId": gw.AccessKey, "SecretAccessKey": gw.SecretKey, "Expiration": until})
		case r.Form.Get("WebIdentityToken") == idToken:
			w.Header().Set("Content-Type", "text/xml")
			fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken></SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
				gw.AccessKey, gw.SecretKey, until)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer cloud.Close()
	none := []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}
	with := func(env ...string) []string { return append(append([]string(nil), none...), env...) }
	yaml := func(extra, replica string) string {
		return extra + "\ndbs:\n  - path: DATABASE\n    replica:\n      type: s3\n      bucket: " + gw.Bucket + "\n      path: CASE\n      endpoint: " + gw.Endpoint + "\n" + replica
	}
	mine := "access-key-id: " + gw.AccessKey + "\nsecret-access-key: " + gw.SecretKey + "\n"

	type secretCase struct {
		name string
		ok   bool // it works
		url  string
		env  []string
		yaml string
	}
	cases := []secretCase{
		{name: "environment", ok: true},
		{name: "shared file", ok: true, env: with("AWS_SHARED_CREDENTIALS_FILE=" + write("[default]\n"+keys))},
		{name: "profile", ok: true, env: with("AWS_PROFILE=mine", "AWS_SHARED_CREDENTIALS_FILE="+write("[mine]\n"+keys))},
		{name: "process", ok: true, env: process(fmt.Sprintf(`echo '{"Version":1,"AccessKeyId":"%s","SecretAccessKey":"%s"}'`, gw.AccessKey, gw.SecretKey))},
		{name: "container", ok: true, env: with("AWS_CONTAINER_CREDENTIALS_FULL_URI="+cloud.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN="+agentToken)},
		{name: "web identity", ok: true, env: with("AWS_ENDPOINT_URL_STS="+cloud.URL, "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE="+write(idToken))},
		{name: "configuration file", ok: true, env: none, yaml: yaml(mine, "")},
		{name: "variables", ok: true, env: with("V1="+gw.AccessKey, "V2="+gw.SecretKey), yaml: yaml("", "      access-key-id: ${V1}\n      secret-access-key: $V2\n")},

		{name: "wrong secret", env: []string{"AWS_SECRET_ACCESS_KEY=" + wrongSecret}},
		{name: "wrong token", env: []string{"AWS_SESSION_TOKEN=" + wrongToken}},
		{name: "wrong secret in file", yaml: yaml("access-key-id: "+gw.AccessKey+"\nsecret-access-key: "+wrongSecret+"\nsession-token: "+wrongToken, "")},
		{name: "missing bucket", url: "s3://nowhere/p?endpoint=" + gw.Endpoint},
		{name: "process talks", env: process("echo " + wrongSecret)},
		{name: "process breaks off", env: process(`echo '{"Version":1,"AccessKeyId":"` + gw.AccessKey + `","SecretAccessKey":"` + gw.SecretKey)},
		{name: "process fails", env: process("echo " + wrongSecret + "; exit 3")},
		{name: "container refuses", env: with("AWS_CONTAINER_CREDENTIALS_FULL_URI="+cloud.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN="+agentToken+"x")},
		{name: "web identity refused", env: with("AWS_ENDPOINT_URL_STS="+cloud.URL, "AWS_ROLE_ARN=arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE="+write(idToken+"x"))},
		{name: "shared file without =", env: with("AWS_SHARED_CREDENTIALS_FILE=" + write("[default]\naws_access_key_id "+gw.AccessKey+"\naws_secret_access_key "+wrongSecret+"\n"))},
		{name: "shared file without bracket", env: with("AWS_SHARED_CREDENTIALS_FILE=" + write("[default\n"+keys))},
		{name: "half a pair", env: with("AWS_SHARED_CREDENTIALS_FILE=" + write("[default]\naws_secret_access_key="+wrongSecret+"\n"))},

		{name: "password in URL", url: "s3://AKID:" + password + "@bucket/p"},
		{name: "password with a slash in URL", url: "s3://AKID:x/" + password + "@bucket/p"},
		{name: "secret as parameter", url: "s3://bucket/p?secret-access-key=" + password},
		{name: "secret as other parameter", url: "s3://bucket/p?aws_secret_access_key=" + password},
		{name: "token as parameter", url: "s3://bucket/p?session_token=" + password},
		{name: "unknown parameter", url: "s3://bucket/p?password=" + password},
		{name: "password in endpoint", url: "s3://bucket/p?endpoint=https://me:" + password + "@127.0.0.1:1"},
		{name: "password in escaped endpoint", url: "s3://bucket/p?endpoint=" + url.QueryEscape("https://me:"+password+"@127.0.0.1:1")},
		{name: "password in endpoint without scheme", url: "s3://bucket/p?endpoint=me:" + password + "@127.0.0.1:1"},
		{name: "query in endpoint", url: "s3://bucket/p?endpoint=" + url.QueryEscape("https://127.0.0.1:1/?key="+password)},
		{name: "password in the environment's endpoint", url: "s3://bucket/p", env: []string{"AWS_ENDPOINT_URL_S3=https://me:" + password + "@127.0.0.1:1"}},
		{name: "password in the environment's malformed endpoint", url: "s3://bucket/p", env: []string{"AWS_ENDPOINT_URL_S3=https://me:" + password + "%zz@127.0.0.1:1"}},
		{name: "password for the proxy", url: "s3://bucket/p?endpoint=http://s3.example.test", env: []string{"HTTP_PROXY=http://me:" + password + "@127.0.0.1:1"}},
		{name: "password for a malformed proxy", url: "s3://bucket/p?endpoint=http://s3.example.test", env: []string{"HTTP_PROXY=http://me:" + password + "%zz@127.0.0.1:1"}},

		{name: "customer key", yaml: yaml(mine, "      sse-customer-key: "+base64.StdEncoding.EncodeToString([]byte(customerPlain))+"\n")},
		{name: "customer key malformed", yaml: yaml(mine, "      sse-customer-key: "+password+"\n")},
		{name: "customer key's file malformed", url: gw.URL("sse") + "&sse-customer-key-path=" + write(password)},
		{name: "YAML: open quote", yaml: yaml("secret-access-key: \""+password, "")},
		{name: "YAML: open list", yaml: yaml("secret-access-key: ["+password, "")},
		{name: "YAML: list", yaml: yaml("secret-access-key: ["+password+"]", "")},
		{name: "YAML: mapping", yaml: yaml("secret-access-key: {a: "+password+"}", "")},
		{name: "YAML: two colons", yaml: yaml("secret-access-key: "+password+": x", "")},
		{name: "YAML: tab", yaml: yaml("secret-access-key:\t"+password+"\n\t"+password, "")},
		{name: "YAML: tag", yaml: yaml("secret-access-key: !!int "+password, "")},
		{name: "YAML: alias", yaml: yaml("secret-access-key: *"+password, "")},
		{name: "YAML: misspelled", yaml: yaml("secret-acess-key: "+password, "")},
		{name: "YAML: twice", yaml: yaml(mine+"secret-access-key: "+password, "")},
		{name: "YAML: as key", yaml: yaml(password+": x", "")},
		{name: "YAML: alone", yaml: yaml("", "      access-key-id: "+gw.AccessKey+"\n")},
		{name: "YAML: indentation", yaml: yaml("", "      access-key-id: x\n     secret-access-key: "+password+"\n")},
		{name: "YAML: URL", yaml: "dbs:\n  - path: DATABASE\n    replica: {url: \"s3://AKID:" + password + "@bucket/p\"}\n"},
		{name: "YAML: endpoint", yaml: "dbs:\n  - path: DATABASE\n    replica: {url: \"s3://bucket/p\", endpoint: \"https://me:" + password + "@h\"}\n"},
		{name: "YAML: SFTP", yaml: "dbs:\n  - path: DATABASE\n    replica: {type: sftp, host: h, user: u, password: " + password + "}\n"},
		{name: "YAML: SFTP URL", yaml: "dbs:\n  - path: DATABASE\n    replica: {url: \"sftp://me:" + password + "@h/p\"}\n"},
		{name: "YAML: Azure", yaml: "dbs:\n  - path: DATABASE\n    replica: {type: abs, account-name: a, account-key: " + password + ", bucket: b}\n"},
		{name: "YAML: age", yaml: "dbs:\n  - path: DATABASE\n    replica: {url: \"s3://bucket/p\", age: {identities: [" + password + "]}}\n"},
		{name: "variable like YAML", env: with("V1="+gw.AccessKey, "V2=a: \"\n  - "+password), yaml: yaml("access-key-id: $V1\nsecret-access-key: ${V2}", "")},
	}
	secrets := []string{gw.AccessKey, gw.SecretKey, wrongSecret, wrongToken, agentToken, idToken, password, customerPlain}
	for _, s := range secrets {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(s)), url.QueryEscape(s))
	}
	seen := 0
	check := func(where string, text []byte) {
		t.Helper()
		seen += len(text)
		for _, s := range secrets {
			if i := strings.Index(string(text), s); i >= 0 {
				t.Errorf("%s shows %s: …%q…", where, s, text[max(0, i-200):min(len(text), i+len(s)+50)])
			}
		}
	}
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			p := place{url: tt.url, env: append([]string{"HOME=" + private, "GOTRACEBACK=all", "AWS_MAX_ATTEMPTS=1"}, tt.env...)}
			if p.url == "" {
				p.url = gw.URL(fmt.Sprintf("case%d", i))
			}
			database := filepath.Join(work, fmt.Sprintf("db%d", i))
			run := func(want int, name string, args ...string) {
				t.Helper()
				code, out, errOut := p.command(t, name, args...)
				what := name + " " + args[0]
				check(what+", standard output", []byte(out))
				check(what+", standard error", []byte(errOut))
				if (code == 0) != (want == 0) {
					t.Errorf("%s: exit code %d\n%s%s", what, code, out, errOut)
				}
			}
			good := 1
			if tt.ok {
				good = 0
			}
			file, replica := []string(nil), p.url
			if tt.yaml != "" {
				file = []string{"-config", write(strings.NewReplacer("DATABASE", database, "CASE", fmt.Sprintf("case%d", i)).Replace(tt.yaml))}
				replica = database
			}
			patient := []string(nil)
			if tt.ok {
				patient = []string{"-patient"}
			}
			talk := append(append(patient, file...), database, p.url, "CREATE TABLE t(a)", "INSERT INTO t VALUES(randomblob(3000))")
			if strings.HasPrefix(tt.name, "customer key") {
				// What the server makes of it is not the question.
				code, out, errOut := p.command(t, "talk", talk...)
				check(fmt.Sprint("talk, exit code ", code), []byte(out+errOut))
			} else {
				run(good, "talk", talk...)
			}
			if tt.ok || i%4 == 0 {
				run(2, "talk", append([]string{"-panic"}, talk...)...)
			}
			if strings.Contains(tt.name, "proxy") || strings.HasPrefix(tt.name, "customer key") {
				return // the command tries for longer
			}
			if file != nil {
				code, out, errOut := p.command(t, "outwash", append([]string{"config", "-json"}, file...)...)
				check(fmt.Sprint("outwash config, exit code ", code), []byte(out+errOut))
			}
			if tt.ok || file == nil {
				code, out, errOut := p.command(t, "outwash", append(append([]string{"doctor", "-json", "-read-only"}, file...), replica)...)
				check(fmt.Sprint("outwash doctor, exit code ", code), []byte(out+errOut))
			}
			run(good, "outwash", append(append([]string{"ls", "-json"}, file...), replica)...)
			if i < 2 || !tt.ok {
				run(good, "outwash", append(append([]string{"restore", "-o", database + "-restored"}, file...), replica)...)
			}
		})
	}
	err := filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		check(path, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := replicate.OpenStore(t.Context(), gw.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	objects := 0
	for info, err := range store.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		objects++
		body, _, err := store.Get(t.Context(), info.Key, objstore.Range{})
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		check(info.Key, content)
		body.Close()
	}
	// The test must have had something to look at.
	if objects < 20 || seen < 100_000 {
		t.Errorf("looked at %d objects and %d bytes only", objects, seen)
	}
}
