package snp

import (
	"encoding/binary"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the entries of the certificate table that the host hands to a guest (56421 §4.1.8), in the byte order of
// RFC 9562. The host wrote all of it.
var (
	guidVCEK = guid{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}
	guidVLEK = guid{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1}
	guidASK  = guid{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}
	guidCRL  = guid{0x92, 0xf8, 0x1b, 0xc3, 0x58, 0x11, 0x4d, 0x3d, 0x97, 0xff, 0xd1, 0x9f, 0x88, 0xdc, 0x67, 0xea}
)

type guid [16]byte

const (
	maxCertTable  = 64 << 10
	certEntrySize = 24 // GUID, offset and length, 32 bits each
)

// parseCertTable decodes the table: entries, one of zeros, then what they point to.
func parseCertTable(raw []byte) (map[guid][]byte, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	bad := func(format string, args ...any) error {
		return attest.Refuse(attest.CodeMalformedEndorsement, checkCollect, "certificate table: "+fmt.Sprintf(format, args...), "")
	}
	if len(raw) > maxCertTable {
		return nil, bad("%d bytes", len(raw))
	}
	table := map[guid][]byte{}
	for i := 0; ; i++ {
		at := i * certEntrySize
		if at+certEntrySize > len(raw) {
			return nil, bad("no end after %d entries", i)
		}
		id := guid(raw[at : at+16])
		offset := uint64(binary.LittleEndian.Uint32(raw[at+16:]))
		length := uint64(binary.LittleEndian.Uint32(raw[at+20:]))
		if attest.AllZero(raw[at : at+certEntrySize]) {
			return table, nil
		}
		if offset < uint64(at+2*certEntrySize) || offset+length > uint64(len(raw)) {
			return nil, bad("entry %d outside the table", i)
		}
		if _, again := table[id]; again {
			return nil, bad("entry %x twice", id)
		}
		table[id] = raw[offset : offset+length]
	}
}

// endorsements picks from the host's table what fits the report: the leaf only if it is for this chip and TCB, its issuer,
// and a small revocation list. What does not decode or fit is left out, and may be fetched instead.
func endorsements(r *Report, table map[guid][]byte) []attest.Endorsement {
	id := guidVCEK
	if r.signer == vlek {
		id = guidVLEK
	}
	var s stapled
	_ = s.addCertificate(table[id], nil) // what is no certificate is no leaf
	l := s.findLeaf(r)
	if l == nil {
		return nil
	}
	g, _, err := l.fits(r)
	if err != nil {
		return nil
	}
	list := []attest.Endorsement{{Kind: attest.KindCertificate, Raw: l.Raw}}
	if cert, err := parseCertificate(table[guidASK]); err == nil && checkAuthority(cert, l.signer.issuerName(g)) == nil {
		list = append(list, attest.Endorsement{Kind: attest.KindCertificate, Raw: cert.Raw})
	}
	if der := table[guidCRL]; len(der) <= maxStapledCRL && s.addCRL(der, nil) == nil && s.crls[0].Issuer.CommonName == rootName(g) {
		list = append(list, attest.Endorsement{Kind: attest.KindCRL, Raw: der})
	}
	return list
}
