package main

import (
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

func TestOneUser(t *testing.T) {
	for text, want := range map[string][2]string{
		"ann:secret":        {"ann", "secret"},
		"ann:secret\n":      {"ann", "secret"},
		"ann:secret\r\n":    {"ann", "secret"},
		"ann:se:cret\n":     {"ann", "se:cret"},
		"ann b: s e c r \n": {"ann b", " s e c r "},
	} {
		users, err := oneUser("file", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !users(want[0], want[1]) {
			t.Errorf("%q does not let %q in", text, want)
		}
		for _, wrong := range [][2]string{{want[0], ""}, {"", want[1]}, {want[0], want[1] + "x"}, {want[0] + ":", want[1]}, {want[0] + ":" + want[1], ""}, {want[1], want[0]}, {"ann:se", "cret"}} {
			if users(wrong[0], wrong[1]) {
				t.Errorf("%q lets %q in", text, wrong)
			}
		}
	}
	for _, text := range []string{
		"", "\n", "ann", ":", "ann:", ":secret", "ann:secret\nbob:secret\n", "ann:secret\n\n", "ann\x00:secret",
		strings.Repeat("a", 256) + ":b", "a:" + strings.Repeat("b", 256),
	} {
		users, err := oneUser("file", []byte(text))
		if users != nil || attest.CodeOf(err) != attest.CodeConfigValue || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
