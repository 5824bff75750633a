package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// A server that knows nothing of sessions, and is strict about protocols, is met by its certificate where the policy takes
// that, and is told apart from one that can't be reached where it does not.
func TestForwardToCertificateServer(t *testing.T) {
	platform, err := sim.New(sim.Config{Product: "genoa"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := ratls.NewIdentity(t.Context(), platform, []string{"127.0.0.1"}, [32]byte{1}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server := ratls.ServerConfig(id)
	server.NextProtos = []string{"h2", "http/1.1"}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = tls.Server(raw, server).Handshake()
				_ = raw.Close()
			}()
		}
	}()
	a := &app{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now}
	for binding, want := range map[attest.Level]attest.Code{attest.LevelKey: "", attest.LevelSession: attest.CodeBindingTooWeak} {
		text := fmt.Sprintf("policy: p\nplatforms: {allow: [{vendor: sim, root: %q}]}\nworkload: {measurement: any, debug: off}\nbinding: %s\n", platform.Root(), binding)
		p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
		if err != nil {
			t.Fatal(err)
		}
		clusters := []config.Cluster{{Attested: &config.Attested{Require: "p"}}}
		none := new(endorsers)
		g := &generation{
			serveConfig: &serveConfig{policies: map[string]*policy.Policy{"p": p}, Proxy: config.Config{Clusters: clusters}}, app: a, log: slog.New(slog.DiscardHandler),
			shared: &shared{endorser: none, peers: new(peerTallies), enforcer: enforce.New((&appraisers{endorser: none}).of, time.Now, nil)},
		}
		g.announce()
		dial, err := g.Dial(&clusters[0])
		if err != nil {
			t.Fatal(err)
		}
		conn, err := dial(t.Context(), upstream.Identity{Address: ln.Addr().String()})
		if got := attest.CodeOf(err); got != want {
			t.Errorf("%s: got %v, want %q", binding, err, want)
		}
		if err == nil {
			if level := conn.Result().Level(); level != attest.LevelKey {
				t.Errorf("level %s", level)
			}
			_ = conn.Close()
		}
	}
}
