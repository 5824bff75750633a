package envoy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Document is a resource out of a file.
type Document struct {
	resource.Resource
	Position string // "file:line:column" of its first key
	Line     int
}

// Load reads a file of resources: YAML (or JSON, which is YAML) of any number of documents, each of them one resource with
// its type as "@type", or a map whose only key "resources" has a list of such. What is written is read as protobuf's mapping
// of JSON has it, with names in snake_case or camelCase. An *attest.Error names file and line.
//
// The resources are well-formed and have names; what they mean is for Translate to say.
func Load(file string, raw []byte) ([]Document, error) {
	docs, err := strictyaml.Stream(file, raw)
	if err != nil {
		return nil, err
	}
	var all []Document
	known := types()
	for _, n := range docs {
		list := []strictyaml.Node{n}
		if keys, values, err := n.Entries(); err == nil && len(keys) == 1 && keys[0] == "resources" {
			if list, err = values[0].List(); err != nil {
				return nil, err
			}
		}
		for _, n := range list {
			d, err := fromNode(n, known)
			if err != nil {
				return nil, err
			}
			all = append(all, d)
		}
	}
	return all, nil
}

// FromNode reads one resource, with its type as "@type", out of a document that has other things, too.
func FromNode(n strictyaml.Node) (Document, error) { return fromNode(n, types()) }

func fromNode(n strictyaml.Node, known *protoregistry.Types) (Document, error) {
	d := Document{Position: n.Position(), Line: n.Line()}
	keys, values, err := n.Entries()
	if err != nil {
		return d, err
	}
	for i, k := range keys {
		if k == "@type" {
			if d.Type, err = values[i].Text(); err != nil {
				return d, err
			}
			if !isResource(d.Type) {
				return d, values[i].Error(quote(d.Type), "the type of a resource, such as "+resource.Cluster)
			}
		}
	}
	if d.Type == "" {
		return d, &attest.Error{Code: attest.CodeConfigMissing, Check: check, Subject: d.Position, Want: `"@type", the type of a resource`}
	}
	text, err := n.JSON()
	if err != nil {
		return d, err
	}
	mt, err := known.FindMessageByURL(d.Type)
	if err != nil {
		return d, err // every type of a resource is known
	}
	m := mt.New().Interface()
	// The key "@type" is not one of the message's: it is read as an Any, which is what has that key.
	wrapped, err := anyOf(text, known)
	if err == nil {
		err = proto.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(wrapped, m)
	}
	if err == nil {
		d.Body, err = proto.MarshalOptions{Deterministic: true}.Marshal(m)
	}
	if err != nil {
		return d, located(d.Position, err)
	}
	if d.Name, err = resource.NameOf(d.Body); err != nil {
		return d, &attest.Error{Code: attest.CodeConfigMissing, Check: check, Subject: d.Position, Want: "a name", Err: err}
	}
	return d, nil
}

var lineOf = regexp.MustCompile(`\(line (\d+):(\d+)\):? ?`)

// located puts the line of an error of protojson, which is the file's, in its place.
func located(position string, err error) error {
	text := strings.Map(func(r rune) rune {
		if r == '\u00a0' { // which it puts in at random, so that nobody compares its texts
			return ' '
		}
		return r
	}, err.Error())
	text = strings.TrimPrefix(text, "proto: ")
	code := attest.CodeConfigValue
	if strings.Contains(text, "unknown field") {
		code = attest.CodeConfigUnknownKey
	}
	if m := lineOf.FindStringSubmatch(text); m != nil {
		file := position
		for range 2 { // its own line and column
			file = file[:max(strings.LastIndexByte(file, ':'), 0)]
		}
		position = file + ":" + m[1]
		text = strings.TrimSpace(lineOf.ReplaceAllString(text, ""))
	}
	return &attest.Error{Code: code, Check: check, Subject: position, Err: errors.New(cut(text))}
}

func cut(s string) string { return fmt.Sprintf("%.300s", s) }

// Text answers the resource as JSON, for people to read; an error where it is not well-formed.
func Text(r resource.Resource) ([]byte, error) {
	known := types()
	mt, err := known.FindMessageByURL(r.Type)
	if err != nil || !isResource(r.Type) {
		return nil, bad("", "the type "+quote(r.Type), "the type of a resource")
	}
	m := mt.New().Interface()
	if len(r.Body) > resource.MaxBody {
		return nil, bad("", strconv.Itoa(len(r.Body))+" bytes", fmt.Sprintf("at most %d", resource.MaxBody))
	}
	if err := (&translator{most: maxTotal}).scope(Key{r.Type, r.Name}).unmarshal(r.Body, m); err != nil {
		return nil, err
	}
	out, err := protojson.MarshalOptions{Resolver: known, UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, located(r.Name, err)
	}
	return out, nil
}
