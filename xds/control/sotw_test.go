package control_test

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

func TestSotw(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.sotw(p.connect())
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Cluster})
	first := d.want("Cluster c1=a")
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Endpoints, ResourceNames: []string{"c1"}})
	d.want("ClusterLoadAssignment c1=a", "c1")
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Listener, ResourceNames: []string{"*"}})
	d.want("Listener l1=a", "*")
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 a\neds c2 a\nlds l1 a\nrds r1 a"))
	second := d.want("Cluster c1=b c2=a")
	if number(t, second.VersionInfo) <= number(t, first.VersionInfo) {
		t.Errorf("version %s after %s", second.VersionInfo, first.VersionInfo)
	}
	// More names: all of them are answered. Fewer: nothing.
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Endpoints, ResourceNames: []string{"c1", "c2"}, ResponseNonce: "2"})
	d.want("ClusterLoadAssignment c1=a c2=a", "c1", "c2")
	d.quiet("a")
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 b\neds c2 a\nlds l1 a\nrds r1 a"))
	e := d.want("ClusterLoadAssignment c1=b c2=a", "c2")
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 c\neds c2 a\nlds l1 a\nrds r1 a"))
	d.quiet("b")
	// What goes with an old nonce was overtaken.
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Endpoints, ResourceNames: []string{"c1"}, ResponseNonce: "1", VersionInfo: e.VersionInfo})
	d.quiet("c")
	// No names any more is none, not all.
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Endpoints})
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 d\neds c2 d\nlds l1 a\nrds r1 a"))
	d.quiet("d")
}

func TestSotwMakeBeforeBreak(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.sotw(p.connect())
	for _, typ := range []string{resource.Cluster, resource.Listener} {
		d.send(&discovery.DiscoveryRequest{TypeUrl: typ})
	}
	d.want("Cluster c1=a")
	d.want("Listener l1=a")
	p.mustApply(with(base, "g/a.yaml", "cds c2 a\nlds l2 b"))
	a := d.want("Cluster c2=a c1=a")
	l := d.next()
	if got := showSotw(l); got != "Listener l2=b" {
		t.Fatal(got)
	}
	d.quiet("x")
	d.send(&discovery.DiscoveryRequest{TypeUrl: l.TypeUrl, ResponseNonce: l.Nonce, VersionInfo: l.VersionInfo})
	b := d.want("Cluster c2=a")
	if number(t, b.VersionInfo) <= number(t, a.VersionInfo) {
		t.Errorf("version %s after %s", b.VersionInfo, a.VersionInfo)
	}
}

func TestSotwRefusal(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.sotw(p.connect())
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Cluster})
	m := d.next()
	d.send(&discovery.DiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &status.Status{Message: "no"}})
	d.quiet("x")
	if st := p.Status(); st.Proxies[0].Standing != control.Rejected {
		t.Errorf("status %+v", st.Proxies)
	}
	p.mustApply(with(base, "g/a.yaml", "cds c1 b"))
	d.want("Cluster c1=b")
	d.quiet("y")
	until(t, "synced", func() bool {
		p := p.Status().Proxies[0]
		return p.Standing == control.Synced && p.Protocol == "sotw"
	})
}

// Names that are not there are waited for, but for clusters and listeners, of which it can be said that there are none.
func TestSotwAbsent(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.sotw(p.connect())
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Secret, ResourceNames: []string{"s"}})
	d.quiet("x")
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Cluster, ResourceNames: []string{"c9"}})
	d.want("Cluster", "c9")
	p.mustApply(with(base, "g/a.yaml", "cds c9 a\nsds s a"))
	d.want("Cluster c9=a", "c9")
	d.want("Secret s=a", "s")
	p.mustApply(with(base, "g/a.yaml", "cds c1 a"))
	d.want("Cluster", "c9")
}
