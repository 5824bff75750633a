package message_test

import (
	"reflect"
	"testing"

	"github.com/jurat-tls/jurat/proxy/message"
)

func TestFields(t *testing.T) {
	f := message.Fields{{Name: "Accept", Value: "a"}, {Name: "X-One", Value: "1"}, {Name: "accept", Value: "b"}, {Name: "Kelvin", Value: "k"}}
	if v, ok := f.Get("ACCEPT"); v != "a" || !ok {
		t.Errorf("got %q, %v", v, ok)
	}
	// A letter that folds to an ASCII one is not it.
	if _, ok := f.Get("\u212aelvin"); ok {
		t.Error("the sign of the kelvin is no k")
	}
	if _, ok := f.Get("x"); ok {
		t.Error("a field that is not there")
	}
	f = f.Remove(func(name string) bool { return message.Same(name, "accept") })
	if want := (message.Fields{{Name: "X-One", Value: "1"}, {Name: "Kelvin", Value: "k"}}); !reflect.DeepEqual(f, want) {
		t.Errorf("got %v", f)
	}
	if f = f.Remove(func(string) bool { return true }); len(f) != 0 {
		t.Errorf("got %v", f)
	}
}

func TestBodiless(t *testing.T) {
	for _, c := range []struct {
		method        string
		status        int
		body, another bool
	}{
		{"GET", 200, true, false},
		{"HEAD", 200, false, false},
		{"GET", 204, false, false},
		{"GET", 304, false, false},
		{"GET", 101, false, false},
		{"GET", 103, false, true},
		{"CONNECT", 200, false, false},
		{"CONNECT", 403, true, false},
	} {
		r := message.Response{Status: c.status}
		if r.Bodiless(c.method) == c.body || r.Informational() != c.another {
			t.Errorf("%s %d", c.method, c.status)
		}
	}
}

func TestIdentifies(t *testing.T) {
	for name, want := range map[string][2]bool{ // identifies, ours
		"Jurat-Result": {true, true}, "jurat_result": {true, true}, "JURAT": {true, true}, "Jurat.X": {true, true}, "Juratory": {},
		"X-Forwarded-Client-Cert": {true, false}, "x_forwarded_for": {true, false}, "Forwarded": {true, false}, "Proxy": {true, false},
		"Proxy-Status": {}, "Content_Length": {true, false}, "Content-Length-X": {}, "X": {}, "": {},
	} {
		if got := [2]bool{message.Identifies(name), message.Ours(name)}; got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
