package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/public"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/test/pebble"
)

func TestLoadPublic(t *testing.T) {
	chain, key := pebble.SelfSigned(t, "shop.example")
	_, other := pebble.SelfSigned(t, "shop.example")
	dir := t.TempDir()
	for name, raw := range map[string][]byte{"chain.pem": chain, "key.pem": key, "other.pem": other, "text": []byte("some text"), "secret": []byte("c2VjcmV0\n"), "p.yaml": []byte(policyText)} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const acme = `names: [shop.example], acme: {directory: "https://ca.example/dir", agree_terms: true`
	for _, test := range []struct {
		public string
		code   attest.Code
		says   string
	}{
		{`cert: chain.pem, unsafe_key_file: key.pem`, "", ""},
		{`cert: chain.pem, unsafe_key_file: key.pem, names: [shop.example]`, "", ""},
		{`cert: chain.pem, unsafe_key_file: key.pem, names: [other.example]`, attest.CodeConfigValue, "jurat.yaml:2:"},
		{`cert: chain.pem, unsafe_key_file: other.pem`, attest.CodeConfigValue, "jurat.yaml:2:"},
		{`cert: chain.pem, unsafe_key_file: absent.pem`, attest.CodeConfigValue, "jurat.yaml: "},
		{acme + `}`, "", ""},
		{acme + `, storage: kept}`, "", ""},
		{acme + `, storage: kept}`, attest.CodeNoSealing, "jurat.yaml:2:"},
		{acme + `, roots: chain.pem}`, "", ""},
		{acme + `, roots: text}`, attest.CodeConfigValue, "text"},
		{acme + `, external_account: {id: a, key_file: secret}}`, "", ""},
		{acme + `, external_account: {id: a, key_file: absent}}`, attest.CodeConfigValue, "absent"},
		{acme + `, dns: {server: "ns.example:53", zone: example, key_name: k, secret_file: secret}}`, "", ""},
		{acme + `, dns: {server: "ns.example:53", zone: example, key_name: k, secret_file: absent}}`, attest.CodeConfigValue, "absent"},
		{acme + `, share: {address: ":7443", require: p.yaml}}`, "", ""},
		{acme + `, share: {address: ":7443", require: absent.yaml}}`, attest.CodeConfigValue, "absent.yaml"},
		{acme + `, share: {address: ":7443"}}`, attest.CodeConfigMissing, "jurat.yaml:2:"},
		{acme + `, storage: kept, share: {address: ":7443", require: p.yaml}}`, attest.CodeNoSealing, "jurat.yaml:2:"},
		{acme + `, storage_at: {address: "a.example:7443", require: p.yaml}}`, "", ""},
		{acme + `, storage_at: {address: "a.example:7443"}}`, attest.CodeConfigMissing, "jurat.yaml:2:"},
		{acme + `, storage: kept, storage_at: {address: "a.example:7443", require: p.yaml}}`, attest.CodeConfigValue, "storage_at"},
		{acme + `}, cert: chain.pem`, attest.CodeConfigValue, "public"},
	} {
		file := filepath.Join(dir, "jurat.yaml")
		tee := "sim"
		if test.code == attest.CodeNoSealing {
			tee = "tdx"
		}
		text := "identity: {tee: " + tee + "}\nlisten: [{address: \":443\", to: \"127.0.0.1:1\", public: {" + test.public + "}}]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := testApp().loadConfig(file, new(serveConfig))
		if attest.CodeOf(err) != test.code || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.public, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "kept")); err == nil {
			t.Error("a check has made the directory")
		}
	}
}

// Places that say the same share their certificates, and a listener whose clients have to show evidence is given none.
func TestCertify(t *testing.T) {
	public := func(name string) *config.Public {
		return &config.Public{Names: []string{name}, ACME: &config.ACME{Directory: "https://ca.example/dir", AgreeTerms: true}}
	}
	c := &serveConfig{Proxy: config.Config{Listeners: []config.Listener{
		{Address: ":1", Serving: config.Serving{To: "127.0.0.1:1", Public: public("a.example")}},
		{Address: ":2", Chains: []config.Chain{{Serving: config.Serving{To: "127.0.0.1:1", Public: public("a.example")}}, {Serving: config.Serving{To: "127.0.0.1:1", Public: public("b.example")}}}},
		{Address: ":3", Serving: config.Serving{To: "127.0.0.1:1"}},
	}}}
	g := &generation{serveConfig: c, app: testApp(), log: slog.New(slog.DiscardHandler), shared: &shared{vault: newVault()}}
	if err := g.certify(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, st := range g.publicStatus() {
		names = append(names, st.Name)
	}
	if want := []string{"a.example", "b.example"}; !slices.Equal(names, want) || len(g.publicMetrics()) != 2 || len(g.publicCerts()) != 0 {
		t.Errorf("got %q", names)
	}
	for i, want := range []bool{true, true, false} {
		l := c.Proxy.Listeners[i]
		if i == 1 {
			l = l.Chain(0)
		}
		if got, err := g.publicOf(&l); err != nil || (got != nil) != want {
			t.Errorf("%d: %v %v", i, got, err)
		}
	}
	foreign := config.Listener{Address: ":4", Serving: config.Serving{Public: public("c.example")}}
	if _, err := g.publicOf(&foreign); attest.CodeOf(err) != attest.CodeInternal {
		t.Errorf("a certificate that the file does not have: %v", err)
	}
	v := newVault()
	defer v.close()
	if _, err := v.open(filepath.Join(t.TempDir(), "x"), "tdx"); attest.CodeOf(err) != attest.CodeNoSealing {
		t.Errorf("a TEE that seals nothing: %v", err)
	}
	sim := "sim,dir=" + t.TempDir()
	one, err := v.open(filepath.Join(t.TempDir(), "x"), sim)
	if err != nil {
		t.Fatal(err)
	}
	for dir, s := range v.dirs {
		if again, err := v.open(dir, sim); err != nil || again != one || s != one {
			t.Error("another storage for the same directory")
		}
	}
}

// What other replicas get is kept apart from what they don't, and one configuration after the other finds the same.
func TestVault(t *testing.T) {
	v := newVault()
	defer v.close()
	g := &generation{serveConfig: &serveConfig{TEE: "sim,dir=" + t.TempDir(), dir: t.TempDir()}, app: testApp(), log: slog.New(slog.DiscardHandler)}
	seen := map[*public.Storage]string{}
	for name, a := range map[string]*config.ACME{
		"own":                {},
		"shared":             {Share: &config.Share{Address: ":1", Require: "p"}},
		"shared by another":  {Share: &config.Share{Address: ":2", Require: "p"}},
		"on disk":            {Storage: "kept"},
		"at a replica":       {StorageAt: &config.StorageAt{Address: "a.example:1", Require: "p"}},
		"at another replica": {StorageAt: &config.StorageAt{Address: "b.example:1", Require: "p"}},
	} {
		one, err := v.storage(g, a)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := v.storage(g, a); err != nil || again != one {
			t.Errorf("%s: another storage, %v", name, err)
		}
		if other, there := seen[one]; there {
			t.Errorf("%s is %s", name, other)
		}
		seen[one] = name
	}
	for _, again := range []string{"./kept", "x/../kept/", g.dir + "//kept"} {
		if one, err := v.storage(g, &config.ACME{Storage: again}); err != nil || seen[one] != "on disk" {
			t.Errorf("%s is another storage, which does not know that it is shared: %v", again, err)
		}
	}
}

// Each of the places where replicas are appraised demands its policy, which is in the digest by what it says.
func TestReplicas(t *testing.T) {
	parse := func(text string) *policy.Policy {
		p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := parse(policyText)
	for _, acme := range []config.ACME{{Share: &config.Share{Address: ":1", Require: "p"}}, {StorageAt: &config.StorageAt{Address: "a.example:1", Require: "p"}}} {
		c := &serveConfig{policies: map[string]*policy.Policy{"p": one}, Proxy: config.Config{Listeners: []config.Listener{
			{Address: ":443", Serving: config.Serving{To: "127.0.0.1:1", Public: &config.Public{Names: []string{"a.example"}, ACME: &acme}}},
		}}}
		places := c.places()
		for _, at := range []string{"share :1", "storage at a.example:1"} {
			if demands, there := places[at]; there && !slices.Equal(demands, []string{"p"}) {
				t.Errorf("%s demands %q", at, demands)
			}
		}
		if len(places) != 1 {
			t.Errorf("places %v", places)
		}
		first, err := c.digest()
		if err != nil {
			t.Fatal(err)
		}
		c.policies["p"] = parse(strings.Replace(policyText, "90m", "80m", 1))
		if other, err := c.digest(); err != nil || other == first {
			t.Errorf("%x with another policy, %v", other, err)
		}
	}
}

// Where replicas come to that is new, nobody is let in before the policies of the new configuration are in force: those of the one before
// may have the same names.
func TestShareWaits(t *testing.T) {
	app := testApp()
	app.listen = func(string) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	acme := &config.ACME{Share: &config.Share{Address: ":1", Require: "p"}}
	g := &generation{
		serveConfig: &serveConfig{Proxy: config.Config{Listeners: []config.Listener{{Serving: config.Serving{Public: &config.Public{ACME: acme}}}}}}, app: app, log: slog.New(slog.DiscardHandler),
		shared: &shared{vault: newVault(), peers: new(peerTallies), enforcer: enforce.New((&appraisers{}).of, time.Now, nil)},
	}
	s := &sharing{operation: &operation{app: app}, served: map[string]*served{}}
	defer s.end()
	if _, err := s.open(g); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.sockets()[shareSocket+":1"].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s.served[":1"].handshake.Load() != nil {
		t.Error("there is somebody who lets in")
	}
	if err := s.use(g); err != nil || s.served[":1"].handshake.Load() == nil {
		t.Errorf("nobody is let in: %v", err)
	}
	if _, err := conn.Write([]byte("nothing of TLS")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who came before waits still: %v", err)
	}
}
