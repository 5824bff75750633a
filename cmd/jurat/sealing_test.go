package main

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

func TestSeals(t *testing.T) {
	for spec, want := range map[string]bool{
		"": false, "auto": true, "snp": true, "sgx": true, "ego": true, "azure": true, "tpm": true, "tdx": false, "nitro": false, "cca": false, "sim": true, "sim:tdx": true,
	} {
		if got := seals(spec); got != want {
			t.Errorf("%q: %t", spec, got)
		}
	}
}

func TestOpenSealer(t *testing.T) {
	dir := t.TempDir()
	for spec, want := range map[string]attest.Code{
		"sim:sgx,dir=" + dir: "", "sim:tdx,dir=" + dir: attest.CodeNoSealing, "tdx": attest.CodeNoSealing, "nitro": attest.CodeNoSealing, "cca": attest.CodeNoSealing,
		"": attest.CodeUsage, "else": attest.CodeUsage, "sim:else": attest.CodeUsage,
	} {
		s, err := openSealer(spec)
		if attest.CodeOf(err) != want || (s == nil) != (err != nil) {
			t.Errorf("%q: %v", spec, err)
		}
		if s != nil && s.Platform() != "sim" {
			t.Errorf("%q seals as %s", spec, s.Platform())
		}
	}
}

// The PCR of IMA is another one with each file that is run: nothing would be opened again.
func TestSealedPCRs(t *testing.T) {
	pcrs := sealedPCRs()
	if len(pcrs) != 14 || slices.Contains(pcrs, 10) || !slices.Contains(quotedPCRs(), 10) {
		t.Errorf("%v", pcrs)
	}
}

type fixedStore struct {
	store
	raw []byte
	err error
}

func (f fixedStore) Load() ([]byte, error) { return f.raw, f.err }

func TestLeftAside(t *testing.T) {
	broken := errors.New("a disk")
	for name, c := range map[string]struct {
		err  error
		want error
		loud bool
	}{
		"as it was":   {nil, nil, false},
		"foreign":     {attest.Refuse(attest.CodeSealForeign, "seal", "", ""), nil, true},
		"something":   {attest.Refuse(attest.CodeSealContext, "seal", "", ""), nil, true},
		"damaged":     {attest.Refuse(attest.CodeSealBroken, "seal", "", ""), nil, true},
		"later":       {attest.Refuse(attest.CodeUnknownVersion, "seal", "", ""), nil, true},
		"not read":    {broken, broken, false},
		"no more key": {attest.Refuse(attest.CodeNoSealing, "seal", "", ""), attest.Refuse(attest.CodeNoSealing, "seal", "", ""), false},
	} {
		var log bytes.Buffer
		raw, err := leftAside{fixedStore{raw: []byte("x"), err: c.err}, slog.New(slog.NewTextHandler(&log, nil))}.Load()
		if attest.CodeOf(err) != attest.CodeOf(c.want) || (string(raw) == "x") != !c.loud {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
		if said := strings.Contains(log.String(), "level=ERROR") && strings.Contains(log.String(), string(attest.CodeOf(c.err))); said != c.loud {
			t.Errorf("%s: %s", name, &log)
		}
	}
}
