package dialect

import (
	"bytes"
	"encoding/asn1"

	"github.com/jurat-tls/jurat/attest"
)

// readSGXSDK reads the second place in which the Intel SGX SDK puts its quote: the identifier of the SGX extension of Intel's own
// PCK certificates, told from that by what is in it. The hardware signed the claims of the DICE extension, so that the quote says
// nothing about a key without that one.
func readSGXSDK(s Shown, c Context) (*Found, error) {
	ext, err := s.extension(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1})
	if err != nil {
		return nil, err
	}
	const sequence = 0x30 // what the extension of a PCK certificate is
	if ext == nil || len(ext.Value) > 0 && ext.Value[0] == sequence {
		return nil, ErrAbsent
	}
	ev, err := only(formatSGX, ext.Value)
	if err != nil {
		return nil, err
	}
	f, err := readDICE(s, c)
	if err == ErrAbsent {
		return nil, nothingExpected("the claims that the quote commits to, in extension " + oidTaggedEvidence().String())
	}
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(f.Evidence.Raw, ev.Raw) {
		return nil, refuse(attest.CodeDialects, "two quotes, in "+ext.Id.String()+" and in "+oidTaggedEvidence().String(), "one")
	}
	f.from = append(f.from, ext.Id)
	return f, nil
}
