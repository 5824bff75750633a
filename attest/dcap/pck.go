package dcap

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// oidSGX is 1.2.840.113741.1.13.1, the extension of a PCK certificate under which all fields stand (Intel SGX PCK
// Certificate and Certificate Revocation List Profile, 1.5).
var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// Last arcs of the fields.
const (
	arcPPID          = 1
	arcTCB           = 2
	arcPCEID         = 3
	arcFMSPC         = 4
	arcType          = 5
	arcInstance      = 6 // platforms with more than one processor package only, as the next
	arcConfiguration = 7

	arcTCBPCESVN = 17 // within arcTCB, after 1 to 16 for the components
	arcTCBCPUSVN = 18

	arcDynamic = 1 // within arcConfiguration
	arcCached  = 2
	arcSMT     = 3
)

// PCK holds what Intel certified of a platform.
type PCK struct {
	PPID            [16]byte // Platform Provisioning ID
	Components      [16]byte // security version numbers of the SGX TCB components
	PCESVN          uint16   // of the Provisioning Certification Enclave
	CPUSVN          [16]byte
	PCEID           [2]byte
	FMSPC           [6]byte
	Type            int // 0 standard, 1 scalable, 2 scalable with integrity
	Instance        []byte
	DynamicPlatform attest.Flag // packages may be added
	CachedKeys      attest.Flag // the platform's keys are kept by Intel
	SMT             attest.Flag
}

// field is one entry of the nested sequences.
type field struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

// parsePCK decodes the extension. Each field that Intel requires is there once, and no other that is not known.
func parsePCK(cert *x509.Certificate, platform bool) (*PCK, error) {
	last := arcType
	if platform {
		last = arcConfiguration
	}
	for _, x := range cert.Extensions {
		if x.Id.Equal(oidSGX) {
			return parseSGXExtension(x.Value, last)
		}
	}
	return nil, badPCK("no SGX extension")
}

func parseSGXExtension(der []byte, last int) (*PCK, error) {
	p := new(PCK)
	seen, err := fields(der, oidSGX, arcConfiguration, func(arc int, v asn1.RawValue) error {
		switch arc {
		case arcPPID:
			return octets(v, p.PPID[:])
		case arcTCB:
			return p.parseTCB(v.FullBytes)
		case arcPCEID:
			return octets(v, p.PCEID[:])
		case arcFMSPC:
			return octets(v, p.FMSPC[:])
		case arcType:
			return p.parseType(v)
		case arcInstance:
			p.Instance = make([]byte, 16)
			return octets(v, p.Instance)
		default:
			return p.parseConfiguration(v.FullBytes)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := complete(seen, arcPPID, last); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *PCK) parseTCB(der []byte) error {
	seen, err := fields(der, append(oidSGX[:len(oidSGX):len(oidSGX)], arcTCB), arcTCBCPUSVN, func(arc int, v asn1.RawValue) error {
		switch arc {
		case arcTCBCPUSVN:
			return octets(v, p.CPUSVN[:])
		case arcTCBPCESVN:
			n, err := integer(v, 0xffff)
			p.PCESVN = uint16(n)
			return err
		default:
			n, err := integer(v, 0xff)
			p.Components[arc-1] = byte(n)
			return err
		}
	})
	if err != nil {
		return err
	}
	return complete(seen, 1, arcTCBCPUSVN)
}

func (p *PCK) parseType(v asn1.RawValue) error {
	var n asn1.Enumerated
	if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil {
		return badPCK("a type that is no ENUMERATED")
	}
	if n < 0 || n > 2 {
		return attest.Refuse(attest.CodeUnknownField, checkChain, fmt.Sprintf("PCK certificate of SGX type %d", n), "0, 1 or 2")
	}
	p.Type = int(n)
	return nil
}

func (p *PCK) parseConfiguration(der []byte) error {
	_, err := fields(der, append(oidSGX[:len(oidSGX):len(oidSGX)], arcConfiguration), arcSMT, func(arc int, v asn1.RawValue) error {
		var on bool
		if _, err := asn1.Unmarshal(v.FullBytes, &on); err != nil {
			return badPCK("a flag that is no BOOLEAN")
		}
		flag := map[int]*attest.Flag{arcDynamic: &p.DynamicPlatform, arcCached: &p.CachedKeys, arcSMT: &p.SMT}[arc]
		*flag = attest.FlagOf(on)
		return nil
	})
	return err
}

// fields decodes a SEQUENCE of pairs of an identifier, which is parent and one more arc from 1 to last, and a value. It
// tells which arcs were there.
func fields(der []byte, parent asn1.ObjectIdentifier, last int, take func(arc int, v asn1.RawValue) error) (seen map[int]bool, err error) {
	var list []field
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 {
		return nil, badPCK("no SEQUENCE of fields")
	}
	seen = map[int]bool{}
	for _, f := range list {
		n := len(parent)
		if len(f.ID) != n+1 || !f.ID[:n].Equal(parent) || f.ID[n] < 1 || f.ID[n] > last {
			// A component that this build does not know could be the vulnerable one.
			return nil, attest.Refuse(attest.CodeUnknownField, checkChain, "PCK certificate with field "+f.ID.String(), "none but those known")
		}
		if seen[f.ID[n]] {
			return nil, attest.Refuse(attest.CodeDuplicateField, checkChain, "PCK certificate with field "+f.ID.String()+" twice", "once")
		}
		seen[f.ID[n]] = true
		if err := take(f.ID[n], f.Value); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// complete checks that all arcs from first to last are there.
func complete(seen map[int]bool, first, last int) error {
	for arc := first; arc <= last; arc++ {
		if !seen[arc] {
			return badPCK(fmt.Sprintf("field %d is missing", arc))
		}
	}
	return nil
}

// octets decodes an OCTET STRING of exactly the length of into.
func octets(v asn1.RawValue, into []byte) error {
	if v.FullBytes[0] != asn1.TagOctetString || len(v.Bytes) != len(into) {
		return badPCK(fmt.Sprintf("a field that is no OCTET STRING of %d bytes", len(into)))
	}
	copy(into, v.Bytes)
	return nil
}

// integer decodes an INTEGER from 0 to limit.
func integer(v asn1.RawValue, limit int) (n int, err error) {
	if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil || n < 0 || n > limit {
		return 0, badPCK(fmt.Sprintf("a field that is no INTEGER from 0 to %d", limit))
	}
	return n, nil
}

func badPCK(why string) *attest.Error {
	return attest.Refuse(attest.CodeMalformedEndorsement, checkChain, "PCK certificate: "+why, "")
}
