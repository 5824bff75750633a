package endorse

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// maxParsed bounds the endorsements in one file, and the files in one directory.
const maxParsed = 1024

// Parse reads endorsements as people have them in files: certificates, revocation lists and public keys in DER, PEM or hex,
// TCB info and QE identity as Intel's service answers them, Intel's collateral in the form of nine fields that verification
// libraries exchange, or a bundle. Everything is kept as it is, byte for byte: the verifier judges it.
func Parse(raw []byte) ([]attest.Endorsement, error) {
	list, err := parse(raw)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "endorsements", Err: err}
	}
	return list, nil
}

func parse(raw []byte) ([]attest.Endorsement, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{")) {
		return parseBinary(raw)
	}
	var keys map[string]json.RawMessage
	err := json.Unmarshal(raw, &keys)
	has := func(key string) bool { _, ok := keys[key]; return ok }
	switch {
	case has(bundleKey):
		return parseBundle(raw)
	case has("tcbInfo"):
		return parseDocument(raw, attest.KindTCBInfo)
	case has("enclaveIdentity"):
		return parseDocument(raw, attest.KindQEIdentity)
	case has("tcb_info"), has("qe_identity"), has("root_ca_crl"), has("pck_crl"):
		return parseCollateral(raw)
	}
	return nil, errors.Join(errors.New("JSON that is no TCB info, QE identity, collateral or bundle"), err)
}

func parseDocument(raw []byte, kind attest.Kind) ([]attest.Endorsement, error) {
	one := attest.Endorsement{Kind: kind, Raw: raw}
	if _, err := expiry(one); err != nil {
		return nil, err
	}
	return []attest.Endorsement{one}, nil
}

// parseBinary reads PEM blocks, or one DER object, which may be written in hex.
func parseBinary(raw []byte) ([]attest.Endorsement, error) {
	block, rest := pem.Decode(raw)
	if block == nil {
		if der, err := hex.DecodeString(string(bytes.TrimSpace(raw))); err == nil { // no DER is made of hex digits
			raw = der
		}
		one, err := parseDER(raw)
		if err != nil {
			return nil, err
		}
		return []attest.Endorsement{one}, nil
	}
	var list []attest.Endorsement
	for ; block != nil; block, rest = pem.Decode(rest) {
		one, err := parseDER(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block %.40q: %w", block.Type, err)
		}
		if list = append(list, one); len(list) > maxParsed {
			return nil, fmt.Errorf("more than %d PEM blocks", maxParsed)
		}
	}
	// A block that was cut off is not passed over, wherever it stands: half a chain would pass for a whole one.
	if bytes.Count(raw, []byte("-----BEGIN")) != len(list) {
		return nil, errors.New("a PEM block that is cut off")
	}
	return list, nil
}

func parseDER(der []byte) (attest.Endorsement, error) {
	for _, kind := range []attest.Kind{attest.KindCertificate, attest.KindCRL} {
		one := attest.Endorsement{Kind: kind, Raw: der}
		if _, err := expiry(one); err == nil {
			return one, nil
		}
	}
	if _, err := x509.ParsePKIXPublicKey(der); err == nil {
		return attest.Endorsement{Kind: attest.KindPublicKey, Raw: der}, nil
	}
	return attest.Endorsement{}, errors.New("neither a certificate nor a revocation list nor a public key")
}

// expiry answers when e expires. An error means that it is not of its kind, or of one that no vendor's service has: a bare
// public key has no issuer, and taking one from elsewhere would make it an anchor.
func expiry(e attest.Endorsement) (time.Time, error) {
	switch e.Kind {
	case attest.KindCertificate:
		cert, err := x509.ParseCertificate(e.Raw)
		if err != nil {
			return time.Time{}, err
		}
		return cert.NotAfter, nil
	case attest.KindCRL:
		crl, err := x509.ParseRevocationList(e.Raw)
		if err != nil {
			return time.Time{}, err
		}
		if len(crl.Raw) != len(e.Raw) {
			return time.Time{}, errors.New("bytes after the revocation list")
		}
		return crl.NextUpdate, nil
	case attest.KindTCBInfo, attest.KindQEIdentity:
		d, err := readDocument(e)
		return d.NextUpdate, err
	}
	return time.Time{}, fmt.Errorf("a %.40q, which no vendor's service has", string(e.Kind))
}
