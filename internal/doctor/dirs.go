package doctor

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// untouched returns what removes the empty directories that an examination leaves in
// a file store: it was only asked whether it could write there. Stores in
// directories keep their empty ones, as removing them races with writers; those that
// were not there before have no writer yet.
func untouched(storeURL string) func() {
	u, err := url.Parse(storeURL)
	if err != nil || u.Scheme != "file" {
		return func() {}
	}
	root := filepath.FromSlash(u.Path)
	if vol := strings.TrimPrefix(root, string(filepath.Separator)); filepath.VolumeName(vol) != "" {
		root = vol // file:///C:/dir
	}
	var made []string // innermost first
	for dir := root; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		made = append(made, dir)
	}
	if len(made) > 0 {
		made = append([]string{filepath.Join(root, ".outwash-tmp")}, made...)
	}
	return func() {
		os.Remove(filepath.Join(root, filepath.FromSlash(Prefix))) // only if it is empty, all of them
		for _, dir := range made {
			os.Remove(dir)
		}
	}
}
