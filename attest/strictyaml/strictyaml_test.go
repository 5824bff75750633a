package strictyaml_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
)

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		code attest.Code
		at   string
	}{
		"empty":           {"", attest.CodeConfigMissing, "f.yaml"},
		"comment only":    {"# nothing\n", attest.CodeConfigMissing, "f.yaml"},
		"bad syntax":      {"a: [\n", attest.CodeConfigSyntax, "f.yaml:1"},
		"tab":             {"a:\n\t- b\n", attest.CodeConfigSyntax, "f.yaml:2"},
		"duplicate key":   {"a: 1\nb: 2\na: 3\n", attest.CodeConfigSyntax, "f.yaml:3:1"},
		"nested twice":    {"a: {b: 1, b: 2}\n", attest.CodeConfigSyntax, "f.yaml:1:11"},
		"alias":           {"a: &x 1\nb: *x\n", attest.CodeConfigSyntax, "f.yaml:1:4"},
		"merge":           {"a: 1\n<<: {b: 1}\n", attest.CodeConfigSyntax, "f.yaml:2:1"},
		"tag":             {"a: !!str 1\n", attest.CodeConfigSyntax, "f.yaml:1:4"},
		"own tag":         {"a: !x 1\n", attest.CodeConfigSyntax, "f.yaml:1:4"},
		"map as key":      {"? {a: 1}\n: 2\n", attest.CodeConfigSyntax, "f.yaml:1:3"},
		"second document": {"a: 1\n---\nb: 2\n", attest.CodeConfigSyntax, "f.yaml"},
		"huge":            {strings.Repeat("#", strictyaml.MaxSize+1), attest.CodeConfigSyntax, "f.yaml"},
		"deep":            {strings.Repeat("[", 30) + strings.Repeat("]", 30), attest.CodeConfigSyntax, "f.yaml:1:18"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := strictyaml.Parse("f.yaml", []byte(c.in))
			var coded *attest.Error
			if !errors.As(err, &coded) || coded.Code != c.code || coded.Subject != c.at {
				t.Fatalf("got %v, want %s at %s", err, c.code, c.at)
			}
		})
	}
}

func one(t *testing.T, text string) strictyaml.Node {
	t.Helper()
	root, err := strictyaml.Parse("f.yaml", []byte("a: "+text+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := root.Map("a")
	if err != nil {
		t.Fatal(err)
	}
	return m.Get("a")
}

// Scalars stay what they look like, whatever YAML 1.1 made of them.
func TestText(t *testing.T) {
	for _, in := range []string{"off", "no", "yes", "1.10", "0x10", "1e3", "12:30", "2027-01-01"} {
		got, err := one(t, in).Text()
		if err != nil || got != in {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "~", "null", `""`, "[x]", "{x: 1}"} {
		if got, err := one(t, in).Text(); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]time.Duration{"10m": 10 * time.Minute, "24h": 24 * time.Hour, "30d": 720 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := one(t, in).Duration(); err != nil || got != want {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"0s", "-1h", "10", "d", "-1d", "1.5d", "ten", "99999999d"} {
		if got, err := one(t, in).Duration(); err == nil {
			t.Errorf("%s: accepted as %v", in, got)
		}
	}
	if got, err := one(t, "23").Uint(255); err != nil || got != 23 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, in := range []string{"256", "-1", "0x10", "010", "1.0", "+1", "1_0", `""`} {
		if got, err := one(t, in).Uint(255); err == nil {
			t.Errorf("%s: accepted as %d", in, got)
		}
	}
	for in, want := range map[string]bool{"true": true, "false": false} {
		if got, err := one(t, in).Bool(); err != nil || got != want {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"yes", "on", "True", "1"} {
		if got, err := one(t, in).Bool(); err == nil {
			t.Errorf("%s: accepted as %v", in, got)
		}
	}
	if got, err := one(t, "2027-01-02").Date(); err != nil || !got.Equal(time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := one(t, "2027-02-30").Date(); err == nil {
		t.Error("30 February accepted")
	}
}

func TestUnknownKey(t *testing.T) {
	root, err := strictyaml.Parse("f.yaml", []byte("policy: x\n\n  \nbindng: key\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = root.Map("policy", "binding", "tcb")
	var coded *attest.Error
	if !errors.As(err, &coded) || coded.Code != attest.CodeConfigUnknownKey || coded.Subject != "f.yaml:4:1" || coded.Remedy() != `did you mean "binding"?` {
		t.Fatalf("got %v, %+v", err, coded)
	}
	if _, err := root.Map("policy", "somethingelse"); !errors.As(err, &coded) || strings.Contains(coded.Remedy(), "did you mean") {
		t.Fatalf("a far-fetched suggestion: %v", coded.Remedy())
	}
}

func TestAbsentIsAnError(t *testing.T) {
	root, err := strictyaml.Parse("f.yaml", []byte("a: 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := root.Map("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Require("b"); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("Require: %v", err)
	}
	absent := m.Get("b")
	_, text := absent.Text()
	_, list := absent.List()
	_, inner := absent.Map()
	_, _, entries := absent.Entries()
	_, number := absent.Uint(1)
	for _, err := range []error{text, list, inner, entries, number} {
		if attest.CodeOf(err) != attest.CodeConfigMissing {
			t.Errorf("an absent value answers %v", err)
		}
	}
	if _, err := m.Get("a").List(); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("a scalar as a list: %v", err)
	}
	if _, err := m.Get("a").Map(); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("a scalar as a map: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("a: {b: [1, 2]}\n"))
	f.Add([]byte("a: &x 1\nb: *x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		root, err := strictyaml.Parse("f", raw)
		if err != nil {
			if attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		_, _ = root.Text()
		_, _ = root.List()
		_, _, _ = root.Entries()
	})
}
