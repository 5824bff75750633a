package ea_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// ends are the two ends of one connection.
func ends(t testing.TB) (client, server *ea.Conn) {
	t.Helper()
	c, s := tlspair.New(t, tlspair.Leaf(t, tlspair.Key(t)))
	return end(t, c, ea.DefaultExtension), end(t, s, ea.DefaultExtension)
}

func end(t testing.TB, conn *tls.Conn, extension uint16) *ea.Conn {
	t.Helper()
	e, err := ea.New(conn.ConnectionState(), extension)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var challenge = [32]byte{1, 2, 3}

func request(t testing.TB, from *ea.Conn, role ea.Role) []byte {
	t.Helper()
	raw, err := from.Request(role, challenge)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBothRoles(t *testing.T) {
	client, server := ends(t)
	for _, c := range []struct {
		prover, verifier *ea.Conn
		sender           ea.Role
	}{{server, client, ea.Server}, {client, server, ea.Client}} {
		leaf := tlspair.Leaf(t, tlspair.Key(t))
		req := request(t, c.verifier, c.sender.Other())
		if got, err := c.prover.Challenge(c.sender.Other(), req); err != nil || got != challenge {
			t.Fatalf("challenge %x, %v", got, err)
		}
		auth, err := c.prover.Authenticate(c.sender, req, leaf.Certificate, leaf.PrivateKey.(crypto.Signer), []byte("evidence"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.verifier.Validate(c.sender, req, auth)
		if err != nil || string(got.Attestation) != "evidence" || !bytes.Equal(got.Chain[0], leaf.Certificate[0]) || !bytes.Equal(got.Leaf.Raw, leaf.Certificate[0]) {
			t.Fatalf("got %v, %v", got, err)
		}
		// Every byte counts.
		for i := range auth {
			bad := slices.Clone(auth)
			bad[i] ^= 1
			if _, err := c.verifier.Validate(c.sender, req, bad); err == nil {
				t.Fatalf("accepted with byte %d of %d changed", i, len(auth))
			}
		}
		for _, bad := range [][]byte{nil, auth[:len(auth)-1], append(slices.Clone(auth), 0)} {
			if _, err := c.verifier.Validate(c.sender, req, bad); err == nil {
				t.Fatalf("accepted %d bytes of %d", len(bad), len(auth))
			}
		}
	}
}

func TestEveryKeyType(t *testing.T) {
	client, server := ends(t)
	req := request(t, client, ea.Client)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key crypto.Signer
		ok  bool
	}{"P-256": {tlspair.Key(t), true}, "P-384": {p384, true}, "Ed25519": {edKey, true}, "RSA": {rsaKey, true}, "P-521": {p521, false}} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := server.Authenticate(ea.Server, req, [][]byte{der}, c.key, []byte("e"))
		if c.ok != (err == nil) {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := client.Validate(ea.Server, req, auth); c.ok != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is valid here is not valid anywhere else.
func TestRefused(t *testing.T) {
	client, server := ends(t)
	otherClient, otherServer := ends(t)
	leaf, stranger := tlspair.Leaf(t, tlspair.Key(t)), tlspair.Key(t)
	key := leaf.PrivateKey.(crypto.Signer)
	req := request(t, client, ea.Client)
	prove := func(by *ea.Conn, role ea.Role, req []byte, key crypto.Signer) []byte {
		t.Helper()
		auth, err := by.Authenticate(role, req, leaf.Certificate, key, []byte("evidence"))
		if err != nil {
			t.Fatal(err)
		}
		return auth
	}
	fresh, err := client.Request(ea.Client, [32]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	reflected := request(t, server, ea.Server)
	for name, c := range map[string]struct {
		by   *ea.Conn
		role ea.Role
		req  []byte
		auth []byte
	}{
		"of another connection":      {client, ea.Server, req, prove(otherServer, ea.Server, req, key)},
		"shown to another":           {otherClient, ea.Server, req, prove(server, ea.Server, req, key)},
		"for an earlier request":     {client, ea.Server, fresh, prove(server, ea.Server, req, key)},
		"signed by a stranger":       {client, ea.Server, req, prove(server, ea.Server, req, stranger)},
		"reflected":                  {client, ea.Server, req, prove(client, ea.Client, reflected, key)},
		"of the other role":          {client, ea.Client, req, prove(server, ea.Server, req, key)},
		"of nobody":                  {client, 0, req, prove(server, ea.Server, req, key)},
		"a request of the other end": {server, ea.Client, req, prove(server, ea.Server, req, key)},
	} {
		if _, err := c.by.Validate(c.role, c.req, c.auth); err == nil {
			t.Errorf("accepted: %s", name)
		}
	}
	if _, err := client.Validate(ea.Server, req, prove(server, ea.Server, req, key)); err != nil {
		t.Fatalf("the case that the others vary is refused: %v", err)
	}
	if _, err := server.Authenticate(ea.Server, req, leaf.Certificate, key, nil); err == nil {
		t.Error("an authenticator without evidence is made")
	}
	if _, err := server.Authenticate(ea.Server, req, leaf.Certificate, key, bytes.Repeat([]byte{1}, 1<<16)); err == nil {
		t.Error("evidence that does not fit is sent")
	}
}

func TestOtherCodepoint(t *testing.T) {
	c, s := tlspair.New(t, tlspair.Leaf(t, tlspair.Key(t)))
	client, server := end(t, c, 0xff01), end(t, s, ea.DefaultExtension)
	if _, err := server.Challenge(ea.Client, request(t, client, ea.Client)); err == nil {
		t.Error("a request without the extension counts as a wish for evidence")
	}
	if _, err := server.Challenge(ea.Server, request(t, server, ea.Client)); err == nil {
		t.Error("a request of the wrong type is accepted")
	}
}

func TestNewRefuses(t *testing.T) {
	c, _ := tlspair.New(t, tlspair.Leaf(t, tlspair.Key(t)))
	good := c.ConnectionState()
	for name, change := range map[string]func(*tls.ConnectionState){
		"TLS 1.2":              func(s *tls.ConnectionState) { s.Version = tls.VersionTLS12 },
		"resumed":              func(s *tls.ConnectionState) { s.DidResume = true },
		"incomplete":           func(s *tls.ConnectionState) { s.HandshakeComplete = false },
		"unknown cipher suite": func(s *tls.ConnectionState) { s.CipherSuite = 0x1399 },
	} {
		state := good
		change(&state)
		if _, err := ea.New(state, ea.DefaultExtension); err == nil {
			t.Errorf("accepted: %s", name)
		}
	}
}

func FuzzValidate(f *testing.F) {
	c, s := tlspair.New(f, tlspair.Leaf(f, tlspair.Key(f)))
	client, server := end(f, c, ea.DefaultExtension), end(f, s, ea.DefaultExtension)
	leaf := tlspair.Leaf(f, tlspair.Key(f))
	req := request(f, client, ea.Client)
	auth, err := server.Authenticate(ea.Server, req, leaf.Certificate, leaf.PrivateKey.(crypto.Signer), []byte("evidence"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(req, auth)
	f.Fuzz(func(t *testing.T, r, a []byte) {
		_, _ = server.Challenge(ea.Client, r)
		if _, err := client.Validate(ea.Server, r, a); err == nil && !(bytes.Equal(r, req) && bytes.Equal(a, auth)) {
			t.Fatalf("accepted %x for %x", a, r)
		}
	})
}

// The prover chooses its key. One that takes seconds to check a signature with is refused before it is.
func TestHugeKey(t *testing.T) {
	client, server := ends(t)
	req := request(t, client, ea.Client)
	const bits = 1 << 15
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 1<<31 - 1}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, huge, tlspair.Key(t))
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := server.Authenticate(ea.Server, req, [][]byte{der}, other, []byte("evidence"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Validate(ea.Server, req, auth); err == nil || !strings.Contains(err.Error(), "does not fit the key") {
		t.Errorf("a key of %d bits: %v", bits, err)
	}
}
