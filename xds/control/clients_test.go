package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

// heldBy is what the only client holds: "Cluster c1=a SYNCED".
func heldBy(t *testing.T, p *plane) string {
	t.Helper()
	all := p.Clients(func(string) bool { return true }, true)
	if len(all) != 1 {
		t.Fatalf("%d clients", len(all))
	}
	var text []string
	for _, h := range all[0].Held {
		line := kind(h.Type) + " " + h.Name
		if h.Body != nil {
			line += "=" + value(h.Body)
		}
		line += " " + string(h.Standing)
		if h.Reason != "" {
			line += fmt.Sprintf(" (%s)", h.Reason)
			if h.RefusedAt.IsZero() || h.Refused == "" || h.Refused == "0" {
				t.Errorf("%s: %+v", h.Name, h)
			}
		}
		if (h.Version == "") != (h.Body == nil) {
			t.Errorf("%s: version %q", h.Name, h.Version)
		}
		if h.Type != "type.googleapis.com/test.Marker" {
			text = append(text, line)
		}
	}
	return strings.Join(text, ", ")
}

func TestClients(t *testing.T) {
	p := at(t, base, control.Options{})
	if all := p.Clients(func(string) bool { return true }, true); len(all) != 0 {
		t.Errorf("clients %+v", all)
	}
	d := p.delta(p.connect())
	d.subscribe(resource.Endpoints, "c1", "none")
	d.subscribe(resource.Cluster)
	eventually := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			all := p.Clients(func(string) bool { return true }, true)
			return len(all) == 1 && len(all[0].Held) > 0 && heldBy(t, p) == want
		})
	}
	first, second := d.next(), d.next()
	eventually("Cluster c1=a STALE, ClusterLoadAssignment c1=a STALE, ClusterLoadAssignment none NOT_SENT")
	d.ack(first)
	d.ack(second)
	eventually("Cluster c1=a SYNCED, ClusterLoadAssignment c1=a SYNCED, ClusterLoadAssignment none NOT_SENT")
	// What changes while an answer is waited for was not told.
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 a\neds c1 a"))
	m := d.next()
	p.mustApply(with(base, "g/a.yaml", "cds c1 b\ncds c2 b\ncds c3 a\neds c1 a"))
	eventually("Cluster c1=b STALE, Cluster c2=b NOT_SENT, Cluster c3=a NOT_SENT, ClusterLoadAssignment c1=a SYNCED, ClusterLoadAssignment none NOT_SENT")
	d.nack(m, "bad\n")
	n := d.next()
	eventually("Cluster c1=b REJECTED (bad?), Cluster c2=b STALE, Cluster c3=a STALE, ClusterLoadAssignment c1=a SYNCED, ClusterLoadAssignment none NOT_SENT")
	d.ack(n)
	eventually("Cluster c1=b REJECTED (bad?), Cluster c2=b SYNCED, Cluster c3=a SYNCED, ClusterLoadAssignment c1=a SYNCED, ClusterLoadAssignment none NOT_SENT")

	for _, h := range p.Clients(func(id string) bool { return id == "n" }, false)[0].Held {
		if h.Body != nil {
			t.Errorf("the body of %s", h.Name)
		}
	}
	if all := p.Clients(func(id string) bool { return id != "n" }, false); len(all) != 0 {
		t.Errorf("clients %+v", all)
	}
	if one := p.Clients(func(string) bool { return true }, false)[0]; one.ID != "n" || one.Group != "g" || one.Protocol != "delta" {
		t.Errorf("client %+v", one)
	}
}

func TestClientsOfSotw(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.sotw(p.connect())
	d.send(&discovery.DiscoveryRequest{TypeUrl: resource.Cluster})
	m := d.next()
	is := func(want string) func() bool {
		return func() bool {
			all := p.Clients(func(string) bool { return true }, true)
			return len(all) == 1 && len(all[0].Held) > 0 && heldBy(t, p) == want
		}
	}
	until(t, "sent", is("Cluster c1=a STALE"))
	d.send(&discovery.DiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &status.Status{Message: "no"}})
	until(t, "refused", is("Cluster c1=a REJECTED (no)"))
	p.mustApply(with(base, "g/a.yaml", "cds c1 b"))
	d.want("Cluster c1=b")
	until(t, "taken", is("Cluster c1=b SYNCED"))
	if one := p.Clients(func(string) bool { return true }, false)[0]; one.Protocol != "sotw" || !slices.ContainsFunc(one.Held, func(h control.Held) bool { return h.Name == "c1" }) {
		t.Errorf("client %+v", one)
	}
}

// A repeated acknowledgement tells of connections, and is answered with nothing, whatever was said before.
func TestCountsAreTaken(t *testing.T) {
	node := func(open, refused float64) *core.Node {
		m, err := structpb.NewStruct(map[string]any{"jurat": map[string]any{"open": open, "refused": refused}})
		if err != nil {
			t.Fatal(err)
		}
		return &core.Node{Id: "n", Metadata: m}
	}
	p := at(t, base, control.Options{})
	is := func(open, refused uint64) {
		t.Helper()
		until(t, fmt.Sprint(open, refused), func() bool {
			all := p.Status().Proxies
			return len(all) == 1 && all[0].Open != nil && *all[0].Open == open && *all[0].Refused == refused && all[0].Standing == control.Synced
		})
	}
	d := p.delta(p.connect())
	d.send(&discovery.DeltaDiscoveryRequest{Node: node(1, 2), TypeUrl: resource.Cluster})
	m := d.want("Cluster c1=a")
	if m.GetControlPlane().GetIdentifier() != "jurat" {
		t.Errorf("it calls itself %q", m.GetControlPlane().GetIdentifier())
	}
	is(1, 2)
	d.send(&discovery.DeltaDiscoveryRequest{Node: node(3, 4), TypeUrl: resource.Cluster, ResponseNonce: m.Nonce})
	is(3, 4)
	d.quiet("x")
	// What is refused stays refused.
	p.mustApply(with(base, "g/a.yaml", "cds c1 b"))
	m = d.next()
	d.nack(m, "no")
	d.quiet("y")
	d.send(&discovery.DeltaDiscoveryRequest{Node: node(5, 6), TypeUrl: resource.Cluster, ResponseNonce: m.Nonce})
	d.quiet("z")
	if one := p.Status().Proxies[0]; one.Standing != control.Rejected || *one.Open != 5 {
		t.Errorf("status %+v", one)
	}
	_ = d.CloseSend()
	until(t, "nobody", func() bool { return len(p.Status().Proxies) == 0 })

	s := p.sotw(p.connect())
	s.send(&discovery.DiscoveryRequest{Node: node(1, 2), TypeUrl: resource.Cluster})
	r := s.want("Cluster c1=b")
	if r.GetControlPlane().GetIdentifier() != "jurat" {
		t.Errorf("it calls itself %q", r.GetControlPlane().GetIdentifier())
	}
	s.send(&discovery.DiscoveryRequest{Node: node(7, 8), TypeUrl: resource.Cluster, ResponseNonce: r.Nonce, VersionInfo: r.VersionInfo})
	is(7, 8)
	s.quiet("x")
}
