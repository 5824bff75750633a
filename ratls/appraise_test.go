package ratls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/cmw"
)

// forge makes a certificate like that of id, changed by change and signed with a key of the attacker's.
func forge(t testing.TB, id *ratls.Identity, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return forgeWith(t, id, key, key.Public().(*ecdsa.PublicKey), change)
}

func forgeWith(t testing.TB, id *ratls.Identity, key *ecdsa.PrivateKey, pub *ecdsa.PublicKey, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	leaf := id.Leaf().Certificate
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		DNSNames: leaf.DNSNames, IPAddresses: leaf.IPAddresses,
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(cmw.OID()) {
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAppraise(t *testing.T) {
	id := identity(t, "a.example", "127.0.0.1", "::1")
	leaf := id.Leaf().Certificate
	at := func(d time.Duration) func() time.Time {
		return func() time.Time { return leaf.NotBefore.Add(d) }
	}
	// The attacker can't sign with the identity's key, but nothing in the appraisal may depend on that signature: the
	// public key is the genuine one, and only the field under test differs.
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sameKey := func(change func(*x509.Certificate)) [][]byte {
		return forgeWith(t, id, attacker, leaf.PublicKey.(*ecdsa.PublicKey), change).Certificate
	}
	good := sameKey(func(*x509.Certificate) {})
	extension := func(value []byte, critical bool) pkix.Extension {
		return pkix.Extension{Id: cmw.OID(), Value: value, Critical: critical}
	}
	for name, c := range map[string]struct {
		chain [][]byte
		peer  ratls.Peer
		now   func() time.Time
		want  attest.Code
	}{
		"good":                  {good, ratls.Server("a.example"), at(time.Minute), ""},
		"name in capitals":      {good, ratls.Server("A.Example."), at(time.Minute), ""},
		"address":               {good, ratls.Server("127.0.0.1"), at(time.Minute), ""},
		"v6 address":            {good, ratls.Server("::1"), at(time.Minute), ""},
		"client":                {good, ratls.AnyClient(), at(time.Minute), ""},
		"first moment":          {good, ratls.AnyClient(), at(0), ""},
		"last moment":           {good, ratls.AnyClient(), func() time.Time { return leaf.NotAfter }, ""},
		"nobody":                {good, ratls.Peer{}, at(time.Minute), attest.CodeNoExpectation},
		"other name":            {good, ratls.Server("b.example"), at(time.Minute), attest.CodeName},
		"other address":         {good, ratls.Server("127.0.0.2"), at(time.Minute), attest.CodeName},
		"not yet valid":         {good, ratls.AnyClient(), at(-time.Second), attest.CodeLeafNotYetValid},
		"expired":               {good, ratls.AnyClient(), func() time.Time { return leaf.NotAfter.Add(time.Second) }, attest.CodeLeafExpired},
		"no certificate":        {nil, ratls.AnyClient(), at(time.Minute), attest.CodeNoEvidence},
		"garbage":               {[][]byte{{1, 2, 3}}, ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"truncated":             {[][]byte{good[0][:len(good[0])-1]}, ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"trailing":              {[][]byte{append(good[0][:len(good[0]):len(good[0])], 0)}, ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"swapped key":           {forge(t, id, func(*x509.Certificate) {}).Certificate, ratls.AnyClient(), at(time.Minute), attest.CodeReportData},
		"longer validity":       {sameKey(func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }), ratls.AnyClient(), at(time.Minute), attest.CodeReportData},
		"earlier validity":      {sameKey(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-time.Hour) }), ratls.AnyClient(), at(time.Minute), attest.CodeReportData},
		"another name added":    {sameKey(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "b.example") }), ratls.Server("b.example"), at(time.Minute), attest.CodeReportData},
		"another address added": {sameKey(func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.IPv4(9, 9, 9, 9)) }), ratls.Server("9.9.9.9"), at(time.Minute), attest.CodeReportData},
		"wildcard added":        {sameKey(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.example") }), ratls.Server("b.example"), at(time.Minute), attest.CodeReportData},
		"email name":            {sameKey(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} }), ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"URI name":              {sameKey(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "b"}} }), ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"no evidence":           {sameKey(func(c *x509.Certificate) { c.ExtraExtensions = nil }), ratls.AnyClient(), at(time.Minute), attest.CodeNoEvidence},
		"malformed evidence":    {sameKey(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{extension([]byte{4, 0}, false)} }), ratls.AnyClient(), at(time.Minute), attest.CodeMalformed},
		"critical evidence":     {sameKey(func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = true }), ratls.AnyClient(), at(time.Minute), attest.CodeCriticalExtension},
		"other critical": {sameKey(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), ratls.AnyClient(), at(time.Minute), attest.CodeCriticalExtension},
		"an authority":         {sameKey(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"a key that certifies": {sameKey(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature }), ratls.AnyClient(), at(time.Minute), attest.CodeMalformedCertificate},
		"evidence twice":       {sameKey(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, c.ExtraExtensions[0]) }), ratls.AnyClient(), at(time.Minute), attest.CodeDuplicateExtension},
		"evidence of a neighbour": {sameKey(func(c *x509.Certificate) {
			for _, e := range identity(t, "a.example").Leaf().Certificate.Extensions {
				if e.Id.Equal(cmw.OID()) {
					c.ExtraExtensions = []pkix.Extension{e}
				}
			}
		}), ratls.AnyClient(), at(time.Minute), attest.CodeReportData},
		"another configuration": {sameKey(func(c *x509.Certificate) {
			ev, config, err := cmw.Unmarshal(c.ExtraExtensions[0].Value)
			if err != nil {
				t.Fatal(err)
			}
			config[0]++
			value, err := cmw.Marshal(ev, config)
			if err != nil {
				t.Fatal(err)
			}
			c.ExtraExtensions = []pkix.Extension{extension(value, false)}
		}), ratls.AnyClient(), at(time.Minute), attest.CodeReportData},
	} {
		t.Run(name, func(t *testing.T) {
			r := relyingParty(policy{min: attest.LevelKey}, c.now).Appraise(t.Context(), c.chain, c.peer)
			if r.Affirmed() != (c.want == "") || r.Code() != c.want {
				t.Fatalf("got %v %q: %v, want %q", r.Verdict(), r.Code(), r.Err(), c.want)
			}
		})
	}
}

// What the policy is told about the evidence's age is what the hardware signed.
func TestMadeIsNotBefore(t *testing.T) {
	id := identity(t, "a.example")
	var got attest.Situation
	rp := relyingParty(spy{&got}, time.Now)
	rp.Appraise(t.Context(), [][]byte{id.Leaf().Certificate.Raw}, ratls.AnyClient())
	if !got.Made.Equal(id.Leaf().Certificate.NotBefore) || got.Level != attest.LevelKey {
		t.Fatalf("got %+v", got)
	}
}

type spy struct{ got *attest.Situation }

func (s spy) Judge(_ *attest.Claims, situation attest.Situation) attest.Judgement {
	*s.got = situation
	return attest.Judgement{}
}

// The refusals that crypto/tls makes before its hook runs have their codes too; it passes them on as text.
func TestCertificatesThatTLSRefuses(t *testing.T) {
	id := identity(t, "127.0.0.1")
	duplicate := forge(t, id, func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, c.ExtraExtensions[0]) })
	garbage := forge(t, id, func(*x509.Certificate) {})
	garbage.Certificate = [][]byte{{0x30, 0}}
	for name, c := range map[string]struct {
		cert tls.Certificate
		want attest.Code
	}{
		"duplicate extension": {duplicate, attest.CodeDuplicateExtension},
		"garbage":             {garbage, attest.CodeMalformedCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			addr := listener(t, func(raw net.Conn) {
				server := tls.Server(raw, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.cert, nil }})
				_ = server.Handshake()
			})
			_, err := ratls.NewConnector(accepting()).Dial(t.Context(), addr)
			code(t, err, c.want)
			_, err = ratls.Peek(t.Context(), addr)
			code(t, err, c.want)
		})
		t.Run(name+" of a client", func(t *testing.T) {
			addr, seen := acceptor(t, ratls.NewMutualAcceptor(id, accepting()))
			config := ratls.ClientConfig(accepting(), "127.0.0.1")
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.cert, nil }
			conn, err := tls.Dial("tcp", addr, config)
			if err == nil {
				_ = conn.Close()
			}
			code(t, (<-seen).err, c.want)
		})
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(identity(f, "a.example").Leaf().Certificate.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := ratls.Open([][]byte{der}); err != nil && attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
