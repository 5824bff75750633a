package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

const nitroSyntax = "nitro with debug=on|off, measurement=HEX, pcr0=HEX to pcr15, module=ID, revoked=none|region|zone, expired=none|region|zone|instance|leaf"

func nitroKind() kind {
	return kind{
		name:   string(nitro.Format),
		syntax: nitroSyntax,
		open:   openNitro,
		root:   nitroRoot,
		verifier: func(root []byte) (attest.Verifier, error) {
			roots, err := nitro.NewRoots(root)
			if err != nil {
				return nil, err
			}
			return nitro.NewVerifier(roots), nil
		},
	}
}

// nitroRoot takes the root out of the document, which brings its whole chain.
func nitroRoot(ev *attest.Evidence) ([]byte, error) {
	d, err := nitro.Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	return d.CABundle[0], nil
}

// Places in the chain, as a spec names them.
var nitroLevels = []string{"root", "region", "zone", "instance", "leaf"}

// nitroLives are how long AWS's certificates of each place live.
var nitroLives = []time.Duration{30 * 365 * 24 * time.Hour, 20 * 24 * time.Hour, 6 * 24 * time.Hour, 24 * time.Hour, 3 * time.Hour}

// Nitro is a simulated AWS instance with one enclave. It is safe for concurrent use.
type Nitro struct {
	root             []byte // DER
	keys             []*ecdsa.PrivateKey
	now              func() time.Time
	pace             *pace
	module           string
	pcrs             map[int][]byte
	revoked, expired string

	mu    sync.Mutex
	chain []*x509.Certificate
	lists []attest.Endorsement
	made  time.Time // chain and lists
}

var _ Machine = (*Nitro)(nil)

// nitroName is the common name of the certificate at a place.
func nitroName(level int) string {
	return []string{
		"sim.nitro-enclaves", "0123456789abcdef.sim-1.sim.nitro-enclaves", "fedcba9876543210.zonal.sim-1.sim.nitro-enclaves",
		"i-00000000000000000.sim-1.sim.nitro-enclaves", "i-00000000000000000-enc0000000000000000.sim-1.sim",
	}[level]
}

func openNitro(s *Spec) (Machine, error) {
	m := &Nitro{now: s.Now, pace: newPace(&s.Host), module: "i-00000000000000000-enc0000000000000000", pcrs: map[int][]byte{}, revoked: "none", expired: "none"}
	if s.Product != "" {
		return nil, usage("product "+attest.Quote(s.Product), "none: AWS names no generations")
	}
	for i := range 16 {
		m.pcrs[i] = make([]byte, 48)
	}
	m.pcrs[0] = DefaultMeasurement()
	for i, measured := range map[int]string{1: "jurat simulated kernel", 2: "jurat simulated application", 4: "jurat simulated instance"} {
		sum := sha512.Sum384([]byte(measured))
		m.pcrs[i] = sum[:]
	}
	debug := false
	for _, o := range s.options {
		if err := m.set(o.key, o.value, &debug); err != nil {
			return nil, err
		}
	}
	if debug { // the hypervisor then measures no image
		for i := range 3 {
			m.pcrs[i] = make([]byte, 48)
		}
	}
	var secret seed
	err := open(s.Dir, "sim-nitro.pem", func() ([]byte, error) { return newNitroRoot(s.Now()) }, func(raw []byte) (err error) {
		m.root, secret, err = decodeKept(raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.keys, err = nitroKeys(secret)
	return m, err
}

func (m *Nitro) set(key, value string, debug *bool) (err error) {
	want := "on or off"
	switch pcr, isPCR := strings.CutPrefix(key, "pcr"); {
	case key == "debug":
		*debug, err = onOff(value)
	case key == "measurement":
		want = "96 hex digits"
		m.pcrs[0], err = hex.DecodeString(value)
	case key == "module":
		m.module = value
	case key == "revoked":
		m.revoked, want = value, "none, region or zone"
		if !slices.Contains([]string{"none", "region", "zone"}, value) {
			err = errors.New("unknown")
		}
	case key == "expired":
		m.expired, want = value, "none, region, zone, instance or leaf"
		if value != "none" && !slices.Contains(nitroLevels[1:], value) {
			err = errors.New("unknown")
		}
	case isPCR:
		want = "pcr0 to pcr15 with 96 hex digits"
		var i int
		if i, err = strconv.Atoi(pcr); err == nil && m.pcrs[i] == nil {
			err = errors.New("unknown")
		}
		if err == nil {
			m.pcrs[i], err = hex.DecodeString(value)
		}
	default:
		return usage("key "+attest.Quote(key), "sim:"+nitroSyntax)
	}
	for _, register := range m.pcrs {
		if err == nil && len(register) != 48 {
			err = errors.New("another length")
		}
	}
	if err != nil {
		return usage(attest.Quote(key+"="+value), want)
	}
	return nil
}

func nitroKeys(secret seed) (keys []*ecdsa.PrivateKey, err error) {
	for _, level := range nitroLevels {
		key, err := secret.key(elliptic.P384(), "nitro "+level)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func newNitroRoot(now time.Time) ([]byte, error) {
	secret := make(seed, seedSize)
	_, _ = rand.Read(secret)
	keys, err := nitroKeys(secret)
	if err != nil {
		return nil, err
	}
	root, err := certifyNitro(keys, nil, 0, now)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pemChain(root.Raw), pem.EncodeToMemory(&pem.Block{Type: blockSeed, Bytes: secret})), nil
}

// decodeKept reads a certificate and a seed.
func decodeKept(raw []byte) (der []byte, secret seed, err error) {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case blockCertificate:
			der = block.Bytes
		case blockSeed:
			secret = block.Bytes
		}
	}
	if der == nil || len(secret) != seedSize {
		return nil, nil, errors.New("not a simulated root, or not a complete one")
	}
	return der, secret, nil
}

// certifyNitro makes the certificate at a place; parent is nil for the root.
func certifyNitro(keys []*ecdsa.PrivateKey, parent *x509.Certificate, level int, now time.Time) (*x509.Certificate, error) {
	serial := new(big.Int).Add(big.NewInt(now.UnixNano()), big.NewInt(int64(level)))
	backdated := min(backdate, nitroLives[level]/2)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: nitroName(level), OrganizationalUnit: []string{"SIMULATED"}},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(nitroLives[level] - backdated), SignatureAlgorithm: x509.ECDSAWithSHA384,
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: 3 - level, MaxPathLenZero: level == 3,
	}
	issuer := max(level-1, 0)
	switch level {
	case 0:
		parent, template.MaxPathLen = template, -1
	case 1, 2:
		template.CRLDistributionPoints = []string{"http://crl.sim.invalid/" + nitroLevels[issuer] + ".crl"}
	case 4:
		template.IsCA, template.KeyUsage, template.MaxPathLen = false, x509.KeyUsageDigitalSignature, 0
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &keys[level].PublicKey, keys[issuer])
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Stage makes what AWS does from now on another: revoked=none|region|zone or expired=none|region|zone|instance|leaf.
func (m *Nitro) Stage(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, value, _ := strings.Cut(what, "=")
	if key != "revoked" && key != "expired" {
		return usage(attest.Quote(what), "revoked or expired, with a value")
	}
	m.made = time.Time{}
	return m.set(key, value, nil)
}

// issue makes a chain and lists; they are made anew every hour, for leaves live for three.
func (m *Nitro) issue() ([]*x509.Certificate, []attest.Endorsement, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if age := now.Sub(m.made); m.chain != nil && age >= 0 && age < time.Hour {
		return m.chain, m.lists, nil
	}
	root, err := x509.ParseCertificate(m.root)
	if err != nil {
		return nil, nil, err
	}
	chain := []*x509.Certificate{root}
	for level := 1; level < len(nitroLevels); level++ {
		at := now
		if m.expired == nitroLevels[level] {
			at = now.Add(-nitroLives[level])
		}
		cert, err := certifyNitro(m.keys, chain[level-1], level, at)
		if err != nil {
			return nil, nil, err
		}
		chain = append(chain, cert)
	}
	var lists []attest.Endorsement
	for i, subject := range []string{"region", "zone"} { // of the root and of the region
		list := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.AddDate(0, 0, 7)}
		if m.revoked == subject {
			list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: chain[i+1].SerialNumber, RevocationTime: now.Add(-time.Hour)}}
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, chain[i], m.keys[i])
		if err != nil {
			return nil, nil, err
		}
		lists = append(lists, attest.Endorsement{Kind: attest.KindCRL, Raw: der})
	}
	m.chain, m.lists, m.made = chain, lists, now
	return chain, lists, nil
}

// Root implements Machine.
func (m *Nitro) Root() string { return attest.Fingerprint(m.root) }

// Attest implements attest.Attester. The lists are stapled; the chain is in the document.
func (m *Nitro) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return m.pace.attest(ctx, data, func() (*attest.Evidence, error) {
		document, err := m.Document(data[:], nil, nil)
		if err != nil {
			return nil, err
		}
		_, lists, err := m.issue()
		return &attest.Evidence{Format: simulated + nitro.Format, Raw: document, Endorsements: slices.Clone(lists)}, err
	})
}

// Document makes an attestation document as the Nitro Security Module does, a map without a length in front among its
// habits. What is nil the enclave did not give.
func (m *Nitro) Document(userData, nonce, publicKey []byte) ([]byte, error) {
	chain, _, err := m.issue()
	if err != nil {
		return nil, err
	}
	optional := func(b []byte) any {
		if b == nil {
			return nil
		}
		return b
	}
	var bundle [][]byte
	for _, c := range chain[:4] {
		bundle = append(bundle, c.Raw)
	}
	payload := bytes.NewBuffer([]byte{0xbf})
	for _, field := range []struct {
		name  string
		value any
	}{
		{"module_id", m.module},
		{"digest", "SHA384"},
		{"timestamp", uint64(m.now().UnixMilli())},
		{"pcrs", m.pcrs},
		{"certificate", chain[4].Raw},
		{"cabundle", bundle},
		{"public_key", optional(publicKey)},
		{"user_data", optional(userData)},
		{"nonce", optional(nonce)},
	} {
		for _, v := range []any{field.name, field.value} {
			raw, err := strictcbor.Marshal(v)
			if err != nil {
				return nil, err
			}
			payload.Write(raw)
		}
	}
	payload.WriteByte(0xff)
	return cose.Sign(m.keys[4], payload.Bytes())
}

// Service implements Machine. AWS's lists are at addresses that certificates name; here they are together at one.
func (m *Nitro) Service() http.Handler { return vendor(m.answer) }

// Endorser implements Machine.
func (m *Nitro) Endorser() attest.Endorser { return endorser{m.answer, []string{nitro.Service}} }

func (m *Nitro) answer(u *url.URL) (*answer, error) {
	_, lists, err := m.issue()
	if err != nil || u.Path != "/crl" {
		return nil, err
	}
	a := &answer{contentType: "application/x-pem-file", endorsements: slices.Clone(lists)}
	for _, e := range lists {
		a.body = append(a.body, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: e.Raw})...)
	}
	return a, nil
}

// String describes the machine for a log line.
func (m *Nitro) String() string {
	return fmt.Sprintf("SIMULATED NITRO enclave %s, root %s", attest.Quote(m.module), m.Root())
}
