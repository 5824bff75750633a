package strictyaml_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
)

func TestStream(t *testing.T) {
	docs, err := strictyaml.Stream("f", []byte("---\na: 1\n---\n---\n# nothing\n---\n\nb:\n- x\n- {c: off, d: \"1\", e: 1.5, f: true, g: null, h: 2026-01-02}\n"))
	if err != nil || len(docs) != 2 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	for i, want := range []string{
		"\n{\"a\":1}",
		strings.Repeat("\n", 7) + "{\"b\":\n[\"x\",\n{\"c\":\"off\",\"d\":\"1\",\"e\":1.5,\"f\":true,\"g\":null,\"h\":\"2026-01-02\"}]}",
	} {
		got, err := docs[i].JSON()
		if err != nil || string(got) != want {
			t.Errorf("document %d: %q, %v, want %q", i, got, err, want)
		}
	}
}

func TestStreamRefuses(t *testing.T) {
	for _, c := range []struct{ text, where string }{
		{"a: [1", "f:"},
		{"---\na: 1\n---\nb: 1\nb: 2\n", "f:5:1"},
		{"a: &x 1\nb: *x\n", "f:1:4"},
		{"a: !!str 1\n", "f:1:4"},
		{strings.Repeat("[", 70) + strings.Repeat("]", 70), "f:1:"},
		{strings.Repeat("--- 1\n", 10_001), "f:10001:"},
	} {
		_, err := strictyaml.Stream("f", []byte(c.text))
		var coded *attest.Error
		if !asError(err, &coded) || coded.Code != attest.CodeConfigSyntax || !strings.HasPrefix(coded.Subject, c.where) {
			t.Errorf("%.40q: %v", c.text, err)
		}
	}
	if _, err := strictyaml.Stream("f", make([]byte, strictyaml.MaxStream+1)); attest.CodeOf(err) != attest.CodeConfigSyntax {
		t.Error(err)
	}
}

func TestJSONRefusesOtherSpellings(t *testing.T) {
	for _, s := range []string{"0x10", "0o7", "1_000", ".inf", ".nan", "+1", "1.", "010"} {
		docs, err := strictyaml.Stream("f", []byte("a:\n  b: "+s+"\n"))
		if err != nil {
			t.Fatal(s, err)
		}
		got, err := docs[0].JSON()
		if err == nil && string(got) == fmt.Sprintf("{\"a\":\n{\"b\":%q}}", s) {
			continue // text for YAML, too
		}
		var coded *attest.Error
		if !asError(err, &coded) || coded.Subject != "f:2:6" {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	if _, err := (strictyaml.Node{}).JSON(); err == nil {
		t.Error("JSON of nothing")
	}
}

func asError(err error, to **attest.Error) (ok bool) {
	*to, ok = err.(*attest.Error)
	return ok
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("---\na: {b: [1, 2]}\n---\nc: off\n"))
	f.Add([]byte("a: |\n  x\n  y\nb: 'it''s'\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		docs, err := strictyaml.Stream("f", raw)
		if err != nil {
			return
		}
		for _, d := range docs {
			out, err := d.JSON()
			if err != nil {
				continue
			}
			if !json.Valid(out) {
				t.Fatalf("%q became %q", raw, out)
			}
		}
	})
}
