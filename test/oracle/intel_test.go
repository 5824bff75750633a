package oracle

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	intelpcs "github.com/google/go-tdx-guest/pcs"
	tdxverify "github.com/google/go-tdx-guest/verify"
	"github.com/oasisprotocol/oasis-core/go/common/sgx/pcs"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/test/dcapforge"
	"github.com/jurat-tls/jurat/test/vectors"
)

// Oracles of Intel's formats.
const (
	tdxGuest = "go-tdx-guest"
	oasis    = "oasis-core"
)

// intel is a quote with collateral, under a root.
type intel struct {
	evidence *attest.Evidence
	root     []byte
	roots    *dcap.Roots
	at       time.Time
}

// upToDate affirms what both oracles affirm: an up to date platform without debugging.
type upToDate struct{}

func (upToDate) Judge(c *attest.Claims, _ attest.Situation) attest.Judgement {
	status := func(ok bool) attest.Status {
		if ok {
			return attest.StatusPass
		}
		return attest.StatusFail
	}
	return attest.Judgement{Checks: []attest.Check{
		{ID: "status", Status: status(c.TCBStatus == "UpToDate"), Code: attest.CodeTCBStatus, Got: c.TCBStatus},
		{ID: "debug", Status: status(c.Debug == attest.Off), Code: attest.CodeDebug},
		{ID: "revocation", Status: status(c.Revocation.Problem == nil), Code: attest.CodeEndorsementMissing},
	}}
}

func (s intel) ours(t *testing.T) error {
	a := attest.NewAppraiser(attest.NoEndorser{}, sgx.NewVerifier(s.roots), tdx.NewVerifier(s.roots))
	return a.Appraise(t.Context(), s.evidence, attest.UnsafeExpectAnything(), upToDate{}, s.at).Err()
}

func (s intel) pem(places ...int) string {
	var b strings.Builder
	for _, i := range places {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: s.evidence.Endorsements[i].Raw})
	}
	return b.String()
}

// Get answers as Intel's service does.
func (s intel) Get(address string) (map[string][]string, []byte, error) {
	e := s.evidence.Endorsements
	chain := func(header string, places ...int) map[string][]string {
		return map[string][]string{header: {url.QueryEscape(s.pem(places...))}}
	}
	switch {
	case strings.HasPrefix(address, intelpcs.TdxBaseURL+"/tcb?"):
		return chain(intelpcs.TcbInfoIssuerChainPhrase, dcapforge.TCBCert, dcapforge.RootCert), e[dcapforge.TCBInfo].Raw, nil
	case address == intelpcs.QeIdentityURL():
		return chain(intelpcs.SgxQeIdentityIssuerChainPhrase, dcapforge.TCBCert, dcapforge.RootCert), e[dcapforge.QEIdentity].Raw, nil
	case strings.HasPrefix(address, intelpcs.SgxBaseURL+"/pckcrl?"):
		return chain(intelpcs.SgxPckCrlIssuerChainPhrase, dcapforge.CACert, dcapforge.RootCert), e[dcapforge.PCKCRL].Raw, nil
	case strings.HasSuffix(address, ".der"):
		return nil, e[dcapforge.RootCRL].Raw, nil
	}
	return nil, nil, fmt.Errorf("no answer for %s", address)
}

func (s intel) options() *tdxverify.Options {
	pool := x509.NewCertPool()
	if root, err := x509.ParseCertificate(s.root); err == nil {
		pool.AddCert(root)
	}
	now := tdxverify.TimeSet{PckCertChain: s.at, TcbInfo: s.at, QeIdentity: s.at, PckCrl: s.at, RootCaCrl: s.at}
	return &tdxverify.Options{CheckRevocations: true, GetCollateral: true, Getter: s, Now: &now, TrustedRoots: pool}
}

// guest is the verdict of go-tdx-guest's verification. What it would validate beyond that is for a caller to configure.
func (s intel) guest() error {
	return contained(func() error { return tdxverify.RawTdxQuote(s.evidence.Raw, s.options()) })
}

// oasis is the verdict of oasis-core. Its roots are a variable of the package, so its tests run one at a time.
func (s intel) oasis() error {
	return contained(func() error {
		root, err := x509.ParseCertificate(s.root)
		if err != nil {
			return err
		}
		pcs.IntelTrustRoots = x509.NewCertPool()
		pcs.IntelTrustRoots.AddCert(root)
		bundle := pcs.QuoteBundle{Quote: s.evidence.Raw, TCB: pcs.TCBBundle{Certificates: []byte(s.pem(dcapforge.TCBCert, dcapforge.RootCert))}}
		if err := json.Unmarshal(s.evidence.Endorsements[dcapforge.TCBInfo].Raw, &bundle.TCB.TCBInfo); err != nil {
			return err
		}
		if err := json.Unmarshal(s.evidence.Endorsements[dcapforge.QEIdentity].Raw, &bundle.TCB.QEIdentity); err != nil {
			return err
		}
		_, err = bundle.Verify(&pcs.QuotePolicy{TCBValidityPeriod: 31, MinTCBEvaluationDataNumber: 12, TDX: &pcs.TdxQuotePolicy{}}, s.at)
		return err
	})
}

// compare asks every oracle that knows the format. One that does not know version 5 would refuse whatever it is given.
func (s intel) compare(t *testing.T, class, what string) {
	t.Helper()
	ours := s.ours(t)
	if s.evidence.Format == tdx.Format {
		agree(t, tdxGuest, class, what, ours, s.guest())
	}
	if !strings.Contains(class, "v5") || strings.HasPrefix(class, "good/") {
		agree(t, oasis, class, what, ours, s.oasis())
	}
}

// unpadded takes off the zeros that the host's buffer leaves behind a quote.
func unpadded(i *intel) {
	size := 48 + 584
	size += 4 + int(binary.LittleEndian.Uint32(i.evidence.Raw[size:]))
	i.evidence.Raw = i.evidence.Raw[:size]
}

func recordedTDX(t testing.TB) intel {
	t.Helper()
	return recorded(t, tdx.Format, "tdx/quote-v4.bin", "tdx/quote-v4.collateral.json")
}

// with is a copy with one thing changed.
func (s intel) with(change func(*intel)) intel {
	ev := *s.evidence
	ev.Raw = slices.Clone(ev.Raw)
	ev.Endorsements = slices.Clone(ev.Endorsements)
	for i := range ev.Endorsements {
		ev.Endorsements[i].Raw = slices.Clone(ev.Endorsements[i].Raw)
	}
	s.evidence = &ev
	change(&s)
	return s
}

// recorded is evidence of real hardware, under the root in its collateral: dcap.IntelRoots holds the same.
func recorded(t testing.TB, format attest.Format, quote, collateral string) intel {
	t.Helper()
	ev := &attest.Evidence{Format: format, Raw: vectors.Read(t, quote), Endorsements: vectors.Collateral(t, collateral)}
	return intel{ev, ev.Endorsements[dcapforge.RootCert].Raw, dcap.IntelRoots(), time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)}
}

// forged makes evidence under a root of its own, whose certificates have Intel's names: an oracle goes by them.
func forged(t *testing.T, f dcapforge.Forge) intel {
	t.Helper()
	named := func(hook *func(*x509.Certificate)) {
		before := *hook
		*hook = func(c *x509.Certificate) {
			c.Subject.CommonName = strings.Replace(c.Subject.CommonName, "Test", "Intel", 1)
			c.Subject.Organization = []string{"Intel Corporation"}
			c.SubjectKeyId = []byte{1, byte(c.SerialNumber.Int64())}
			c.CRLDistributionPoints = []string{"https://certificates.trustedservices.intel.com/list.der"}
			if before != nil {
				before(c)
			}
		}
	}
	named(&f.Cert.Root)
	named(&f.Cert.CA)
	named(&f.Cert.PCK)
	named(&f.Cert.TCB)
	made := f.Make(t)
	made.Evidence.Format = tdx.Format
	if f.SGX {
		made.Evidence.Format = sgx.Format
	}
	return intel{made.Evidence, made.Root, made.Roots, dcapforge.Epoch}
}

func platform(f dcapforge.Forge) string {
	switch {
	case f.SGX:
		return "sgx"
	case f.Version == 5 && f.TD15:
		return "tdx v5 (1.5)"
	case f.Version == 5:
		return "tdx v5 (1.0)"
	}
	return "tdx v4"
}

func platforms() []dcapforge.Forge {
	return []dcapforge.Forge{{}, {Version: 5}, {Version: 5, TD15: true}, {SGX: true, Version: 3}}
}

// TestIntelGood: what is good is good to all; else every other comparison would be of two refusals.
func TestIntelGood(t *testing.T) {
	recordedTDX(t).compare(t, "good/recorded tdx, padded", "")
	recordedTDX(t).with(unpadded).compare(t, "good/recorded tdx", "")
	recorded(t, sgx.Format, "sgx/quote-v3.bin", "sgx/quote-v3.collateral.json").compare(t, "good/recorded sgx", "")
	for _, f := range platforms() {
		s := forged(t, f)
		if err := s.ours(t); err != nil {
			t.Errorf("%s: %v", platform(f), err)
		}
		s.compare(t, "good/"+platform(f), "forged")
		f.Processor = true
		forged(t, f).compare(t, "good/"+platform(f)+", Processor CA", "forged")
	}
	met(t, tdxGuest, "good/")
	met(t, oasis, "good/")
}

var statuses = []string{"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"}

// TestIntelStatus stages every status of platform, TDX module and quoting enclave.
func TestIntelStatus(t *testing.T) {
	high, tdxHigh := []byte{2, 2, 2, 2, 3, 1, 0, 5}, []byte{5, 0, 2}
	for _, f := range platforms() {
		for _, status := range statuses {
			p := f
			p.Info = func(m map[string]any) {
				level := dcapforge.Level(high, nil, 11, status)
				if !f.SGX {
					level = dcapforge.Level(high, tdxHigh, 11, status)
				}
				m["tcbLevels"] = []any{level}
			}
			forged(t, p).compare(t, "status/"+platform(f)+"/platform "+status, "")
			q := f
			q.Identity = func(m map[string]any) { m["tcbLevels"] = []any{dcapforge.ISVLevel(4, status)} }
			forged(t, q).compare(t, "status/"+platform(f)+"/qe "+status, "")
			if f.SGX {
				continue
			}
			m := f
			m.Info = func(m map[string]any) {
				m["tdxModuleIdentities"] = []any{dcapforge.Module("TDX_01", dcapforge.ISVLevel(4, status))}
			}
			forged(t, m).compare(t, "status/"+platform(f)+"/module "+status, "")
		}
	}
	met(t, tdxGuest, "status/")
	met(t, oasis, "status/")
}

// TestIntelTime moves the clock.
func TestIntelTime(t *testing.T) {
	for _, s := range []struct {
		name string
		intel
	}{
		{"recorded tdx", recordedTDX(t).with(unpadded)},
		{"tdx v4", forged(t, dcapforge.Forge{})},
		{"sgx", forged(t, dcapforge.Forge{SGX: true, Version: 3})},
	} {
		for name, days := range map[string]int{"a year early": -366, "a month early": -32, "two weeks early": -14, "a day early": -1, "a week late": 7, "three weeks late": 21, "two months late": 61, "ten years late": 3653} {
			s.with(func(i *intel) { i.at = i.at.AddDate(0, 0, days) }).compare(t, "time/"+s.name+"/"+name, "")
		}
	}
	met(t, tdxGuest, "time/")
	met(t, oasis, "time/")
}

// TestIntelRefused: each case has one thing wrong.
func TestIntelRefused(t *testing.T) {
	revoke := func(serial int64) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: bigInt(serial), RevocationTime: dcapforge.Epoch.AddDate(0, -1, 0)}}
		}
	}
	expired := func(c *x509.Certificate) { c.NotAfter = dcapforge.Epoch.AddDate(0, 0, -1) }
	other := dcapforge.NewKey()
	for name, change := range sorted(map[string]func(*dcapforge.Forge){
		"PCK certificate revoked":         func(f *dcapforge.Forge) { f.PCKCRL = revoke(3) },
		"PCK authority revoked":           func(f *dcapforge.Forge) { f.RootCRL = revoke(2) },
		"TCB signing certificate revoked": func(f *dcapforge.Forge) { f.RootCRL = revoke(4) },
		"other certificate revoked":       func(f *dcapforge.Forge) { f.PCKCRL = revoke(99) },
		"PCK certificate expired":         func(f *dcapforge.Forge) { f.Cert.PCK = expired },
		"PCK authority expired":           func(f *dcapforge.Forge) { f.Cert.CA = expired },
		"root expired":                    func(f *dcapforge.Forge) { f.Cert.Root = expired },
		"TCB signing certificate expired": func(f *dcapforge.Forge) { f.Cert.TCB = expired },
		"PCK certificate by another key":  func(f *dcapforge.Forge) { f.Key.PCK = other },
		"PCK authority by another key":    func(f *dcapforge.Forge) { f.Key.CA = other },
		"TCB certificate by another key":  func(f *dcapforge.Forge) { f.Key.TCB = other },
		"QE report by another key":        func(f *dcapforge.Forge) { f.Key.QE = other },
		"quote by another key":            func(f *dcapforge.Forge) { f.Key.Quote = other },
		"TCB info by another key":         func(f *dcapforge.Forge) { f.Key.Info = other },
		"QE identity by another key":      func(f *dcapforge.Forge) { f.Key.Identity = other },
		"root CRL by another key":         func(f *dcapforge.Forge) { f.Key.RootCRL = other },
		"PCK CRL by another key":          func(f *dcapforge.Forge) { f.Key.PCKCRL = other },
		"another FMSPC":                   func(f *dcapforge.Forge) { f.Info = func(m map[string]any) { m["fmspc"] = "00806F050000" } },
		"another PCE":                     func(f *dcapforge.Forge) { f.Info = func(m map[string]any) { m["pceId"] = "0001" } },
		"TCB info of the other TEE":       func(f *dcapforge.Forge) { f.Info = func(m map[string]any) { m["id"] = "OTHER" } },
		"TCB info of version 2":           func(f *dcapforge.Forge) { f.Info = func(m map[string]any) { m["version"] = 2 } },
		"no TCB level":                    func(f *dcapforge.Forge) { f.Info = func(m map[string]any) { m["tcbLevels"] = []any{} } },
		"QE identity of the other TEE":    func(f *dcapforge.Forge) { f.Identity = func(m map[string]any) { m["id"] = "QVE" } },
		"QE of another signer": func(f *dcapforge.Forge) {
			f.Identity = func(m map[string]any) { m["mrsigner"] = strings.Repeat("ab", 32) }
		},
		"QE of another product": func(f *dcapforge.Forge) { f.Identity = func(m map[string]any) { m["isvprodid"] = 9 } },
		"QE of other attributes": func(f *dcapforge.Forge) {
			f.Identity = func(m map[string]any) { m["attributes"] = "13" + strings.Repeat("00", 15) }
		},
		"QE of other misc select":      func(f *dcapforge.Forge) { f.Identity = func(m map[string]any) { m["miscselect"] = "00000001" } },
		"debug":                        func(f *dcapforge.Forge) { f.Body = debug(f.SGX) },
		"QE with debug":                func(f *dcapforge.Forge) { f.QE = func(b []byte) { b[48] |= 2 } },
		"attestation key not the QE's": func(f *dcapforge.Forge) { f.Key64 = func(b []byte) { copy(b, publicBytes(other)) } },
		"trailing zero":                func(f *dcapforge.Forge) { f.Raw = func(b []byte) []byte { return append(b, 0) } },
		"trailing zeros":               func(f *dcapforge.Forge) { f.Raw = func(b []byte) []byte { return append(b, make([]byte, 5000)...) } },
		"trailing bytes":               func(f *dcapforge.Forge) { f.Raw = func(b []byte) []byte { return append(b, 0, 1) } },
		"version 2":                    func(f *dcapforge.Forge) { f.Header = func(b []byte) { b[0] = 2 } },
		"version 6":                    func(f *dcapforge.Forge) { f.Header = func(b []byte) { b[0] = 6 } },
		"key type 3":                   func(f *dcapforge.Forge) { f.Header = func(b []byte) { b[2] = 3 } },
		"TEE type of the other":        func(f *dcapforge.Forge) { f.Header = func(b []byte) { b[4] ^= 0x81 } },
		"another vendor of the QE":     func(f *dcapforge.Forge) { f.Header = func(b []byte) { b[12] ^= 1 } },
		"a chain of two": func(f *dcapforge.Forge) {
			f.Chain = func(b []byte) []byte { return append(b[:bytes.LastIndex(b, []byte("-----BEGIN"))], 0) }
		},
		"a chain of one": func(f *dcapforge.Forge) {
			f.Chain = func(b []byte) []byte { return append(b[:bytes.Index(b[5:], []byte("-----BEGIN"))+5], 0) }
		},
		"no chain": func(f *dcapforge.Forge) { f.Chain = func([]byte) []byte { return nil } },
	}) {
		for _, f := range platforms() {
			if f.Version == 5 && !f.TD15 {
				continue
			}
			change(&f)
			forged(t, f).compare(t, "refused/"+platform(f)+"/"+name, "")
		}
	}
	met(t, tdxGuest, "refused/")
	met(t, oasis, "refused/")
}

// TestIntelForeignRoot: evidence under a root of its own, judged under Intel's.
func TestIntelForeignRoot(t *testing.T) {
	good := recordedTDX(t)
	for _, f := range platforms() {
		s := forged(t, f)
		s.root, s.roots = good.root, good.roots
		if err := s.ours(t); attest.CodeOf(err) != attest.CodeUntrustedRoot {
			t.Errorf("%s: %v", platform(f), err)
		}
		s.compare(t, "root/"+platform(f), "")
	}
	met(t, tdxGuest, "root/")
	met(t, oasis, "root/")
}

// part names where in a quote a byte lies.
func part(s intel, at int) string {
	end := 48 + 384
	if s.evidence.Format == tdx.Format {
		end = 48 + 584
		switch v := s.evidence.Raw[0]; {
		case v == 5 && s.evidence.Raw[48] == 3:
			end = 48 + 6 + 648
		case v == 5:
			end = 48 + 6 + 584
		}
	}
	switch chain := bytes.Index(s.evidence.Raw, []byte("-----BEGIN")); {
	case at < 48:
		return "header"
	case at < end:
		return "body"
	case at < chain:
		return "signature data"
	}
	return "chain"
}

// loose reports whether changing a byte of a quote's chain may leave the certificates as they are. Where such bytes lie depends on
// how long signatures happen to be.
func loose(raw []byte, at int) bool {
	return at >= len(raw)-2 || raw[at+1] == '=' && raw[at] != '='
}

// TestIntelChainText writes the same chain in other ways.
func TestIntelChainText(t *testing.T) {
	s := recordedTDX(t).with(unpadded)
	end := len(s.evidence.Raw) - 1
	bits := bytes.LastIndexByte(s.evidence.Raw, '=') - 1
	for bytes.HasPrefix(s.evidence.Raw[bits:], []byte("=")) {
		bits--
	}
	for name, c := range sorted(map[string]struct {
		at int
		to byte
	}{
		"loose bits":      {bits, s.evidence.Raw[bits] ^ 1<<1},
		"vertical tab":    {end - 1, '\v'},
		"space behind it": {end, ' '},
		"a byte behind":   {end, 1},
	}) {
		if !loose(s.evidence.Raw, c.at) {
			t.Errorf("%s: byte %d is not one of those", name, c.at)
		}
		s.with(func(i *intel) { i.evidence.Raw[c.at] = c.to }).compare(t, "text/"+name, "")
	}
	met(t, tdxGuest, "text/")
	met(t, oasis, "text/")
}

// TestIntelFlips flips bits all over quotes and collateral.
func TestIntelFlips(t *testing.T) {
	subjects := []struct {
		name string
		intel
	}{{"recorded tdx", recordedTDX(t).with(unpadded)}}
	for _, f := range platforms() {
		subjects = append(subjects, struct {
			name string
			intel
		}{platform(f), forged(t, f)})
	}
	for _, s := range subjects {
		for at := 0; at < len(s.evidence.Raw); at += 23 {
			if loose(s.evidence.Raw, at) {
				continue // TestIntelChainText
			}
			s.with(func(i *intel) { i.evidence.Raw[at] ^= 1 << (at % 8) }).compare(t, "flip/"+s.name+"/"+part(s.intel, at), fmt.Sprintf("byte %d", at))
		}
		for place, name := range []string{"TCB info", "QE identity", "root CRL", "PCK CRL", "TCB certificate"} {
			for at := 0; at < len(s.evidence.Endorsements[place].Raw); at += 61 {
				s.with(func(i *intel) { i.evidence.Endorsements[place].Raw[at] ^= 1 << (at % 5) }).compare(t, "flip/"+s.name+"/"+name, fmt.Sprintf("byte %d", at))
			}
		}
		for n := 0; n < len(s.evidence.Raw); n += 197 {
			s.with(func(i *intel) { i.evidence.Raw = i.evidence.Raw[:n] }).compare(t, "cut/"+s.name, fmt.Sprintf("%d bytes", n))
		}
		s.with(func(i *intel) { i.evidence.Raw = i.evidence.Raw[:len(i.evidence.Raw)-1] }).compare(t, "cut/"+s.name+"/last byte", "")
	}
	for _, prefix := range []string{"flip/", "cut/"} {
		met(t, tdxGuest, prefix)
		met(t, oasis, prefix)
	}
}
