package s3store

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// rclone answers 416 when the last 1000 bytes of a smaller object are asked for,
// where S3 sends all of it. That is no empty object.
func TestSuffixOfSmallObject(t *testing.T) {
	const content = "all of it"
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		switch {
		case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != `"e"`:
			answer(w, http.StatusPreconditionFailed, "PreconditionFailed", "")
		case strings.HasPrefix(r.Header.Get("Range"), "bytes=-"):
			answer(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "")
		default:
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			_, _ = io.WriteString(w, content)
		}
	})
	for _, etag := range []string{"", `"e"`} {
		body, info, err := s.Get(t.Context(), "k", objstore.Range{Offset: -1000, IfMatch: etag})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if string(got) != content || err != nil || info.Size != int64(len(content)) {
			t.Errorf("got %q (size %d), %v", got, info.Size, err)
		}
	}
}
