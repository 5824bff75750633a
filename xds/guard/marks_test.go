package guard_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/xds/guard"
)

const policyType = "type.googleapis.com/jurat.config.v1alpha1.AttestationPolicy"

func versioned(name string, serial uint64, content string) guard.Versioned {
	return guard.Versioned{Type: policyType, Name: name, Serial: serial, Content: []byte(content)}
}

func TestMarks(t *testing.T) {
	var m guard.Marks
	for _, step := range []struct {
		offered []guard.Versioned
		want    string // rules
	}{
		{[]guard.Versioned{versioned("a", 5, "five")}, ""},
		{[]guard.Versioned{versioned("a", 5, "five")}, ""},
		{[]guard.Versioned{versioned("a", 5, "other")}, "serial J910"},
		{[]guard.Versioned{versioned("a", 4, "four")}, "serial J910"},
		{[]guard.Versioned{versioned("a", 0, "none")}, "serial J910"},
		{[]guard.Versioned{versioned("new", 0, "none")}, "serial J910"},
		{[]guard.Versioned{versioned("b", 1, "one"), versioned("a", 4, "four")}, "serial J910"},
		{[]guard.Versioned{versioned("b", 2, "two"), versioned("b", 1, "one")}, "serial J910"},
		{[]guard.Versioned{versioned("b", 2, "two"), versioned("b", 2, "other")}, "serial J910"},
		{[]guard.Versioned{{Type: "x/other", Name: "a", Serial: 1}}, ""},
		{[]guard.Versioned{versioned("a", 6, "six"), versioned("b", 1, "one")}, ""},
		{[]guard.Versioned{versioned("a", 5, "five")}, "serial J910"},
	} {
		err := m.Check(step.offered)
		if got := rules(err); got != step.want {
			t.Fatalf("%v: got %v", step.offered, err)
		}
		if err == nil {
			m.Raise(step.offered)
		}
	}
	v := violations(m.Check([]guard.Versioned{versioned("a", 1, "")}))[0]
	if v.Part != "AttestationPolicy" || v.Name != "a" || v.Err.Subject != `AttestationPolicy "a": serial` || v.Error() != v.Err.Error() {
		t.Errorf("got %+v: %v", v, v)
	}
	if v := violations(m.Check([]guard.Versioned{versioned("new", 0, "")}))[0]; v.Err.Want != "a number above 0" {
		t.Errorf("got %v", v)
	}
	before := m.Clone()
	if m.Raise([]guard.Versioned{versioned("a", 2, "two")}) || m.Raise([]guard.Versioned{versioned("a", 6, "six")}) || m.Raise(nil) { // which takes nothing back
		t.Error("what was known was new")
	}
	if c := m.Clone(); !c.Raise([]guard.Versioned{versioned("a", 1, "one"), versioned("a", 7, "seven")}) || bytes.Equal(c.Encode(), m.Encode()) || !bytes.Equal(before.Encode(), m.Encode()) {
		t.Error("a clone is the same marks")
	}
	if c := new(guard.Marks).Clone(); !c.Raise([]guard.Versioned{versioned("a", 1, "one")}) || c.Len() != 1 {
		t.Error("a clone of nothing takes nothing")
	}
	raw := m.Encode()
	again, err := guard.ParseMarks(raw)
	if err != nil || !bytes.Equal(again.Encode(), raw) || again.Len() != 3 {
		t.Fatalf("got %v: %s", err, raw)
	}
	if rules(again.Check([]guard.Versioned{versioned("a", 5, "five")})) != "serial J910" || again.Check([]guard.Versioned{versioned("a", 6, "six")}) != nil {
		t.Error("they are other marks now")
	}
	var none guard.Marks
	if again, err = guard.ParseMarks(none.Encode()); err != nil || again.Len() != 0 {
		t.Errorf("got %v", err)
	}
}

func TestMarksAreBounded(t *testing.T) {
	var m guard.Marks
	var all []guard.Versioned
	for i := range guard.MaxMarks {
		all = append(all, versioned(fmt.Sprint(i), 1, ""))
	}
	if err := m.Check(append(all, versioned("one more", 1, ""))); rules(err) != "serial J909" {
		t.Errorf("got %v", err)
	}
	if err := m.Check(all); err != nil {
		t.Fatal(err)
	}
	m.Raise(all)
	if err := m.Check([]guard.Versioned{versioned("0", 2, "")}); err != nil {
		t.Errorf("got %v", err)
	}
	if err := m.Check([]guard.Versioned{versioned("one more", 1, "")}); rules(err) != "serial J909" {
		t.Errorf("got %v", err)
	}
	again, err := guard.ParseMarks(m.Encode())
	if err != nil || again.Len() != guard.MaxMarks {
		t.Errorf("got %v", err)
	}
	m.Raise([]guard.Versioned{versioned("one more", 1, "")})
	if _, err := guard.ParseMarks(m.Encode()); err == nil {
		t.Error("more than can be")
	}
}

func badMarks() []string {
	digest := strings.Repeat("00", 32)
	entry := `{"type":"t/a","name":"n","serial":1,"digest":"` + digest + `"}`
	return []string{
		``, `{`, `[]`, `{"marks":[{}]}`, `{"marks":[` + entry + `,` + entry + `]}`, `{"marks":[{"type":"t/a","name":"n","serial":0,"digest":"` + digest + `"}]}`,
		`{"marks":[{"type":"t/a","name":"n","serial":1,"digest":"00"}]}`, `{"marks":[{"type":"t/a","name":"n","serial":1,"digest":"x"}]}`,
		`{"marks":[{"type":"t/a","name":"n","serial":-1,"digest":"` + digest + `"}]}`, `{"marks":[],"marks":[]}`, `{"other":[]}`, `{"marks":[]} ` + `{}`,
	}
}

func TestBadMarks(t *testing.T) {
	for _, text := range badMarks() {
		if m, err := guard.ParseMarks([]byte(text)); err == nil || m != nil {
			t.Errorf("%s: got %v", text, m)
		}
	}
}

func FuzzParseMarks(f *testing.F) {
	for _, text := range badMarks() {
		f.Add([]byte(text))
	}
	var m guard.Marks
	m.Raise([]guard.Versioned{versioned("a", 1, "x"), versioned("b", 2, "y")})
	f.Add(m.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := guard.ParseMarks(raw)
		if err != nil {
			return
		}
		again, err := guard.ParseMarks(m.Encode())
		if err != nil || again.Len() != m.Len() {
			t.Errorf("got %v", err)
		}
	})
}
