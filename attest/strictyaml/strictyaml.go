// Package strictyaml reads configuration that security depends on. What it accepts has one meaning: no duplicate keys, no
// aliases, no tags, no second document, and no scalar that changes its type by how it is spelt. Everything else is an
// error that names file, line and column. It is the only place that knows the YAML library.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/jurat-tls/jurat/attest"
)

// MaxSize bounds a document in bytes; maxDepth its nesting.
const (
	MaxSize  = 1 << 20
	maxDepth = 16
)

// Node is one value of a document, with its position. The accessors answer an *attest.Error when the value is of another
// kind. The zero Node is an absent value: every accessor refuses it.
type Node struct {
	file string
	n    *yaml.Node
	path string
}

// Parse reads one document. file is what errors call it.
func Parse(file string, raw []byte) (Node, error) {
	root := Node{file: file}
	if len(raw) > MaxSize {
		return root, &attest.Error{Code: attest.CodeConfigSyntax, Check: "config", Subject: file, Got: fmt.Sprintf("%d bytes", len(raw)), Want: fmt.Sprintf("at most %d", MaxSize)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) || err == nil && (doc.Kind != yaml.DocumentNode || len(doc.Content) != 1) {
		return root, &attest.Error{Code: attest.CodeConfigMissing, Check: "config", Subject: file, Got: "an empty file"}
	} else if err != nil {
		return root, syntax(file, err)
	}
	root.n = doc.Content[0]
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return root, &attest.Error{Code: attest.CodeConfigSyntax, Check: "config", Subject: file, Got: "a second document", Want: "one"}
	} else if !errors.Is(err, io.EOF) {
		return root, syntax(file, err)
	}
	return root, root.check(0, maxDepth)
}

var lineOf = regexp.MustCompile(`line (\d+):? ?`)

func syntax(file string, err error) error {
	subject := file
	if m := lineOf.FindStringSubmatch(err.Error()); m != nil {
		subject += ":" + m[1]
	}
	text := lineOf.ReplaceAllString(strings.TrimPrefix(strings.SplitN(err.Error(), "\n", 2)[0], "yaml: "), "")
	return &attest.Error{Code: attest.CodeConfigSyntax, Check: "config", Subject: subject, Err: errors.New(text)}
}

// check refuses, everywhere in the tree, what has more than one meaning.
func (v Node) check(depth, most int) error {
	switch {
	case depth > most:
		return v.errorf(attest.CodeConfigSyntax, "nested too deeply", fmt.Sprintf("at most %d levels", most))
	case v.n.Kind == yaml.AliasNode || v.n.Anchor != "":
		return v.errorf(attest.CodeConfigSyntax, "an anchor or alias", "the value itself")
	case v.n.Style&yaml.TaggedStyle != 0:
		return v.errorf(attest.CodeConfigSyntax, fmt.Sprintf("the tag %.40q", v.n.Tag), "no tag")
	}
	if v.n.Kind == yaml.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(v.n.Content); i += 2 {
			k := Node{v.file, v.n.Content[i], v.path}
			if k.n.Kind != yaml.ScalarNode || k.n.Value == "<<" && k.n.Style == 0 {
				return k.errorf(attest.CodeConfigSyntax, "a key that is not plain text", "a word")
			}
			if seen[k.n.Value] {
				return k.errorf(attest.CodeConfigSyntax, fmt.Sprintf("the key %.60q twice", k.n.Value), "once")
			}
			seen[k.n.Value] = true
		}
	}
	for _, c := range v.n.Content {
		if err := (Node{v.file, c, v.path}).check(depth+1, most); err != nil {
			return err
		}
	}
	return nil
}

func (v Node) errorf(code attest.Code, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: "config", Subject: v.Position(), Got: got, Want: want}
}

// Error makes an error about v: the value is understood and not allowed.
func (v Node) Error(got, want string) error {
	return v.errorf(attest.CodeConfigValue, v.named(got), want)
}

func (v Node) named(got string) string {
	if v.path == "" {
		return got
	}
	return v.path + ": " + got
}

// Position is "file:line:column".
func (v Node) Position() string {
	if v.n == nil {
		return v.file
	}
	return fmt.Sprintf("%s:%d:%d", v.file, v.n.Line, v.n.Column)
}

// Line is the line in the file, from 1; 0 for an absent value.
func (v Node) Line() int {
	if v.n == nil {
		return 0
	}
	return v.n.Line
}

// Present reports whether there is a value.
func (v Node) Present() bool { return v.n != nil }

// IsText, IsMap and IsList report the kind of value.
func (v Node) IsText() bool { return v.n != nil && v.n.Kind == yaml.ScalarNode }

// IsMap reports whether v is a map.
func (v Node) IsMap() bool { return v.n != nil && v.n.Kind == yaml.MappingNode }

// Map is a map whose keys are all known.
type Map struct {
	node   Node
	values map[string]Node
}

// Map answers v's keys, all of which have to be among known.
func (v Node) Map(known ...string) (Map, error) {
	m := Map{node: v, values: map[string]Node{}}
	if v.n == nil {
		return m, v.missing()
	}
	if v.n.Kind != yaml.MappingNode {
		return m, v.Error(v.kind(), "a map")
	}
	for i := 0; i < len(v.n.Content); i += 2 {
		k := Node{v.file, v.n.Content[i], v.path}
		name := k.n.Value
		if !slices.Contains(known, name) {
			err := k.errorf(attest.CodeConfigUnknownKey, fmt.Sprintf("%.60q", name), "one of "+strings.Join(known, ", "))
			if near := nearest(name, known); near != "" {
				err.Hint = fmt.Sprintf("did you mean %q?", near)
			}
			return m, err
		}
		m.values[name] = Node{v.file, v.n.Content[i+1], join(v.path, name)}
	}
	return m, nil
}

// Entries answers a map whose keys are the writer's own, in order.
func (v Node) Entries() (keys []string, values []Node, err error) {
	if v.n == nil {
		return nil, nil, v.missing()
	}
	if v.n.Kind != yaml.MappingNode {
		return nil, nil, v.Error(v.kind(), "a map")
	}
	for i := 0; i < len(v.n.Content); i += 2 {
		name := v.n.Content[i].Value
		keys = append(keys, name)
		values = append(values, Node{v.file, v.n.Content[i+1], join(v.path, name)})
	}
	return keys, values, nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Get answers the value of a key: an absent Node when there is none.
func (m Map) Get(key string) Node {
	if v, ok := m.values[key]; ok {
		return v
	}
	return Node{file: m.node.file, path: join(m.node.path, key)}
}

// Require answers the value of a key that has to be there.
func (m Map) Require(key string) (Node, error) {
	v := m.Get(key)
	if v.n == nil {
		return v, m.node.errorf(attest.CodeConfigMissing, "", v.path)
	}
	return v, nil
}

func (v Node) missing() error { return v.errorf(attest.CodeConfigMissing, "", v.path) }

func (v Node) kind() string {
	switch v.n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%.60q", v.n.Value)
	}
}

// List answers the elements of a list.
func (v Node) List() ([]Node, error) {
	if v.n == nil {
		return nil, v.missing()
	}
	if v.n.Kind != yaml.SequenceNode {
		return nil, v.Error(v.kind(), "a list")
	}
	out := make([]Node, len(v.n.Content))
	for i, c := range v.n.Content {
		out[i] = Node{v.file, c, v.path}
	}
	return out, nil
}

// Text answers a scalar as it is written: "off", "23" and "1.0" stay what they look like.
func (v Node) Text() (string, error) {
	if v.n == nil {
		return "", v.missing()
	}
	if v.n.Kind != yaml.ScalarNode {
		return "", v.Error(v.kind(), "text")
	}
	if v.n.Value == "" || v.n.Tag == "!!null" {
		return "", v.Error("nothing", "text")
	}
	return v.n.Value, nil
}

// OneOf answers a text that has to be among the choices.
func (v Node) OneOf(choices ...string) (string, error) {
	s, err := v.Text()
	if err != nil {
		return "", err
	}
	if slices.Contains(choices, s) {
		return s, nil
	}
	e := v.errorf(attest.CodeConfigValue, v.named(fmt.Sprintf("%.60q", s)), "one of "+strings.Join(choices, ", "))
	if near := nearest(s, choices); near != "" {
		e.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	return "", e
}

// Bool answers true or false; no other word counts.
func (v Node) Bool() (bool, error) {
	s, err := v.OneOf("true", "false")
	return s == "true", err
}

// Uint answers a whole number in decimal.
func (v Node) Uint(max uint64) (uint64, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > max || s != strconv.FormatUint(n, 10) {
		return 0, v.Error(fmt.Sprintf("%.60q", s), fmt.Sprintf("a whole number from 0 to %d", max))
	}
	return n, nil
}

const aDuration = "a length of time such as 10m, 24h or 30d"

// Duration answers a length of time such as 10m, 24h or 30d, above zero.
func (v Node) Duration() (time.Duration, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	d, err := parseDuration(s)
	if err != nil || d <= 0 {
		return 0, v.Error(fmt.Sprintf("%.60q", s), aDuration)
	}
	return d, nil
}

// parseDuration reads what time.ParseDuration does, and days.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// Date answers a day such as 2027-01-01, at midnight UTC.
func (v Node) Date() (time.Time, error) {
	s, err := v.Text()
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, v.Error(fmt.Sprintf("%.60q", s), "a date such as 2027-01-01")
	}
	return t, nil
}

// Suggest adds to an error the known word that a slip of the pen may have meant; err stays as it is when none is near.
func Suggest(err error, word string, known []string) error {
	var coded *attest.Error
	near := nearest(word, known)
	if near == "" || !errors.As(err, &coded) {
		return err
	}
	out := *coded
	out.Hint = fmt.Sprintf("did you mean %q?", near)
	return &out
}

// Slip finds the known word that word is almost certainly meant to be, where other words are allowed too: one letter off,
// or two in a word of five or more. It is empty for a known word, and where there is none.
func Slip(word string, known []string) string {
	if slices.Contains(known, word) || len(word) < 3 {
		return ""
	}
	for _, k := range known {
		if d := edits(word, k); d == 1 || d == 2 && len(word) >= 5 {
			return k
		}
	}
	return ""
}

// nearest finds the known word that a slip of the pen may have meant.
func nearest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(word), strings.ToLower(k)); d < distance && d < max(len(k), 2) {
			best, distance = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
