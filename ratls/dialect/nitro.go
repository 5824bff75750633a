package dialect

import (
	"bytes"
	"compress/gzip"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// Names of digests of what a Nitro document has signed, as its verifier claims them.
const (
	userData   = "user_data_sha256"
	nonceGiven = "nonce_sha256"
)

// isCOSE tells a COSE_Sign1 message, with its tag or without.
func isCOSE(raw []byte) bool {
	return bytes.HasPrefix(bytes.TrimPrefix(raw, []byte{0xd2}), []byte{0x84})
}

// signedBy are the digests that a Nitro document has to hold.
func signedBy(user, nonce []byte) map[string][32]byte {
	out := map[string][32]byte{userData: [32]byte(sha256Of(user))}
	if nonce != nil {
		out[nonceGiven] = [32]byte(sha256Of(nonce))
	}
	return out
}

// askEvervault has the nonce travel in the server name.
func askEvervault(name string, nonce []byte) (string, []string) {
	return base64.StdEncoding.EncodeToString(nonce) + ".attest." + name, nil
}

// leastDocument is the length of the label from which on it can only be a document: real labels have at most 63 characters.
const leastDocument = 64

// readEvervault reads Evervault's certificates: a Nitro document in hex, as the first label of an alternative name. Its user data are
// the key.
func readEvervault(s Shown, c Context) (*Found, error) {
	if s.Leaf == nil || s.Document != nil {
		return nil, ErrAbsent
	}
	var document []byte
	for _, name := range s.Leaf.DNSNames {
		label, _, _ := strings.Cut(name, ".")
		if len(label) < leastDocument {
			continue
		}
		raw, err := hex.DecodeString(label)
		if err != nil || !isCOSE(raw) {
			return nil, malformed("a label of a name that is no document", err)
		}
		// Its own readers take the longest, which whoever makes the certificate can add to.
		if document != nil {
			return nil, refuse(attest.CodeDuplicateExtension, "two documents among the names", "one")
		}
		document = raw
	}
	if document == nil {
		return nil, ErrAbsent
	}
	f := &Found{
		Evidence: &attest.Evidence{Format: formatNitro, Raw: document}, Preimage: "SPKI as user data",
		Level: attest.LevelKey, Unsigned: []string{unsignedLeaf},
	}
	nonce := c.nonce()
	if nonce != nil {
		f.Level, f.Made, f.Preimage = attest.LevelNonce, c.Asked, "SPKI as user data, and the nonce"
	}
	f.Signed = signedBy(s.spki(), nonce)
	return f, nil
}

// readNitriding reads what nitriding answers to a request for attestation: a Nitro document in base64. Its user data are the hash of
// the certificate, all of it, and that of an application's key.
func readNitriding(s Shown, c Context) (*Found, error) {
	raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(s.Document)))
	if err != nil || !isCOSE(raw) {
		return nil, ErrAbsent
	}
	if s.Leaf == nil {
		return nil, nothingExpected("the certificate that the document is for")
	}
	multihash := []byte{0x12, 0x20} // SHA-256, 32 bytes
	user := slices.Concat(multihash, sha256Of(s.Leaf.Raw), multihash, c.AppKey[:])
	return &Found{
		Evidence: &attest.Evidence{Format: formatNitro, Raw: raw}, Signed: signedBy(user, c.nonce()),
		Preimage: "SHA-256(certificate) and SHA-256(key of the application)", Level: attest.LevelPinned,
	}, nil
}

// tinfoilFormats are the formats of documents, by what Tinfoil calls them.
func tinfoilFormats() map[string]func([]byte) (*attest.Evidence, error) {
	tdx := func(raw []byte) (*attest.Evidence, error) { return only(formatTDX, raw) }
	return map[string]func([]byte) (*attest.Evidence, error){
		"https://tinfoil.sh/predicate/sev-snp-guest/v2": report,
		"https://tinfoil.sh/predicate/tdx-guest/v2":     tdx,
	}
}

// readTinfoil reads Tinfoil's documents of version 2: the report data are the hash of the TLS key and an HPKE key. The latter is what
// the relying party expects, or what the certificate says. There is no nonce.
func readTinfoil(s Shown, c Context) (*Found, error) {
	if !bytes.Contains(s.Document, []byte("tinfoil.sh/predicate")) {
		return nil, ErrAbsent
	}
	var doc struct {
		Format string `json:"format"`
		Body   string `json:"body"`
	}
	if err := object(s.Document, &doc, "format", "body"); err != nil {
		return nil, err
	}
	read := tinfoilFormats()[doc.Format]
	if read == nil {
		return nil, refuse(attest.CodeUnknownVersion, attest.Quote(doc.Format), "sev-snp-guest/v2 or tdx-guest/v2")
	}
	raw, err := unzip(doc.Body)
	if err != nil {
		return nil, err
	}
	ev, err := read(raw)
	if err != nil {
		return nil, err
	}
	if s.Leaf == nil {
		return nil, nothingExpected("the certificate that the document is for")
	}
	if hash, err := inNames(s.Leaf.DNSNames, "hatt"); err != nil {
		return nil, err
	} else if want := hex.EncodeToString(sha256Of([]byte(doc.Format + doc.Body))); hash != nil && string(hash) != want {
		return nil, otherKey("a certificate for another document, hash", hash, []byte(want))
	}
	hpke := c.HPKE
	if hpke == nil {
		if hpke, err = inNames(s.Leaf.DNSNames, "hpke"); err != nil {
			return nil, err
		}
	}
	if len(hpke) != 32 {
		return nil, nothingExpected("the HPKE key, which is signed with the TLS key: in the names of the certificate, or given")
	}
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(slices.Concat(sha256Of(s.spki()), hpke))}, Preimage: "SHA-256(SPKI) and the HPKE key",
		Level: attest.LevelPinned, Unsigned: []string{unsignedLeaf},
	}, nil
}

// unzip decodes base64 of gzip, as far as evidence may be long.
func unzip(body string) ([]byte, error) {
	zipped, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		return nil, malformed("a body that is not in base64", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, malformed("a body that is not compressed by gzip", err)
	}
	raw, err := io.ReadAll(io.LimitReader(z, attest.MaxRaw+1))
	if err != nil {
		return nil, malformed("a body that is not compressed by gzip", err)
	}
	if len(raw) > attest.MaxRaw {
		return nil, refuse(attest.CodeOversized, "a body that unpacks to more", fmt.Sprintf("at most %d bytes", attest.MaxRaw))
	}
	return raw, nil
}

// inNames reads bytes that are spread over names: "NN", a piece in base32, ".kind." and a domain. Every piece has to be there, once.
func inNames(names []string, kind string) ([]byte, error) {
	pieces := map[int]string{}
	for _, n := range names {
		label, rest, _ := strings.Cut(n, ".")
		if !strings.HasPrefix(rest, kind+".") || len(label) < 2 {
			continue
		}
		i, err := strconv.Atoi(label[:2])
		if _, twice := pieces[i]; err != nil || twice {
			return nil, malformed("names with "+kind+" twice, or without its place", err)
		}
		pieces[i] = label[2:]
	}
	var text strings.Builder
	for i := range len(pieces) {
		piece, ok := pieces[i]
		if !ok {
			return nil, malformed("names without a piece of "+kind, nil)
		}
		text.WriteString(piece)
	}
	if text.Len() == 0 {
		return nil, nil
	}
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(text.String()))
	if err != nil {
		return nil, malformed("names with "+kind+" that is not base32", err)
	}
	return raw, nil
}
