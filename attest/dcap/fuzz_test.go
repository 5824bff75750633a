package dcap_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/dcapforge"
	"github.com/jurat-tls/jurat/test/vectors"
)

// recorded gives vectors as seeds where they are.
func recorded(f *testing.F, names ...string) (all [][]byte) {
	f.Helper()
	for _, name := range names {
		if raw, err := os.ReadFile(filepath.Join(vectors.Find(), name)); err == nil {
			all = append(all, raw)
		}
	}
	return all
}

func coded(t *testing.T, err error) bool {
	t.Helper()
	if attest.CodeOf(err) == attest.CodeInternal {
		t.Fatalf("error without a code: %v", err)
	}
	return err == nil
}

func FuzzQuote(f *testing.F) {
	for _, raw := range recorded(f, "tdx/quote-v4.bin", "tdx/quote-v5.bin", "sgx/quote-v3.bin") {
		f.Add(raw)
	}
	for _, kind := range kinds {
		f.Add(kind.Make(f).Evidence.Raw)
	}
	v := dcap.NewVerifier(dcap.IntelRoots())
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := dcap.Parse(raw)
		if !coded(t, err) {
			return
		}
		if len(raw) > attest.MaxRaw || !bytes.Contains(raw, q.Body) || q.TEE == dcap.SGX != (len(q.Body) == dcap.EnclaveReport) {
			t.Fatal("accepted what it must not, or changed it")
		}
		if got, err := v.Verify(t.Context(), q, nil, nil, dcapforge.Epoch); got != nil || err == nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}

func FuzzPCK(f *testing.F) {
	for _, raw := range recorded(f, "tdx/quote-v4.bin", "sgx/quote-v3.bin") {
		if block, _ := pem.Decode(raw); block != nil {
			f.Add(block.Bytes)
		}
	}
	f.Add(dcapforge.Encode([]dcapforge.Field{oid(make([]byte, 16), 1), oid(dcapforge.TCB(), 2), oid([]byte{0, 0}, 3), oid(dcapforge.FMSPC, 4)}))
	f.Add(dcapforge.Encode([]dcapforge.Field{oid([]dcapforge.Field{oid(true, 7, 1)}, 7)}))
	f.Fuzz(func(t *testing.T, der []byte) {
		p, err := dcap.DecodePCK(der)
		if coded(t, err) && (p.Type < 0 || p.Type > 2 || len(p.Instance) != 16) {
			t.Fatalf("%+v", p)
		}
		_ = coded(t, dcap.DecodeChain(der))
	})
}

// signedPart takes a document out of recorded collateral.
func signedPart(f *testing.F, field string) {
	f.Helper()
	for _, raw := range recorded(f, "tdx/quote-v4.collateral.json", "sgx/quote-v3.collateral.json") {
		var parts map[string]string
		if json.Unmarshal(raw, &parts) == nil {
			f.Add([]byte(parts[field]))
		}
	}
}

func document(f *testing.F, e attest.Endorsement, name string) {
	f.Helper()
	_, value, _ := strings.Cut(string(e.Raw), `{"`+name+`":`)
	value, _, _ = strings.Cut(value, `,"signature"`)
	f.Add([]byte(value))
}

func FuzzTCBInfo(f *testing.F) {
	signedPart(f, "tcb_info")
	for _, kind := range kinds {
		document(f, kind.Document(attest.KindTCBInfo, nil, dcapforge.NewKey()), "tcbInfo")
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		levels, modules, err := dcap.DecodeTCBInfo(value)
		if coded(t, err) && (levels == 0 || levels > len(value) || modules > 64) {
			t.Fatalf("%d levels, %d modules", levels, modules)
		}
	})
}

func FuzzQEIdentity(f *testing.F) {
	signedPart(f, "qe_identity")
	for _, kind := range kinds {
		document(f, kind.Document(attest.KindQEIdentity, nil, dcapforge.NewKey()), "enclaveIdentity")
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		levels, err := dcap.DecodeQEIdentity(value)
		if coded(t, err) && (levels == 0 || levels > len(value)) {
			t.Fatalf("%d levels", levels)
		}
	})
}

// FuzzEndorsement has one endorsement that is not what it should be.
func FuzzEndorsement(f *testing.F) {
	m := forge{}.Make(f)
	for i, e := range m.Evidence.Endorsements {
		f.Add(byte(i), e.Raw)
	}
	q, err := dcap.Parse(m.Evidence.Raw)
	if err != nil {
		f.Fatal(err)
	}
	v := dcap.NewVerifier(m.Roots)
	f.Fuzz(func(t *testing.T, at byte, raw []byte) {
		list := append([]attest.Endorsement(nil), m.Evidence.Endorsements...)
		i := int(at) % len(list)
		list[i].Raw = raw
		got, err := v.Verify(t.Context(), q, list, nil, dcapforge.Epoch)
		if !coded(t, err) {
			return
		}
		if got.Status != dcap.UpToDate {
			t.Fatalf("%+v", got)
		}
	})
}
