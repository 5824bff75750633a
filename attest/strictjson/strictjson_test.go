package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func limits() Limits {
	return Limits{Size: 200, Depth: 3, Key: func(key string) bool { return key != "bad" }}
}

func TestAccepts(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		`1`, `"x"`, `null`, `{}`, `[]`, ` {"a": 1} `, `[[[1]]]`, `{"a":{"b":{"c":1e999}}}`, `{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}]}`, `{"v":"ſ"}`,
		`["` + strings.Repeat("x", 196) + `"]`,
	} {
		if err := Check([]byte(raw), limits()); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for raw, duplicate := range map[string]bool{
		"":                                     false,
		`{`:                                    false,
		`{"a":1`:                               false,
		`{"a"`:                                 false,
		`{"a":}`:                               false,
		`[1,]`:                                 false,
		`1 2`:                                  false,
		`{} {}`:                                false,
		`{}x`:                                  false,
		`[1`:                                   false,
		`{"a":1,}`:                             false,
		`[[[[1]]]]`:                            false,
		`{"a":[{"b":[]}]}`:                     false,
		`{"bad":1}`:                            false,
		`{"a":{"bad":1}}`:                      false,
		`{"ſ":1}`:                              false,
		"{\"\x7f\":1}":                         false,
		`{"\u0001":1}`:                         false,
		"{\"\xff\":1}":                         false,
		`{"a":1,"a":1}`:                        true,
		`{"a":1,"A":1}`:                        true,
		`{"a":1,"\u0041":1}`:                   true,
		`{"x":[{"a":1,"b":2,"a":3}]}`:          true,
		`{"":1,"":2}`:                          true,
		`["` + strings.Repeat("x", 197) + `"]`: false,
	} {
		err := Check([]byte(raw), limits())
		if err == nil || errors.Is(err, ErrDuplicate) != duplicate {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// Whatever passes, encoding/json reads, and reads alike whether it takes the first or the last of two keys.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `{"a":1,"A":2}`, `[[1]]`, `{"a":1} `, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if Check(raw, limits()) != nil {
			return
		}
		var v any
		if !json.Valid(raw) || len(raw) > 200 {
			t.Fatalf("accepted %q", raw)
		}
		if err := json.Unmarshal(raw, &v); err != nil && !strings.Contains(err.Error(), "number") {
			t.Fatal(err)
		}
		depth(t, v, 0)
	})
}

func depth(t *testing.T, v any, d int) {
	switch v := v.(type) {
	case map[string]any:
		d++
		for _, e := range v {
			depth(t, e, d)
		}
	case []any:
		d++
		for _, e := range v {
			depth(t, e, d)
		}
	}
	if d > 3 {
		t.Fatal("too deep")
	}
}
