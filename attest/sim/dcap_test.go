package sim_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
)

// What follows up to TestQuoteFormat reads quotes and collateral with the standard library alone, so that a
// misunderstanding that simulation and verifier share shows.

func split(t *testing.T, b *[]byte, n int) []byte {
	t.Helper()
	if len(*b) < n {
		t.Fatalf("%d bytes left, want %d", len(*b), n)
	}
	part := (*b)[:n]
	*b = (*b)[n:]
	return part
}

func u16(t *testing.T, b *[]byte) int { return int(binary.LittleEndian.Uint16(split(t, b, 2))) }
func u32(t *testing.T, b *[]byte) int { return int(binary.LittleEndian.Uint32(split(t, b, 4))) }

func p256(t *testing.T, xy []byte) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, xy...))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signedBy(key any, message, rs []byte) bool {
	digest := sha256.Sum256(message)
	return ecdsa.Verify(key.(*ecdsa.PublicKey), digest[:], new(big.Int).SetBytes(rs[:32]), new(big.Int).SetBytes(rs[32:]))
}

func certificates(t *testing.T, text []byte) (list []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// chained verifies a chain, leaf first and root last.
func chained(t *testing.T, list []*x509.Certificate) {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(list[len(list)-1])
	for _, c := range list[1 : len(list)-1] {
		between.AddCert(c)
	}
	leaf := *list[0]
	leaf.UnhandledCriticalExtensions = nil
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}

// quote is one taken apart.
type quote struct {
	header, body, qeReport []byte
	chain                  []*x509.Certificate
}

func dissect(t *testing.T, raw []byte) (q quote) {
	t.Helper()
	rest := raw
	q.header = split(t, &rest, 48)
	version, size := int(binary.LittleEndian.Uint16(q.header)), map[int]int{3: 384, 4: 584}[int(binary.LittleEndian.Uint16(q.header))]
	if version == 5 {
		kind := u16(t, &rest)
		size = u32(t, &rest)
		if want := map[int]int{2: 584, 3: 648}[kind]; size != want {
			t.Fatalf("body %d of %d bytes", kind, size)
		}
	}
	q.body = split(t, &rest, size)
	signed := raw[:len(raw)-len(rest)]
	if n := u32(t, &rest); n != len(rest) {
		t.Fatalf("%d bytes of signature data, of %d", n, len(rest))
	}
	signature, key := split(t, &rest, 64), split(t, &rest, 64)
	if !signedBy(p256(t, key), signed, signature) {
		t.Error("the attestation key did not sign the quote")
	}
	if version > 3 {
		if kind, n := u16(t, &rest), u32(t, &rest); kind != 6 || n != len(rest) {
			t.Fatalf("certification data %d of %d bytes", kind, n)
		}
	}
	q.qeReport = split(t, &rest, 384)
	qeSignature := split(t, &rest, 64)
	auth := split(t, &rest, u16(t, &rest))
	if kind, n := u16(t, &rest), u32(t, &rest); kind != 5 || n != len(rest) {
		t.Fatalf("certification data %d of %d bytes", kind, n)
	}
	named := sha256.Sum256(slices.Concat(key, auth))
	if !bytes.Equal(q.qeReport[320:], append(named[:], make([]byte, 32)...)) {
		t.Error("the quoting enclave does not name the attestation key")
	}
	if rest[len(rest)-1] != 0 {
		t.Error("the chain does not end as a string of C")
	}
	if q.chain = certificates(t, rest); len(q.chain) != 3 {
		t.Fatalf("%d certificates", len(q.chain))
	}
	chained(t, q.chain)
	if !signedBy(q.chain[0].PublicKey, q.qeReport, qeSignature) {
		t.Error("the PCK did not sign the quoting enclave's report")
	}
	return q
}

// extension reads the SGX extension of a PCK certificate: values by the arcs after 1.2.840.113741.1.13.1.
func extension(t *testing.T, c *x509.Certificate) map[string]asn1.RawValue {
	t.Helper()
	found := map[string]asn1.RawValue{}
	var walk func(der []byte)
	walk = func(der []byte) {
		var list []struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 {
			t.Fatal(err, rest)
		}
		for _, f := range list {
			arcs, ok := strings.CutPrefix(f.ID.String(), "1.2.840.113741.1.13.1.")
			if _, twice := found[arcs]; !ok || twice {
				t.Errorf("field %s", f.ID)
			}
			found[arcs] = f.Value
			if f.Value.Tag == asn1.TagSequence {
				walk(f.Value.FullBytes)
			}
		}
	}
	for _, x := range c.Extensions {
		if x.Id.String() == "1.2.840.113741.1.13.1" {
			if x.Critical {
				t.Error("the SGX extension is critical")
			}
			walk(x.Value)
		}
	}
	return found
}

func TestQuoteFormat(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]struct {
		version, tee, body, prodID int
		fmspc, ca                  string
		instance                   bool
	}{
		"sim:tdx":                         {4, 0x81, 584, 2, "b0c06f000000", "Platform", true},
		"sim:tdx,version=4,td=1.0":        {4, 0x81, 584, 2, "b0c06f000000", "Platform", true},
		"sim:tdx:sapphire-rapids":         {4, 0x81, 584, 2, "00806f050000", "Platform", true},
		"sim:tdx,version=5":               {5, 0x81, 648, 2, "b0c06f000000", "Platform", true},
		"sim:tdx,version=5,td=1.5":        {5, 0x81, 648, 2, "b0c06f000000", "Platform", true},
		"sim:tdx,version=5,td=1.0":        {5, 0x81, 584, 2, "b0c06f000000", "Platform", true},
		"sim:tdx,ca=processor":            {4, 0x81, 584, 2, "b0c06f000000", "Processor", false},
		"sim:tdx,fmspc=20A06D080000":      {4, 0x81, 584, 2, "20a06d080000", "Platform", true},
		"sim:sgx":                         {3, 0, 384, 1, "b0c06f000000", "Platform", true},
		"sim:sgx:ice-lake":                {3, 0, 384, 1, "00606a000000", "Platform", true},
		"sim:sgx:coffee-lake":             {3, 0, 384, 1, "00906ed50000", "Processor", false},
		"sim:sgx:coffee-lake,ca=platform": {3, 0, 384, 1, "00906ed50000", "Platform", true},
	} {
		t.Run(spec, func(t *testing.T) {
			t.Parallel()
			m := opened(t, spec)
			q := dissect(t, evidenceOf(t, m).Raw)
			h := q.header
			if got := [3]int{int(binary.LittleEndian.Uint16(h)), int(binary.LittleEndian.Uint16(h[2:])), int(binary.LittleEndian.Uint32(h[4:]))}; got != [3]int{want.version, 2, want.tee} {
				t.Errorf("header %v", got)
			}
			qe, pce := binary.LittleEndian.Uint16(h[8:]), binary.LittleEndian.Uint16(h[10:])
			if want.version == 3 && (qe != 8 || pce != 13) || want.version > 3 && (qe != 0 || pce != 0) {
				t.Errorf("security versions %d and %d in the header", qe, pce)
			}
			if hex.EncodeToString(h[12:28]) != "939a7233f79c4ca9940a0db3957f0607" {
				t.Errorf("vendor %x", h[12:28])
			}
			if len(q.body) != want.body {
				t.Errorf("a body of %d bytes", len(q.body))
			}
			if prodID := int(binary.LittleEndian.Uint16(q.qeReport[256:])); prodID != want.prodID {
				t.Errorf("quoting enclave %d", prodID)
			}
			names := []string{"Intel SGX PCK Certificate", "Intel SGX PCK " + want.ca + " CA", "Intel SGX Root CA"}
			for i, c := range q.chain {
				if c.Subject.CommonName != names[i] || c.IsCA != (i > 0) || len(c.CRLDistributionPoints) != 1 || !strings.Contains(c.CRLDistributionPoints[0], ".sim.invalid/") {
					t.Errorf("%s, authority %v, %s", c.Subject.CommonName, c.IsCA, c.CRLDistributionPoints)
				}
				if new(big.Int).SetBytes(c.SubjectKeyId).Cmp(c.SerialNumber) != 0 {
					t.Errorf("%s has serial number %x, key identifier %x", c.Subject.CommonName, c.SerialNumber, c.SubjectKeyId)
				}
			}
			if sum := sha256.Sum256(q.chain[2].Raw); "sha256:"+hex.EncodeToString(sum[:]) != m.Root() {
				t.Error("the root is another")
			}
			x := extension(t, q.chain[0])
			for i := range 16 {
				if v := x[fmt.Sprintf("2.%d", i+1)]; v.Tag != asn1.TagInteger || v.Bytes[0] != q.qeReport[i] {
					t.Errorf("component %d: %x, CPUSVN %x", i+1, v.FullBytes, q.qeReport[:16])
				}
			}
			if v := x["2.17"]; !bytes.Equal(v.Bytes, []byte{13}) {
				t.Errorf("PCESVN %x", v.FullBytes)
			}
			sizes := map[string]int{"1": 16, "2.18": 16, "3": 2, "4": 6}
			if want.instance {
				sizes["6"] = 16
			}
			for arcs, size := range sizes {
				if v := x[arcs]; v.Tag != asn1.TagOctetString || len(v.Bytes) != size {
					t.Errorf("field %s: %x", arcs, v.FullBytes)
				}
			}
			if got := hex.EncodeToString(x["4"].Bytes); got != want.fmspc {
				t.Errorf("FMSPC %s", got)
			}
			if x["5"].Tag != asn1.TagEnum {
				t.Errorf("type %x", x["5"].FullBytes)
			}
			fields := 4 + 18 + 1
			if want.instance {
				fields += 2 + 3
			}
			if len(x) != fields {
				t.Errorf("%d fields", len(x))
			}
		})
	}
}

// get asks the machine's service.
func get(t *testing.T, m sim.Machine, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	m.Service().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r.Body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// header finds a header as it is spelt, and decodes the chain in it.
func header(t *testing.T, r *http.Response, name string) []*x509.Certificate {
	t.Helper()
	values := r.Header[name]
	if len(values) != 1 || strings.ContainsAny(values[0], "+ \n") {
		t.Fatalf("header %s: %q in %v", name, values, r.Header)
	}
	text, err := url.PathUnescape(values[0])
	if err != nil {
		t.Fatal(err)
	}
	list := certificates(t, []byte(text))
	if len(list) != 2 {
		t.Fatalf("%d certificates", len(list))
	}
	chained(t, list)
	return list
}

func TestPCS(t *testing.T) {
	t.Parallel()
	const v4 = "/certification/v4/"
	for _, tee := range []string{"tdx", "sgx"} {
		m := opened(t, "sim:"+tee)
		for _, c := range []struct{ path, header, key, id string }{
			{"tcb?fmspc=B0C06F000000", "TCB-Info-Issuer-Chain", "tcbInfo", strings.ToUpper(tee)},
			{"tcb?fmspc=b0c06f000000", "TCB-Info-Issuer-Chain", "tcbInfo", strings.ToUpper(tee)},
			{"qe/identity", "SGX-Enclave-Identity-Issuer-Chain", "enclaveIdentity", map[string]string{"tdx": "TD_QE", "sgx": "QE"}[tee]},
		} {
			r := get(t, m, "/"+tee+v4+c.path)
			chain := header(t, r, c.header)
			if cn := chain[0].Subject.CommonName; cn != "Intel SGX TCB Signing" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: signed by %s, %s", c.path, cn, r.Header)
			}
			raw := body(t, r)
			var parts map[string]json.RawMessage
			var signature string
			var document struct {
				ID         string    `json:"id"`
				Issued     time.Time `json:"issueDate"`
				Next       time.Time `json:"nextUpdate"`
				Evaluation int       `json:"tcbEvaluationDataNumber"`
			}
			if err := json.Unmarshal(raw, &parts); err != nil || len(parts) != 2 {
				t.Fatal(err, parts)
			}
			if err := json.Unmarshal(parts["signature"], &signature); err != nil {
				t.Fatal(err)
			}
			rs, err := hex.DecodeString(signature)
			if err != nil || !signedBy(chain[0].PublicKey, parts[c.key], rs) {
				t.Errorf("%s: the signature is not over the value as it stands: %v", c.path, err)
			}
			if err := json.Unmarshal(parts[c.key], &document); err != nil || document.ID != c.id || document.Evaluation != 20 || !document.Issued.Before(now) || document.Next.Sub(document.Issued) != 30*24*time.Hour {
				t.Errorf("%s: %+v, %v", c.path, document, err)
			}
		}
		var root *x509.Certificate
		for ca, name := range map[string]string{"platform": "Platform", "processor": "Processor"} {
			path := "/sgx" + v4 + "pckcrl?ca=" + ca
			r := get(t, m, path+"&encoding=der")
			der := body(t, r)
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			chain := header(t, r, "SGX-PCK-CRL-Issuer-Chain")
			root = chain[1]
			if err := list.CheckSignatureFrom(chain[0]); err != nil || chain[0].Subject.CommonName != "Intel SGX PCK "+name+" CA" {
				t.Errorf("%s: %v", path, err)
			}
			if block, _ := pem.Decode(body(t, get(t, m, path))); block == nil || block.Type != "X509 CRL" || !bytes.Equal(block.Bytes, der) {
				t.Errorf("%s: not in PEM", path)
			}
		}
		der := body(t, get(t, m, "/IntelSGXRootCA.der"))
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(root); err != nil {
			t.Error(err)
		}
		if got := string(body(t, get(t, m, "/sgx"+v4+"rootcacrl"))); got != hex.EncodeToString(der) {
			t.Errorf("root list %s", got)
		}
		other := map[string]string{"tdx": "sgx", "sgx": "tdx"}[tee]
		for _, path := range []string{
			"/" + tee + v4 + "tcb?fmspc=00606A000000", "/" + tee + v4 + "tcb", "/" + other + v4 + "tcb?fmspc=B0C06F000000", "/" + other + v4 + "qe/identity",
			"/sgx" + v4 + "pckcrl?encoding=der", "/sgx" + v4 + "pckcrl?ca=other", "/sgx" + v4,
		} {
			if r := get(t, m, path); r.StatusCode != http.StatusNotFound {
				t.Errorf("%s: status %d", path, r.StatusCode)
			}
		}
	}
}

// overHTTP is an endorser that asks a service, as package endorse does.
type overHTTP struct{ service http.Handler }

func (o overHTTP) Endorse(ctx context.Context, ref attest.Ref) (list []attest.Endorsement, err error) {
	w := httptest.NewRecorder()
	o.service.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, ref.Path, nil))
	if w.Code != http.StatusOK {
		return nil, &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements", Got: http.StatusText(w.Code)}
	}
	raw := w.Body.Bytes()
	if der, err := hex.DecodeString(string(raw)); err == nil {
		raw = der
	}
	if block, rest := pem.Decode(raw); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			list = append(list, attest.Endorsement{Kind: ref.Kind, Raw: block.Bytes})
		}
	} else {
		list = append(list, attest.Endorsement{Kind: ref.Kind, Raw: raw})
	}
	for name, values := range w.Header() {
		if !strings.HasSuffix(strings.ToLower(name), "-issuer-chain") {
			continue
		}
		text, err := url.PathUnescape(values[0])
		if err != nil {
			return nil, err
		}
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			list = append(list, attest.Endorsement{Kind: attest.KindCertificate, Raw: block.Bytes})
		}
	}
	return list, nil
}

// judged is what a spec must come to: a status, or the code of a refusal.
type judged struct {
	spec   string
	status string
	code   attest.Code
}

// Every status of platform, module and quoting enclave, converged as Intel converges them.
func TestStatuses(t *testing.T) {
	t.Parallel()
	var cases []judged
	outdated := map[string]string{
		"UpToDate": "OutOfDate", "SWHardeningNeeded": "OutOfDate", "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
		"ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded", "OutOfDate": "OutOfDate", "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
	}
	isv := []string{"UpToDate", "OutOfDate", "Revoked"}
	for _, platform := range []string{"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"} {
		for _, module := range isv {
			for _, qe := range isv {
				for _, tee := range []string{"tdx", "sgx"} {
					c := judged{spec: "sim:" + tee + ",status=" + platform + ",qe-status=" + qe, status: platform}
					all := []string{platform, qe}
					if tee == "tdx" {
						c.spec += ",module-status=" + module
						all = append(all, module)
					} else if module != "UpToDate" {
						continue
					}
					switch {
					case slices.Contains(all, "Revoked"):
						c.status, c.code = "", attest.CodeTCBRevoked
					case slices.Contains(all[1:], "OutOfDate"):
						c.status = outdated[platform]
					}
					cases = append(cases, c)
				}
			}
		}
	}
	for _, c := range cases {
		m := opened(t, c.spec)
		got, err := verify(t, evidenceOf(t, m), m.Root())
		if attest.CodeOf(err) != c.code || err == nil && got.TCBStatus != c.status {
			t.Errorf("%s: %v, want %s %s", c.spec, err, c.status, c.code)
		}
		if err == nil && (len(got.Advisories) > 0) == (got.TCBStatus == "UpToDate") {
			t.Errorf("%s: advisories %v", c.spec, got.Advisories)
		}
	}
	t.Logf("%d combinations", len(cases))
}

func TestKnobs(t *testing.T) {
	t.Parallel()
	both := func(options, status string, code attest.Code) []judged {
		return []judged{{"sim:tdx," + options, status, code}, {"sim:sgx," + options, status, code}}
	}
	for _, c := range slices.Concat(
		both("revoked=none", "UpToDate", ""),
		both("revoked=pck", "", attest.CodeRevoked),
		both("revoked=pck,ca=processor", "", attest.CodeRevoked),
		both("revoked=ca", "", attest.CodeRevoked),
		both("revoked=ca,ca=processor", "", attest.CodeRevoked),
		both("revoked=signer", "", attest.CodeRevoked),
		both("expired=none", "UpToDate", ""),
		both("expired=pck", "", attest.CodeChainExpired),
		both("expired=ca", "", attest.CodeChainExpired),
		both("expired=signer", "", attest.CodeChainExpired),
		both("expired=tcb-info", "", attest.CodeEndorsementExpired),
		both("expired=qe-identity", "", attest.CodeEndorsementExpired),
		both("tcb.sgx1=9", "UpToDate", ""),
		both("tcb.sgx1=7", "OutOfDate", ""),
		both("tcb.sgx1=5", "", attest.CodeTCBUnknown),
		both("tcb.pce=12", "OutOfDate", ""),
		both("tcb.pce=10", "", attest.CodeTCBUnknown),
		both("tcb.qe=7", "OutOfDate", ""),
		both("tcb.qe=5", "", attest.CodeTCBUnknown),
		both("fmspc=0000FF000000", "", attest.CodeUnknownProduct),
		both("staple=off", "", attest.CodeEndorsementMissing),
		[]judged{
			{"sim:sgx,tcb.sgx1=9,tcb.sgx2=9,status=OutOfDate", "UpToDate", ""}, // the recovery that the vendor wants
			{"sim:tdx,tcb.sgx1=9,tcb.sgx2=9,status=OutOfDate", "OutOfDate", ""},
			{"sim:tdx,tcb.sgx1=9,tcb.sgx2=9,tcb.tdx3=4,status=OutOfDate", "UpToDate", ""},
			{"sim:tdx,tcb.tdx1=7,module-status=OutOfDate", "UpToDate", ""},
			{"sim:tdx,tcb.qe=9,qe-status=Revoked", "UpToDate", ""},
			{"sim:tdx,tcb.tdx1=7", "UpToDate", ""},
			{"sim:tdx,tcb.tdx1=5", "OutOfDate", ""},
			{"sim:tdx,tcb.tdx1=3", "", attest.CodeTCBUnknown},
			{"sim:tdx,tcb.tdx3=2", "OutOfDate", ""},
			{"sim:tdx,tcb.tdx3=1", "", attest.CodeTCBUnknown},
			{"sim:tdx,tcb.tdx2=3", "UpToDate", ""},
			{"sim:tdx,tcb.tdx2=2", "", attest.CodeTCBUnknown},
			{"sim:tdx,tcb.tdx2=0", "", attest.CodeTCBUnknown},
			{"sim:tdx,version=5,relaunch=on,module-status=OutOfDate", "TDRelaunchAdvised", ""},
			{"sim:tdx,version=5,relaunch=on,module-status=OutOfDate,status=ConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded", ""},
			{"sim:tdx,version=5,relaunch=off,module-status=OutOfDate", "OutOfDate", ""},
			{"sim:tdx,version=5,relaunch=on", "UpToDate", ""},
		},
	) {
		m := opened(t, c.spec)
		got, err := verify(t, evidenceOf(t, m), m.Root())
		if attest.CodeOf(err) != c.code || err == nil && got.TCBStatus != c.status {
			t.Errorf("%s: %+v, %v, want %s %s", c.spec, got, err, c.status, c.code)
		}
	}
	// Lists that expired do not refuse by themselves: how fresh they have to be is for the policy.
	for _, c := range slices.Concat(both("expired=pck-crl", "", ""), both("expired=root-crl", "", "")) {
		m := opened(t, c.spec)
		got, err := verify(t, evidenceOf(t, m), m.Root())
		if err != nil || got.Revocation.Problem == nil || got.Revocation.Problem.Code != attest.CodeEndorsementExpired {
			t.Errorf("%s: %+v, %v", c.spec, got, err)
		}
	}
}

func TestMeasured(t *testing.T) {
	t.Parallel()
	of := func(n int, v byte) string { return strings.Repeat(fmt.Sprintf("%02x", v), n) }
	m := opened(t, "sim:tdx,debug=on,measurement="+of(48, 1)+",rtmr0="+of(48, 2)+",rtmr1="+of(48, 3)+",rtmr2="+of(48, 4)+",rtmr3="+of(48, 5)+",evaluation=7,tcb.sgx16=3,tcb.tdx16=4")
	c, err := verify(t, evidenceOf(t, m), m.Root())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"launch", "rtmr0", "rtmr1", "rtmr2", "rtmr3"} {
		if got := c.Measured[name].String(); got != of(48, byte(i+1)) {
			t.Errorf("%s %s", name, got)
		}
	}
	if c.Debug != attest.On || *c.Evaluation != 7 || c.TCB["sgx16"] != 3 || c.TCB["tdx16"] != 4 || c.Generation != "emerald-rapids" {
		t.Errorf("%+v", c)
	}
	m = opened(t, "sim:sgx:ice-lake,debug=on,measurement="+of(32, 1)+",signer="+of(32, 2)+",prod-id=3,svn=4")
	if c, err = verify(t, evidenceOf(t, m), m.Root()); err != nil {
		t.Fatal(err)
	}
	if c.Debug != attest.On || c.Measured["launch"].String() != of(32, 1) || c.Measured["signer"].String() != of(32, 2) || c.Numbers["isv_prod_id"] != 3 || c.Numbers["isv_svn"] != 4 || c.Generation != "ice-lake" {
		t.Errorf("%+v", c)
	}
	for _, generation := range []string{"emerald-rapids", "sapphire-rapids", "granite-rapids"} {
		m := opened(t, "sim:tdx:"+generation)
		if c, err := verify(t, evidenceOf(t, m), m.Root()); err != nil || c.Generation != generation || c.Debug != attest.Off {
			t.Errorf("%s: %+v, %v", generation, c, err)
		}
	}
}

func TestDCAPUsage(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"sim:tdx:ice-lake", "sim:tdx:pentium", "sim:sgx:pentium", "sim:tdx,colour=red", "sim:tdx,debug=yes", "sim:tdx,staple=no", "sim:tdx,measurement=zz", "sim:tdx,measurement=00",
		"sim:tdx,fmspc=00", "sim:tdx,ca=root", "sim:tdx,version=3", "sim:tdx,version=x", "sim:tdx,td=2.0", "sim:tdx,td=1.5", "sim:tdx,relaunch=on", "sim:tdx,relaunch=yes",
		"sim:tdx,version=5,td=1.0,relaunch=on", "sim:tdx,rtmr4=00", "sim:tdx,rtmr0=00", "sim:tdx,status=Good", "sim:tdx,module-status=SWHardeningNeeded", "sim:tdx,qe-status=Good",
		"sim:tdx,revoked=root", "sim:tdx,expired=root", "sim:tdx,evaluation=-1", "sim:tdx,tcb.pce=65536", "sim:tdx,tcb.sgx1=256", "sim:tdx,tcb.sgx17=1", "sim:tdx,tcb.sgx0=1", "sim:tdx,tcb.=1",
		"sim:tdx,signer=" + strings.Repeat("00", 32), "sim:sgx,signer=00", "sim:sgx,prod-id=65536", "sim:sgx,svn=-1", "sim:sgx,tcb.tdx1=1", "sim:sgx,module-status=UpToDate", "sim:sgx,version=3",
		"sim:sgx,rtmr0=" + strings.Repeat("00", 48),
	} {
		if _, err := sim.Open(bad, "", clock); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What the vendor says changes while the machine runs, as in a TCB recovery.
func TestStage(t *testing.T) {
	t.Parallel()
	m := opened(t, "sim:tdx").(*sim.DCAP)
	v := sim.NewVerifier([]string{m.Root()})
	for _, c := range []struct {
		stage, status string
		code          attest.Code
	}{
		{"status=UpToDate", "UpToDate", ""},
		{"status=OutOfDate", "OutOfDate", ""},
		{"status=UpToDate", "UpToDate", ""},
		{"module-status=Revoked", "", attest.CodeTCBRevoked},
		{"module-status=UpToDate", "UpToDate", ""},
		{"qe-status=OutOfDate", "OutOfDate", ""},
		{"evaluation=21", "OutOfDate", ""},
		{"revoked=pck", "", attest.CodeRevoked},
		{"revoked=none", "OutOfDate", ""},
		{"expired=tcb-info", "", attest.CodeEndorsementExpired},
	} {
		if err := m.Stage(c.stage); err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), evidenceOf(t, m), nil, now)
		if attest.CodeOf(err) != c.code || err == nil && got.TCBStatus != c.status {
			t.Errorf("%s: %v, want %s %s", c.stage, err, c.status, c.code)
		}
		if _, err := v.Verify(t.Context(), rootOnly(t, evidenceOf(t, m)), m.Endorser(), now); attest.CodeOf(err) != c.code {
			t.Errorf("%s, by the endorser: %v", c.stage, err)
		}
	}
	for _, bad := range []string{"", "status", "status=Good", "debug=on", "dir=/"} {
		if err := m.Stage(bad); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := opened(t, "sim:sgx").(*sim.DCAP).Stage("module-status=Revoked"); attest.CodeOf(err) != attest.CodeUsage {
		t.Errorf("an enclave has no module: %v", err)
	}
}

// The vendor says it anew every day, and again when its clock is set back.
func TestCollateralIsRenewed(t *testing.T) {
	t.Parallel()
	at := now
	m, err := sim.Open("sim:tdx", "", func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	info := func() string {
		ev := evidenceOf(t, m)
		if _, err := sim.NewVerifier([]string{m.Root()}).Verify(t.Context(), ev, nil, at); err != nil {
			t.Error(at, err)
		}
		return string(ev.Endorsements[0].Raw)
	}
	first := info()
	at = at.Add(23 * time.Hour)
	if info() != first {
		t.Error("renewed within a day")
	}
	at = at.Add(2 * time.Hour)
	second := info()
	if second == first {
		t.Error("not renewed after a day")
	}
	at = at.Add(-12 * time.Hour)
	if info() == second {
		t.Error("not renewed when the clock was set back")
	}
}
