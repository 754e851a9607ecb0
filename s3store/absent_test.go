package s3store

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// To whom S3 would not list a key, it does not say whether the object exists. The
// store finds out by a listing, and asks only where that can tell.
func TestAbsent(t *testing.T) {
	const user = "User: arn:aws:iam::123456789012:user/app is not authorized to perform: "
	for name, tt := range map[string]struct {
		message, code string
		listing       func(w http.ResponseWriter)
		want          error
		lists         int
	}{
		"not there":              {"Access Denied", "AccessDenied", list(), objstore.ErrNotExist, 1},
		"without a body":         {"", "", list(), objstore.ErrNotExist, 1},
		"others begin with it":   {"Access Denied", "AccessDenied", list("path/log/10"), objstore.ErrNotExist, 1},
		"prefix is ignored":      {"Access Denied", "AccessDenied", list("a/first"), objstore.ErrDenied, 1},
		"there":                  {"Access Denied", "AccessDenied", list("path/log/1"), objstore.ErrDenied, 1},
		"AWS means the listing":  {user + `s3:ListBucket on resource: "arn:aws:s3:::bucket" because no identity-based policy allows the s3:ListBucket action`, "AccessDenied", list(), objstore.ErrNotExist, 1},
		"AWS means the reading":  {user + `s3:GetObject on resource: "arn:aws:s3:::bucket/path/log/1" because no identity-based policy allows the s3:GetObject action`, "AccessDenied", list(), objstore.ErrDenied, 0},
		"AWS means the key":      {user + `kms:Decrypt on resource: "arn:aws:kms:us-east-1:123456789012:key/1"`, "AccessDenied", list(), objstore.ErrDenied, 0},
		"listing is denied, too": {"Access Denied", "AccessDenied", func(w http.ResponseWriter) { answer(w, 403, "AccessDenied", "Access Denied") }, objstore.ErrDenied, 1},
		"listing fails":          {"Access Denied", "AccessDenied", func(w http.ResponseWriter) { answer(w, 501, "NotImplemented", "") }, objstore.ErrUnsupported, 1},
		"wrong key":              {"", "InvalidAccessKeyId", list(), objstore.ErrDenied, 0},
		"wrong secret":           {"", "SignatureDoesNotMatch", list(), objstore.ErrDenied, 0},
	} {
		t.Run(name, func(t *testing.T) {
			lists := 0
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("list-type") != "2" {
					answer(w, 403, tt.code, strings.ReplaceAll(tt.message, `"`, "&quot;"))
					return
				}
				lists++
				if p := r.URL.Query().Get("prefix"); p != "path/log/1" {
					t.Errorf("listing asks for %q", p)
				}
				tt.listing(w)
			})
			_, _, err := s.Get(t.Context(), "log/1", objstore.Range{})
			if !errors.Is(err, tt.want) || lists != tt.lists {
				t.Errorf("%v, %d listings; expected %v, %d", err, lists, tt.want, tt.lists)
			}
			if tt.want == objstore.ErrNotExist && errors.Is(err, objstore.ErrDenied) {
				t.Errorf("both missing and denied: %v", err)
			}
		})
	}
}

func list(keys ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`)
		for _, k := range keys {
			fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>1</Size></Contents>`, k)
		}
		fmt.Fprint(w, `</ListBucketResult>`)
	}
}
