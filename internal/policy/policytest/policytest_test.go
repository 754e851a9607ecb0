package policytest

import "testing"

func TestLike(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"", "", true}, {"*", "", true}, {"a/*", "a/", true}, {"a/*", "a", false}, {"a/*", "ab/", false},
		{"a*c", "abbc", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"a${*}", "a*", true}, {"a${*}", "ab", false},
		{"${$}{x}", "${x}", true}, {"${?}", "?", true}, {"${?}", "x", false},
	} {
		if got := like(c.pattern, c.value); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.value, got)
		}
	}
}

func TestDenyWins(t *testing.T) {
	p, err := Parse(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
		{"Effect": "Deny", "Action": ["S3:delete*"], "Resource": ["arn:aws:s3:::b/*"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for action, want := range map[string]bool{"s3:GetObject": true, "s3:DeleteObject": false, "kms:Decrypt": false} {
		if got := p.Allows(Need{Action: action, Resource: "arn:aws:s3:::b/k"}); got != want {
			t.Errorf("%s: %v", action, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		`{`, `{"Version": "2008-10-17", "Statement": []}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*"}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"IpAddress": {}}}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "NotResource": "*", "Resource": "*"}]}`,
		`{"Version": "2012-10-17", "Statement": [{"Sid": "a b", "Effect": "Allow", "Action": "*", "Resource": "*"}]}`,
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}
