package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/jurat-tls/jurat/attest"
)

// What Stream reads at most.
const (
	MaxStream    = 16 << 20 // bytes
	maxDocuments = 10_000
	streamDepth  = 64 // levels: messages of Envoy's API nest deeper than our own files
)

// Stream reads a file of any number of documents, with three dashes between them. Empty ones are left out. file is what
// errors call it.
func Stream(file string, raw []byte) ([]Node, error) {
	if len(raw) > MaxStream {
		return nil, &attest.Error{Code: attest.CodeConfigSyntax, Check: "config", Subject: file, Got: fmt.Sprintf("%d bytes", len(raw)), Want: fmt.Sprintf("at most %d", MaxStream)}
	}
	var all []Node
	for dec := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, syntax(file, err)
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
			continue
		}
		n := Node{file: file, n: doc.Content[0]}
		if n.n.Kind == yaml.ScalarNode && n.n.Tag == "!!null" && n.n.Value == "" {
			continue
		}
		if err := n.check(0, streamDepth); err != nil {
			return nil, err
		}
		if all = append(all, n); len(all) > maxDocuments {
			return nil, n.errorf(attest.CodeConfigSyntax, "one more document", fmt.Sprintf("at most %d", maxDocuments))
		}
	}
}

var (
	integerText = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	floatText   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// JSON is the value as JSON, for whoever reads that. What stands in line n of the file stands in line n of it, too, so that
// errors with a line are about the file. true, false, null, and numbers in decimal are what they are there unless they
// are quoted; numbers that are spelt in another way are an error.
func (v Node) JSON() ([]byte, error) {
	if v.n == nil {
		return nil, v.missing()
	}
	w := jsonWriter{line: 1}
	err := w.value(v)
	return w.out.Bytes(), err
}

type jsonWriter struct {
	out  bytes.Buffer
	line int
}

// to goes down to the line of n.
func (w *jsonWriter) to(n *yaml.Node) {
	for w.line < n.Line {
		w.out.WriteByte('\n')
		w.line++
	}
}

func (w *jsonWriter) text(s string) error {
	raw, err := json.Marshal(s) // which leaves no line break as it is
	w.out.Write(raw)
	return err
}

func (w *jsonWriter) value(v Node) error {
	w.to(v.n)
	switch v.n.Kind {
	case yaml.MappingNode:
		w.out.WriteByte('{')
		for i := 0; i < len(v.n.Content); i += 2 {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.to(v.n.Content[i])
			if err := w.text(v.n.Content[i].Value); err != nil {
				return err
			}
			w.out.WriteByte(':')
			if err := w.value(Node{v.file, v.n.Content[i+1], join(v.path, v.n.Content[i].Value)}); err != nil {
				return err
			}
		}
		w.out.WriteByte('}')
	case yaml.SequenceNode:
		w.out.WriteByte('[')
		for i, c := range v.n.Content {
			if i > 0 {
				w.out.WriteByte(',')
			}
			if err := w.value(Node{v.file, c, v.path}); err != nil {
				return err
			}
		}
		w.out.WriteByte(']')
	default:
		return w.scalar(v)
	}
	return nil
}

func (w *jsonWriter) scalar(v Node) error {
	s := v.n.Value
	switch v.n.Tag {
	case "!!null":
		s = "null"
	case "!!bool":
		s = strings.ToLower(s)
	case "!!int":
		if !integerText.MatchString(s) {
			return v.Error(fmt.Sprintf("%.60q", s), "a number in decimal, or a text in quotes")
		}
	case "!!float":
		if !floatText.MatchString(s) {
			return v.Error(fmt.Sprintf("%.60q", s), "a number in decimal, or a text in quotes")
		}
	default:
		return w.text(s)
	}
	w.out.WriteString(s)
	return nil
}
