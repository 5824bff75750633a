package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../.."

func read(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What is committed is what the types say.
func TestUpToDate(t *testing.T) {
	var dirs []string
	for _, d := range []string{"cmd/jurat", "xds/guard", "proxy/chain", "proxy/config", "proxy/route", "proxy/upstream"} {
		dirs = append(dirs, filepath.Join(root, d))
	}
	out, err := comments(dirs)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, read(t, "cmd/jurat/comments_gen.go")) {
		t.Error("cmd/jurat/comments_gen.go is not what the types say: make generate")
	}
	page := read(t, "docs/config.md")
	if out, err = reference(read(t, "docs/config.schema.json"), page); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, page) {
		t.Error("docs/config.md is not what the schema says: make generate")
	}
}

func TestComments(t *testing.T) {
	dir := t.TempDir()
	source := `package a

// Thing is what has a Size. This is for readers of Go.
type Thing struct {
	// Size in bytes; see Sizes.
	Size int ` + "`yaml:\"size_in_bytes\"`" + `
	Other string ` + "`yaml:\"other,required\"`" + ` // beside Size, default none
	hidden int // not read
	Not string ` + "`yaml:\"-\"`" + ` // nor this
}

// Plain is none of ours.
type Plain struct{ A int }
`
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a_test.go"), []byte("package a_test\n\n// T is of a test.\ntype T struct {\n\tA int `yaml:\"a\"`\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := comments([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(out), "string{\n")
	want := `	"a.Thing":       "What has a size_in_bytes.",
	"a.Thing.Other": "beside size_in_bytes, default none",
	"a.Thing.Size":  "size_in_bytes in bytes; see Sizes.",
}
`
	if table != want {
		t.Errorf("got %s", table)
	}
}

func TestReference(t *testing.T) {
	schema := `{"properties": {
		"a": {"description": "one | two, default 5 s", "type": "string", "pattern": "x"},
		"b": {"description": "default *", "$ref": "#/$defs/p.B"},
		"c": {"type": "array", "items": {"$ref": "#/$defs/p.B"}},
		"d": {"anyOf": [{"anyOf": [{"type": "string", "pattern": "x"}, {"enum": [0, "0"]}]}, {"const": "never"}]},
		"e": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"enum": ["off", false]}]},
		"f": {"type": "object", "additionalProperties": {"type": "string"}},
		"g": {"$ref": "#/$defs/p.G"}},
		"required": ["c"],
		"$defs": {"p.B": {"description": "A thing.", "properties": {"x": {"type": "array", "items": {"type": ["string", "number"]}}, "y": {"enum": ["v", "w"]}, "z": {"type": "boolean"}}}, "p.G": {"description": "G.", "additionalProperties": false, "properties": {"g": {"$ref": "#/$defs/p.H"}}}, "p.H": {"description": "H."}}}`
	page := "before\n" + begin + "old\n" + finish + "after\n"
	out, err := reference([]byte(schema), []byte(page))
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + begin + `
| key | value | default | |
|---|---|---|---|
| ` + "`a`" + ` | time | 5 s | one \| two |
| ` + "`b`" + ` | [map](#b-c) | \* |  |
| ` + "`c`" + ` | [list](#b-c) | required |  |
| ` + "`d`" + ` | time or 0 or ` + "`never`" + ` |  |  |
| ` + "`e`" + ` | 1 to 65535 or ` + "`off`" + ` |  |  |
| ` + "`f`" + ` | map of texts |  |  |
| ` + "`g`" + ` | [map](#g) |  |  |

### ` + "`b`, `c`" + `

A thing. (` + "`b`" + `)

| key | value | default | |
|---|---|---|---|
| ` + "`x`" + ` | list of texts |  |  |
| ` + "`y`" + ` | ` + "`v`, `w`" + ` |  |  |
| ` + "`z`" + ` | ` + "`true`" + ` |  |  |

### ` + "`g`" + `

G. (` + "`g`" + `)

| key | value | default | |
|---|---|---|---|
| ` + "`g`" + ` | [map](#g-1) |  |  |

### ` + "`g`" + `

H. (` + "`g.g`" + `)

| key | value | default | |
|---|---|---|---|

` + finish + "after\n"
	if string(out) != want {
		t.Errorf("got %s", out)
	}
	again, err := reference([]byte(schema), out)
	if err != nil || !bytes.Equal(again, out) {
		t.Errorf("the second time: %v, %s", err, again)
	}
	if _, err := reference([]byte(schema), []byte("no place")); err == nil {
		t.Error("a page without a place for the tables")
	}
}
