package protocol_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/jurat-tls/jurat/xds/client/protocol"
)

// from has a response come from a control plane of that name.
func from(who string, r *protocol.Response) *protocol.Response {
	r.ControlPlane = who
	return r
}

// told is the next request, and the counts in it.
func (s *script) told() string {
	s.Helper()
	r := s.Next(s.now)
	if r == nil {
		return "nothing"
	}
	text := short(r)
	if r.Node != nil {
		text += fmt.Sprintf(" %v", r.Node.Metadata["jurat"])
		if r.Node.ID != "me" {
			s.Errorf("the node %q", r.Node.ID)
		}
	}
	return text
}

func TestCounts(t *testing.T) {
	counts := func(open, refused uint64) string { return fmt.Sprintf("map[open:%d refused:%d]", open, refused) }
	for _, kind := range []protocol.Kind{protocol.Delta, protocol.StateOfTheWorld} {
		t.Run(kind.String(), func(t *testing.T) {
			metadata := map[string]any{"a": "b"}
			s := start(t, kind, func(c *protocol.Config) { c.Node.Metadata = metadata })
			expect := func(want string) {
				t.Helper()
				if got := s.told(); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			version := func(v, rest string) string {
				if kind == protocol.StateOfTheWorld {
					return "CDS version " + v + rest
				}
				return "CDS" + rest
			}
			some := func(v string, all ...string) *protocol.Response {
				if kind == protocol.StateOfTheWorld {
					return sotw(cds, v, all...)
				}
				return delta(cds, all...)
			}
			// With the first request, whoever it is for, and with nothing before.
			s.want(cds, "*")
			s.Report(protocol.Counts{Open: 1, Refused: 2})
			expect("nothing")
			s.Opened()
			r := s.Next(s.now)
			if r.Node.Metadata["a"] != "b" || fmt.Sprint(r.Node.Metadata["jurat"]) != counts(1, 2) || len(metadata) != 1 {
				t.Fatalf("%+v, %v", r.Node, metadata)
			}
			expect("nothing")
			// A control plane that nobody knows is told no more.
			s.get(from("istiod", some("1", "a=1")))
			s.Report(protocol.Counts{Open: 2, Refused: 2})
			expect(version("1", " nonce n1"))
			expect("nothing")
			// One that counts is, with what is to be said anyway, or with what was said last.
			s.get(from("jurat", some("2", "a=2")))
			again := map[protocol.Kind]string{protocol.Delta: "CDS node nonce n2 ", protocol.StateOfTheWorld: "CDS node version 2 nonce n2 "}[kind]
			expect(again + counts(2, 2))
			expect("nothing")
			s.Report(protocol.Counts{Open: 2, Refused: 2})
			expect("nothing")
			s.Report(protocol.Counts{Open: 0, Refused: 3})
			expect(again + counts(0, 3))
			expect("nothing")
			// What was not judged is not acknowledged by it, nor is what was refused.
			s.Report(protocol.Counts{Open: 5})
			u, err := s.Receive(s.now, from("jurat", &protocol.Response{Type: cds, Version: "3", Nonce: "x", Items: some("3", "a=3").Items}))
			if err != nil || u == nil {
				t.Fatal(u, err)
			}
			expect("nothing")
			s.Judged(s.now, errors.New("no"))
			expect(map[protocol.Kind]string{protocol.Delta: "CDS node nonce x refused 3 no ", protocol.StateOfTheWorld: "CDS node version 2 nonce x refused 3 no "}[kind] + counts(5, 0))
			s.Report(protocol.Counts{Open: 6})
			expect("nothing")
			// Names are not said again for it.
			s.Closed()
			s.Opened()
			s.want(cds)
			s.want(eds, "a")
			if r := s.Next(s.now); r == nil || !reflect.DeepEqual(r.Node.Metadata["jurat"], map[string]any{"open": 6.0, "refused": 0.0}) {
				t.Fatalf("%+v", r)
			}
			for s.Next(s.now) != nil {
			}
			s.get(from("jurat", map[protocol.Kind]func() *protocol.Response{
				protocol.Delta: func() *protocol.Response { return delta(eds, "a=1") }, protocol.StateOfTheWorld: func() *protocol.Response { return sotw(eds, "1", "a=1") },
			}[kind]()))
			for s.Next(s.now) != nil {
			}
			s.Report(protocol.Counts{Open: 7})
			if got := s.told(); kind == protocol.Delta && got != "EDS node nonce n3 "+counts(7, 0) || kind == protocol.StateOfTheWorld && got != "nothing" {
				t.Fatalf("got %q", got)
			}
		})
	}
}
