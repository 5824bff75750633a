package protocol_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// answer makes a response of either kind.
func answer(kind protocol.Kind, typ, version string, all ...string) *protocol.Response {
	if kind == protocol.Delta {
		return delta(typ, all...)
	}
	return sotw(typ, version, all...)
}

func (s *script) drain() {
	for r := s.Next(s.now); r != nil; r = s.Next(s.now) {
	}
}

// What is not obvious, in both variants.
func TestEdges(t *testing.T) {
	for name, play := range map[string]func(s *script){
		"a verdict on a response of another stream is not sent": func(s *script) {
			for _, verdict := range []error{nil, errors.New("no")} {
				s.want(cds, "*")
				s.Opened()
				s.drain()
				r := answer(s.Kind, cds, "1", fmt.Sprint("a=", verdict))
				r.Nonce = "old"
				if u, err := s.Receive(s.now, r); u == nil || err != nil {
					s.Fatal(u, err)
				}
				s.Closed()
				s.Opened()
				s.Judged(s.now, verdict)
				for q := s.Next(s.now); q != nil; q = s.Next(s.now) {
					if q.Nonce != "" || q.Error != nil {
						s.Fatal(short(q))
					}
				}
				if s.Adrift() {
					s.Fatal("of another stream")
				}
			}
		},
		"nothing is due while something is judged": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			r := answer(s.Kind, cds, "1", "a=1")
			r.Nonce, r.Items[0].TTL, r.Items[0].Name = "1", time.Second, "a"
			u, err := s.Receive(s.now, r)
			if u == nil || err != nil {
				s.Fatal(u, err)
			}
			s.Judged(s.now, nil)
			r = answer(s.Kind, cds, "2", "b=1")
			r.Nonce = "2"
			if u, err = s.Receive(s.now, r); u == nil || err != nil {
				s.Fatal(u, err)
			}
			s.now = s.now.Add(time.Hour)
			if u := s.Due(s.now); u != nil {
				s.Fatal(shortUpdate(u))
			}
			s.Judged(s.now, nil)
		},
		"an old nonce is forgotten": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			for i := range 40 {
				r := answer(s.Kind, cds, "1", fmt.Sprint("a=", i))
				r.Nonce = fmt.Sprint(i)
				s.get(r)
				s.drain()
			}
			r := answer(s.Kind, cds, "1", "a=first")
			r.Nonce = "0"
			s.get(r)
			r = answer(s.Kind, cds, "1", "a=last")
			r.Nonce = "39"
			s.get(r)
			s.state(cds, "a=first")
		},
		"rejections that are remembered are bounded": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			var all []string
			for i := range 3000 {
				all = append(all, fmt.Sprintf("c%d=1", i))
			}
			s.verdict = func(u *protocol.Update) error {
				r := &protocol.Rejection{Resources: map[string]string{}}
				for _, c := range u.Changed {
					r.Resources[c.Name] = "no"
				}
				return r
			}
			s.get(answer(s.Kind, cds, "1", all...))
			if n := len(s.Resources(cds)); n != 1000 {
				s.Fatal(n)
			}
			if r := s.Next(s.now); r.Error == nil || len(r.Error.Message) > 4096 || len(r.Error.Message) < 4000 {
				s.Fatal(short(r))
			}
		},
		"a limit counts what is replaced once": func(s *script) {
			s.Limits.Resources, s.Limits.Bytes = 2, 2400
			s.want(eds, "a", "b", "c")
			s.Opened()
			s.drain()
			large := strings.Repeat("x", 350)
			for _, v := range []string{"1", "2", "3"} {
				s.get(answer(s.Kind, eds, v, "a="+large+v, "b="+large+v))
				if r := s.Next(s.now); r.Error != nil {
					s.Fatal(short(r))
				}
			}
			s.get(answer(s.Kind, eds, "4", "c=4"))
			if r := s.Next(s.now); r.Error == nil || !strings.Contains(r.Error.Message, "3 resources") {
				s.Fatal(short(r))
			}
		},
		"what was not asked for takes no room": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.drain()
			s.get(answer(s.Kind, eds, "1", "a=1"))
			before := s.Status().Bytes
			s.get(answer(s.Kind, eds, "1", "b=1", "c=1"))
			if n := s.Status().Bytes; n != before {
				s.Fatal(n - before)
			}
		},
		"a longer life for what is not there means nothing": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.drain()
			s.get(&protocol.Response{Type: eds, Version: "1", Items: []protocol.Item{{Name: "b", TTL: time.Second}}})
			s.offered()
			if r := s.Next(s.now); r.Error != nil {
				s.Fatal(short(r))
			}
		},
		"a longer life for one, and another one that is new": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			r := answer(s.Kind, cds, "1", "a=1", "b=1")
			for i, n := range []string{"a", "b"} {
				r.Items[i].Name, r.Items[i].TTL, r.Items[i].Version = n, time.Minute, "1"
			}
			s.get(r)
			r = answer(s.Kind, cds, "2", "c=1")
			r.Items = append([]protocol.Item{{Name: "a", Version: "1", TTL: time.Hour}}, r.Items...)
			s.get(r)
			s.state(cds, "a=1", "b=1", "c=1")
		},
		"a name that is refused and then not wanted any more, or gone": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.drain()
			s.verdict = func(*protocol.Update) error { return &protocol.Rejection{Resources: map[string]string{"a": "no"}} }
			s.get(answer(s.Kind, eds, "1", "a=1"))
			if st := s.Status().Types[0]; st.InSync || st.Refused != 1 || st.RefusedVersion == "" || st.LastError != `"a": no` {
				s.Fatal(st)
			}
			s.want(eds, "b")
			if st := s.Resources(eds); len(st) != 1 || st[0].Name != "b" {
				s.Fatal(st)
			}
		},
		"counted": func(s *script) {
			s.want(cds, "*", "a", "b")
			s.want(eds, "x")
			st := s.Status()
			if st.Types[0].Names != 2 || !st.Types[0].Wildcard || st.Types[0].Waiting != 3 || st.Types[1].Names != 1 || st.Types[1].Wildcard {
				s.Fatal(st)
			}
			if k := s.Keep(); len(k) != 0 {
				s.Fatal(k)
			}
			if s.Resources(rds) != nil {
				s.Fatal("of a type that nobody wants")
			}
		},
		"kept is all that is accepted": func(s *script) {
			s.want(cds, "*")
			s.want(eds, "a")
			s.Opened()
			s.drain()
			s.get(answer(s.Kind, cds, "1", "a=1"))
			s.get(answer(s.Kind, eds, "1", "a=1"))
			if k := s.Keep(); len(k) != 2 || k[0].Type != cds || k[1].Type != eds {
				s.Fatal(k)
			}
		},
		"asking again for what is not subscribed to, or without a stream": func(s *script) {
			s.want(eds, "a", "b")
			s.Refresh(eds, []string{"a"})
			s.Opened()
			s.drain()
			s.want(eds, "a", "b", "*")
			s.drain()
			s.Refresh(eds, []string{"c", "*"})
			s.says()
			s.Closed()
			s.Refresh(eds, []string{"a"})
			s.Opened()
			s.Next(s.now)
			s.says()
		},
		"a refusal and then an acceptance, both unsent": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			s.verdict = func(*protocol.Update) error { return errors.New("no") }
			s.get(answer(s.Kind, cds, "1", "a=1"))
			s.verdict = nil
			s.get(answer(s.Kind, cds, "2", "a=2"))
			if s.Kind == protocol.Delta {
				s.says(`CDS nonce n1 refused 3 no`, `CDS nonce n2`)
			} else {
				s.says(`CDS version 2 nonce n2`)
			}
		},
		"what a rejection says": func(s *script) {
			if e := (&protocol.Rejection{}).Error(); e != "refused" {
				s.Fatal(e)
			}
			if e := (&protocol.Rejection{Reason: "all", Resources: map[string]string{"b": "2", "a": "1"}}).Error(); e != "all\n\"a\": 1\n\"b\": 2" {
				s.Fatal(e)
			}
		},
		"refusals that come faster than they may be answered are answered all the same": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			s.verdict = func(*protocol.Update) error { return errors.New("no") }
			answered := 0
			for i := range 60 {
				if s.Full() {
					break
				}
				s.get(answer(s.Kind, cds, fmt.Sprint(i), "a=1"))
				s.now = s.now.Add(50 * time.Millisecond)
				if r := s.Next(s.now); r != nil {
					answered++
				}
			}
			if answered < 3 || answered > 10 {
				s.Fatal(answered)
			}
		},
		"refusals in a row wait": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			s.verdict = func(*protocol.Update) error { return errors.New("no") }
			for i := range 3 {
				s.get(answer(s.Kind, cds, "1", "a=1"))
				if i > 0 {
					s.says()
					first := s.Machine.Deadline(s.now)
					s.now = first.Add(-1)
					s.says()
					s.now = first
				}
				if r := s.Next(s.now); r == nil || r.Error == nil {
					s.Fatal(r)
				}
			}
		},
	} {
		for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
			t.Run(kind.String()+"/"+name, func(t *testing.T) { play(start(t, kind)) })
		}
	}
}

func TestEdgesOfState(t *testing.T) {
	for name, play := range map[string]func(s *script){
		"names that nobody wants any more are bounded, and the last ones stay": func(s *script) {
			round := func(i int) (names []string, r *protocol.Response) {
				var all []string
				for j := range 600 {
					names = append(names, fmt.Sprintf("r%d-%d", i, j))
					all = append(all, names[j]+"=1")
				}
				return names, sotw(eds, fmt.Sprint(i), all...)
			}
			s.Opened()
			for i := range 20 {
				names, r := round(i)
				s.want(eds, names...)
				s.drain()
				s.get(r)
				s.drain()
				if n := s.Status().Bytes; n > (600+1024)*300 {
					s.Fatalf("%d bytes after %d rounds", n, i)
				}
			}
			names, _ := round(19)
			s.want(eds, "x")
			s.updates = nil
			s.want(eds, names...)
			s.due()
			if len(s.updates) != 1 || len(s.updates[0].Changed) < 100 {
				s.Fatal("nothing of what was there is left")
			}
			s.want(eds, "x")
			s.want(eds, names...)
			s.want(eds, "x")
			s.updates = nil
			s.due()
			s.offered()
		},
		"a name that is wanted again while very many are given up": func(s *script) {
			all := []string{"a=1"}
			names := []string{"a"}
			for i := range 3000 {
				names = append(names, fmt.Sprint(i))
				all = append(all, fmt.Sprint(i, "=1"))
			}
			s.want(eds, names...)
			s.Opened()
			s.drain()
			s.get(sotw(eds, "1", all...))
			s.drain()
			s.want(eds, names[1:]...)
			s.want(eds, "a")
			s.updates = nil
			s.due()
			s.offered(`EDS again a=1 complete`)
			s.get(sotw(eds, "2", all...)) // on its way still, and most of it is not wanted
			if n := s.Status().Bytes; n > 1026*300 {
				s.Fatalf("%d bytes", n)
			}
		},
		"a name that nobody wants goes in silence when its time is over": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.drain()
			r := sotw(eds, "1", "a=1", "b=1")
			r.Items[0].TTL = time.Minute
			r.Items[0].Name = "a"
			s.get(r)
			s.want(eds, "b")
			s.updates = nil
			s.now = s.now.Add(time.Hour)
			s.due()
			s.offered()
			s.want(eds, "a", "b")
			s.due()
			s.offered()
			if d := s.Machine.Deadline(s.now); !d.IsZero() {
				s.Fatal(d)
			}
		},
		"names that are wanted again, of which one is refused": func(s *script) {
			s.want(eds, "a", "b", "c")
			s.Opened()
			s.drain()
			s.get(sotw(eds, "1", "a=1", "b=1", "c=1"))
			s.drain()
			s.want(eds, "c")
			if k := s.Keep(); len(k[0].Resources) != 1 {
				s.Fatal(k)
			}
			s.want(eds, "a", "b", "c")
			s.verdict = func(*protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"a": "no"}, OthersTaken: true}
			}
			s.due()
			s.state2(eds, "b=1", "c=1")
			if st := s.Status().Types[0]; !st.InSync || st.Refused != 0 || st.LastError != `"a": no` {
				s.Fatal(st)
			}
			s.want(eds, "c")
			s.want(eds, "b", "c")
			s.verdict = func(*protocol.Update) error { return errors.New("not that either") }
			s.due()
			s.state2(eds, "c=1")
			s.want(eds, "c")
			s.want(eds, "a", "b", "c")
			s.updates = nil
			s.due()
			s.offered() // what was refused is not kept for another time
		},
		"there is no way to ask again": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.drain()
			s.get(sotw(eds, "1", "a=1"))
			s.drain()
			s.Refresh(eds, []string{"a"})
			s.says()
		},
		"a longer life for an older version": func(s *script) {
			s.want(eds, "a", "b")
			s.Opened()
			s.drain()
			s.get(sotw(eds, "1", "a=1"))
			s.get(sotw(eds, "2", "b=1"))
			s.drain()
			for _, c := range []struct {
				version, all string
				refused      bool
			}{{"", "1", false}, {"", "2", false}, {"", "3", true}, {"1", "2", false}, {"2", "2", true}} {
				s.get(&protocol.Response{Type: eds, Version: c.all, Items: []protocol.Item{{Name: "a", Version: c.version, TTL: time.Hour}}})
				s.now = s.now.Add(time.Minute)
				if r := s.Next(s.now); (r.Error != nil) != c.refused {
					s.Fatal(c, short(r))
				}
				s.get(sotw(eds, "2")) // back to what it was
				s.drain()
			}
		},
	} {
		t.Run(name, func(t *testing.T) { play(start(t, protocol.StateOfTheWorld)) })
	}
}

func TestEdgesOfDelta(t *testing.T) {
	for name, play := range map[string]func(s *script){
		"removed twice, or everything": func(s *script) {
			s.want(eds, "a", "b", "*")
			s.Opened()
			s.drain()
			s.get(delta(eds, "a=1", "c=1"))
			r := delta(eds, "-a", "-a", "-b", "-b", "-*")
			s.get(r)
			s.offered(`EDS a=1 c=1`, `EDS -a -b complete`)
			s.state(eds, "c=1")
		},
		"refused and then removed": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			s.get(delta(cds, "held=1"))
			s.verdict = func(u *protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"a": "no", "held": "no"}, OthersTaken: true}
			}
			s.get(delta(cds, "a=1", "held=2"))
			s.verdict = nil
			s.get(delta(cds, "c=1"))
			if st := s.Resources(cds); len(st) != 3 || st[0].Condition != protocol.RefusedLast || st[2].Condition != protocol.RefusedLast {
				s.Fatal(st)
			}
			s.get(delta(cds, "-a", "-held"))
			if st := s.Resources(cds); len(st) != 1 || st[0].Name != "c" {
				s.Fatal(st)
			}
		},
		"a removal that is refused": func(s *script) {
			s.want(cds, "*")
			s.Opened()
			s.drain()
			s.get(delta(cds, "a=1", "b=1"))
			s.verdict = func(u *protocol.Update) error {
				return &protocol.Rejection{Resources: map[string]string{"a": "in use"}, OthersTaken: true}
			}
			s.get(delta(cds, "-a", "-b"))
			if st := s.Resources(cds); len(st) != 1 || st[0].Name != "a" || st[0].Condition != protocol.RefusedLast || st[0].Rejected.Reason != "in use" {
				s.Fatal(st)
			}
		},
		"only a change of a cluster asks for its endpoints again": func(s *script) {
			for _, typ := range []string{cds, lds} {
				s.want(typ, "*")
			}
			s.want(eds, "a")
			s.Restore([]protocol.Kept{{Type: cds, Resources: []resource.Resource{{Type: cds, Name: "a", Version: "0", Body: body("a", "0")}}}})
			s.due()
			s.Opened()
			s.drain()
			s.get(delta(lds, "a=1"))
			s.get(delta(lds, "a=2"))
			s.get(delta(eds, "a=1"))
			s.says(`EDS nonce n3`, `LDS nonce n1`, `LDS nonce n2`)
		},
		"too much is there to be told, of names": func(s *script) {
			s.Limits.Request = 8192
			var names, all []string
			for i := range 1000 {
				names = append(names, fmt.Sprintf("e%03d", i))
				all = append(all, names[i]+"=1")
			}
			s.want(eds, names...)
			s.Opened()
			s.drain()
			s.get(delta(eds, all...))
			s.Closed()
			s.Opened()
			s.drain()
			s.get(delta(eds, "e000=2")) // the others follow
			if n := len(s.Resources(eds)); n != 1000 || slices.ContainsFunc(s.Resources(eds), func(r protocol.ResourceStatus) bool { return r.Body == nil }) {
				s.Fatal(n)
			}
		},
		"an answer that leads nowhere, for a name that nobody asked for": func(s *script) {
			s.want(eds, "a")
			s.Opened()
			s.drain()
			s.get(&protocol.Response{Type: eds, Items: []protocol.Item{{Name: "x", Aliases: []string{"y"}}}})
			s.offered()
			s.get(&protocol.Response{Type: eds, Items: []protocol.Item{{Name: "a"}}})
			s.offered(`EDS -a complete`)
		},
	} {
		t.Run(name, func(t *testing.T) { play(start(t, protocol.Delta)) })
	}
}
