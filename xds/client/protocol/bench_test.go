package protocol_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/xds/client/protocol"
)

// BenchmarkReceive is one response and its acknowledgement: of 10,000 resources of which one changed in the state-of-the-world protocol,
// and of one resource beside 100,000 in the delta protocol, with a wildcard and with as many names.
func BenchmarkReceive(b *testing.B) {
	for _, c := range []struct {
		name  string
		kind  protocol.Kind
		typ   string
		count int
	}{
		{"state of the world", protocol.StateOfTheWorld, cds, 10_000},
		{"delta", protocol.Delta, cds, 100_000},
		{"delta by name", protocol.Delta, eds, 100_000},
	} {
		b.Run(c.name, func(b *testing.B) {
			m, err := protocol.New(protocol.Config{Kind: c.kind, Random: func() float64 { return 0 }})
			if err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			r := &protocol.Response{Type: c.typ}
			var all []string
			for i := range c.count {
				n := fmt.Sprintf("outbound|80||service-%d.default.svc.cluster.local", i)
				all = append(all, n)
				r.Items = append(r.Items, protocol.Item{Name: n, Version: "0", HasBody: true, Type: c.typ, Body: body(n, "0")})
			}
			if c.typ == cds {
				all = []string{"*"}
			}
			if err := m.Subscribe(now, c.typ, all, 0); err != nil {
				b.Fatal(err)
			}
			m.Opened()
			i := 0
			round := func() {
				i++
				r.Nonce, r.Version = fmt.Sprint(i), fmt.Sprint(i)
				n := r.Items[0].Name
				r.Items[0].Version, r.Items[0].Body = r.Version, body(n, r.Version)
				if u, err := m.Receive(now, r); u == nil || err != nil {
					b.Fatal(u, err)
				}
				m.Judged(now, nil)
				if q := m.Next(now); q == nil || q.Error != nil {
					b.Fatal(q)
				}
			}
			for m.Next(now) != nil {
			}
			round()
			if c.kind == protocol.Delta {
				r.Items = r.Items[:1]
			}
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}
