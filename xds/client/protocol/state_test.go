package protocol_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// The rules of the state-of-the-world protocol, one sequence for each.
func TestStateOfTheWorld(t *testing.T) {
	odd := "outbound|8080||app.default.svc.cluster.local"
	for name, play := range map[string]func(s *script){
		"node on the first message only, in the order of dependencies": func(s *script) {
			s.want(rds, "8080")
			s.want(lds, "*")
			s.want(eds, odd)
			s.want(sds, "default")
			s.want(cds, "*")
			s.want(resource.AttestationPolicy, "floor")
			s.want(resource.ReferenceValues, "*")
			s.says() // there is no stream
			s.Opened()
			s.says(`values node`, `policy ["floor"]`, `CDS`, `EDS ["`+odd+`"]`, `SDS ["default"]`, `LDS`, `RDS ["8080"]`)
			s.says()
			s.Closed()
			s.says()
			s.Opened()
			s.says(`values node`, `policy ["floor"]`, `CDS`, `EDS ["`+odd+`"]`, `SDS ["default"]`, `LDS`, `RDS ["8080"]`)
		},
		"names are never joined": func(s *script) {
			all := []string{"a", "a,b", "a b", "a|b", "a~b/c:d", "b"}
			s.want(eds, all...)
			s.Opened()
			if r := s.Next(s.now); !slices.Equal(r.Names, []string{"a", "a b", "a,b", "a|b", "a~b/c:d", "b"}) {
				s.Fatalf("%q", r.Names)
			}
			s.get(sotw(eds, "1", "a,b=1", "a b=2"))
			s.state(eds, "a b=2", "a,b=1")
		},
		"an explicit wildcard": func(s *script) {
			s.Config.ExplicitWildcard = true
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node ["*"]`)
			s.get(sotw(cds, "1", "a=1"))
			s.says(`CDS version 1 ["*"] nonce n1`)
		},
		"a wildcard that gets names, and loses them again, is spelt out from then on": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(sotw(cds, "1", "a=1"))
			s.says(`CDS version 1 nonce n1`)
			s.want(cds, "*", "b")
			s.says(`CDS version 1 ["*" "b"] nonce n1`)
			s.want(cds, "*")
			s.says(`CDS version 1 ["*"] nonce n1`)
			s.want(cds, "a")
			s.says(`CDS version 1 ["a"] nonce n1`)
			s.state(cds, "a=1")
		},
		"a wildcard that nobody spelt cannot be left for nothing": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(sotw(cds, "1", "a=1"))
			s.says(`CDS version 1 nonce n1`)
			s.want(cds)
			s.says()
			s.get(sotw(cds, "2", "a=2")) // the server goes on
			s.says(`CDS version 2 nonce n2`)
			s.offered(`CDS a=1 complete`)
			if r := s.Resources(cds); len(r) > 0 {
				s.Fatal(r)
			}
		},
		"acknowledged with version and nonce": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(sotw(cds, "7", "a=1", "b=1"))
			s.offered(`CDS a=1 b=1 complete`)
			s.says(`CDS version 7 nonce n1`)
			s.get(sotw(cds, "8", "a=1", "b=2"))
			s.offered(`CDS b=2 complete`) // what did not change is not mentioned
			s.says(`CDS version 8 nonce n2`)
			s.get(sotw(cds, "9", "a=1", "b=2"))
			s.offered()
			s.says(`CDS version 9 nonce n3`)
		},
		"absence removes clusters and listeners": func(s *script) {
			for _, typ := range []string{cds, lds} {
				s.want(typ, "*")
			}
			s.Opened()
			s.says(`CDS node`, `LDS`)
			for _, typ := range []string{cds, lds} {
				s.get(sotw(typ, "1", "a=1", "b=1"))
				s.get(sotw(typ, "2", "b=1"))
				s.state(typ, "b=1")
				s.get(sotw(typ, "3"))
				s.state(typ)
			}
			s.offered(`CDS a=1 b=1 complete`, `CDS -a complete`, `CDS -b complete`, `LDS a=1 b=1 complete`, `LDS -a complete`, `LDS -b complete`)
		},
		"absence means nothing for the other types": func(s *script) {
			own := "type.googleapis.com/example.Own"
			for _, typ := range []string{eds, rds, sds, resource.AttestationPolicy, resource.ReferenceValues, own} {
				s.want(typ, "a", "b")
				s.Opened()
				for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
				}
				s.get(sotw(typ, "1", "a=1"))
				s.get(sotw(typ, "2", "b=1"))
				s.get(sotw(typ, "3", "a=2"))
				s.get(sotw(typ, "4"))
				s.state(typ, "a=2", "b=1")
				s.Closed()
			}
		},
		"complete when the last name is answered": func(s *script) {
			s.want(eds, "a", "b", "c")
			s.Opened()
			s.says(`EDS node ["a" "b" "c"]`)
			s.get(sotw(eds, "1", "a=1"))
			s.get(sotw(eds, "1", "b=1"))
			s.get(sotw(eds, "1", "a=1", "b=1", "c=1"))
			s.offered(`EDS a=1`, `EDS b=1`, `EDS c=1 complete`)
		},
		"no clusters at all are an answer": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(sotw(cds, "1"))
			s.offered(`CDS complete`)
			s.says(`CDS version 1 nonce n1`)
		},
		"a cluster by name that the whole state lacks does not exist": func(s *script) {
			s.want(cds, "a", "b")
			s.Opened()
			s.says(`CDS node ["a" "b"]`)
			s.get(sotw(cds, "1", "a=1"))
			s.offered(`CDS a=1 -b complete`)
			if st := s.Resources(cds)[1]; st.Name != "b" || st.Condition != protocol.DoesNotExist {
				s.Fatal(st)
			}
		},
		"what was not asked for is not taken": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.says(`EDS node ["a"]`)
			s.get(sotw(eds, "1", "a=1", "b=1"))
			s.offered(`EDS a=1 complete`)
			s.says(`EDS version 1 ["a"] nonce n1`)
		},
		"refused as a whole, with the reason and the resource": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(sotw(cds, "1", "a=1"))
			s.says(`CDS version 1 nonce n1`)
			s.verdict = func(u *protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"b": "no such filter", "c": "no"}, OthersTaken: true}
			}
			s.get(sotw(cds, "2", "b=1", "c=1", "d=1"))
			s.says("CDS version 1 nonce n2 refused 3 \"b\": no such filter\n\"c\": no")
			s.state(cds, "a=1")
			st := s.Resources(cds)
			if len(st) != 4 || st[3].Condition != protocol.RefusedLast || st[1].Condition != protocol.RefusedLast || st[1].Rejected.Reason != "no such filter" || st[1].Rejected.Version != "2" {
				s.Fatal(st)
			}
			s.verdict = nil
			s.get(sotw(cds, "3", "b=2"))
			s.says(`CDS version 3 nonce n3`)
			s.state(cds, "b=2")
			if st := s.Resources(cds); len(st) != 1 || st[0].Condition != protocol.Accepted {
				s.Fatal(st)
			}
		},
		"refused but for the others, where a version does not stand for everything": func(s *script) {
			s.want(eds, "a", "b", "c")
			s.Opened()
			s.says(`EDS node ["a" "b" "c"]`)
			s.get(sotw(eds, "1", "a=1"))
			s.says(`EDS version 1 ["a" "b" "c"] nonce n1`)
			s.verdict = func(u *protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"a": "no"}, OthersTaken: true}
			}
			s.get(sotw(eds, "2", "a=2", "b=2"))
			s.says(`EDS version 1 ["a" "b" "c"] nonce n2 refused 3 "a": no`)
			s.state2(eds, "a=1", "b=2")
			if st := s.Resources(eds); st[0].Condition != protocol.RefusedLast || st[1].Condition != protocol.Accepted || st[2].Condition != protocol.Requested {
				s.Fatal(st)
			}
		},
		"adrift after a refusal only where responses are partial": func(s *script) {
			for _, typ := range []string{cds, eds} {
				s.want(typ, "a", "b")
				s.Opened()
				for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
				}
				s.verdict = func(*protocol.Update) error { return errors.New("no") }
				s.get(sotw(typ, "1", "a=bad", "b=1"))
				s.verdict = nil
				s.get(sotw(typ, "2", "a=1"))
				if s.Adrift() != (typ == eds) {
					s.Fatal(typ)
				}
				s.Closed()
			}
		},
		"refused without a resource": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.verdict = func(u *protocol.Update) error { return errors.New("not today") }
			s.get(sotw(cds, "2", "b=1"))
			s.says(`CDS nonce n1 refused 3 not today`)
			s.state(cds)
		},
		"refusals in a row are spaced out": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.verdict = func(u *protocol.Update) error { return errors.New("no") }
			last := time.Duration(0)
			for i := range 15 {
				s.get(sotw(cds, "2", "b=1"))
				began := s.now
				for r := s.Next(s.now); r == nil; r = s.Next(s.now) {
					d := s.Machine.Deadline(s.now)
					if !d.After(s.now) {
						s.Fatal("nothing to wait for")
					}
					s.now = d
				}
				pause := s.now.Sub(began)
				switch {
				case i == 0 && pause != 0:
					s.Fatal("the first refusal is held back")
				case i > 0 && (pause < last || pause > 30*time.Second || pause < 50*time.Millisecond):
					s.Fatalf("pause %d is %v after %v", i, pause, last)
				}
				last = pause
			}
			if last < 15*time.Second {
				s.Fatalf("a server that sends the same again is answered every %v", last)
			}
			s.verdict = nil
			s.get(sotw(cds, "3"))
			s.says(`CDS version 3 nonce n16`)
		},
		"a new subscription does not wait for a refusal, and does not hide it": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.says(`EDS node ["a"]`)
			s.verdict = func(u *protocol.Update) error { return errors.New("no") }
			s.get(sotw(eds, "1", "a=1"))
			s.says(`EDS ["a"] nonce n1 refused 3 no`)
			s.get(sotw(eds, "1", "a=1"))
			s.says()
			s.want(eds, "a", "b")
			s.says(`EDS ["a" "b"] nonce n2 refused 3 no`)
		},
		"the list that is sent is the latest, with the latest nonce": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.says(`EDS node ["a"]`)
			s.want(eds, "b")
			s.want(eds, "b", "c")
			s.get(sotw(eds, "1", "a=1"))
			s.get(sotw(eds, "2", "a=1"))
			s.says(`EDS version 2 ["b" "c"] nonce n2`)
			s.want(eds, "c", "b")
			s.says()
			s.want(eds)
			s.says(`EDS version 2 nonce n2`)
			s.want(eds, "c")
			s.says(`EDS version 2 ["c"] nonce n2`)
		},
		"a response that comes twice counts once": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			first, second := sotw(cds, "1", "a=1"), sotw(cds, "2", "a=2")
			s.get(first)
			s.get(second)
			s.says(`CDS version 2 nonce n2`)
			s.get(first) // stale
			s.get(second)
			s.says()
			s.state(cds, "a=2")
			if n := s.Status().Repeated; n != 2 {
				s.Fatal(n)
			}
			s.Closed()
			s.Opened() // nonces mean nothing on another stream
			s.says(`CDS node version 2`)
			s.get(first)
			s.says(`CDS version 1 nonce n1`)
			s.state(cds, "a=1")
		},
		"the version outlives the stream, the nonce does not": func(s *script) {
			s.want(cds, "*")
			s.want(eds, "a")
			s.Opened()
			s.says(`CDS node`, `EDS ["a"]`)
			s.get(sotw(cds, "1", "a=1"))
			s.get(sotw(eds, "5", "a=1"))
			s.Closed() // before anything was acknowledged
			s.state(cds, "a=1")
			s.Opened()
			s.says(`CDS node version 1`, `EDS version 5 ["a"]`)
			s.offered(`CDS a=1 complete`, `EDS a=1 complete`)
			s.get(sotw(cds, "1", "a=1"))
			s.offered()
			s.says(`CDS version 1 nonce n3`)
		},
		"a name that is wanted again is there, since the server may not know that it was not": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node ["a" "b"]`)
			s.get(sotw(eds, "1", "a=1", "b=1"))
			s.says(`EDS version 1 ["a" "b"] nonce n1`)
			s.offered(`EDS a=1 b=1 complete`)
			s.want(eds, "b")
			s.state(eds, "b=1")
			s.get(sotw(eds, "2", "a=2", "b=2")) // was on its way
			s.offered(`EDS b=2 complete`)
			s.want(eds, "a", "b")
			s.says(`EDS version 2 ["a" "b"] nonce n2`) // the server sees no change
			s.due()
			s.offered(`EDS again a=2 complete`)
			s.state(eds, "a=2", "b=2")
			s.want(eds, "b")
			s.Closed()
			s.Opened()
			s.want(eds, "a", "b") // the new server does know
			s.due()
			s.offered()
			s.state(eds, "b=2")
		},
		"a name that is wanted again and refused": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node ["a" "b"]`)
			s.get(sotw(eds, "1", "a=1", "b=1"))
			s.want(eds, "b")
			s.want(eds, "a", "b")
			s.verdict = func(*protocol.Update) error { return &protocol.Rejection{Resources: map[string]string{"a": "no"}} }
			s.due()
			s.says(`EDS version 1 ["a" "b"] nonce n1`) // there is nobody to tell
			s.state(eds, "b=1")
			if st := s.Resources(eds)[0]; st.Condition != protocol.RefusedLast {
				s.Fatal(st)
			}
		},
		"wanted again while the update is judged": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node ["a" "b"]`)
			s.want(eds, "b")
			s.verdict = func(u *protocol.Update) error {
				s.want(eds, "a", "b")
				return nil
			}
			s.get(sotw(eds, "1", "a=1", "b=1"))
			s.offered(`EDS b=1 complete`, `EDS again a=1 complete`)
			s.state(eds, "a=1", "b=1")
		},
		"dropped while the update is judged": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node ["a" "b"]`)
			s.verdict = func(u *protocol.Update) error {
				s.want(eds, "b")
				return nil
			}
			s.get(sotw(eds, "1", "a=1", "b=1"))
			if st := s.Resources(eds); len(st) != 1 || st[0].Name != "b" {
				s.Fatal(st)
			}
		},
		"responses of types that nobody asked for": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			for i := range 1000 {
				s.get(sotw(fmt.Sprintf("type.googleapis.com/x.Y%d", i), "1", "a=1"))
			}
			s.get(sotw(lds, "1", "a=1"))
			s.says()
			s.offered()
			if st := s.Status(); st.Ignored != 1001 || len(st.Types) != 1 || st.Bytes != 0 {
				s.Fatal(st)
			}
		},
		"a response before the question": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.get(sotw(cds, "1", "a=1"))
			s.offered()
			s.says(`CDS node`)
		},
		"errors of the server about resources": func(s *script) {
			s.want(eds, "a", "b", "c")
			s.Opened()
			s.says(`EDS node ["a" "b" "c"]`)
			s.get(sotw(eds, "1", "a=1"))
			r := sotw(eds, "2", "b=1")
			r.Errors = []protocol.ItemError{{"a", 7, "you may not\x1b[31m"}, {"c", 5, "none"}, {"d", 7, "not asked for"}, {"*", 5, "all"}}
			s.get(r)
			s.offered(`EDS a=1`, `EDS b=1 -c !a complete`)
			s.state(eds, "a=1", "b=1") // what is there stays
			st := s.Resources(eds)
			if st[0].Condition != protocol.ReceivedError || st[0].Rejected.Reason != "you may not.[31m" || st[2].Condition != protocol.DoesNotExist {
				s.Fatal(st)
			}
			s.get(sotw(eds, "3", "a=2"))
			if st := s.Resources(eds)[0]; st.Condition != protocol.Accepted {
				s.Fatal(st)
			}
			r = sotw(eds, "4")
			r.Errors = []protocol.ItemError{{"a", 5, ""}}
			s.get(r)
			s.state(eds, "b=1")
		},
	} {
		t.Run(name, func(t *testing.T) { play(start(t, protocol.StateOfTheWorld)) })
	}
}

// Times to live, in both variants. In the state-of-the-world protocol a resource with one is wrapped.
func TestTimeToLive(t *testing.T) {
	for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
		item := func(name, version string, ttl time.Duration, has bool) protocol.Item {
			i := protocol.Item{Name: name, Version: version, TTL: ttl, HasBody: has}
			if has {
				i.Type, i.Body = cds, body(name, version)
			}
			return i
		}
		response := func(version string, items ...protocol.Item) *protocol.Response {
			return &protocol.Response{Type: cds, Version: version, Items: items}
		}
		begin := func(t *testing.T) *script {
			s := start(t, kind)
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(response("1", item("a", "1", 10*time.Second, true), item("b", "1", 0, true)))
			s.Next(s.now)
			s.offered(`CDS a=1 b=1 complete`)
			return s
		}
		for name, play := range map[string]func(s *script){
			"expires": func(s *script) {
				if d := s.Machine.Deadline(s.now); !d.Equal(s.now.Add(10 * time.Second)) {
					s.Fatal(d)
				}
				s.now = s.now.Add(10*time.Second - 1)
				s.due()
				s.offered()
				s.verdict = func(*protocol.Update) error { return errors.New("not that one") } // too late
				s.now = s.now.Add(1)
				s.due()
				s.offered(`CDS expired -a complete`)
				s.state(cds, "b=1")
				s.says()
			},
			"expires without a stream": func(s *script) {
				s.Closed()
				s.now = s.now.Add(time.Minute)
				s.due()
				s.offered(`CDS expired -a complete`)
			},
			"is renewed, and nothing else goes": func(s *script) {
				for range 5 {
					s.now = s.now.Add(9 * time.Second)
					s.get(response("1", item("a", "1", 10*time.Second, false)))
					if r := s.Next(s.now); r == nil || r.Error != nil {
						s.Fatal(r)
					}
				}
				s.offered()
				s.state(cds, "a=1", "b=1")
				s.now = s.now.Add(10 * time.Second)
				s.due()
				s.offered(`CDS expired -a complete`)
			},
			"is lifted": func(s *script) {
				s.get(response("1", item("a", "1", 0, false)))
				s.now = s.now.Add(time.Hour)
				s.due()
				s.offered()
				s.state(cds, "a=1", "b=1")
			},
			"is lifted by a resource that did not change": func(s *script) {
				s.get(response("1", item("a", "1", 0, true), item("b", "1", 0, true)))
				s.now = s.now.Add(time.Hour)
				s.due()
				s.offered()
			},
			"of another version is refused": func(s *script) {
				s.get(response("2", item("a", "2", 10*time.Second, false)))
				if r := s.Next(s.now); r == nil || r.Error == nil || !strings.Contains(r.Error.Message, string(attest.CodeXDSResponse)) {
					s.Fatal(r)
				}
				s.now = s.now.Add(10 * time.Second)
				s.due()
				s.offered(`CDS expired -a complete`)
			},
			"is that of the last response that was accepted": func(s *script) {
				s.verdict = func(*protocol.Update) error { return errors.New("no") }
				s.get(response("2", item("a", "2", time.Hour, true)))
				s.verdict = nil
				s.updates = nil
				s.now = s.now.Add(10 * time.Second)
				s.due()
				s.offered(`CDS expired -a complete`)
			},
			"is not kept": func(s *script) {
				k := s.Keep()
				if len(k) != 1 || len(k[0].Resources) != 1 || k[0].Resources[0].Name != "b" {
					s.Fatal(k)
				}
			},
		} {
			t.Run(kind.String()+"/"+name, func(t *testing.T) { play(begin(t)) })
		}
	}
	t.Run("asked for again after it expired by mistake", func(t *testing.T) {
		s := start(t, protocol.Delta)
		s.want(eds, "a")
		s.Opened()
		s.says(`EDS node +["a"]`)
		s.get(&protocol.Response{Type: eds, Items: []protocol.Item{{Name: "a", Version: "1", HasBody: true, Type: eds, Body: body("a", "1"), TTL: time.Second}}})
		s.says(`EDS nonce n1`)
		s.now = s.now.Add(time.Second)
		s.due()
		s.says(`EDS +["a"]`)
	})
	t.Run("without a version, as go-control-plane sends it", func(t *testing.T) {
		s := start(t, protocol.StateOfTheWorld)
		s.want(eds, "a")
		s.Opened()
		s.says(`EDS node ["a"]`)
		s.get(&protocol.Response{Type: eds, Version: "7", Items: []protocol.Item{{Name: "a", HasBody: true, Type: eds, Body: body("a", "1"), TTL: time.Second}}})
		s.get(&protocol.Response{Type: eds, Version: "7", Items: []protocol.Item{{Name: "a", TTL: time.Minute}}})
		s.now = s.now.Add(time.Second)
		s.due()
		s.state(eds, "a=1")
		s.says(`EDS version 7 ["a"] nonce n2`)
		s.get(&protocol.Response{Type: eds, Version: "8", Items: []protocol.Item{{Name: "a", TTL: time.Minute}}})
		if r := s.Next(s.now); r.Error == nil {
			t.Fatal("a longer life for what is not there")
		}
	})
}

// While the control plane is away nobody is late, and once it is back all that is waited for has its whole time again.
func TestNothingMissingWhileAway(t *testing.T) {
	s := start(t, protocol.Delta)
	s.Opened()
	s.wantWithin(eds, 15*time.Second, "a")
	s.now = s.now.Add(10 * time.Second)
	s.Closed()
	s.now = s.now.Add(time.Hour)
	if d := s.Machine.Deadline(s.now); !d.IsZero() {
		t.Error(d)
	}
	if typ, names := s.Missing(s.now); typ != "" {
		t.Error(typ, names)
	}
	s.Opened()
	if typ, names := s.Missing(s.now); typ != "" {
		t.Error(typ, names)
	}
	if d := s.Machine.Deadline(s.now); !d.Equal(s.now.Add(15 * time.Second)) {
		t.Error(d)
	}
	s.now = s.now.Add(15 * time.Second)
	if typ, names := s.Missing(s.now); typ != eds || !slices.Equal(names, []string{"a"}) {
		t.Error(typ, names)
	}
}

func TestMissing(t *testing.T) {
	for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
		t.Run(kind.String(), func(t *testing.T) {
			s := start(t, kind)
			s.wantWithin(cds, 5*time.Second, "*")
			s.wantWithin(eds, 15*time.Second, "a", "b")
			s.want(sds, "for ever")
			none := func() {
				t.Helper()
				if typ, names := s.Missing(s.now); typ != "" {
					t.Fatal(typ, names)
				}
			}
			none()
			s.now = s.now.Add(5 * time.Second) // whether or not there is a stream
			if d := s.Machine.Deadline(s.now); !d.Equal(s.now) {
				t.Fatal(d)
			}
			if typ, names := s.Missing(s.now); typ != cds || !slices.Equal(names, []string{"*"}) {
				t.Fatal(typ, names)
			}
			none()
			s.Opened()
			for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
			}
			s.wantWithin(eds, 15*time.Second, "a", "b", "c") // the older ones keep their time
			if kind == protocol.Delta {
				s.get(delta(eds, "b=1"))
			} else {
				s.get(sotw(eds, "1", "b=1"))
			}
			s.now = s.now.Add(10 * time.Second)
			if typ, names := s.Missing(s.now); typ != eds || !slices.Equal(names, []string{"a"}) {
				t.Fatal(typ, names)
			}
			if st := s.Resources(eds); st[0].Condition != protocol.Late || st[1].Condition != protocol.Accepted || st[2].Condition != protocol.Requested {
				t.Fatal(st)
			}
			none()
			s.wantWithin(eds, 15*time.Second, "a", "b")
			s.now = s.now.Add(time.Hour)
			none()
			if !s.Machine.Deadline(s.now).IsZero() {
				t.Fatal(s.Machine.Deadline(s.now))
			}
			s.updates = nil
			if kind == protocol.Delta {
				s.get(delta(eds, "a=1"))
			} else {
				s.get(sotw(eds, "1", "a=1"))
			}
			s.offered(`EDS a=1 complete`) // better late than never
		})
	}
}
