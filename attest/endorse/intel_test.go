package endorse_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/test/fakepcs"
	"github.com/jurat-tls/jurat/test/vectors"
)

var theirs = sync.OnceValues(func() (*fakepcs.PCS, error) { return fakepcs.New(now, 30*24*time.Hour) })

func pcs(t testing.TB) *fakepcs.PCS {
	t.Helper()
	p, err := theirs()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func intelRef(path string, kind attest.Kind) attest.Ref {
	return attest.Ref{Service: "intel-pcs", Path: path, Kind: kind}
}

var (
	tcbRef      = intelRef("/tdx/certification/v4/tcb?fmspc="+fakepcs.FMSPC, attest.KindTCBInfo)
	sgxTCBRef   = intelRef("/sgx/certification/v4/tcb?fmspc="+fakepcs.FMSPC, attest.KindTCBInfo)
	identityRef = intelRef("/tdx/certification/v4/qe/identity", attest.KindQEIdentity)
	sgxQERef    = intelRef("/sgx/certification/v4/qe/identity", attest.KindQEIdentity)
	platformRef = intelRef("/sgx/certification/v4/pckcrl?ca=platform&encoding=der", attest.KindCRL)
	processor   = intelRef("/sgx/certification/v4/pckcrl?ca=processor&encoding=der", attest.KindCRL)
	rootRef     = intelRef("/sgx/certification/v4/rootcacrl", attest.KindCRL)
)

func certificate(der []byte) attest.Endorsement {
	return attest.Endorsement{Kind: attest.KindCertificate, Raw: der}
}

func list(der []byte) attest.Endorsement { return attest.Endorsement{Kind: attest.KindCRL, Raw: der} }

// answers is what a service has to answer to each request: documents as they are, with their issuer chains.
func answers(p *fakepcs.PCS) map[attest.Ref][]attest.Endorsement {
	document := func(ref attest.Ref) []attest.Endorsement {
		return []attest.Endorsement{{Kind: ref.Kind, Raw: []byte(p.Body(ref.Path))}, certificate(p.Signing), certificate(p.Root)}
	}
	return map[attest.Ref][]attest.Endorsement{
		tcbRef: document(tcbRef), sgxTCBRef: document(sgxTCBRef), identityRef: document(identityRef), sgxQERef: document(sgxQERef),
		platformRef: {list(p.PlatformCRL), certificate(p.Platform), certificate(p.Root)},
		processor:   {list(p.ProcessorCRL), certificate(p.Processor), certificate(p.Root)},
		rootRef:     {list(p.RootCRL)},
	}
}

func same(a, b []attest.Endorsement) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Kind != b[i].Kind || !bytes.Equal(a[i].Raw, b[i].Raw) {
			return false
		}
	}
	return true
}

func TestIntel(t *testing.T) {
	t.Parallel()
	s := serve(t, pcs(t).ServeHTTP)
	dir := t.TempDir()
	for range 2 { // the second time out of the cache of another process, with the chains
		k := s.kds(t, dir, clock)
		for ref, want := range answers(pcs(t)) {
			if got, err := k.Endorse(t.Context(), ref); err != nil || !same(got, want) {
				t.Errorf("%s: %d endorsements, %v", ref.Path, len(got), err)
			}
		}
	}
	if got := s.requests.Load(); got != 7 {
		t.Errorf("%d requests", got)
	}
	k := s.kds(t, "", clock)
	for ref, want := range answers(pcs(t)) {
		ref.Service = "sim-intel-pcs"
		if got, err := k.Endorse(t.Context(), ref); err != nil || !same(got, want) {
			t.Errorf("simulated %s: %d endorsements, %v", ref.Path, len(got), err)
		}
	}
	for _, r := range append(endorse.IntelRefs(), endorse.IntelTCBRefs([6]byte{0, 0x80, 0x6f, 5})...) {
		if _, ok := answers(pcs(t))[r]; !ok {
			t.Errorf("%v is not what a verifier asks for", r)
		}
	}
}

// Where the list of Intel's root is, configuration says.
func TestIntelHosts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hosts endorse.Hosts
		ref   attest.Ref
		url   string
	}{
		"Intel":               {endorse.Hosts{}, tcbRef, "https://api.trustedservices.intel.com" + tcbRef.Path},
		"Intel's root":        {endorse.Hosts{}, rootRef, "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"},
		"PCCS":                {endorse.Hosts{Intel: "https://pccs.example:8081/"}, tcbRef, "https://pccs.example:8081" + tcbRef.Path},
		"PCCS as Intel wants": {endorse.Hosts{Intel: "https://pccs.example:8081/sgx/certification/v4/"}, tcbRef, "https://pccs.example:8081" + tcbRef.Path},
		"PCCS's root":         {endorse.Hosts{Intel: "https://pccs.example"}, rootRef, "https://pccs.example" + rootRef.Path},
		"another root":        {endorse.Hosts{Intel: "https://pccs.example", IntelRootCRL: "https://x.example/r"}, rootRef, "https://x.example/r"},
		"a mirror of AMD's":   {endorse.Hosts{AMD: "https://m.example/amd"}, crlRef, "https://m.example/amd" + crlRef.Path},
	} {
		asked := ""
		k, err := endorse.New(c.hosts, "", endorse.WithClock(clock), endorse.WithClient(&http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			asked = r.URL.String()
			return nil, http.ErrHandlerTimeout
		})}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Endorse(t.Context(), c.ref); attest.CodeOf(err) != attest.CodeEndorserUnreachable || asked != c.url {
			t.Errorf("%s: asked %s: %v", name, asked, err)
		}
	}
	official, err := endorse.New(endorse.Hosts{}, "", endorse.WithClient(&http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		t.Errorf("the vendor is asked for %s", r.URL)
		return nil, http.ErrHandlerTimeout
	})}))
	if err != nil {
		t.Fatal(err)
	}
	sim := tcbRef
	sim.Service = "sim-intel-pcs"
	if _, err := official.Endorse(t.Context(), sim); attest.CodeOf(err) != attest.CodeEndorsementMissing || official.Serves(sim) || !official.Serves(tcbRef) {
		t.Errorf("Intel asked about a simulated platform: %v", err)
	}
}

func TestIntelRefusesForeignRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, pcs(t).ServeHTTP)
	k := s.kds(t, "", clock)
	for _, r := range []attest.Ref{
		intelRef("/tdx/certification/v4/tcb?fmspc=00806f05000", attest.KindTCBInfo),
		intelRef("/tdx/certification/v4/tcb?fmspc="+fakepcs.FMSPC+"&update=early", attest.KindTCBInfo),
		intelRef("/tdx/certification/v3/tcb?fmspc="+fakepcs.FMSPC, attest.KindTCBInfo),
		intelRef("/tdx/certification/v4/../v4/tcb?fmspc="+fakepcs.FMSPC, attest.KindTCBInfo),
		intelRef("x"+tcbRef.Path, attest.KindTCBInfo), intelRef(tcbRef.Path+"\n", attest.KindTCBInfo),
		intelRef(tcbRef.Path, attest.KindQEIdentity), intelRef(identityRef.Path, attest.KindTCBInfo), intelRef(platformRef.Path, attest.KindCertificate),
		intelRef("/sgx/certification/v4/pckcrl?ca=root&encoding=der", attest.KindCRL),
		intelRef("/sgx/certification/v4/pckcert", attest.KindCertificate),
		intelRef("/tdx/certification/v4/rootcacrl", attest.KindCRL),
		{Service: "amd-kds", Path: tcbRef.Path, Kind: tcbRef.Kind},
		{Service: "sim-sim-intel-pcs", Path: tcbRef.Path, Kind: tcbRef.Kind},
		{Service: "arm-cca", Path: "/", Kind: attest.KindPublicKey},
	} {
		if _, err := k.Endorse(t.Context(), r); attest.CodeOf(err) != attest.CodeEndorsementMissing || k.Serves(r) {
			t.Errorf("%v: %v", r, err)
		}
	}
	if s.requests.Load() != 0 {
		t.Error("the service was asked")
	}
}

func TestIntelFailures(t *testing.T) {
	t.Parallel()
	p := pcs(t)
	body, chain := p.Body(tcbRef.Path), fakepcs.Header(p.Signing, p.Root)
	old, err := fakepcs.New(now.Add(-time.Hour*24*40), 30*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ref    attest.Ref
		body   string
		header string
		chain  string
		code   attest.Code
	}{
		"good":                     {tcbRef, body, "TCB-Info-Issuer-Chain", chain, ""},
		"under its old name":       {tcbRef, body, "SGX-TCB-Info-Issuer-Chain", chain, ""},
		"identity":                 {identityRef, p.Body(identityRef.Path), "Enclave-Identity-Issuer-Chain", chain, ""},
		"keys in two cases":        {tcbRef, `{"TCBINFO":{"id":"x"},` + body[1:], "TCB-Info-Issuer-Chain", chain, ""},
		"in PEM, without chain":    {platformRef, "-----BEGIN X509 CRL-----\n" + base64.StdEncoding.EncodeToString(p.PlatformCRL) + "\n-----END X509 CRL-----\n", "X", "", ""},
		"without chain":            {tcbRef, body, "X-Other", chain, attest.CodeEndorserUnreachable},
		"chain of junk":            {tcbRef, body, "TCB-Info-Issuer-Chain", "junk", attest.CodeEndorserUnreachable},
		"chain badly encoded":      {tcbRef, body, "TCB-Info-Issuer-Chain", chain + "%zz", attest.CodeEndorserUnreachable},
		"chain cut off":            {tcbRef, body, "TCB-Info-Issuer-Chain", chain[:len(chain)-40], attest.CodeEndorserUnreachable},
		"chain with a list":        {tcbRef, body, "TCB-Info-Issuer-Chain", strings.ReplaceAll(fakepcs.Header(p.RootCRL), "CERTIFICATE", "X509%20CRL"), attest.CodeEndorserUnreachable},
		"chain of a list, junk":    {platformRef, string(p.PlatformCRL), "SGX-PCK-CRL-Issuer-Chain", "junk", attest.CodeEndorserUnreachable},
		"chain too long":           {tcbRef, body, "TCB-Info-Issuer-Chain", strings.Repeat(chain, 9), attest.CodeEndorserUnreachable},
		"another document":         {tcbRef, p.Body(identityRef.Path), "TCB-Info-Issuer-Chain", chain, attest.CodeEndorserUnreachable},
		"no JSON":                  {tcbRef, "<html>", "TCB-Info-Issuer-Chain", chain, attest.CodeEndorserUnreachable},
		"cut off":                  {tcbRef, body[:len(body)-1], "TCB-Info-Issuer-Chain", chain, attest.CodeEndorserUnreachable},
		"two documents":            {tcbRef, body + body, "TCB-Info-Issuer-Chain", chain, attest.CodeEndorserUnreachable},
		"without an end":           {tcbRef, `{"tcbInfo":{"id":"TDX"},"signature":"00"}`, "TCB-Info-Issuer-Chain", chain, attest.CodeEndorsementExpired},
		"a certificate for a list": {rootRef, string(p.Root), "X", "", attest.CodeEndorserUnreachable},
		"bytes after a list":       {rootRef, string(p.RootCRL) + "x", "X", "", attest.CodeEndorserUnreachable},
		"half a byte of hex":       {rootRef, hex.EncodeToString(p.RootCRL)[1:], "X", "", attest.CodeEndorserUnreachable},
		"expired":                  {tcbRef, old.Body(tcbRef.Path), "TCB-Info-Issuer-Chain", chain, attest.CodeEndorsementExpired},
		"an expired list":          {rootRef, string(old.RootCRL), "X", "", attest.CodeEndorsementExpired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(c.header, c.chain)
				_, _ = w.Write([]byte(c.body))
			})
			k := s.kds(t, "", clock)
			for range 2 {
				got, err := k.Endorse(t.Context(), c.ref)
				if attest.CodeOf(err) != c.code {
					t.Fatal(err)
				}
				if err == nil && c.ref == tcbRef && string(got[0].Raw) != c.body {
					t.Error("the body was changed")
				}
			}
			if s.requests.Load() != 1 {
				t.Errorf("%d requests", s.requests.Load())
			}
		})
	}
}

// The client that is used where none is given follows no redirect, and reads no header without end.
func TestOwnClient(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		code   attest.Code
	}{
		"good": {pcs(t).ServeHTTP, ""},
		"endless header": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Padding", strings.Repeat("x", 128<<10))
			pcs(t).ServeHTTP(w, r)
		}, attest.CodeEndorserUnreachable},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Referer") == "" && r.URL.Query().Get("again") == "" {
				http.Redirect(w, r, r.URL.RequestURI()+"&again=1", http.StatusFound)
				return
			}
			t.Error("a redirect was followed")
		}, attest.CodeEndorserUnreachable},
	} {
		s := httptest.NewServer(c.handle)
		k, err := endorse.New(endorse.Hosts{Intel: s.URL}, "", endorse.WithClock(clock))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

func TestParseCollateralVectors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fmspc, tee, id, ca string
	}{
		"tdx/quote-v4.collateral.json": {"b0c06f000000", "tdx", "TD_QE", "platform"},
		"sgx/quote-v3.collateral.json": {"00a067110000", "sgx", "QE", "processor"},
	} {
		raw := vectors.Read(t, name)
		all, err := endorse.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]string
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatal(err)
		}
		s := endorse.NewStatic(all...)
		for _, want := range []struct {
			ref   attest.Ref
			body  string
			certs int
		}{
			{intelRef("/"+c.tee+"/certification/v4/tcb?fmspc="+c.fmspc, attest.KindTCBInfo), `{"tcbInfo":` + fields["tcb_info"] + `,"signature":"` + fields["tcb_info_signature"] + `"}`, 3},
			{intelRef("/"+c.tee+"/certification/v4/qe/identity", attest.KindQEIdentity), `{"enclaveIdentity":` + fields["qe_identity"] + `,"signature":"` + fields["qe_identity_signature"] + `"}`, 3},
			{intelRef("/sgx/certification/v4/pckcrl?ca="+c.ca+"&encoding=der", attest.KindCRL), "", 3},
			{rootRef, "", 3},
		} {
			got, err := s.Endorse(t.Context(), want.ref)
			if err != nil || got[0].Kind != want.ref.Kind || len(got) != 1+want.certs {
				t.Fatalf("%s: %s: %d endorsements, %v", name, want.ref.Path, len(got), err)
			}
			if want.body != "" && string(got[0].Raw) != want.body {
				t.Errorf("%s: %s is not what Intel signed", name, want.ref.Path)
			}
		}
		if _, err := s.Endorse(t.Context(), tcbRef); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("another platform's TCB info: %v", err)
		}
	}
}
