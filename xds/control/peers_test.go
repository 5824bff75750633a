package control_test

import (
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

const twoGroups = `groups:
- name: pay
  require: proxies
  names: [pay.example, "*.pay.example"]
- name: pinned
  require: proxies
  measurements: ["111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"]
  nodes: ["edge-*"]
- name: rest
  require: proxies
  configs: ["0700000000000000000000000000000000000000000000000000000000000000"]
  names: [rest.example]
`

var grouped = map[string]string{
	"groups.yaml": twoGroups, "policies/proxies.yaml": proxiesPolicy, "shared.yaml": "cds all a",
	"pay/a.yaml": "cds c pay\nsds key pay", "pinned/deep/a.yaml": "cds c pinned", "rest/a.yaml": "cds c rest",
}

// What a proxy gets follows from what was verified, whatever its requests say.
func TestGroups(t *testing.T) {
	p := at(t, grouped, control.Options{})
	pinned := amd("genoa")
	pinned.Measured = map[string]attest.HexBytes{"launch": []byte(strings.Repeat("\x11", 48))}
	for name, tc := range map[string]struct {
		claims attest.Claims
		names  []string
		node   string
		want   string // "" is refused
	}{
		"by name":                 {amd("genoa"), []string{"pay.example"}, "pay.example", "pay"},
		"by name below":           {amd("genoa"), []string{"a.pay.example"}, "a.pay.example/1", "pay"},
		"without an id":           {amd("genoa"), []string{"pay.example"}, "", "pay"},
		"another's id":            {amd("genoa"), []string{"pay.example"}, "rest.example", ""},
		"an id that looks alike":  {amd("genoa"), []string{"pay.example"}, "pay.example.evil", ""},
		"by measurement":          {pinned, nil, "edge-7", "pinned"},
		"an id of no pattern":     {pinned, nil, "core-7", ""},
		"the first group counts":  {pinned, []string{"pay.example"}, "pay.example", "pay"},
		"by configuration":        {amd("genoa"), []string{"rest.example"}, "rest.example", "rest"},
		"no group":                {amd("genoa"), []string{"evilpay.example"}, "", ""},
		"no group, pay's id":      {amd("genoa"), nil, "pay.example", ""},
		"the group's policy":      {attest.Claims{Vendor: "intel", Generation: "sapphire-rapids", Measured: pinned.Measured}, []string{"pay.example"}, "", ""},
		"a suffix is not a label": {amd("genoa"), []string{"xpay.example"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := *p
			p.t = t
			d := p.delta(p.attest(identity(t, tc.claims, tc.names...)))
			_ = d.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: tc.node, Cluster: "pay"}, TypeUrl: resource.Cluster})
			if tc.want != "" {
				d.want("Cluster all=a c=" + tc.want)
				return
			}
			if err := d.end(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("got %v", err)
			}
			if len(d.answers) != 0 {
				t.Error("it got something")
			}
		})
	}
	if r := p.Status().Refused; len(r) != 7 {
		t.Errorf("%d refused: %+v", len(r), r)
	}
}

// A policy that refuses who is connected cuts them, and nobody else, and they get nothing of what changed with it.
func TestPolicyChange(t *testing.T) {
	files := map[string]string{"groups.yaml": anyGroups, "policies/proxies.yaml": proxiesPolicy, "g/a.yaml": "sds key old"}
	p := at(t, files, control.Options{})
	milan, genoa := p.delta(p.attest(identity(t, amd("milan")))), p.delta(p.attest(identity(t, amd("genoa"))))
	for _, d := range []*delta{milan, genoa} {
		d.subscribe(resource.AttestationPolicy, "proxies")
		m := d.next()
		pol, err := api.DecodePolicy(m.TypeUrl, m.Resources[0].Resource.Value)
		if err != nil || pol.Text != proxiesPolicy || pol.Serial != number(t, m.Resources[0].Version) {
			t.Fatalf("got %+v, %v", pol, err)
		}
		d.ack(m)
		d.subscribe(resource.Secret)
		d.want("Secret key=old")
	}
	plan := p.Plan(toFiles(with(files, "policies/proxies.yaml", denyMilan, "g/a.yaml", "sds key new")))
	if len(plan.Problem) != 0 || len(plan.Changes) != 2 || len(plan.Proxies) != 1 || plan.Proxies[0].Generation != "milan" || plan.Proxies[0].Code == "" || plan.Proxies[0].To != "" ||
		len(plan.Policies) != 1 || len(plan.Policies[0].Refuses) != 1 {
		t.Errorf("plan %+v", plan)
	}
	p.mustApply(with(files, "policies/proxies.yaml", denyMilan, "g/a.yaml", "sds key new"))
	if err := milan.end(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "group g") {
		t.Errorf("got %v", err)
	}
	for len(milan.answers) > 0 {
		t.Error("it got", showDelta(<-milan.answers))
	}
	m := genoa.next()
	if pol, err := api.DecodePolicy(m.TypeUrl, m.Resources[0].Resource.Value); err != nil || pol.Text != denyMilan {
		t.Errorf("got %+v, %v", pol, err)
	}
	genoa.ack(m)
	genoa.want("Secret key=new")
	until(t, "one proxy", func() bool { return len(p.Status().Proxies) == 1 })
	until(t, "synced", func() bool { return p.Status().Proxies[0].Standing == control.Synced })
	proxy := p.Status().Proxies[0]
	if proxy.Epoch != number(t, m.Resources[0].Version) || proxy.Generation != "genoa" || proxy.TEE != "snp" || proxy.TCB["snp"] != 23 || proxy.Evidence == "" {
		t.Errorf("status %+v", proxy)
	}
	// It comes back, and is turned away.
	again := p.delta(p.attest(identity(t, amd("milan"))))
	_ = again.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Secret})
	if err := again.end(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

// A plan says of a proxy that calls itself what its group does not allow any more, or what the one that it comes to does not, that it
// is cut.
func TestPlanLooksAtNodes(t *testing.T) {
	files := map[string]string{"groups.yaml": anyGroups, "policies/proxies.yaml": proxiesPolicy, "g/a.yaml": "cds c g"}
	p := at(t, files, control.Options{})
	d := p.delta(p.attest(identity(t, amd("genoa"), "pay.example")))
	d.subscribe(resource.Cluster) // as "n"
	d.want("Cluster c=g")
	silent := p.delta(p.attest(identity(t, amd("genoa"), "pay.example")))
	silent.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster})
	silent.want("Cluster c=g")
	next := with(files, "groups.yaml", strings.Replace(anyGroups, "'*'", "'edge-*'", 1))
	plan := p.Plan(toFiles(next))
	if len(plan.Problem) != 0 || len(plan.Proxies) != 1 || plan.Proxies[0].ID != "n" || plan.Proxies[0].To != "" || !strings.Contains(plan.Proxies[0].Reason, "node.id") {
		t.Errorf("plan %+v", plan)
	}
	p.mustApply(next)
	if err := d.end(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
	silent.quiet("still here")
}

// One that changes groups gets what the other one has, and loses what it had.
func TestGroupChange(t *testing.T) {
	p := at(t, grouped, control.Options{})
	d := p.delta(p.attest(identity(t, amd("genoa"), "pay.example")))
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Secret})
	d.want("Secret key=pay")
	d.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster})
	d.want("Cluster all=a c=pay")
	moved := strings.Replace(strings.Replace(twoGroups, "names: [pay.example, ", "names: [", 1), "[rest.example]", "[rest.example, pay.example]", 1)
	if plan := p.Plan(toFiles(with(grouped, "groups.yaml", moved))); len(plan.Proxies) != 1 || plan.Proxies[0].From != "pay" || plan.Proxies[0].To != "rest" {
		t.Errorf("plan %+v", plan)
	}
	p.mustApply(with(grouped, "groups.yaml", moved))
	d.want("Cluster c=rest")
	d.want("Secret -key")
}

// A proxy may say how many connections it has. What it says of itself later does not change who it is.
func TestReport(t *testing.T) {
	p := at(t, base, control.Options{})
	d := p.delta(p.connect())
	report := func(open, refused float64) *core.Node {
		m, err := structpb.NewStruct(map[string]any{"jurat": map[string]any{"open": open, "refused": refused}})
		if err != nil {
			t.Fatal(err)
		}
		return &core.Node{Id: "first\x1b[31m", Metadata: m}
	}
	d.send(&discovery.DeltaDiscoveryRequest{Node: report(3, 1), TypeUrl: resource.Cluster})
	d.want("Cluster c1=a")
	st := p.Status().Proxies[0]
	if st.Open == nil || *st.Open != 3 || *st.Refused != 1 || st.ID != "first?[31m" {
		t.Errorf("status %+v", st)
	}
	n := report(5, -1)
	n.Id = "second"
	d.send(&discovery.DeltaDiscoveryRequest{Node: n, TypeUrl: resource.Cluster})
	d.quiet("x")
	st = p.Status().Proxies[0]
	if st.Open == nil || *st.Open != 5 || st.Refused != nil || st.ID != "first?[31m" {
		t.Errorf("status %+v", st)
	}
}

// What a client can ask for is bounded, and nonsense ends its stream alone.
func TestHostile(t *testing.T) {
	p := at(t, base, control.Options{})
	for name, r := range map[string]*discovery.DeltaDiscoveryRequest{
		"no type":      {},
		"a bad type":   {TypeUrl: "x"},
		"a bad name":   {TypeUrl: resource.Cluster, ResourceNamesSubscribe: []string{"a\x00b"}},
		"an empty one": {TypeUrl: resource.Cluster, ResourceNamesSubscribe: []string{""}},
	} {
		d := p.delta(p.connect())
		d.send(r)
		if err := d.end(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v", name, err)
		}
	}
	d := p.delta(p.connect())
	go func() {
		for i := range 100 {
			if d.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/t.T" + strings.Repeat("x", i)}) != nil {
				return
			}
		}
	}()
	if err := d.end(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("types: got %v", err)
	}
	d = p.delta(p.connect())
	go func() {
		for i := range 100 {
			names := make([]string, 10_000)
			for j := range names {
				names[j] = strings.Repeat("n", 1+j%10) + string(rune('a'+i%26)) + strings.Repeat("m", j%97) + string(rune('a'+j%26)) + strings.Repeat("o", i)
			}
			if d.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster, ResourceNamesSubscribe: names}) != nil {
				return
			}
		}
	}()
	if err := d.end(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("names: got %v", err)
	}
	// Garbage in place of a message.
	cc := p.connect()
	raw, err := cc.NewStream(t.Context(), &discovery.AggregatedDiscoveryService_ServiceDesc.Streams[1], "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.SendMsg(&core.Node{Id: "\xff"}); err == nil { // refused here already by most
		err = raw.RecvMsg(&discovery.DeltaDiscoveryResponse{})
		if err == nil {
			t.Error("garbage was answered")
		}
	}
	good := p.delta(p.connect())
	good.subscribe(resource.Cluster)
	good.want("Cluster c1=a")
}

func toFiles(m map[string]string) control.Files {
	f := control.Files{}
	for n, text := range m {
		f[n] = []byte(text)
	}
	return f
}
