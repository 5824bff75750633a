package protocol_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

// A server that sends anything at all changes nothing but what the Sink accepts, and can make nothing grow beyond the limits.
func hostile(t *rapid.T) {
	kind := rapid.SampledFrom([]protocol.Kind{protocol.StateOfTheWorld, protocol.Delta}).Draw(t, "kind")
	limits := protocol.Limits{Types: 4, Names: 8, Resources: 6, Bytes: 3000}
	m, err := protocol.New(protocol.Config{Kind: kind, Random: func() float64 { return 0 }, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	types := rapid.SampledFrom([]string{cds, eds, lds, "type.googleapis.com/x.Y", "nonsense", ""})
	texts := rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e", "f", "g", "*", "a b", "\x00", "\xff", strings.Repeat("n", 3000)})
	model := map[string]map[string]string{}
	judge := func(u *protocol.Update) {
		for u != nil {
			verdict := rapid.SampledFrom([]error{nil, nil, nil, errors.New("no")}).Draw(t, "verdict")
			for _, r := range u.Changed {
				if err := r.Validate(); err != nil {
					t.Fatal(err)
				}
			}
			changed := rapid.IntRange(0, 9).Draw(t, "subscribe?") == 0
			if changed {
				_ = m.Subscribe(now, cds, rapid.SliceOfN(texts, 0, 9).Draw(t, "names"), 0)
				model = map[string]map[string]string{} // what is forgotten is not told
			}
			if !changed && (verdict == nil || u.Cause == protocol.Expired) {
				if model[u.Type] == nil {
					model[u.Type] = map[string]string{}
				}
				for _, r := range u.Changed {
					model[u.Type][r.Name] = string(r.Body)
				}
				for _, n := range u.Removed {
					delete(model[u.Type], n)
				}
			}
			m.Judged(now, verdict)
			u = m.Due(now)
		}
	}
	item := rapid.Custom(func(t *rapid.T) protocol.Item {
		i := protocol.Item{Name: texts.Draw(t, "name"), Version: texts.Draw(t, "version"), HasBody: rapid.IntRange(0, 4).Draw(t, "body?") > 0, Type: types.Draw(t, "type")}
		if rapid.IntRange(0, 3).Draw(t, "ttl?") == 0 {
			i.TTL = time.Duration(rapid.Int64().Draw(t, "ttl"))
		}
		if rapid.IntRange(0, 3).Draw(t, "aliases?") == 0 {
			i.Aliases = rapid.SliceOfN(texts, 0, 3).Draw(t, "aliases")
		}
		switch rapid.IntRange(0, 5).Draw(t, "content") {
		case 0:
			i.Body = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")
		case 1:
			i.Body = body(i.Name, strings.Repeat("x", rapid.IntRange(0, 4000).Draw(t, "size")))
		default:
			i.Body = body(i.Name, texts.Draw(t, "text"))
		}
		return i
	})
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		switch rapid.IntRange(0, 7).Draw(t, "what") {
		case 0:
			_ = m.Subscribe(now, types.Draw(t, "type"), rapid.SliceOfN(texts, 0, 9).Draw(t, "names"), time.Duration(rapid.Int64().Draw(t, "within")))
			model = map[string]map[string]string{}
		case 1:
			m.Opened()
		case 2:
			m.Closed()
		case 3:
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "time")))
			judge(m.Due(now))
			for typ, _ := m.Missing(now); typ != ""; typ, _ = m.Missing(now) {
			}
		case 4:
			for n := 0; ; n++ {
				r := m.Next(now)
				if r == nil {
					break
				}
				if n > 100 || len(r.Names) > 8 || len(r.Subscribe) > 9 || len(r.Unsubscribe) > 8 || len(r.Initial) > 6 {
					t.Fatalf("%d requests, the last of them %s", n, short(r))
				}
			}
		default:
			if m.Full() {
				break
			}
			typ := types.Draw(t, "type")
			r := &protocol.Response{
				Type: typ, Version: texts.Draw(t, "version"), Nonce: texts.Draw(t, "nonce"), ControlPlane: texts.Draw(t, "control plane"),
				Items: rapid.SliceOfN(item, 0, 8).Draw(t, "items"), Removed: rapid.SliceOfN(texts, 0, 8).Draw(t, "removed"),
			}
			if rapid.Bool().Draw(t, "plausible") { // or hardly anything would be accepted
				for i := range r.Items {
					if it := &r.Items[i]; it.HasBody {
						it.Type, it.Name, it.Body = typ, "abcdefg"[i%7:i%7+1], body("abcdefg"[i%7:i%7+1], it.Name)
					}
				}
				r.Nonce = rapid.StringN(1, 8, 8).Draw(t, "fresh nonce")
				r.Removed = nil
			}
			if rapid.IntRange(0, 3).Draw(t, "errors?") == 0 {
				r.Errors = append(r.Errors, protocol.ItemError{Name: texts.Draw(t, "of"), Code: rapid.IntRange(0, 16).Draw(t, "code"), Message: texts.Draw(t, "message")})
			}
			judge(m.Due(now))
			u, err := m.Receive(now, r)
			if err == nil {
				judge(u)
			}
		}
		total := 0
		for _, typ := range []string{cds, eds, lds, "type.googleapis.com/x.Y"} {
			held := map[string]string{}
			for _, r := range m.Resources(typ) {
				if r.Body != nil {
					held[r.Name] = string(r.Body)
					total += len(r.Body)
				}
			}
			if len(held) > 6 {
				t.Fatalf("%d resources", len(held))
			}
			for n, b := range model[typ] {
				if held[n] != b {
					t.Fatal("something was accepted and is not there")
				}
			}
		}
		st := m.Status()
		if len(st.Types) > 4 || st.Bytes > 3000 || st.Bytes < total {
			t.Fatalf("%d types, %d bytes, of which %d are seen", len(st.Types), st.Bytes, total)
		}
		for _, s := range st.Types {
			if s.Names > 8 || s.Waiting > 8 || s.Resources > 6 || len(s.LastError) > 4096 {
				t.Fatalf("%+v", s)
			}
		}
	}
	// And when all is over nothing is left.
	for _, typ := range []string{cds, eds, lds, "type.googleapis.com/x.Y"} {
		_ = m.Subscribe(now, typ, nil, 0)
	}
	m.Opened()
	if b := m.Status().Bytes; b != 0 {
		t.Fatalf("%d bytes of nothing", b)
	}
}

func TestHostile(t *testing.T) { rapid.Check(t, hostile) }

func FuzzHostile(f *testing.F) { f.Fuzz(rapid.MakeFuzz(hostile)) }

// One hundred thousand resources, and one more than that many names that are removed.
func TestMany(t *testing.T) {
	for _, kind := range []protocol.Kind{protocol.StateOfTheWorld, protocol.Delta} {
		s := start(t, kind)
		s.want(cds, "*")
		s.Opened()
		s.says(`CDS node`)
		r := &protocol.Response{Type: cds, Version: "1"}
		for i := range 100_000 {
			n := "c" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String()
			r.Items = append(r.Items, protocol.Item{Name: n, Version: "1", HasBody: true, Type: cds, Body: body(n, "1")})
		}
		began := time.Now()
		s.get(r)
		took := time.Since(began)
		if st := s.Status(); st.Types[0].Resources != 100_000 || st.Types[0].Refused != 0 {
			t.Fatal(st)
		}
		if q := s.Next(s.now); q == nil || q.Error != nil {
			t.Fatal(short(q))
		}
		next := &protocol.Response{Type: cds, Version: "2", Items: r.Items[:1]}
		if kind == protocol.Delta {
			for _, i := range r.Items[1:] {
				next.Removed = append(next.Removed, i.Name)
			}
		}
		s.get(next)
		if st := s.Status(); st.Types[0].Resources != 1 {
			t.Fatal(st.Types[0].Resources)
		}
		t.Logf("%v: %v", kind, took)
		if typ := resource.Cluster; s.Resources(typ)[0].Name != r.Items[0].Name {
			t.Fatal("another one")
		}
	}
}
