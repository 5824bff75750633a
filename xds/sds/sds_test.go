package sds_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	envoytls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/resource"
	"github.com/jurat-tls/jurat/xds/sds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a stream as the server sees it.
type wire struct {
	ctx      context.Context
	requests chan []byte
	answers  chan []byte
}

func (w *wire) Context() context.Context { return w.ctx }
func (w *wire) Peer() *attested.Peer     { return nil }

func (w *wire) Recv() ([]byte, error) {
	select {
	case m, ok := <-w.requests:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-w.ctx.Done():
		return nil, w.ctx.Err()
	}
}

func (w *wire) Send(pieces ...[]byte) error {
	select {
	case w.answers <- slices.Concat(pieces...):
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// client is an Envoy.
type client struct {
	*testing.T
	wire  *wire
	delta bool
	done  chan error
	once  sync.Once
}

const service = "/envoy.service.secret.v3.SecretDiscoveryService/"

func open(t *testing.T, s *sds.Server, delta bool) *client {
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{T: t, delta: delta, done: make(chan error, 1), wire: &wire{ctx: ctx, requests: make(chan []byte), answers: make(chan []byte, 1)}}
	method := map[bool]string{false: "StreamSecrets", true: "DeltaSecrets"}[delta]
	go func() { c.done <- s.Handlers()[service+method](c.wire) }()
	t.Cleanup(func() {
		cancel()
		c.end()
	})
	return c
}

func (c *client) end() (err error) {
	c.once.Do(func() {
		select {
		case err = <-c.done:
		case <-time.After(20 * time.Second):
			c.Error("the stream does not end")
		}
	})
	return err
}

func (c *client) send(m proto.Message) {
	c.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		c.Fatal(err)
	}
	select {
	case c.wire.requests <- raw:
	case <-time.After(20 * time.Second):
		c.Fatal("nobody reads")
	}
}

// answer is what came, in either protocol.
type answer struct {
	nonce, version string
	secrets        map[string]*envoytls.Secret
	removed        []string
}

func (c *client) recv() answer {
	c.Helper()
	var raw []byte
	select {
	case raw = <-c.wire.answers:
	case err := <-c.done:
		c.done <- err
		c.Fatalf("the stream has ended: %v", err)
	case <-time.After(20 * time.Second):
		c.Fatal("nothing comes")
	}
	return c.decode(raw)
}

func (c *client) decode(raw []byte) answer {
	c.Helper()
	a := answer{secrets: map[string]*envoytls.Secret{}}
	add := func(any *anypb.Any, name string) {
		var s envoytls.Secret
		if err := any.UnmarshalTo(&s); err != nil || name != "" && name != s.GetName() {
			c.Fatalf("%s: %v", name, err)
		}
		if err := s.ValidateAll(); err != nil {
			c.Fatal(err)
		}
		a.secrets[s.GetName()] = &s
	}
	if c.delta {
		var m discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(raw, &m); err != nil || m.GetTypeUrl() != resource.Secret {
			c.Fatalf("%v: %v", err, &m)
		}
		for _, r := range m.GetResources() {
			add(r.GetResource(), r.GetName())
			a.version = r.GetVersion()
		}
		a.nonce, a.removed = m.GetNonce(), m.GetRemovedResources()
		return a
	}
	var m discovery.DiscoveryResponse
	if err := proto.Unmarshal(raw, &m); err != nil || m.GetTypeUrl() != resource.Secret {
		c.Fatalf("%v: %v", err, &m)
	}
	for _, r := range m.GetResources() {
		add(r, "")
	}
	a.nonce, a.version = m.GetNonce(), m.GetVersionInfo()
	return a
}

// ask subscribes to names: all of them in the state of the world, more of them in delta.
func (c *client) ask(nonce string, names ...string) {
	c.Helper()
	node := &core.Node{Id: "envoy\n1", UserAgentName: "envoy"}
	if c.delta {
		c.send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: resource.Secret, ResponseNonce: nonce, ResourceNamesSubscribe: names})
		return
	}
	c.send(&discovery.DiscoveryRequest{Node: node, TypeUrl: resource.Secret, ResponseNonce: nonce, ResourceNames: names})
}

// reply acknowledges a response, or refuses it; names are those subscribed to in the state of the world.
func (c *client) reply(a answer, refusal string, names ...string) {
	c.Helper()
	var detail *status.Status
	if refusal != "" {
		detail = &status.Status{Code: 3, Message: refusal}
	}
	if c.delta {
		c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: a.nonce, ErrorDetail: detail})
		return
	}
	c.send(&discovery.DiscoveryRequest{TypeUrl: resource.Secret, ResponseNonce: a.nonce, VersionInfo: a.version, ErrorDetail: detail, ResourceNames: names})
}

// quiet checks that nothing comes, once the server has read everything: it reads a request that changes nothing.
func (c *client) quiet(nonce string, names ...string) {
	c.Helper()
	for range 2 { // the second one is read when the first one was carried out
		if c.delta {
			c.send(&discovery.DeltaDiscoveryRequest{ResponseNonce: nonce})
		} else {
			c.send(&discovery.DiscoveryRequest{ResponseNonce: nonce, ResourceNames: names})
		}
	}
	select {
	case raw := <-c.wire.answers:
		c.Fatalf("there is an answer: %q", raw)
	default:
	}
}

func keys(n ...byte) (all [][32]byte) {
	for _, b := range n {
		all = append(all, sha256.Sum256([]byte{b}))
	}
	return all
}

func peers(t testing.TB, name string, n ...byte) sds.Secret {
	t.Helper()
	s, err := sds.Peers(name, keys(n...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pinsOf(s *envoytls.Secret) []string { return s.GetValidationContext().GetVerifyCertificateSpki() }

func encoded(n ...byte) (all []string) {
	for _, k := range keys(n...) {
		all = append(all, base64.StdEncoding.EncodeToString(k[:]))
	}
	return all
}

func certificate(t testing.TB, name string) (sds.Secret, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sds.Certificate(name, [][]byte{der}, pkcs8)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

func set(t testing.TB, s *sds.Server, secrets ...sds.Secret) {
	t.Helper()
	if err := s.Set(secrets); err != nil {
		t.Fatal(err)
	}
}

func both(t *testing.T, test func(t *testing.T, delta bool)) {
	for name, delta := range map[string]bool{"sotw": false, "delta": true} {
		t.Run(name, func(t *testing.T) { test(t, delta) })
	}
}

func TestSecrets(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		s := sds.New(nil)
		id, key := certificate(t, "default")
		set(t, s, id, peers(t, "backends", 1, 2))
		c := open(t, s, delta)
		c.ask("", "default", "backends")
		a := c.recv()
		pair := a.secrets["default"].GetTlsCertificate()
		got, err := tls.X509KeyPair(pair.GetCertificateChain().GetInlineBytes(), pair.GetPrivateKey().GetInlineBytes())
		if err != nil || !key.Equal(got.PrivateKey) {
			t.Errorf("the key is another one: %v", err)
		}
		if got := pinsOf(a.secrets["backends"]); !slices.Equal(got, encoded(1, 2)) || len(a.secrets) != 2 {
			t.Errorf("got %q of %d secrets", got, len(a.secrets))
		}
		c.reply(a, "", "default", "backends")
		c.quiet(a.nonce, "default", "backends")
		shown := s.Clients()
		if len(shown) != 1 || shown[0].Node != "envoy?1" || shown[0].Delta != delta || len(shown[0].Secrets) != 2 {
			t.Fatalf("shown is %+v", shown)
		}
		for _, h := range shown[0].Secrets {
			if !h.Synced || h.Version == "" || h.Refusal != "" {
				t.Errorf("shown is %+v", h)
			}
		}
		// What changes is sent, and nothing else.
		set(t, s, id, peers(t, "backends", 2))
		if a = c.recv(); len(a.secrets) != 1 || !slices.Equal(pinsOf(a.secrets["backends"]), encoded(2)) {
			t.Errorf("got %+v", a)
		}
		c.reply(a, "", "default", "backends")
		set(t, s, id, peers(t, "backends", 2))
		c.quiet(a.nonce, "default", "backends")
		close(c.wire.requests)
		if err := c.end(); err != nil {
			t.Error(err)
		}
		if left := s.Clients(); len(left) != 0 {
			t.Errorf("left is %+v", left)
		}
	})
}

// No keys are nobody, by whichever way they have gone, and never a context without a condition.
func TestNobody(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		s := sds.New(nil)
		set(t, s, peers(t, "backends"))
		c := open(t, s, delta)
		c.ask("", "backends")
		a := c.recv()
		nobody := pinsOf(a.secrets["backends"])
		if raw, err := base64.StdEncoding.DecodeString(strings.Join(nobody, "")); err != nil || len(raw) != 32 || len(nobody) != 1 {
			t.Fatalf("got %q", nobody)
		}
		c.reply(a, "", "backends")
		set(t, s, peers(t, "backends", 1))
		c.reply(c.recv(), "", "backends")
		// It is served no more: that says nothing to Envoy, which would go on with what it has.
		for range 2 {
			set(t, s)
		}
		a = c.recv()
		if got := pinsOf(a.secrets["backends"]); !slices.Equal(got, nobody) || len(a.removed) > 0 {
			t.Errorf("got %q", got)
		}
	})
}

// While a response is not answered, what changes is gathered, and the last of it is sent.
func TestGathered(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		s := sds.New(nil)
		set(t, s, peers(t, "a", 1))
		c := open(t, s, delta)
		c.ask("", "a")
		a := c.recv()
		for n := byte(2); n < 9; n++ {
			set(t, s, peers(t, "a", n))
		}
		c.ask("old", "a") // answers nothing
		c.reply(a, "", "a")
		if a = c.recv(); !slices.Equal(pinsOf(a.secrets["a"]), encoded(8)) {
			t.Errorf("got %q", pinsOf(a.secrets["a"]))
		}
	})
}

// What is refused is told, and not sent again until it is another.
func TestRefusal(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		var mu sync.Mutex
		var told []sds.Refusal
		s := sds.New(func(r sds.Refusal) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
		})
		set(t, s, peers(t, "a", 1))
		c := open(t, s, delta)
		c.ask("", "a")
		a := c.recv()
		c.reply(a, "no\x1bgood", "a")
		c.quiet(a.nonce, "a")
		mu.Lock()
		if len(told) != 1 || told[0].Reason != "no?good" || !slices.Equal(told[0].Names, []string{"a"}) {
			t.Errorf("told is %+v", told)
		}
		mu.Unlock()
		if h := s.Clients()[0].Secrets[0]; h.Synced || h.Version != "" || h.Refusal != "no?good" {
			t.Errorf("shown is %+v", h)
		}
		set(t, s, peers(t, "a", 2))
		a = c.recv()
		c.reply(a, "", "a")
		c.quiet(a.nonce, "a")
		if h := s.Clients()[0].Secrets[0]; !h.Synced || h.Refusal != "" {
			t.Errorf("shown is %+v", h)
		}
	})
}

// Names come and go, and may be those of secrets that are not there yet.
func TestNames(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		s := sds.New(nil)
		set(t, s, peers(t, "a", 1))
		c := open(t, s, delta)
		c.ask("", "late")
		nonce := ""
		if delta {
			a := c.recv()
			if !slices.Equal(a.removed, []string{"late"}) {
				t.Errorf("got %+v", a)
			}
			nonce = a.nonce
			c.reply(a, "")
		}
		c.quiet(nonce, "late")
		set(t, s, peers(t, "a", 1), peers(t, "late", 3))
		a := c.recv()
		if !slices.Equal(pinsOf(a.secrets["late"]), encoded(3)) || len(a.secrets) != 1 {
			t.Errorf("got %+v", a)
		}
		c.reply(a, "", "late")
		c.ask(a.nonce, "late", "a")
		found := false
		for !found { // delta sends again what is asked for again
			a = c.recv()
			_, found = a.secrets["a"]
			c.reply(a, "", "late", "a")
		}
		if delta {
			c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{"a"}})
		} else {
			c.ask(a.nonce, "late")
		}
		c.quiet(a.nonce, "late")
		set(t, s, peers(t, "a", 9), peers(t, "late", 3))
		c.quiet(a.nonce, "late")
	})
}

func TestWildcard(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		s := sds.New(nil)
		set(t, s, peers(t, "a", 1), peers(t, "b", 2))
		c := open(t, s, delta)
		c.ask("")
		a := c.recv()
		if len(a.secrets) != 2 {
			t.Errorf("got %+v", a)
		}
		c.reply(a, "")
		set(t, s, peers(t, "a", 1), peers(t, "b", 2), peers(t, "c", 3))
		a = c.recv()
		if len(a.secrets) != 1 || a.secrets["c"] == nil {
			t.Errorf("got %+v", a)
		}
		c.reply(a, "")
		if delta {
			c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{"*"}})
			c.quiet("")
			set(t, s, peers(t, "c", 4))
			c.quiet("")
			return
		}
		c.ask(a.nonce, "*")
		set(t, s, peers(t, "c", 4))
		for seen := map[string]bool{}; len(seen) < 3; {
			a = c.recv()
			for n := range a.secrets {
				seen[n] = true
			}
			c.reply(a, "", "*")
		}
	})
}

// A client of delta that has come again is told what it does not have.
func TestInitialVersions(t *testing.T) {
	s := sds.New(nil)
	one, two := peers(t, "a", 1), peers(t, "b", 1)
	set(t, s, one, two)
	c := open(t, s, true)
	c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: map[string]string{"a": one.Version(), "b": "another"}})
	a := c.recv()
	if len(a.secrets) != 1 || a.secrets["b"] == nil || a.version != two.Version() {
		t.Errorf("got %+v", a)
	}
	// A certificate that is there no more is reported; SotW has no words for that.
	id, _ := certificate(t, "id")
	set(t, s, one, two, id)
	c.reply(a, "")
	c.ask("", "id")
	c.reply(c.recv(), "")
	set(t, s, one, two)
	if a = c.recv(); !slices.Equal(a.removed, []string{"id"}) {
		t.Errorf("got %+v", a)
	}
}

func TestBadRequests(t *testing.T) {
	many := make([]string, 1025)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	for name, tc := range map[string]struct {
		m    proto.Message
		code attested.Code
	}{
		"other type":    {&discovery.DiscoveryRequest{TypeUrl: resource.Cluster}, attested.InvalidArgument},
		"no name":       {&discovery.DiscoveryRequest{ResourceNames: []string{""}}, attested.InvalidArgument},
		"bad name":      {&discovery.DiscoveryRequest{ResourceNames: []string{"a\nb"}}, attested.InvalidArgument},
		"too many":      {&discovery.DiscoveryRequest{ResourceNames: many}, attested.ResourceExhausted},
		"too many more": {nil, attested.ResourceExhausted},
		"no message":    {&discovery.Resource{Name: "\x01"}, attested.InvalidArgument},
		"too large":     {&discovery.DiscoveryRequest{Node: &core.Node{Extensions: slices.Repeat([]*core.Extension{{}}, 10_000)}}, attested.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := sds.New(nil)
			c := open(t, s, tc.m == nil)
			switch {
			case tc.m == nil:
				c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: many[:1024]})
				c.send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"one"}})
			case name == "no message":
				c.wire.requests <- []byte{0xff}
			default:
				c.send(tc.m)
			}
			var st *attested.Status
			if err := c.end(); !errors.As(err, &st) || st.Code != tc.code {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBadSecrets(t *testing.T) {
	for _, name := range []string{"", "*", "a\nb", strings.Repeat("x", 4096)} {
		if _, err := sds.Peers(name, nil); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%q: got %v", name, err)
		}
	}
	if _, err := sds.Certificate("a", nil, []byte{1}); err == nil {
		t.Error("no certificate")
	}
	if _, err := sds.Certificate("a", [][]byte{{1}}, nil); err == nil {
		t.Error("no key")
	}
	s := sds.New(nil)
	set(t, s, peers(t, "a", 1))
	if err := s.Set([]sds.Secret{peers(t, "a", 1), peers(t, "a", 2)}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("got %v", err)
	}
	if err := s.Set([]sds.Secret{{}}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("got %v", err)
	}
	c := open(t, s, true)
	c.ask("", "a")
	if a := c.recv(); !slices.Equal(pinsOf(a.secrets["a"]), encoded(1)) {
		t.Errorf("got %+v", a)
	}
}

// A version says nothing of a key, and is the same for the same certificate.
func TestVersion(t *testing.T) {
	a, err := sds.Certificate("a", [][]byte{{1}}, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := sds.Certificate("a", [][]byte{{1}}, []byte("another"))
	if err != nil || a.Version() != b.Version() || a.Name() != "a" {
		t.Errorf("%s %s %v", a.Version(), b.Version(), err)
	}
}

// Whatever is sent, a stream neither panics nor gives more than there is, and each response has a new nonce.
func FuzzRequests(f *testing.F) {
	ask, _ := proto.Marshal(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", "*"}, InitialResourceVersions: map[string]string{"a": "x"}})
	ack, _ := proto.Marshal(&discovery.DiscoveryRequest{ResourceNames: []string{"a", "id"}, ResponseNonce: "1"})
	f.Add(ask, ack, ack, true)
	f.Add(ack, ask, []byte{}, false)
	f.Fuzz(func(t *testing.T, one, two, three []byte, delta bool) {
		s := sds.New(nil)
		set(t, s, peers(t, "a"), peers(t, "b", 1))
		c := open(t, s, delta)
		seen := map[string]bool{}
		for i, m := range [][]byte{one, two, three} {
			select {
			case c.wire.requests <- m:
			case raw := <-c.wire.answers:
				a := c.decode(raw)
				if seen[a.nonce] || len(a.secrets) > 2 {
					t.Fatalf("got %+v", a)
				}
				for _, one := range a.secrets {
					if len(pinsOf(one)) == 0 {
						t.Fatal("everybody is let in")
					}
				}
				seen[a.nonce] = true
			case err := <-c.done:
				c.done <- err
				return
			}
			set(t, s, peers(t, "a", byte(i)))
		}
	})
}
