package azure

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// Names of the files that Pack puts together.
const (
	NameHCL       = "hcl"           // NV index 0x01400001 of the vTPM, padded or not
	NameQuote     = "tpm-quote"     // TPMS_ATTEST
	NameSignature = "tpm-signature" // TPMT_SIGNATURE, or a bare RSASSA signature with SHA-256
	NamePCRs      = "pcrs"          // the values of the quoted PCRs, lowest number first
	NameTDQuote   = "td-quote"      // TD quote made from the TDREPORT in the HCL report
)

var partNames = map[string]tpm.Part{
	NameHCL: tpm.PartHCL, NameQuote: tpm.PartQuote, NameSignature: tpm.PartSignature, NamePCRs: tpm.PartPCRs, NameTDQuote: tpm.PartTDQuote,
}

// bareSignature is the length of an RSASSA signature by a key of 2048 bits, the only kind Azure's vTPMs have.
const bareSignature = 256

// Pack puts the files that Azure's tools leave into raw evidence. It verifies nothing.
func Pack(files map[string][]byte) ([]byte, error) {
	parts := map[tpm.Part][]byte{}
	for name, raw := range files {
		p, ok := partNames[name]
		if !ok {
			return nil, attest.Refuse(attest.CodeUsage, checkFormat, "part "+attest.Quote(name), "one of "+strings.Join(slices.Sorted(maps.Keys(partNames)), ", "))
		}
		parts[p] = raw
	}
	parts[tpm.PartHCL] = trim(parts[tpm.PartHCL])
	if sig := parts[tpm.PartSignature]; len(sig) == bareSignature {
		parts[tpm.PartSignature] = tpm.RSASSA(sig)
	}
	raw := tpm.EncodeParts(parts)
	if len(raw) > attest.MaxRaw {
		return nil, attest.Refuse(attest.CodeOversized, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("at most %d", attest.MaxRaw))
	}
	return raw, nil
}
