package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

// Collateral reads recorded Intel collateral and makes endorsements of it: the TCB info, the QE identity and both
// revocation lists, as Intel's service would answer them, then the certificates of their issuer chains, each once.
func Collateral(t testing.TB, name string) []attest.Endorsement {
	t.Helper()
	var in map[string]string
	if err := json.Unmarshal(Read(t, name), &in); err != nil {
		t.Fatal(err)
	}
	list := []attest.Endorsement{
		{Kind: attest.KindTCBInfo, Raw: []byte(`{"tcbInfo":` + in["tcb_info"] + `,"signature":"` + in["tcb_info_signature"] + `"}`)},
		{Kind: attest.KindQEIdentity, Raw: []byte(`{"enclaveIdentity":` + in["qe_identity"] + `,"signature":"` + in["qe_identity_signature"] + `"}`)},
	}
	for _, crl := range []string{"root_ca_crl", "pck_crl"} {
		raw, err := hex.DecodeString(in[crl])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, attest.Endorsement{Kind: attest.KindCRL, Raw: raw})
	}
	for _, chain := range []string{"tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"} {
	next:
		for block, rest := pem.Decode([]byte(in[chain])); block != nil; block, rest = pem.Decode(rest) {
			for _, e := range list {
				if bytes.Equal(e.Raw, block.Bytes) {
					continue next
				}
			}
			list = append(list, attest.Endorsement{Kind: attest.KindCertificate, Raw: block.Bytes})
		}
	}
	return list
}
