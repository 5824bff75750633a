package strictyaml_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/test/yamltext"
)

// all has whatever can be decoded.
type all struct {
	Common `yaml:",inline"`

	Text    string            `yaml:"text"`
	Kind    string            `yaml:"kind,one=http|tcp"`
	Kinds   []string          `yaml:"kinds,one=http|tcp"`
	Flag    bool              `yaml:"flag"`
	Perhaps *bool             `yaml:"perhaps"`
	List    []string          `yaml:"list"`
	Deep    [][]int           `yaml:"deep"`
	Map     map[string]string `yaml:"map"`
	Structs map[string]Inner  `yaml:"structs"`
	Pointer *Inner            `yaml:"pointer"`
	Inner   Inner             `yaml:"inner"`
	Inners  []Inner           `yaml:"inners"`

	Int    int     `yaml:"int"`
	Int8   int8    `yaml:"int8,zero"`
	Int16  int16   `yaml:"int16,signed"`
	Int32  int32   `yaml:"int32,negative=unlimited"`
	Int64  int64   `yaml:"int64"`
	Uint   uint    `yaml:"uint"`
	Uint8  uint8   `yaml:"uint8,zero"`
	Uint16 uint16  `yaml:"uint16"`
	Uint32 uint32  `yaml:"uint32"`
	Uint64 uint64  `yaml:"uint64"`
	Big    uint64  `yaml:"big,zero"`
	Float  float64 `yaml:"float"`
	Small  float32 `yaml:"small,zero"`

	Time  time.Duration `yaml:"time"`
	Zero  time.Duration `yaml:"zero,zero"`
	Never time.Duration `yaml:"never,negative=never"`
	Some  time.Duration `yaml:"some,zero,negative=session"`

	NotRead string
	Nor     chan int `yaml:"-"`
}

// Common is inline.
type Common struct {
	Name   string `yaml:"name,required"`
	Number uint8  `yaml:"number,required,zero"`
}

// Inner is a struct within another.
type Inner struct {
	A string `yaml:"a"`
	B int    `yaml:"b"`
}

func decode(t *testing.T, text string, out any) error {
	t.Helper()
	root, err := strictyaml.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return strictyaml.Decode(root, out)
}

func TestDecode(t *testing.T) {
	yes := true
	for text, want := range map[string]all{
		"{}": {},
		"{text: off, kind: tcp, kinds: [http, tcp], flag: true, perhaps: true}": {
			Text: "off", Kind: "tcp", Kinds: []string{"http", "tcp"}, Flag: true, Perhaps: &yes,
		},
		"{list: [a, 1.0], deep: [[1], [], [2, 3]], map: {x.y: z}}": {
			List: []string{"a", "1.0"}, Deep: [][]int{{1}, {}, {2, 3}}, Map: map[string]string{"x.y": "z"},
		},
		"{list: [], map: {}, pointer: {}}": {List: []string{}, Map: map[string]string{}, Pointer: &Inner{}},
		"{structs: {p: {a: x}}, pointer: {b: 2}, inner: {a: y}, inners: [{b: 1}, {}]}": {
			Structs: map[string]Inner{"p": {A: "x"}}, Pointer: &Inner{B: 2}, Inner: Inner{A: "y"}, Inners: []Inner{{B: 1}, {}},
		},
		"{int: 9223372036854775807, int8: 0, int16: -32768, int32: unlimited, int64: 1}": {Int: 1<<63 - 1, Int16: -32768, Int32: -1, Int64: 1},
		"{int16: 0, uint: 1, uint8: 0, uint16: 65535, uint64: 18446744073709551615}":     {Uint: 1, Uint16: 65535, Uint64: 1<<64 - 1},
		"{float: 0.25, small: 0, time: 1h30m, zero: 0, never: never, some: session}":     {Float: 0.25, Time: 90 * time.Minute, Never: -1, Some: -1},
		"{float: 3, small: 0.0, time: 30d, zero: 0s, never: 5s, some: 0}":                {Float: 3, Time: 720 * time.Hour, Never: 5 * time.Second},
	} {
		want.Name, want.Number, want.NotRead = "n", 0, "stays"
		got := all{NotRead: "stays"}
		if err := decode(t, strings.Replace(strings.Replace(text, "{", "{name: n, number: 0, ", 1), ", }", "}", 1), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]struct{ code, said, hint string }{
		"x: 1":                     {"J702", `f.yaml:3:1: `, ""},
		"texd: a":                  {"J702", `got "texd"`, `did you mean "text"?`},
		"inner: {c: 1}":            {"J702", `f.yaml:3:9: the file has an unknown key: got "c", want one of a, b`, `did you mean "a"?`},
		"inners: [{}, {b: x}]":     {"J703", `f.yaml:3:18: a value is not allowed: got inners[1].b: "x"`, ""},
		"structs: {p: {b: 0}}":     {"J703", `got structs.p.b: "0", want a whole number above 0`, "for the default leave the key out"},
		"inner: []":                {"J703", "want a map", ""},
		"pointer: ~":               {"J703", "want a map", ""},
		"list: {a: b}":             {"J703", "want a list", ""},
		"list: a":                  {"J703", "want a list", ""},
		"map: [a]":                 {"J703", "want a map", ""},
		"list: [a, [b]]":           {"J703", "list[1]: a list, want text", ""},
		`text: ""`:                 {"J703", "want text", ""},
		"text: ~":                  {"J703", "want text", ""},
		"kind: htpp":               {"J703", "one of http, tcp", `did you mean "http"?`},
		"kinds: [http, udp]":       {"J703", "kinds[1]", `did you mean "tcp"?`},
		"flag: yes":                {"J703", "one of true, false", ""},
		"perhaps: 1":               {"J703", "one of true, false", ""},
		"int: 0":                   {"J703", "above 0 (J703)", "for the default leave the key out"},
		"int: -1":                  {"J703", "above 0", ""},
		"int: 9223372036854775808": {"J703", "above 0", ""},
		"int: {}":                  {"J703", "got int: a map, want text", ""},
		"uint: []":                 {"J703", "got uint: a list, want text", ""},
		"float: []":                {"J703", "got float: a list, want text", ""},
		"time: {}":                 {"J703", "got time: a map, want text", ""},
		"uint8: 01":                {"J703", "from 0 to 255", ""},
		"uint8: 256":               {"J703", "from 0 to 255", ""},
		"big: -1":                  {"J703", "a whole number, 0 or above (J703)", ""},
		"int: 010":                 {"J703", "above 0", ""},
		"int: 1_0":                 {"J703", "above 0", ""},
		"int: unlimited":           {"J703", "above 0", ""},
		"int8: 128":                {"J703", "from 0 to 127", ""},
		"int8: -1":                 {"J703", "from 0 to 127", ""},
		"int8: -0":                 {"J703", "from 0 to 127", ""},
		"int16: 32768":             {"J703", "want a whole number (J703)", ""},
		"int32: -1":                {"J703", "above 0, or unlimited", ""},
		"int32: 0":                 {"J703", "above 0, or unlimited", "for the default leave the key out; otherwise say unlimited"},
		"uint16: 65536":            {"J703", "from 1 to 65535", ""},
		"uint16: 0":                {"J703", "from 1 to 65535", "for the default leave the key out"},
		"uint8: -1":                {"J703", "from 0 to 255", ""},
		"float: 0":                 {"J703", "a number above 0", "for the default leave the key out"},
		"float: -1":                {"J703", "a number above 0", ""},
		"float: 1e3":               {"J703", "a number above 0", ""},
		"float: 0x1":               {"J703", "a number above 0", ""},
		"float: .nan":              {"J703", "a number above 0", ""},
		"float: NaN":               {"J703", "a number above 0", ""},
		"float: inf":               {"J703", "a number above 0", ""},
		"float: 1.":                {"J703", "a number above 0", ""},
		"float: .5":                {"J703", "a number above 0", ""},
		"float: 1.-5":              {"J703", "a number above 0", ""},
		"small: 99999999999999999999999999999999999999999": {"J703", "0 or above", ""},
		"time: 0":      {"J703", "a length of time", "for the default leave the key out"},
		"time: 0s":     {"J703", "a length of time", "for the default leave the key out"},
		"time: 30":     {"J703", "a length of time", ""},
		"time: -1s":    {"J703", "a length of time", ""},
		"time: never":  {"J703", "a length of time", ""},
		"never: 0s":    {"J703", "such as 10m, 24h or 30d, or never", "for the default leave the key out; otherwise say never"},
		"never: -1s":   {"J703", "or never", ""},
		"never: Never": {"J703", "or never", ""},
		"zero: -0s":    {"J703", "or 0", ""},
		"zero: never":  {"J703", "or 0", ""},
	} {
		got := all{Text: "before"}
		err := decode(t, "name: n\nnumber: 1\n"+text+"\n", &got)
		var coded *attest.Error
		if !errors.As(err, &coded) || string(coded.Code) != want.code || !strings.Contains(err.Error(), want.said) || coded.Hint != want.hint {
			t.Errorf("%s: got %v (%+v)", text, err, coded)
		}
		if coded != nil && !strings.HasPrefix(coded.Subject, "f.yaml:3:") {
			t.Errorf("%s: at %s", text, coded.Subject)
		}
		if !reflect.DeepEqual(got, all{}) {
			t.Errorf("%s: half of it stays: %+v", text, got)
		}
	}
	for text, want := range map[string]string{"name: n": "want number", "number: 1": "want name"} {
		if err := decode(t, text, new(all)); attest.CodeOf(err) != attest.CodeConfigMissing || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if err := strictyaml.Decode(strictyaml.Node{}, new(all)); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("nothing: got %v", err)
	}
}

// A type that can't be decoded into, or a tag that is not understood, is a mistake of the program, not of the file.
func TestDecodePanics(t *testing.T) {
	for name, out := range map[string]any{
		"no pointer": all{},
		"nil":        (*all)(nil),
		"interface": new(struct {
			A any `yaml:"a"`
		}),
		"option": new(struct {
			A int `yaml:"a,omitempty"`
		}),
		"no key": new(struct {
			A int `yaml:",zero"`
		}),
		"hidden": new(struct {
			A int `yaml:"a"`
			b int `yaml:"b"`
		}),
		"no choice": new(struct {
			A string `yaml:"a,one="`
		}),
		"no word": new(struct {
			A int `yaml:"a,negative="`
		}),
		"another word": new(struct {
			A int `yaml:"a,positive=x"`
		}),
		"twice": new(struct {
			A int `yaml:"a"`
			B int `yaml:"a"`
		}),
		"twice inline": new(struct {
			Inner `yaml:",inline"`
			B     int `yaml:"b"`
		}),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			_ = decode(t, "a: 1\n", out)
		}()
	}
}

func TestLocate(t *testing.T) {
	root, err := strictyaml.Parse("f.yaml", []byte("listen:\n  - a: 1\n  - a: {b.c: [x, y]}\n    z: 1\nlist: {b.c: 1, b: {c: 2, d: 3}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                       "f.yaml:1:1",
		"listen":                 "f.yaml:2:3",
		"listen[0].a":            "f.yaml:2:8",
		"listen[1].a":            "f.yaml:3:8",
		"listen[1].a.b.c":        "f.yaml:3:14",
		"listen[1].a.b.c[1]":     "f.yaml:3:18",
		"listen[1].a.b.c[2]":     "f.yaml:3:14 around",
		"listen[1].q":            "f.yaml:3:5 around",
		"listen[1].a.b":          "f.yaml:3:8 around",
		"listen[2].a":            "f.yaml:2:3 around",
		"listen[-1]":             "f.yaml:2:3 around",
		"listen[x]":              "f.yaml:2:3 around",
		"listen[0":               "f.yaml:2:5",
		"listen[0].a.b.c.d":      "f.yaml:2:8 around",
		"elsewhere":              "f.yaml:1:1 around",
		"..x":                    "f.yaml:1:1 around",
		"listx":                  "f.yaml:1:1 around",
		"list.b.c":               "f.yaml:5:13",
		"list.b.d":               "f.yaml:5:29",
		"list[0]":                "f.yaml:5:7 around",
		"listen.a":               "f.yaml:2:3 around",
		"listen[0]a":             "f.yaml:2:8",
		"listen[1].a.b.c[0][0]":  "f.yaml:3:15 around",
		"listen[1].a.b.c[0].x.y": "f.yaml:3:15 around",
	} {
		at, ok := root.At(path)
		got := at.Position()
		if !ok {
			got += " around"
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if _, ok := (strictyaml.Node{}).At(""); ok {
		t.Error("there is something in nothing")
	}
	plain := errors.New("another")
	located := root.Locate(errors.Join(
		&attest.Error{Code: attest.CodeConfigValue, Subject: "listen[1].z", Got: `"1"`, Want: "2"},
		&attest.Error{Code: attest.CodeConfigMissing, Subject: "listen[0].b", Want: "b"},
		&attest.Error{Code: attest.CodeConfigMissing, Subject: "listen[0].b", Got: "a", Want: "b"},
		&attest.Error{Code: attest.CodeConfigValue, Subject: "listen[0].b", Err: plain},
		plain))
	want := `f.yaml:4:8: a value is not allowed: got listen[1].z: "1", want 2 (J703)
f.yaml:2:5: a required value is missing: got listen[0].b: nothing, want b (J704)
f.yaml:2:5: a required value is missing: got listen[0].b: a, want b (J704)
f.yaml:2:5: a value is not allowed: another (J703)
another`
	if located.Error() != want || !errors.Is(located, plain) {
		t.Errorf("got %v", located)
	}
	if root.Locate(nil) != nil {
		t.Error("an error of nothing")
	}
}

// Whatever can be written is read as it was.
func TestDecodeWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var want, got all
		yamltext.Draw(rt, &want)
		text := yamltext.Write(want)
		root, err := strictyaml.Parse("f.yaml", []byte(text))
		if err == nil {
			err = strictyaml.Decode(root, &got)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			rt.Fatalf("%s: %v\ngot  %+v\nwant %+v", text, err, got, want)
		}
	})
}

func TestSchema(t *testing.T) {
	docs := func(name string) string {
		if strings.HasSuffix(name, ".A") {
			return ""
		}
		return "about " + name
	}
	raw := strictyaml.Schema[all]("everything", docs)
	var s struct {
		Schema     string `json:"$schema"`
		Title      string
		Properties map[string]json.RawMessage
		Required   []string
		Closed     *bool `json:"additionalProperties"`
		Defs       map[string]struct {
			Description string
			Properties  map[string]json.RawMessage
		} `json:"$defs"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if s.Schema != "https://json-schema.org/draft/2020-12/schema" || s.Title != "everything" || s.Closed == nil || *s.Closed || !reflect.DeepEqual(s.Required, []string{"name", "number"}) {
		t.Errorf("got %+v", s)
	}
	compact := func(raw json.RawMessage) string {
		var v any
		_ = json.Unmarshal(raw, &v)
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v)
		return strings.TrimSpace(b.String())
	}
	for key, want := range map[string]string{
		"name":   `{"description":"about strictyaml_test.Common.Name","minLength":1,"type":["string","number","boolean"]}`,
		"kind":   `{"description":"about strictyaml_test.all.Kind","enum":["http","tcp"]}`,
		"inners": `{"description":"about strictyaml_test.all.Inners","items":{"$ref":"#/$defs/strictyaml_test.Inner"},"type":"array"}`,
		"int16":  `{"description":"about strictyaml_test.all.Int16","maximum":32767,"type":"integer"}`,
		"int32":  `{"anyOf":[{"maximum":2147483647,"minimum":1,"type":"integer"},{"const":"unlimited"}],"description":"about strictyaml_test.all.Int32"}`,
	} {
		if got := compact(s.Properties[key]); got != want {
			t.Errorf("%s: got %s", key, got)
		}
	}
	const timed = `"pattern":"^([0-9]+d|\\+?(([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$","type":"string"`
	for key, want := range map[string]string{
		"int64": `"minimum":1,"type":"integer"}`, "uint64": `"minimum":1,"type":"integer"}`, "big": `"minimum":0,"type":"integer"}`, "uint8": `"maximum":255,"minimum":0,"type":"integer"}`,
		"float": `"exclusiveMinimum":0,"type":"number"}`, "small": `"minimum":0,"type":"number"}`,
		"time": timed + "}", "zero": `"anyOf":[{` + timed + `},{"enum":[0,"0","+0"]}],"description":"about strictyaml_test.all.Zero"}`,
		"some":    `"anyOf":[{"anyOf":[{` + timed + `},{"enum":[0,"0","+0"]}]},{"const":"session"}],"description":"about strictyaml_test.all.Some"}`,
		"structs": `"additionalProperties":{"$ref":"#/$defs/strictyaml_test.Inner"},"description":"about strictyaml_test.all.Structs","type":"object"}`,
	} {
		if got := compact(s.Properties[key]); !strings.HasSuffix(got, want) || strings.Contains(got, "maximum") != strings.Contains(want, "maximum") {
			t.Errorf("%s: got %s", key, got)
		}
	}
	if got := compact(s.Defs["strictyaml_test.Inner"].Properties["a"]); strings.Contains(got, "description") {
		t.Errorf("got %s", got)
	}
	if strings.Count(string(raw), `"strictyaml_test.Inner": {`) != 1 || strings.Count(string(raw), `"required"`) != 1 {
		t.Errorf("got %s", raw)
	}
	if d := s.Defs["strictyaml_test.Inner"]; d.Description != "about strictyaml_test.Inner" || len(d.Properties) != 2 || len(s.Defs) != 1 {
		t.Errorf("got %+v", s.Defs)
	}
	at := -1
	for _, key := range []string{`"name"`, `"number"`, `"text"`, `"int"`, `"some"`, `"$defs"`} {
		next := strings.Index(string(raw), "\n  "+key)
		if next < 0 {
			next = strings.Index(string(raw), "\n    "+key)
		}
		if next <= at {
			t.Errorf("%s is not in its place", key)
		}
		at = next
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("{name: n, number: 0, inners: [{a: b}], never: never, zero: 0, int32: unlimited}\n"))
	f.Add([]byte("name: n\nnumber: 1\nstructs: {p: {b: 0}}\nfloat: 0.5\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		root, err := strictyaml.Parse("f.yaml", raw)
		if err != nil {
			return
		}
		var v, again all
		if err := strictyaml.Decode(root, &v); err != nil {
			var coded *attest.Error
			if !errors.As(err, &coded) || coded.Code == attest.CodeInternal || !strings.HasPrefix(coded.Subject, "f.yaml:") {
				t.Fatalf("got %v", err)
			}
			if !reflect.DeepEqual(v, all{}) {
				t.Fatalf("half of it stays: %+v", v)
			}
			return
		}
		text := yamltext.Write(v)
		root, err = strictyaml.Parse("f.yaml", []byte(text))
		if err == nil {
			err = strictyaml.Decode(root, &again)
		}
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%q became %q: %v", raw, text, err)
		}
	})
}
