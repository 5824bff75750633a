package oracle

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hf/nitrite"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/test/vectors"
)

const nitriteOracle = "nitrite"

// document is a Nitro attestation document, judged under a root.
type document struct {
	raw  []byte
	root []byte
	at   time.Time
}

// production is a policy that affirms what is authentic and cannot be read by a debugger.
type production struct{}

func (production) Judge(c *attest.Claims, _ attest.Situation) attest.Judgement {
	check := attest.Check{ID: "debug", Status: attest.StatusFail, Code: attest.CodeDebug}
	if c.Debug == attest.Off {
		check.Status = attest.StatusPass
	}
	return attest.Judgement{Checks: []attest.Check{check}}
}

func (d document) ours(t *testing.T) error {
	t.Helper()
	roots, err := nitro.NewRoots(d.root)
	if err != nil {
		return err
	}
	a := attest.NewAppraiser(attest.NoEndorser{}, nitro.NewVerifier(roots))
	return a.Appraise(t.Context(), &attest.Evidence{Format: nitro.Format, Raw: d.raw}, attest.UnsafeExpectAnything(), production{}, d.at).Err()
}

func (d document) theirs() error {
	return contained(func() error {
		root, err := x509.ParseCertificate(d.root)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AddCert(root)
		_, err = nitrite.Verify(d.raw, nitrite.VerifyOptions{Roots: pool, CurrentTime: d.at})
		return err
	})
}

func (d document) compare(t *testing.T, class, what string) {
	t.Helper()
	agree(t, nitriteOracle, class, what, d.ours(t), d.theirs())
}

func (d document) with(change func(*document)) document {
	d.raw = slices.Clone(d.raw)
	change(&d)
	return d
}

func recordedDocument(t *testing.T, name string) document {
	t.Helper()
	raw := nitro.Unwrap(vectors.Read(t, name))
	doc, err := nitro.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return document{raw, doc.CABundle[0], doc.Timestamp}
}

// nitroForge makes a document under a root of its own. The hooks change one thing before it is signed.
type nitroForge struct {
	cert    func(level int, c *x509.Certificate)
	signer  int // level whose certificate another key signs
	payload func(map[string]any)
	other   bool // another key signs the document
	message func([]byte) []byte
}

// Levels of a chain.
const (
	levelRoot = iota
	levelRegion
	levelZone
	levelInstance
	levelLeaf
	levels
)

func p384() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func (f nitroForge) make(t *testing.T) document {
	t.Helper()
	var ders [][]byte
	var parent *x509.Certificate
	var above, key *ecdsa.PrivateKey
	for i, name := range [levels]string{"root", "region", "zone", "instance", "enclave"} {
		key = p384()
		c := &x509.Certificate{
			SerialNumber: bigInt(int64(i + 1)), Subject: pkix.Name{CommonName: name + ".example"}, SignatureAlgorithm: x509.ECDSAWithSHA384,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: levelInstance - i, MaxPathLenZero: true,
		}
		if i == levelRoot {
			c.MaxPathLen, parent, above = -1, c, key
		}
		if i == levelLeaf {
			c.IsCA, c.KeyUsage, c.MaxPathLen, c.MaxPathLenZero = false, x509.KeyUsageDigitalSignature, 0, false
		}
		if f.cert != nil {
			f.cert(i, c)
		}
		if f.signer == i && i > levelRoot {
			above = p384()
			as := *parent
			as.PublicKey = &above.PublicKey
			parent = &as
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, above)
		if err != nil {
			t.Fatal(err)
		}
		ders = append(ders, der)
		parent, above = certificate(t, der), key
	}
	register := func(n byte) []byte { return bytes.Repeat([]byte{n}, 48) }
	payload := map[string]any{
		"module_id": "i-1-enc1", "digest": "SHA384", "timestamp": now.UnixMilli(), "pcrs": map[any]any{0: register(1), 1: register(2), 2: register(3), 3: register(0)},
		"certificate": ders[levelLeaf], "cabundle": ders[:levelLeaf], "public_key": nil, "user_data": make([]byte, 64), "nonce": nil,
	}
	if f.payload != nil {
		f.payload(payload)
	}
	raw, err := strictcbor.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	if f.other {
		key = p384()
	}
	message, err := cose.Sign(key, raw)
	if err != nil {
		t.Fatal(err)
	}
	if f.message != nil {
		message = f.message(message)
	}
	return document{message, ders[levelRoot], now}
}

func TestNitro(t *testing.T) {
	subjects := map[string]document{"recorded": recordedDocument(t, "nitro/production.cose"), "forged": nitroForge{}.make(t)}
	for name, d := range sorted(subjects) {
		if err := d.ours(t); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		d.compare(t, name+"/good", "")
		for at := 0; at < len(d.raw); at += 41 {
			d.with(func(d *document) { d.raw[at] ^= 1 << (at % 8) }).compare(t, name+"/flip", fmt.Sprintf("byte %d", at))
		}
		for at := len(d.raw) - 96; at < len(d.raw); at += 5 {
			d.with(func(d *document) { d.raw[at] ^= 1 << (at % 8) }).compare(t, name+"/flip", fmt.Sprintf("byte %d", at))
		}
		for n := 0; n < len(d.raw); n += 397 {
			d.with(func(d *document) { d.raw = d.raw[:n] }).compare(t, name+"/cut", fmt.Sprintf("%d bytes", n))
		}
		d.with(func(d *document) { d.raw = append(d.raw, 0) }).compare(t, name+"/trailing byte", "")
		for what, hours := range sorted(map[string]int{"a day early": -24, "a day late": 24}) {
			d.with(func(d *document) { d.at = d.at.Add(time.Duration(hours) * time.Hour) }).compare(t, name+"/"+what, "")
		}
	}
	debug := recordedDocument(t, "nitro/debug.cose")
	debug.compare(t, "recorded/debug", "")
	foreign := subjects["forged"]
	foreign.root = subjects["recorded"].root
	foreign.compare(t, "forged/foreign root", "")
	set := func(name string, value any) nitroForge {
		return nitroForge{payload: func(m map[string]any) { m[name] = value }}
	}
	without := func(name string) nitroForge {
		return nitroForge{payload: func(m map[string]any) { delete(m, name) }}
	}
	at := func(level int, change func(*x509.Certificate)) nitroForge {
		return nitroForge{cert: func(l int, c *x509.Certificate) {
			if l == level {
				change(c)
			}
		}}
	}
	cases := map[string]nitroForge{
		"another key":          {other: true},
		"tagged":               {message: cose.Tag},
		"debug":                set("pcrs", map[any]any{0: make([]byte, 48), 1: make([]byte, 48), 2: make([]byte, 48)}),
		"digest SHA256":        set("digest", "SHA256"),
		"no PCRs":              set("pcrs", map[any]any{}),
		"PCR 32":               set("pcrs", map[any]any{0: make([]byte, 48), 32: make([]byte, 48)}),
		"short PCR":            set("pcrs", map[any]any{0: make([]byte, 47)}),
		"no bundle":            set("cabundle", [][]byte{}),
		"large nonce":          set("nonce", make([]byte, 2000)),
		"large user data":      set("user_data", make([]byte, 2000)),
		"large public key":     set("public_key", make([]byte, 2000)),
		"unknown field":        set("extra", 1),
		"leaf is an authority": at(levelLeaf, func(c *x509.Certificate) { c.IsCA = true }),
		"authority is none":    at(levelZone, func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, 0, false }),
		"path too long":        at(levelRegion, func(c *x509.Certificate) { c.MaxPathLen = 0 }),
	}
	for _, name := range []string{"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"} {
		cases["no "+name] = without(name)
	}
	for l, name := range []string{"root", "region", "zone", "instance", "leaf"} {
		cases[name+" expired"] = at(l, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
		if l > 0 {
			cases[name+" by another key"] = nitroForge{signer: l}
		}
	}
	for name, f := range sorted(cases) {
		f.make(t).compare(t, "refused/"+name, "")
	}
	met(t, nitriteOracle, "")
}
