package endorse_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/test/vectors"
)

// What the verifiers ask for is what services and files answer: quotes of real machines, with nothing stapled to them.
func TestRecordedQuotes(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		format   attest.Format
		verifier attest.Verifier
		file     string
		ca       string
		status   string
	}{
		"tdx/quote-v4.bin": {tdx.Format, tdx.NewVerifier(dcap.IntelRoots()), "tdx/quote-v4.collateral.json", "platform", "UpToDate"},
		"sgx/quote-v3.bin": {sgx.Format, sgx.NewVerifier(dcap.IntelRoots()), "sgx/quote-v3.collateral.json", "processor", "ConfigurationAndSWHardeningNeeded"},
	} {
		ev := &attest.Evidence{Format: c.format, Raw: vectors.Read(t, name)}
		var fields map[string]string
		if err := json.Unmarshal(vectors.Read(t, c.file), &fields); err != nil {
			t.Fatal(err)
		}
		static, err := endorse.Open(filepath.Join(vectors.Dir(t), c.file))
		if err != nil {
			t.Fatal(err)
		}
		service := serve(t, func(w http.ResponseWriter, r *http.Request) {
			answer := func(header, chain, body string) {
				w.Header().Set(header, strings.ReplaceAll(url.QueryEscape(fields[chain]), "+", "%20"))
				fmt.Fprint(w, body)
			}
			switch path := r.URL.RequestURI(); {
			case strings.HasPrefix(path, "/"+string(c.format)+"/certification/v4/tcb?fmspc="):
				answer("TCB-Info-Issuer-Chain", "tcb_info_issuer_chain", `{"tcbInfo":`+fields["tcb_info"]+`,"signature":"`+fields["tcb_info_signature"]+`"}`)
			case path == "/"+string(c.format)+"/certification/v4/qe/identity":
				answer("SGX-Enclave-Identity-Issuer-Chain", "qe_identity_issuer_chain", `{"enclaveIdentity":`+fields["qe_identity"]+`,"signature":"`+fields["qe_identity_signature"]+`"}`)
			case path == "/sgx/certification/v4/pckcrl?ca="+c.ca+"&encoding=der":
				der, _ := hex.DecodeString(fields["pck_crl"])
				answer("SGX-PCK-CRL-Issuer-Chain", "pck_crl_issuer_chain", string(der))
			case path == "/sgx/certification/v4/rootcacrl":
				fmt.Fprint(w, fields["root_ca_crl"])
			default:
				http.NotFound(w, r)
			}
		})
		for how, endorser := range map[string]attest.Endorser{
			"files": static, "service": service.kds(t, t.TempDir(), func() time.Time { return at }),
		} {
			claims, err := c.verifier.Verify(t.Context(), ev, endorser, at)
			if err != nil {
				t.Errorf("%s from %s: %v", name, how, err)
				continue
			}
			if claims.TCBStatus != c.status || claims.Revocation.Problem != nil {
				t.Errorf("%s from %s: %s, %v", name, how, claims.TCBStatus, claims.Revocation.Problem)
			}
		}
		if service.requests.Load() != 4 {
			t.Errorf("%s: %d requests", name, service.requests.Load())
		}
	}
}
