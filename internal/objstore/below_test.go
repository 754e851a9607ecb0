package objstore

import "testing"

// TestBelow: no two databases have the same replica, whatever they are called.
func TestBelow(t *testing.T) {
	for _, c := range []struct{ base, rel, want string }{
		{"s3://bucket/base", "a.db", "s3://bucket/base/a.db"},
		{"s3://bucket/base/", "x/a.db", "s3://bucket/base/x/a.db"},
		{"s3://bucket", "a.db", "s3://bucket/a.db"},
		{"s3://bucket/b?endpoint=http://h:1/", "a.db", "s3://bucket/b/a.db?endpoint=http://h:1/"},
		{"file:///backup", "a b.db", "file:///backup/a b.db"},
		{"s3://b/p", "100%.db", "s3://b/p/100%25.db"},
		{"s3://b/p", "100%25.db", "s3://b/p/100%2525.db"},
		{"s3://b/p", "what?.db", "s3://b/p/what%3F.db"},
		{"s3://b/p", "#1.db", "s3://b/p/%231.db"},
		{"s3://b/p", "joe@example.com.db", "s3://b/p/joe%40example.com.db"},
		{"s3://b/p", `a\b.db`, "s3://b/p/a%5Cb.db"},
		{"s3://b/p", "a\nb.db", "s3://b/p/a%0Ab.db"},
		{"s3://b/p", "\xffa.db", "s3://b/p/%FFa.db"},
		{"s3://b/p", "für-köln.db", "s3://b/p/für-köln.db"},
	} {
		if got := Below(c.base, c.rel); got != c.want {
			t.Errorf("%q below %s: %s, want %s", c.rel, c.base, got, c.want)
		}
	}
}
