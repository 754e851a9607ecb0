package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of what is read. Files of people are far below; what is above would make
// the parser slow, or aliases explode.
const (
	maxFile  = 1 << 20
	maxNodes = 100_000
	maxDepth = 32
)

type kind uint8

const (
	null kind = iota
	scalar
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"nothing", "a value", "a list", "a mapping"}[k]
}

type pos struct{ line, column int }

// node is a YAML value with its place, free of the library's types. The text of a
// scalar is what stands in the file: 0123 is no number here, since it may be a
// bucket's name.
type node struct {
	pos
	kind    kind
	text    string
	plain   bool // a scalar without quotes
	items   []*node
	entries []entry
}

type entry struct {
	pos   // the key's
	key   string
	value *node
	model bool // the value is a mapping with an anchor, to be referred to
}

// get returns the value of a key, nil if it is missing or null.
func (n *node) get(key string) *node {
	for _, e := range n.entries {
		if e.key == key && e.value.kind != null {
			return e.value
		}
	}
	return nil
}

// parseYAML reads the one document of data. Its errors never show what stands in
// the file: the library's would, with whole lines, and secrets in them.
func parseYAML(data []byte) (root *node, problem *Error) {
	defer func() {
		// The parser is not ours, and the file may be anything.
		if recover() != nil {
			root, problem = nil, &Error{Msg: "is not YAML that can be read"}
		}
	}()
	if len(data) > maxFile {
		return nil, &Error{Msg: fmt.Sprintf("has more than %d bytes: is this a configuration file?", maxFile)}
	}
	if p := tooDeep(data); p != nil {
		return nil, p
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // of Windows editors
	f, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	c := converter{anchors: map[string]ast.Node{}}
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			return nil, &Error{Line: placeOf(doc.Body).line, Msg: "a second document begins here: a configuration file has one"}
		}
		if root, problem = c.convert(doc.Body, 0); problem != nil {
			return nil, problem
		}
	}
	if root == nil {
		root = &node{pos: pos{1, 1}}
	}
	return root, nil
}

// tooDeep keeps brackets in masses from a parser that recurses.
func tooDeep(data []byte) *Error {
	depth, line := 0, 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
		case '[', '{':
			if depth++; depth > 500 { // some may stand in texts
				return &Error{Line: line, Msg: "is nested too deeply"}
			}
		case ']', '}':
			depth--
		}
	}
	return nil
}

var quoted = regexp.MustCompile(`["'].*["']`)

func syntaxError(err error) *Error {
	p := &Error{Msg: "is not valid YAML"}
	var lib yaml.Error
	if errors.As(err, &lib) {
		p.Msg += ": " + quoted.ReplaceAllString(strings.Split(lib.GetMessage(), "\n")[0], "…")
		if t := lib.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = t.Position.Line, t.Position.Column
		}
	}
	return p
}

func placeOf(n ast.Node) pos { return tokenPlace(n.GetToken()) }

func tokenPlace(t *token.Token) pos {
	if t == nil || t.Position == nil {
		return pos{1, 1}
	}
	return pos{t.Position.Line, t.Position.Column}
}

// converter resolves anchors and merge keys, which configuration files use to say
// things once.
type converter struct {
	anchors map[string]ast.Node
	nodes   int
}

func (c *converter) convert(n ast.Node, depth int) (*node, *Error) {
	at := placeOf(n)
	if c.nodes++; c.nodes > maxNodes || depth > maxDepth {
		return nil, &Error{Line: at.line, Column: at.column, Msg: "is nested too deeply, or too large"}
	}
	out := &node{pos: at}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		out.kind, out.text = scalar, n.Value
		out.plain = n.Token.Type == token.StringType
	case *ast.LiteralNode:
		out.kind, out.text = scalar, n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text, out.plain = scalar, n.GetToken().Value, true
	case *ast.TagNode:
		return c.convert(n.Value, depth+1)
	case *ast.AnchorNode:
		c.anchors[n.Name.GetToken().Value] = n.Value
		return c.convert(n.Value, depth+1)
	case *ast.AliasNode:
		target, ok := c.anchors[n.Value.GetToken().Value]
		if !ok {
			return nil, &Error{Line: at.line, Column: at.column, Msg: "refers to an anchor (&NAME) that there is not above"}
		}
		return c.convert(target, depth+1)
	case *ast.SequenceNode:
		out.kind = list
		for _, v := range n.Values {
			item, p := c.convert(v, depth+1)
			if p != nil {
				return nil, p
			}
			out.items = append(out.items, item)
		}
	case *ast.MappingNode:
		return c.mapping(out, n.Values, depth)
	case *ast.MappingValueNode:
		return c.mapping(out, []*ast.MappingValueNode{n}, depth)
	default:
		return nil, &Error{Line: at.line, Column: at.column, Msg: "is YAML that means nothing here"}
	}
	return out, nil
}

func (c *converter) mapping(out *node, values []*ast.MappingValueNode, depth int) (*node, *Error) {
	out.kind = mapping
	var merged []entry
	first := map[string]pos{}
	for _, mv := range values {
		at := placeOf(mv.Key)
		if len(out.entries) == 0 {
			out.pos = at
		}
		v, p := c.convert(mv.Value, depth+1)
		if p != nil {
			return nil, p
		}
		if _, ok := mv.Key.(*ast.MergeKeyNode); ok {
			merged = append(merged, v.entries...)
			for _, item := range v.items {
				merged = append(merged, item.entries...)
			}
			continue
		}
		name, ok := mv.Key.(ast.ScalarNode)
		if !ok {
			return nil, &Error{Line: at.line, Column: at.column, Msg: "a key must be a name"}
		}
		_, anchor := mv.Value.(*ast.AnchorNode)
		e := entry{at, name.GetToken().Value, v, anchor && v.kind == mapping}
		if old, ok := first[e.key]; ok {
			return nil, &Error{Line: at.line, Column: at.column, Msg: fmt.Sprintf("%s is given twice, first in line %d", showKey(e.key), old.line)}
		}
		first[e.key] = at
		out.entries = append(out.entries, e)
	}
	for _, m := range merged { // what stands in the mapping itself wins
		if _, ok := first[m.key]; !ok {
			first[m.key] = m.pos
			out.entries = append(out.entries, m)
		}
	}
	return out, nil
}

var plainKey = regexp.MustCompile(`^[a-zA-Z][a-zA-Z_-]{0,31}$`)

// showKey is a key for messages. Where a colon or a line break is missing, a
// secret may stand where a key is expected; keys that look like ours are shown.
func showKey(key string) string {
	if !plainKey.MatchString(key) {
		return "a key that is no name"
	}
	return key
}
