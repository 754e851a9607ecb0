// Package policytest decides for tests what an IAM policy allows, as far as the
// policies of this project and of guides to S3 need it.
//
// Sources: IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements:
// Condition operators" and "Variables and tags".
package policytest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/s3proxy"
)

// A Policy is a parsed document.
type Policy struct{ statements []statement }

type statement struct {
	Sid       string
	Effect    string
	Principal any
	Action    list
	Resource  list
	Condition map[string]map[string]list
}

// list is a string or several.
type list []string

func (l *list) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// Parse reads a document. What this package can't evaluate is an error.
func Parse(text string) (*Policy, error) {
	var doc struct {
		Version   string
		Statement []statement
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if doc.Version != "2012-10-17" {
		return nil, fmt.Errorf("version %q: variables need 2012-10-17", doc.Version)
	}
	seen := map[string]bool{}
	for _, s := range doc.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Action) == 0 || len(s.Resource) == 0 {
			return nil, fmt.Errorf("incomplete statement %+v", s)
		}
		if s.Sid != "" && seen[s.Sid] {
			return nil, fmt.Errorf("statement %q twice", s.Sid)
		}
		seen[s.Sid] = true
		if strings.Trim(s.Sid, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			return nil, fmt.Errorf("statement %q: IAM takes letters and digits", s.Sid)
		}
		for op := range s.Condition {
			if !slices.Contains([]string{"StringEquals", "StringLike", "ForAnyValue:StringEquals"}, op) {
				return nil, fmt.Errorf("condition operator %q can't be evaluated", op)
			}
		}
	}
	return &Policy{doc.Statement}, nil
}

// A Need is one permission that a request takes.
type Need struct {
	Action   string
	Resource string            // ARN
	Context  map[string]string // condition keys
}

func (n Need) String() string {
	s := n.Action + " on " + n.Resource
	for k, v := range n.Context {
		s += fmt.Sprintf(" with %s=%q", k, v)
	}
	return s
}

// Denies returns the first of several that the policy doesn't allow.
func (p *Policy) Denies(all []Need) (n Need, denied bool) {
	for _, n := range all {
		if !p.Allows(n) {
			return n, true
		}
	}
	return Need{}, false
}

// Allows reports whether the policy allows n, and doesn't deny it.
func (p *Policy) Allows(n Need) bool {
	allowed := false
	for _, s := range p.statements {
		if !s.matches(n) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

func (s statement) matches(n Need) bool {
	in := func(patterns list, value string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool { return like(pattern, value) })
	}
	// Actions are compared without regard to case.
	if !slices.ContainsFunc(s.Action, func(a string) bool { return like(strings.ToLower(a), strings.ToLower(n.Action)) }) || !in(s.Resource, n.Resource) {
		return false
	}
	for op, keys := range s.Condition {
		for key, values := range keys {
			value, there := n.Context[key]
			if !there {
				return false // without IfExists
			}
			if op == "StringLike" && !in(values, value) || op != "StringLike" && !slices.Contains(values, value) {
				return false
			}
		}
	}
	return true
}

// like matches * and ?; ${*}, ${?} and ${$} are these characters.
func like(pattern, value string) bool {
	switch {
	case pattern == "":
		return value == ""
	case pattern[0] == '*':
		for i := 0; i <= len(value); i++ {
			if like(pattern[1:], value[i:]) {
				return true
			}
		}
		return false
	case len(pattern) >= 4 && strings.HasPrefix(pattern, "${") && pattern[3] == '}':
		return value != "" && value[0] == pattern[2] && like(pattern[4:], value[1:])
	case value == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == value[0]) && like(pattern[1:], value[1:])
}

// Needs is what a call takes in a bucket or access point: on its objects, or, if it
// is about the bucket, on that.
func Needs(c s3proxy.Call, bucketARN string) ([]Need, error) {
	n := Need{Action: c.Action(), Resource: bucketARN}
	keys := c.Keys
	switch {
	case n.Action == "":
		return nil, fmt.Errorf("operation %q: not known which permission it takes", c.Operation)
	case c.Operation == "DeleteObjects" && len(keys) == 0:
		return nil, fmt.Errorf("operation DeleteObjects: it names no objects")
	case c.Key != "":
		keys = []string{c.Key}
	case n.Action == "s3:ListBucket" && c.Prefix != "":
		n.Context = map[string]string{"s3:prefix": c.Prefix}
	}
	if len(keys) == 0 {
		return []Need{n}, nil
	}
	var all []Need
	for _, key := range keys {
		all = append(all, Need{Action: n.Action, Resource: bucketARN + ObjectSeparator(bucketARN) + key})
	}
	return all, nil
}

// ObjectSeparator is what stands between the ARN of a bucket or an access point and
// a key.
func ObjectSeparator(bucketARN string) string {
	if strings.Contains(bucketARN, ":accesspoint/") {
		return "/object/"
	}
	return "/"
}
