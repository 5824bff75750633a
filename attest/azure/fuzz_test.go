package azure_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/test/vectors"
)

func recordedHCL() (all [][]byte) {
	for _, name := range []string{"azure/snp.hcl", "azure/tdx.hcl"} {
		if dir := vectors.Find(); dir != "" {
			if raw, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				all = append(all, raw)
			}
		}
	}
	return all
}

func coded(t *testing.T, err error) {
	t.Helper()
	if attest.CodeOf(err) == attest.CodeInternal {
		t.Fatalf("error without a code: %v", err)
	}
}

func FuzzEvidence(f *testing.F) {
	for _, tdx := range []bool{false, true} {
		for _, version := range []uint32{1, 2} {
			f.Add(forge{tdx: tdx, version: version}.make(f).Raw, tdx)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, tdx bool) {
		format := azure.FormatSNP
		if tdx {
			format = azure.FormatTDX
		}
		d, err := azure.Parse(format, raw)
		if err != nil {
			coded(t, err)
			return
		}
		// The hardware's verifier of the tests believes everything, so that the rest is reached.
		ev := &attest.Evidence{Format: format, Raw: raw, Endorsements: make([]attest.Endorsement, 1)}
		c, err := verifierOf(ev).Verify(t.Context(), ev, nil, epoch)
		coded(t, err)
		if err == nil && (d.Quoted == nil || c.Module == "") {
			t.Fatalf("%+v", c)
		}
	})
}

func FuzzHCL(f *testing.F) {
	for _, version := range []uint32{1, 2} {
		hcl, _ := (&forge{version: version}).makeHCL()
		f.Add(hcl)
	}
	for _, raw := range recordedHCL() {
		f.Add(bytes.TrimRight(raw, "\x00"))
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := azure.ParseHCL(raw)
		if err != nil {
			coded(t, err)
		} else if len(h.Hardware) != 1184 || !bytes.HasSuffix(raw, h.Runtime) {
			t.Fatalf("%+v", h)
		}
		_, err = azure.Pack(map[string][]byte{"hcl": raw})
		coded(t, err)
	})
}

func FuzzRuntime(f *testing.F) {
	f.Add((&forge{}).claims())
	for _, raw := range recordedHCL() {
		f.Add(bytes.TrimRight(raw[1236:], "\x00"))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := azure.ParseRuntime(raw)
		if err != nil {
			coded(t, err)
			return
		}
		if _, err := x509.MarshalPKIXPublicKey(r.AK); err != nil || r.AK.N.BitLen() != 2048 || r.VM == "" {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}
