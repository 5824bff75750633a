package protocol_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// The rules of the delta protocol, one sequence for each.
func TestDelta(t *testing.T) {
	for name, play := range map[string]func(s *script){
		"node on the first message only, in the order of dependencies": func(s *script) {
			s.want(rds, "8080")
			s.want(lds, "*")
			s.want(eds, "x|y||z", "a")
			s.want(sds, "default")
			s.want(cds, "*")
			s.want(resource.AttestationPolicy, "*", "floor")
			s.Opened()
			s.says(`policy node +["*" "floor"]`, `CDS`, `EDS +["a" "x|y||z"]`, `SDS +["default"]`, `LDS`, `RDS +["8080"]`)
			s.says()
		},
		"an explicit wildcard": func(s *script) {
			s.Config.ExplicitWildcard = true
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node +["*"]`)
			s.want(cds)
			s.says(`CDS -["*"]`)
		},
		"changes of a subscription are differences": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node +["a" "b"]`)
			s.want(eds, "b", "c")
			s.says(`EDS +["c"] -["a"]`)
			s.want(eds, "c", "b")
			s.says()
			s.want(eds)
			s.says(`EDS -["b" "c"]`)
		},
		"a wildcard that gets names, and one that is left": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(delta(cds, "a=1", "b=1"))
			s.says(`CDS nonce n1`)
			s.want(cds, "*", "c")
			s.says(`CDS +["*" "c"]`)
			s.want(cds, "a", "c")
			s.says(`CDS +["a"] -["*"]`)
			s.state2(cds, "a=1")
			s.want(cds, "*")
			s.says(`CDS +["*"] -["a" "c"]`)
		},
		"a wildcard that nobody spelt is left aloud": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.want(cds)
			s.says(`CDS +["*"] -["*"]`)
		},
		"acknowledged one by one": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(delta(cds, "a=1", "b=1"))
			s.get(delta(cds, "b=2", "c=1"))
			s.get(delta(cds, "-a", "-x"))
			s.offered(`CDS a=1 b=1 complete`, `CDS b=2 c=1 complete`, `CDS -a complete`)
			s.says(`CDS nonce n1`, `CDS nonce n2`, `CDS nonce n3`)
			s.state(cds, "b=2", "c=1")
		},
		"a request that is nothing but a subscription has no nonce": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.says(`EDS node +["a"]`)
			s.get(delta(eds, "a=1"))
			s.want(eds, "a", "b")
			s.says(`EDS +["b"] nonce n1`) // both at once
			s.want(eds, "a", "b", "c")
			s.says(`EDS +["c"]`)
		},
		"versions are told on a new stream, once for each type": func(s *script) {
			s.want(cds, "*")
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`CDS node`, `EDS +["a" "b"]`)
			s.get(delta(cds, "a=1", "b=2"))
			s.get(delta(eds, "a=7"))
			s.Closed()
			s.Opened()
			s.says(`CDS node have map[a:1 b:2]`, `EDS +["a" "b"] have map[a:7]`)
			s.get(delta(cds, "-b"))
			s.says(`CDS nonce n3`)
			s.state(cds, "a=1")
			s.state(eds, "a=7")
		},
		"what does not exist": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node +["a" "b"]`)
			s.get(delta(eds, "a=1", "-b", "-c"))
			s.offered(`EDS a=1 -b complete`)
			if st := s.Resources(eds)[1]; st.Condition != protocol.DoesNotExist {
				s.Fatal(st)
			}
			s.get(delta(eds, "b=1"))
			s.offered(`EDS b=1 complete`)
		},
		"unsubscribed and subscribed again at once, in two messages": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node +["a" "b"]`)
			s.get(delta(eds, "a=1", "b=1"))
			s.says(`EDS nonce n1`)
			s.want(eds, "b")
			s.want(eds, "a", "b")
			s.says(`EDS -["a"]`, `EDS +["a"]`) // a server has no reason to send what it has sent
			s.get(delta(eds, "a=1"))
			s.offered(`EDS a=1 b=1 complete`, `EDS a=1 complete`)
		},
		"what is not asked for is not taken": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.says(`EDS node +["a"]`)
			s.get(delta(eds, "a=1", "b=1"))
			s.offered(`EDS a=1 complete`)
			s.get(delta(eds, "-b"))
			s.offered()
			s.says(`EDS nonce n1`, `EDS nonce n2`)
		},
		"refused as a whole": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(delta(cds, "a=1"))
			s.says(`CDS nonce n1`)
			s.verdict = func(*protocol.Update) error { return &protocol.Rejection{Resources: map[string]string{"b": "bad"}} }
			s.get(delta(cds, "b=1", "c=1", "-a"))
			s.says(`CDS nonce n2 refused 3 "b": bad`)
			s.state(cds, "a=1")
			// Who is to blame is refused for that, and what came with it for having come with it.
			all := s.Resources(cds)
			if len(all) != 3 || all[0].Condition != protocol.Accepted || all[1].Condition != protocol.RefusedLast || all[1].Rejected.Reason != "bad" ||
				all[2].Name != "c" || all[2].Condition != protocol.RefusedLast || all[2].Rejected.Reason != `"b": bad` || all[2].Rejected.Version != "1" {
				s.Errorf("got %+v", all)
			}
			s.verdict = nil
			s.Closed()
			s.Opened()
			s.says(`CDS node have map[a:1]`)
		},
		"refused but for the others": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(delta(cds, "a=1", "b=1", "d=1"))
			s.says(`CDS nonce n1`)
			s.verdict = func(*protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"b": "bad", "d": "needed"}, OthersTaken: true}
			}
			s.get(delta(cds, "b=2", "c=1", "-a", "-d"))
			s.says("CDS nonce n2 refused 3 \"b\": bad\n\"d\": needed")
			st := s.Resources(cds)
			if len(st) != 3 || st[0].Condition != protocol.RefusedLast || string(st[0].Body) != string(body("b", "1")) || st[1].Condition != protocol.Accepted {
				s.Fatal(st)
			}
			s.Closed()
			s.Opened()
			s.says(`CDS node have map[b:1 c:1 d:1]`)
		},
		"after a refusal the server goes on as if there were none, which a new stream puts right": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.get(delta(cds, "old=1"))
			s.verdict = func(*protocol.Update) error { return errors.New("no") }
			s.get(delta(cds, "-old", "new=1", "bad=1"))
			if s.Adrift() {
				s.Fatal("at once: the server would send the same again")
			}
			s.verdict = nil
			s.get(delta(cds, "bad=2"))
			s.says(`CDS nonce n1`, `CDS nonce n2 refused 3 no`, `CDS nonce n3`)
			if !s.Adrift() {
				s.Fatal("and new is missing")
			}
			s.Closed()
			if s.Adrift() {
				s.Fatal("without a stream")
			}
			s.Opened()
			s.says(`CDS node have map[bad:2 old:1]`)
			s.get(delta(cds, "-old", "new=1"))
			s.state(cds, "bad=2", "new=1")
			if s.Adrift() {
				s.Fatal("it is right")
			}
			s.verdict = func(*protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"bad": "no"}, OthersTaken: true}
			}
			s.get(delta(cds, "bad=3", "new=2"))
			s.verdict = nil
			s.get(delta(cds, "bad=4"))
			if s.Adrift() {
				s.Fatal("nothing is missing")
			}
		},
		"refused for nothing in particular, though it says that the others are taken": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			s.verdict = func(*protocol.Update) error { return &protocol.Rejection{Reason: "limits", OthersTaken: true} } // nobody is to blame
			s.get(delta(cds, "a=1"))
			s.says(`CDS nonce n1 refused 3 limits`)
			s.state(cds)
		},
		"aliases": func(s *script) {
			s.want(rds, "r/host", "r/none")
			s.Opened()
			s.says(`RDS node +["r/host" "r/none"]`)
			r := delta(rds, "vh=1")
			r.Items[0].Aliases = []string{"r/host", "r/other"}
			s.get(r)
			s.offered(`RDS vh=1`)
			s.says(`RDS nonce n1`)
			// A name that leads nowhere is answered with a resource without content.
			s.get(&protocol.Response{Type: rds, Items: []protocol.Item{{Name: "x", Aliases: []string{"r/none"}}}})
			s.offered(`RDS -r/none complete`)
			s.says(`RDS nonce n2`)
			s.want(rds, "r/none")
			if st := s.Resources(rds); len(st) != 1 || st[0].Name != "r/none" {
				s.Fatal(st)
			}
		},
		"a resource that loses the alias it was wanted by": func(s *script) {
			s.want(rds, "r/host")
			s.Opened()
			s.says(`RDS node +["r/host"]`)
			r := delta(rds, "vh=1")
			r.Items[0].Aliases = []string{"r/host"}
			s.get(r)
			s.get(delta(rds, "vh=2"))
			s.offered(`RDS vh=1 complete`, `RDS -vh complete`)
			if b := s.Status().Bytes; b != 0 {
				s.Fatal(b)
			}
		},
		"endpoints are asked for again when their cluster changes": func(s *script) {
			s.want(cds, "*")
			s.want(eds, "a", "b", "c")
			s.Opened()
			s.says(`CDS node`, `EDS +["a" "b" "c"]`)
			s.get(delta(cds, "a=1", "b=1", "z=1"))
			s.get(delta(eds, "a=1", "b=1", "c=1"))
			s.says(`CDS nonce n1`, `EDS nonce n2`)
			s.get(delta(cds, "a=2", "b=1", "z=2"))
			s.says(`CDS nonce n3`, `EDS +["a"]`)
			s.get(delta(eds, "a=1")) // unchanged
			s.says(`EDS nonce n4`)
			s.Refresh(eds, []string{"b", "nobody"})
			s.Refresh(rds, []string{"b"})
			s.says(`EDS +["b"]`)
		},
		"errors of the server about resources": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.says(`EDS node +["a" "b"]`)
			s.get(delta(eds, "a=1"))
			r := delta(eds)
			r.Errors = []protocol.ItemError{{"a", 5, ""}, {"b", 13, "later"}}
			s.get(r)
			s.offered(`EDS a=1`, `EDS -a !b complete`)
			s.state(eds)
		},
		"more than a request holds": func(s *script) {
			var all []string
			for i := range 1000 {
				all = append(all, fmt.Sprintf("%0200d", i))
			}
			s.Limits.Request = 10_000
			s.want(eds, all...)
			s.Opened()
			seen := map[string]bool{}
			n := 0
			for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
				size := 0
				for _, name := range r.Subscribe {
					seen[name] = true
					size += len(name)
				}
				if size > 10_000 || (r.Node != nil) != (n == 0) {
					s.Fatal(size)
				}
				n++
			}
			if len(seen) != 1000 || n < 20 || n > 30 {
				s.Fatal(len(seen), n)
			}
			s.want(eds, all[0])
			gone := 0
			for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
				gone += len(r.Unsubscribe)
				if len(r.Unsubscribe) > 50 {
					s.Fatal(len(r.Unsubscribe))
				}
			}
			if gone != 999 {
				s.Fatal(gone)
			}
		},
		"too much is there to be told, so that the first answer is everything": func(s *script) {
			s.Limits.Request = 8192
			s.want(cds, "*")
			s.want(eds, "e")
			s.Opened()
			s.says(`CDS node`, `EDS +["e"]`)
			var all []string
			for i := range 1000 {
				all = append(all, fmt.Sprintf("c%03d=1", i))
			}
			s.get(delta(cds, all...))
			s.get(delta(eds, "e=1"))
			s.Closed()
			s.Opened()
			s.says(`CDS node`, `EDS +["e"] have map[e:1]`)
			s.get(delta(cds, "c000=1", "c001=2", "new=1"))
			s.state(cds, "c000=1", "c001=2", "new=1")
			s.get(delta(cds, "c001=3"))
			s.state(cds, "c000=1", "c001=3", "new=1")
			s.state(eds, "e=1")
		},
		"so many acknowledgements wait that nothing more should be read": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.says(`CDS node`)
			n := 0
			for ; !s.Full(); n++ {
				s.get(delta(cds, fmt.Sprintf("a=%d", n)))
			}
			if n != 64 {
				s.Fatal(n)
			}
			s.Next(s.now)
			if s.Full() {
				s.Fatal("still full")
			}
		},
	} {
		t.Run(name, func(t *testing.T) { play(start(t, protocol.Delta)) })
	}
}

// state2 checks the machine's state alone: the script's own knows nothing of a subscription that shrank.
func (s *script) state2(typ string, want ...string) {
	s.Helper()
	var got []string
	for _, r := range s.Resources(typ) {
		if r.Body != nil {
			got = append(got, r.Name+"="+content(r.Body))
		}
	}
	if !slices.Equal(got, want) {
		s.Fatalf("%q, want %q", got, want)
	}
	s.all[typ] = map[string]string{}
	for _, w := range want {
		n, c, _ := strings.Cut(w, "=")
		s.all[typ][n] = c
	}
}

// What is wrong with a response is refused, in either variant, and nothing of the response counts.
func TestRefused(t *testing.T) {
	long := strings.Repeat("x", resource.MaxName+1)
	for name, c := range map[string]struct {
		kind   protocol.Kind // 0 is both
		change func(r *protocol.Response)
		code   attest.Code
		says   string
	}{
		"a name twice":           {0, func(r *protocol.Response) { r.Items = append(r.Items, r.Items[0]) }, attest.CodeXDSResponse, `"a" twice`},
		"another type":           {0, func(r *protocol.Response) { r.Items[1].Type = eds }, attest.CodeXDSResponse, "ClusterLoadAssignment"},
		"no type":                {0, func(r *protocol.Response) { r.Items[1].Type = "" }, attest.CodeXDSResponse, `the type ""`},
		"no protobuf":            {0, func(r *protocol.Response) { r.Items[1].Body = []byte{0xff} }, attest.CodeXDSResponse, "not a protobuf"},
		"an empty body":          {0, func(r *protocol.Response) { r.Items[1].Body = nil }, attest.CodeXDSResponse, "no name"},
		"two names":              {0, func(r *protocol.Response) { r.Items[1].Body = append(body("x", ""), body("y", "")...) }, attest.CodeXDSResponse, "two names"},
		"another name inside":    {0, func(r *protocol.Response) { r.Items[1].Name, r.Items[1].Body = "b", body("c", "") }, attest.CodeXDSResponse, `"c" sent as "b"`},
		"a name of a wildcard":   {0, func(r *protocol.Response) { r.Items[1].Name, r.Items[1].Body = "*", body("*", "") }, attest.CodeXDSResponse, `"*"`},
		"a long name":            {0, func(r *protocol.Response) { r.Items[1].Name, r.Items[1].Body = long, body(long, "") }, attest.CodeXDSResponse, "2049 bytes"},
		"a name that is no text": {0, func(r *protocol.Response) { r.Items[1].Name, r.Items[1].Body = "\x1b[2J", body("\x1b[2J", "") }, attest.CodeXDSResponse, `"\x1b[2J"`},
		"a long alias":           {0, func(r *protocol.Response) { r.Items[1].Aliases = []string{long} }, attest.CodeXDSResponse, "alias"},
		"many aliases":           {0, func(r *protocol.Response) { r.Items[1].Aliases = slices.Repeat([]string{"x"}, 65) }, attest.CodeXDSResponse, "65 aliases"},
		"a long version":         {0, func(r *protocol.Response) { r.Items[1].Version = long }, attest.CodeXDSResponse, "version"},
		"a long version of all":  {0, func(r *protocol.Response) { r.Version = long }, attest.CodeXDSLimit, "version"},
		"a negative TTL":         {0, func(r *protocol.Response) { r.Items[1].TTL = -1 }, attest.CodeXDSResponse, "negative"},
		"a large body":           {0, func(r *protocol.Response) { r.Items[1].Body = body("b", strings.Repeat("x", resource.MaxBody)) }, attest.CodeXDSLimit, "at most"},
		"many items": {0, func(r *protocol.Response) {
			for i := range 99 {
				r.Items = append(r.Items, protocol.Item{Name: fmt.Sprint(i), HasBody: true, Type: cds, Body: body(fmt.Sprint(i), "")})
			}
		}, attest.CodeXDSLimit, "101 resources, 0 removed, 0 errors, want at most 100"},
		"many removed":            {0, func(r *protocol.Response) { r.Removed = make([]string, 101) }, attest.CodeXDSLimit, "101 removed"},
		"many errors":             {0, func(r *protocol.Response) { r.Errors = make([]protocol.ItemError, 101) }, attest.CodeXDSLimit, "101 errors"},
		"an error without a name": {0, func(r *protocol.Response) { r.Errors = make([]protocol.ItemError, 1) }, attest.CodeXDSResponse, "no name"},
		"not found, yet sent":     {0, func(r *protocol.Response) { r.Errors = []protocol.ItemError{{Name: "a", Code: 5}} }, attest.CodeXDSResponse, "not found"},
		"more than is held": {0, func(r *protocol.Response) {
			for i := range 98 {
				r.Items = append(r.Items, protocol.Item{Name: fmt.Sprint(i), HasBody: true, Type: cds, Body: body(fmt.Sprint(i), "")})
			}
			if r.Removed == nil { // in the state-of-the-world protocol the first goes
				r.Items = append(r.Items[:1:1], r.Items[2:]...)
				r.Items = append(r.Items, protocol.Item{Name: "x", HasBody: true, Type: cds, Body: body("x", strings.Repeat("x", 70_000))})
			}
		}, attest.CodeXDSLimit, "at most"},
		"what could not be read":    {0, func(r *protocol.Response) { *r = protocol.Response{Type: cds, Version: "2", Malformed: "no\x07thing"} }, attest.CodeXDSResponse, "no.thing"},
		"sent and removed":          {protocol.Delta, func(r *protocol.Response) { r.Removed = []string{"a"} }, attest.CodeXDSResponse, "both"},
		"no name outside":           {protocol.Delta, func(r *protocol.Response) { r.Items[1].Name = "" }, attest.CodeXDSResponse, `sent as ""`},
		"a renewal without a name":  {0, func(r *protocol.Response) { r.Items[1] = protocol.Item{Version: "1"} }, attest.CodeXDSResponse, "no name"},
		"a renewal for another one": {0, func(r *protocol.Response) { r.Items[1] = protocol.Item{Name: "first", Version: "zzz"} }, attest.CodeXDSResponse, `"zzz"`},
	} {
		for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
			if c.kind != 0 && c.kind != kind {
				continue
			}
			t.Run(kind.String()+"/"+name, func(t *testing.T) {
				s := start(t, kind, func(c *protocol.Config) { c.Limits = protocol.Limits{Resources: 100, Bytes: 60_000} })
				s.want(cds, "*")
				s.Opened()
				s.says(`CDS node`)
				r := delta(cds, "first=1")
				s.get(r)
				s.Next(s.now)
				before := s.Status().Bytes
				r = delta(cds, "a=1", "b=1")
				c.change(r)
				s.get(r)
				q := s.Next(s.now)
				if q == nil || q.Error == nil || q.Nonce != "n2" {
					t.Fatalf("accepted: %v", q)
				}
				if m := q.Error.Message; !strings.Contains(m, string(c.code)) || !strings.Contains(m, c.says) {
					t.Errorf("%s does not say %q and %s", m, c.says, c.code)
				}
				s.state(cds, "first=1")
				if s.Status().Bytes != before {
					t.Error("bytes are miscounted")
				}
				s.get(delta(cds, "first=2", "a=1"))
				s.state(cds, "a=1", "first=2")
			})
		}
	}
	t.Run("not the protocol", func(t *testing.T) {
		for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
			s := start(t, kind)
			if err := s.try(sotw(cds, "1")); err == nil {
				t.Error("a response without a stream")
			}
			s.want(cds, "*")
			s.Opened()
			s.Next(s.now)
			for _, r := range []*protocol.Response{
				{}, {Type: "no", Nonce: "1"}, {Type: cds, Nonce: "none"}, {Type: cds, Nonce: strings.Repeat("n", 1025)}, {Type: "a/" + long, Nonce: "1"},
			} {
				if err := s.try(r); err == nil {
					t.Errorf("%.60v is taken for a response", r)
				}
			}
			if _, err := s.Receive(s.now, sotw(cds, "1", "a=1")); err == nil {
				t.Error("without a nonce")
			}
			r := delta(cds, "a=1")
			r.Nonce = "1"
			if u, err := s.Receive(s.now, r); u == nil || err != nil {
				t.Fatal(u, err)
			}
			if _, err := s.Receive(s.now, r); err == nil {
				t.Error("two responses are judged at once")
			}
			s.Judged(s.now, nil)
			s.Judged(s.now, nil)
		}
	})
}

func TestSubscribeLimits(t *testing.T) {
	s := start(t, protocol.Delta, func(c *protocol.Config) { c.Limits = protocol.Limits{Types: 2, Names: 3} })
	for _, err := range []error{
		s.Subscribe(s.now, "x", []string{"*"}, 0),
		s.Subscribe(s.now, "/x", []string{"*"}, 0),
		s.Subscribe(s.now, "x/", []string{"*"}, 0),
		s.Subscribe(s.now, "x/y z", []string{"*"}, 0),
		s.Subscribe(s.now, cds, []string{"a", "b", "c", "d"}, 0),
		s.Subscribe(s.now, cds, []string{""}, 0),
		s.Subscribe(s.now, cds, []string{"a\n"}, 0),
		s.Subscribe(s.now, cds, []string{"a\xff"}, 0),
		s.Subscribe(s.now, cds, []string{"a\u202eb"}, 0),
	} {
		if err == nil {
			t.Error("subscribed")
		}
	}
	s.want(cds, "a", "a", "b")
	s.want(eds, "a")
	if s.Subscribe(s.now, rds, []string{"a"}, 0) == nil {
		t.Error("a third type")
	}
	if err := s.Subscribe(s.now, rds, nil, 0); err != nil {
		t.Error(err)
	}
	for _, c := range []protocol.Config{
		{},
		{Kind: 3, Random: func() float64 { return 0 }},
		{Kind: protocol.Delta},
		{Kind: protocol.Delta, Random: func() float64 { return 0 }, Node: protocol.Node{ID: "\xff"}},
		{Kind: protocol.Delta, Random: func() float64 { return 0 }, Node: protocol.Node{Metadata: map[string]any{"x": 1}}},
		{Kind: protocol.Delta, Random: func() float64 { return 0 }, Node: protocol.Node{Metadata: map[string]any{"x": []any{"\xff"}}}},
		{Kind: protocol.Delta, Random: func() float64 { return 0 }, Node: protocol.Node{Metadata: map[string]any{"x": map[string]any{"\xff": nil}}}},
		{Kind: protocol.Delta, Random: func() float64 { return 0 }, Node: protocol.Node{Metadata: deep(40)}},
	} {
		if _, err := protocol.New(c); err == nil {
			t.Errorf("%+v", c.Node)
		}
	}
	if s := protocol.Kind(0).String() + protocol.Delta.String() + protocol.StateOfTheWorld.String(); s != "no kinddeltastate of the world" {
		t.Error(s)
	}
}

func deep(n int) map[string]any {
	if n == 0 {
		return nil
	}
	return map[string]any{"x": deep(n - 1)}
}

// What was kept is offered in the order of rank before there is a stream, and only what is subscribed to by then.
func TestRestore(t *testing.T) {
	for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
		t.Run(kind.String(), func(t *testing.T) {
			old := start(t, kind)
			old.want(cds, "*")
			old.want(eds, "a", "b")
			old.want(lds, "*")
			old.Opened()
			for r := old.Next(old.now); r != nil; r = old.Next(old.now) {
			}
			for _, typ := range []string{lds, cds, eds} {
				if kind == protocol.Delta {
					old.get(delta(typ, "a=1", "b=1"))
				} else {
					old.get(sotw(typ, "7", "a=1", "b=1"))
				}
			}
			kept := old.Keep()
			slices.Reverse(kept)

			s := start(t, kind)
			s.want(cds, "*")
			s.want(lds, "*")
			s.want(rds, "r")
			s.verdict = func(u *protocol.Update) error {
				switch u.Type {
				case cds:
					s.want(eds, "a", "c")
				case lds:
					return errors.New("no")
				}
				return nil
			}
			s.Restore(kept)
			s.due()
			s.offered(`CDS restored a=1 b=1 complete`, `EDS restored a=1`, `LDS restored a=1 b=1 complete`)
			s.verdict = nil
			s.Opened()
			if kind == protocol.Delta {
				s.says(`CDS node have map[a:1 b:1]`, `EDS +["a" "c"] have map[a:1]`, `LDS`, `RDS +["r"]`)
			} else {
				s.says(`CDS node version 7`, `EDS version 7 ["a" "c"]`, `LDS`, `RDS ["r"]`)
			}
			s.state(lds)
			s.Restore(kept)
			s.due()
			s.offered()
		})
	}
	t.Run("some of it", func(t *testing.T) {
		s := start(t, protocol.StateOfTheWorld, func(c *protocol.Config) { c.Limits.Bytes = 1000 })
		s.want(cds, "*")
		r := func(n, c string) resource.Resource { return resource.Resource{Type: cds, Name: n, Body: body(n, c)} }
		s.Restore([]protocol.Kept{
			{Type: cds, Version: "7", Resources: []resource.Resource{r("a", "1"), r("large", strings.Repeat("x", 800)), r("b", "1"), r("b", "2"), r("\n", "")}},
			{Type: eds, Version: "7", Resources: []resource.Resource{r("a", "1")}},
		})
		s.verdict = func(*protocol.Update) error {
			return &protocol.Rejection{Resources: map[string]string{"b": "no"}, OthersTaken: true}
		}
		s.due()
		if got := s.Resources(cds); len(got) != 2 || got[0].Condition != protocol.Accepted || got[1].Condition != protocol.RefusedLast || got[1].Body != nil {
			t.Fatal(got)
		}
		s.Opened()
		s.says(`CDS node`) // no version: the control plane is to send everything
	})
}
