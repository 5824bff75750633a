//go:build !noxds

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

func loadSDS(t *testing.T, text string) (*serveConfig, error) {
	t.Helper()
	dir := t.TempDir()
	pinned := strings.Replace(policyText, "policy: p\n", "policy: p\nbinding: pinned\n", 1)
	for name, text := range map[string]string{"f.yaml": text, "p.yaml": pinned, "key.yaml": strings.Replace(pinned, "pinned", "key", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := new(serveConfig)
	return c, testApp().loadConfig(filepath.Join(dir, "f.yaml"), c)
}

func TestSDSConfig(t *testing.T) {
	const file = `
identity: {tee: sim, names: [a.example]}
sds:
  address: unix:sds
  identities: [{name: default, unsafe_give_private_key_to_envoy: true}, {name: other, names: [b.example], lifetime: 5m, unsafe_give_private_key_to_envoy: true}]
  peers:
    - {name: list, require: p.yaml, targets: [{address: c.example}, {address: "10.0.0.1:https", name: d.example}]}
`
	c, err := loadSDS(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.places(); len(got) != 1 || len(got["sds list"]) != 1 || got["sds list"][0] != "p.yaml" || !c.attests() || c.SDS.Peers[0].every() != 10*time.Second {
		t.Errorf("got %v, %+v", got, c.SDS)
	}
	for i, want := range [][2]string{{"c.example:443", "c.example"}, {"10.0.0.1:443", "d.example"}} {
		if address, name, err := c.SDS.Peers[0].Targets[i].target(); address != want[0] || name != want[1] || err != nil {
			t.Errorf("got %s %s %v", address, name, err)
		}
	}
	digest, err := c.digest()
	if err != nil {
		t.Fatal(err)
	}
	// That keys are given away is measured.
	c.SDS.Identities = nil
	if other, err := c.digest(); err != nil || other == digest {
		t.Errorf("the digest is the same, %v", err)
	}
	// Who asks others alone needs no TEE.
	if c, err := loadSDS(t, `sds: {address: "unix:s", peers: [{name: list, require: p.yaml, targets: [{address: c}]}]}`); err != nil || c.TEE != "" {
		t.Errorf("got %q, %v", c.TEE, err)
	}
	for at, change := range map[string][2]string{
		"sds.address: ":                           {"unix:sds", "127.0.0.1:1"},
		"sds.address":                             {"unix:sds", "unix:@sds"},
		"sds.identities[0].name":                  {"default", `"*"`},
		"sds.identities[1].name":                  {"other", "default"},
		"sds.identities[1].names[0]":              {"b.example", `"*.example"`},
		"sds.identities[1].lifetime":              {"lifetime: 5m", "lifetime: 1s"},
		"unsafe_give_private_key_to_envoy":        {"name: default, unsafe_give_private_key_to_envoy: true", "name: default"},
		"unsafe_give_private_key_to_envoy: false": {"unsafe_give_private_key_to_envoy: true}]", "unsafe_give_private_key_to_envoy: false}]"},
		"sds.peers[0].name":                       {"name: list", "name: other"},
		"sds.peers[0].require":                    {"p.yaml", "key.yaml"},
		"sds.peers[0].every":                      {"name: list", "name: list, every: 10ms"},
		"sds.peers[0].targets[1].name":            {"d.example", `"d*"`},
		"sds.peers[0].targets[0].address":         {"address: c.example", `address: "c:nosuchservice"`},
		"sds.peers[0].targets":                    {`[{address: c.example}, {address: "10.0.0.1:https", name: d.example}]`, "[]"},
	} {
		text := strings.Replace(file, change[0], change[1], 1)
		if text == file {
			t.Fatalf("%s changes nothing", at)
		}
		_, err := loadSDS(t, text)
		if attest.CodeOf(err).Exit() != 2 || !strings.Contains(err.Error(), "f.yaml:") {
			t.Errorf("%s: got %v", at, err)
		}
	}
	if _, err := loadSDS(t, `sds: {address: "unix:s"}`); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("got %v", err)
	}
}

// The socket stays where it is: with another one a process is started anew.
func TestSDSMoves(t *testing.T) {
	one, same, other := &sdsConfig{Address: "unix:a"}, &sdsConfig{Address: "unix:a"}, &sdsConfig{Address: "unix:b"}
	for _, tc := range []struct {
		s, first *sdsConfig
		ok       bool
	}{{nil, nil, true}, {nil, one, true}, {same, one, true}, {other, one, false}, {one, nil, false}} {
		if got := tc.s.movesTo(tc.first); got != tc.ok {
			t.Errorf("%+v to %+v: %v", tc.first, tc.s, got)
		}
	}
}

// A new leaf reaches a client at once, and so does another configuration. The socket ends with the process.
func TestSDSPushes(t *testing.T) {
	const file = "identity: {tee: %, names: [a.example]}\nsds: {address: \"unix:sds\", identities: [{name: default, names: [one.example], unsafe_give_private_key_to_envoy: true}]}\n"
	sim := strings.Replace(file, "%", `"sim:snp:genoa,dir=`+t.TempDir()+`"`, 1)
	c, err := loadSDS(t, sim)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := &operation{app: testApp(), log: log, stop: func(error) {}}
	endorser := &endorsers{}
	o.shared = &shared{endorser: endorser, peers: new(peerTallies), renewed: func() { o.handing().publish() }}
	o.shared.enforcer = enforce.New((&appraisers{endorser: endorser}).of, time.Now, nil)
	begin := func(c *serveConfig) *generation {
		g, err := o.app.newGeneration(t.Context(), c, o.shared, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.end)
		return g
	}
	o.current = begin(c)
	done, err := o.hand(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	conn, err := grpc.NewClient("unix:"+filepath.Join(c.dir, "sds"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := secret.NewSecretDiscoveryServiceClient(conn).StreamSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := &discovery.DiscoveryRequest{ResourceNames: []string{"default"}}
	next := func() *x509.Certificate {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		r.ResponseNonce = m.GetNonce()
		var s tls.Secret
		if len(m.GetResources()) != 1 || m.GetResources()[0].UnmarshalTo(&s) != nil {
			t.Fatalf("got %d secrets", len(m.GetResources()))
		}
		block, _ := pem.Decode(s.GetTlsCertificate().GetCertificateChain().GetInlineBytes())
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := next()
	if !first.Equal(o.current.given[0].id.Leaf().Certificate) || first.Equal(o.current.id.Leaf().Certificate) {
		t.Error("it is another leaf")
	}
	if err := o.current.given[0].id.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second := next(); second.Equal(first) || !second.Equal(o.current.given[0].id.Leaf().Certificate) {
		t.Error("it is not the new leaf")
	}
	if c, err = loadSDS(t, strings.Replace(sim, "one.example", "two.example", 1)); err != nil {
		t.Fatal(err)
	}
	old := o.current
	g := begin(c)
	o.handing().use(g)
	if third := next(); strings.Join(third.DNSNames, "") != "two.example" {
		t.Errorf("it is for %q", third.DNSNames)
	}
	if err := old.given[0].id.Renew(t.Context()); err != nil { // which is nobody's any more
		t.Fatal(err)
	}
	done()
	if _, err := stream.Recv(); err == nil {
		t.Error("it goes on")
	}
	if _, err := os.Stat(filepath.Join(c.dir, "sds")); err == nil {
		t.Error("the socket is left")
	}
}
