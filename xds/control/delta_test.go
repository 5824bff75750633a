package control_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

var base = map[string]string{"groups.yaml": localGroups, "g/a.yaml": "cds c1 a\neds c1 a\nlds l1 a\nrds r1 a"}

func TestDeltaWildcard(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	d.subscribe(resource.Cluster)
	first := d.want("Cluster c1=a")
	d.subscribe(resource.Listener, "*")
	d.want("Listener l1=a")
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 a\nlds l1 a\nrds r1 a"))
	second := d.want("Cluster c1=b c2=a")
	if a, b := number(t, first.SystemVersionInfo), number(t, second.SystemVersionInfo); b <= a {
		t.Errorf("version %d after %d", b, a)
	}
	if number(t, second.Resources[0].Version) == number(t, second.Resources[1].Version) {
		t.Error("two resources with one version")
	}
	d.quiet("x")
	// An empty type is answered as well: the client waits for it.
	d.subscribe(resource.Secret)
	d.want("Secret")
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 a\nlds l1 a\nrds r1 a\nsds s a"))
	d.want("Secret s=a")
}

func number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDeltaNamed(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	d.subscribe(resource.Endpoints, "c1", "none")
	d.want("ClusterLoadAssignment c1=a -none")
	// What is subscribed to again is sent again.
	d.subscribe(resource.Endpoints, "c1")
	d.want("ClusterLoadAssignment c1=a")
	p.mustApply(with(base, "g/a.yaml", "cds c1 a\neds c1 b\neds c2 b\neds none b\nlds l1 a\nrds r1 a"))
	d.want("ClusterLoadAssignment c1=b none=b")
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints, ResourceNamesUnsubscribe: []string{"c1"}, ResourceNamesSubscribe: []string{"c2"}})
	d.want("ClusterLoadAssignment c2=b")
	p.mustApply(with(base, "g/a.yaml", "cds c1 a\neds c1 c\neds c2 b\neds none b\nlds l1 a\nrds r1 a"))
	d.quiet("x")
	p.mustApply(with(base, "g/a.yaml", "cds c1 a\neds c1 c\neds none b\nlds l1 a\nrds r1 a"))
	d.want("ClusterLoadAssignment -c2")
}

func TestDeltaWildcardAndNames(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	d.subscribe(resource.Cluster, "*", "c1", "c9")
	d.want("Cluster c1=a -c9")
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, ResourceNamesUnsubscribe: []string{"*"}})
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\ncds c9 a"))
	d.want("Cluster c1=b c9=a")
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, ResourceNamesSubscribe: []string{"*"}})
	d.want("Cluster c1=b c2=a c9=a")
}

// A client that comes back says what it has, and gets the rest.
func TestDeltaReconnect(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	d.subscribe(resource.Cluster)
	c1 := d.want("Cluster c1=a").Resources[0].Version
	d.subscribe(resource.Endpoints, "c1")
	e1 := d.want("ClusterLoadAssignment c1=a").Resources[0].Version
	p.mustApply(with(base, "g/a.yaml", "cds c1 a\ncds c2 a\neds c1 b\nlds l1 a\nrds r1 a"))
	again := p.delta(p.connect())
	again.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, InitialResourceVersions: map[string]string{"c1": c1, "c7": "12"}})
	again.want("Cluster c2=a -c7") // nothing else was asked for, so that nothing can refer to c7
	again.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints, ResourceNamesSubscribe: []string{"c1", "c7"}, InitialResourceVersions: map[string]string{"c1": e1, "c7": "x"}})
	again.want("ClusterLoadAssignment c1=b -c7")
	third := p.delta(p.connect())
	third.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Listener, InitialResourceVersions: map[string]string{"l1": "1"}})
	l1 := third.want("Listener l1=a").Resources[0].Version
	fourth := p.delta(p.connect())
	fourth.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Listener, InitialResourceVersions: map[string]string{"l1": l1}})
	fourth.want("Listener") // the first answer always comes
}

// Clusters go last, after the client has accepted listeners and routes that do not name them.
func TestDeltaMakeBeforeBreak(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	for _, typ := range []string{resource.Cluster, resource.Listener} {
		d.subscribe(typ)
	}
	d.want("Cluster c1=a")
	d.want("Listener l1=a")
	d.subscribe(resource.Endpoints, "c1")
	d.want("ClusterLoadAssignment c1=a")
	d.subscribe(resource.Route, "r1")
	d.want("RouteConfiguration r1=a")
	p.mustApply(with(base, "g/a.yaml", "cds c2 a\neds c2 a\nlds l1 b\nrds r1 b"))
	d.want("Cluster c2=a")
	l := d.next()
	if got := showDelta(l); got != "Listener l1=b" {
		t.Fatal(got)
	}
	d.want("RouteConfiguration r1=b")
	d.quiet("x")
	d.ack(l)
	d.want("Cluster -c1")
	d.want("ClusterLoadAssignment -c1")
	// A listener that was refused may still name the old cluster.
	p.mustApply(with(base, "g/a.yaml", "cds c3 a\nlds l1 c\nrds r1 b"))
	d.want("Cluster c3=a")
	l = d.next()
	d.nack(l, "no")
	d.quiet("y")
	// It comes back before it went.
	p.mustApply(with(base, "g/a.yaml", "cds c2 a\ncds c3 a\nlds l1 d\nrds r1 b"))
	d.want("Cluster c2=a")
	d.want("Listener l1=d")
	d.quiet("z")
}

// While a response is not answered, changes gather; what was refused is sent again with the next change.
func TestDeltaRefusal(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	d.subscribe(resource.Cluster)
	m := d.next()
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a"))
	p.mustApply(with(base, "g/a.yaml", "cds c1 c\ncds c2 b"))
	d.quiet("x")
	d.nack(m, "bad\x1b[31m cluster")
	n := d.next()
	if got := showDelta(n); got != "Cluster c1=c c2=b" {
		t.Fatal(got)
	}
	d.nack(n, "still bad")
	d.quiet("y") // what was refused is not sent again unchanged
	st := p.Status()
	if len(st.Proxies) != 1 || st.Proxies[0].Standing != control.Rejected || st.Proxies[0].Reason != "Cluster: still bad" || st.Proxies[0].ID != "n" {
		t.Errorf("status %+v", st.Proxies)
	}
	p.mustApply(with(base, "g/a.yaml", "cds c1 c\ncds c2 b\ncds c3 a"))
	d.want("Cluster c3=a c1=c c2=b")
	d.quiet("z")
	until(t, "synced", func() bool { return p.Status().Proxies[0].Standing == control.Synced })
	// An old nonce is nothing.
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, ResponseNonce: m.Nonce})
	d.quiet("w")
}

// The order is that in which nothing is referred to before it is there, and policies go first.
func TestOrder(t *testing.T) {
	files := map[string]string{"groups.yaml": localGroups, "policies/p.yaml": proxiesPolicy, "g/a.yaml": "cds c a\neds c a\nlds l a\nrds r a\nsds s a"}
	p := at(t, files, control.Options{})
	d := p.delta(p.connect())
	types := []string{resource.Route, resource.Listener, resource.Secret, resource.Endpoints, resource.Cluster, resource.AttestationPolicy}
	for _, typ := range types {
		d.subscribe(typ, "*")
	}
	for range types {
		d.ack(d.next())
	}
	d.quiet("x")
	p.mustApply(with(files, "g/a.yaml", "cds c b\neds c b\nlds l b\nrds r b\nsds s b", "policies/p.yaml", denyMilan))
	for _, want := range []string{"AttestationPolicy", "Cluster", "ClusterLoadAssignment", "Secret", "Listener", "RouteConfiguration"} {
		m := d.next()
		if got := kind(m.TypeUrl); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		d.ack(m)
	}
}

// What is large comes in several responses.
func TestDeltaLarge(t *testing.T) {
	var text strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&text, "cds c%04d %s\n", i, strings.Repeat("x", 1000))
	}
	p := at(t, with(base, "g/a.yaml", text.String()), control.Options{})
	d := p.delta(p.connect())
	d.subscribe(resource.Cluster)
	got, n := map[string]bool{}, 0
	for ; len(got) < 3000; n++ {
		m := d.next()
		for _, r := range m.Resources {
			if got[r.Name] {
				t.Fatal("twice: " + r.Name)
			}
			got[r.Name] = true
		}
		d.ack(m)
	}
	if n < 3 {
		t.Errorf("%d responses", n)
	}
	p.mustApply(with(base, "g/a.yaml", "cds c0001 "+strings.Repeat("x", 1000)))
	changed, gone := 0, 0
	for gone < 2999 {
		m := d.next()
		changed += len(m.Resources)
		gone += len(m.RemovedResources)
		d.ack(m)
	}
	if changed != 0 || gone != 2999 {
		t.Errorf("%d changed, %d gone", changed, gone)
	}
	d.quiet("x")
}
