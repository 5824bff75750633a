package dcap_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

// parts are the places of a quote's parts.
type parts struct {
	body, size, signature, key, certification, report, auth, chain, end int
}

func partsOf(m dcapforge.Made) (p parts) {
	raw := m.Evidence.Raw
	version := binary.LittleEndian.Uint16(raw)
	p.body = dcap.HeaderSize
	if version == 5 {
		p.body += 6
	}
	p.size = m.Signed
	p.signature = p.size + 4
	p.key = p.signature + 64
	p.certification = p.key + 64
	p.report = p.certification
	if version > 3 {
		p.report += 6
	}
	p.auth = p.report + dcap.EnclaveReport + 64
	p.chain = p.auth + 2 + int(binary.LittleEndian.Uint16(raw[p.auth:]))
	p.end = len(raw)
	return p
}

func put16(at int, v uint16) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
}

func put32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
}

// fit makes a quote that was cut say its new length.
func fit(b []byte, p parts) []byte {
	put32(p.size, uint32(len(b)-p.signature))(b)
	if len(b) >= p.chain+6 {
		put32(p.chain+2, uint32(len(b)-p.chain-6))(b)
	}
	if p.report > p.certification {
		put32(p.certification+2, uint32(len(b)-p.report))(b)
	}
	return b
}

// TestMalformed changes the frame of a quote, which is decoded before any signature is looked at.
func TestMalformed(t *testing.T) {
	t.Parallel()
	const (
		malformed = attest.CodeMalformed
		version   = attest.CodeUnknownVersion
		unknown   = attest.CodeUnknownField
	)
	type change struct {
		code attest.Code
		to   func([]byte) []byte
	}
	for kind, f := range kinds {
		m := f.Make(t)
		p := partsOf(m)
		list := map[string]change{
			"empty":                      {malformed, func([]byte) []byte { return nil }},
			"47 bytes":                   {malformed, func(b []byte) []byte { return b[:47] }},
			"too large":                  {attest.CodeOversized, func(b []byte) []byte { return append(b, make([]byte, attest.MaxRaw)...) }},
			"version 2":                  {version, put16(0, 2)},
			"version 6":                  {version, put16(0, 6)},
			"key of another type":        {attest.CodeUnknownAlgorithm, put16(2, 3)},
			"unknown TEE":                {version, put32(4, 0x82)},
			"vendor's last byte":         {attest.CodeQuotingEnclave, func(b []byte) []byte { b[27] ^= 1; return b }},
			"signature data too long":    {malformed, put32(p.size, uint32(p.end-p.signature+1))},
			"signature data of 4 GiB":    {malformed, put32(p.size, 0xffffffff)},
			"signature data too short":   {malformed, put32(p.size, uint32(p.end-p.signature-1))},
			"no signature data":          {malformed, put32(p.size, 0)},
			"bytes after the quote":      {malformed, func(b []byte) []byte { return append(b, 0, 1) }},
			"auth data too long":         {malformed, put16(p.auth, 0xffff)},
			"ends before its text":       {attest.CodeMalformedEndorsement, func(b []byte) []byte { return fit(b[:p.chain+6], p) }},
			"ends within its last frame": {malformed, func(b []byte) []byte { return fit(b[:p.chain+2], p) }},
			"auth data of other length":  {malformed, put16(p.auth, 31)},
			"PPID instead of a chain":    {unknown, put16(p.chain, 3)},
			"nested certification data":  {unknown, put16(p.chain, 6)},
			"chain of other length":      {malformed, put32(p.chain+2, uint32(p.end-p.chain-7))},
			"chain of 4 GiB":             {malformed, put32(p.chain+2, 0xffffffff)},
			"version of the other TEE":   {version, put16(0, map[bool]uint16{true: 4, false: 3}[f.SGX])},
			"signature of another quote": {attest.CodeSignature, func(b []byte) []byte { copy(b[p.signature:p.key], b[p.report+dcap.EnclaveReport:]); return b }},
			"signature of zeros":         {attest.CodeSignature, func(b []byte) []byte { clear(b[p.signature:p.key]); return b }},
		}
		if f.SGX {
			list["zeros after the quote"] = change{malformed, trailing}
		} else {
			list["reserved byte 8"] = change{attest.CodeReservedBits, func(b []byte) []byte { b[8] = 1; return b }}
			list["reserved byte 11"] = change{attest.CodeReservedBits, func(b []byte) []byte { b[11] = 1; return b }}
			list["certification data of type 5"] = change{unknown, put16(p.certification, 5)}
			list["certification data of other length"] = change{malformed, put32(p.certification+2, uint32(p.end-p.report-1))}
		}
		if f.TD15 {
			// A body of 648 bytes has room for signature data with a short chain.
			list["signature data instead of a body"] = change{malformed, func(b []byte) []byte {
				return slices.Delete(fit(append(b[:p.chain+6:p.chain+6], "text"...), p), p.body, p.size)
			}}
		}
		if p.body > dcap.HeaderSize {
			list["body of SGX"] = change{version, put16(48, 1)}
			list["body of type 4"] = change{version, put16(48, 4)}
			list["body of other length"] = change{malformed, put32(50, 600)}
			list["body of the other type"] = change{malformed, func(b []byte) []byte { b[48] ^= 1; return b }}
		}
		for name, c := range list {
			changed := m
			changed.Evidence = &attest.Evidence{Raw: c.to(slices.Clone(m.Evidence.Raw)), Endorsements: m.Evidence.Endorsements}
			v, err := verify(t, changed, nil)
			if bad := wants(err, c.code); bad != nil || v != nil {
				t.Errorf("%s, %s: %v", kind, name, bad)
			}
		}
	}
}

// A quote is refused at every length but its own.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for kind, f := range kinds {
		m := f.Make(t)
		for n := range m.Evidence.Raw {
			if _, err := dcap.Parse(m.Evidence.Raw[:n]); attest.CodeOf(err) != attest.CodeMalformed {
				t.Fatalf("%s: %d bytes: %v", kind, n, err)
			}
		}
	}
}

// Every byte of a quote matters but those listed here: a change of one bit in any other refuses.
//
//   - the ends of the lines of the PEM.
//
// TestUnsigned has what takes more than one bit.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	for kind, f := range kinds {
		m := f.Make(t)
		p := partsOf(m)
		v := dcap.NewVerifier(m.Roots)
		tolerated := map[byte]int{}
		for i := range m.Evidence.Raw {
			raw := slices.Clone(m.Evidence.Raw)
			raw[i] ^= 1 << (i % 8)
			q, err := dcap.Parse(raw)
			if err == nil {
				_, err = v.Verify(t.Context(), q, m.Evidence.Endorsements, nil, dcapforge.Epoch)
			}
			if attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("%s: byte %d: error without a code: %v", kind, i, err)
			}
			if err == nil {
				if i < p.chain+6 {
					t.Fatalf("%s: byte %d was changed", kind, i)
				}
				tolerated[m.Evidence.Raw[i]]++
			}
		}
		if left := slices.Sorted(maps.Keys(tolerated)); !slices.Equal(left, []byte{'\n'}) && len(left) > 0 {
			t.Errorf("%s: bytes that may change: %q", kind, left)
		}
	}
}

// These too are not signed, or not uniquely:
//
//   - in each signature of ECDSA, S may be replaced by the order of the curve minus S;
//   - zeros may follow a quote of TDX: its buffer is larger than the quote;
//   - in collateral, the signature's hex digits may be capitals (TestTolerated).
func TestUnsigned(t *testing.T) {
	t.Parallel()
	order := elliptic.P256().Params().N
	for kind, f := range kinds {
		m := f.Make(t)
		p := partsOf(m)
		for _, at := range []int{p.signature, p.report + dcap.EnclaveReport} {
			s := m.Evidence.Raw[at+32 : at+64]
			new(big.Int).Sub(order, new(big.Int).SetBytes(s)).FillBytes(s)
		}
		if !f.SGX {
			m.Evidence.Raw = append(m.Evidence.Raw, make([]byte, 70)...)
		}
		if _, err := verify(t, m, nil); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// R and S with high bits, leading zeros and no bits at all are encoded as DER wants them.
func TestSignatureEncoding(t *testing.T) {
	t.Parallel()
	for range 600 { // one in 256 has a leading zero
		key := dcapforge.NewKey()
		message := []byte("message")
		raw := dcapforge.Sign(key, message)
		if !dcap.VerifyRaw(&key.PublicKey, message, raw) {
			t.Fatalf("%x", raw)
		}
	}
	key := dcapforge.NewKey()
	for _, raw := range [][]byte{make([]byte, 64), bytes.Repeat([]byte{0xff}, 64)} {
		if dcap.VerifyRaw(&key.PublicKey, nil, raw) {
			t.Errorf("%x verifies", raw)
		}
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	intel := dcap.IntelRoots()
	if got := dcap.Fingerprints(intel); !slices.Equal(got, []string{"sha256:44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"}) {
		t.Errorf("Intel's roots are %v", got)
	}
	m := forge{}.Make(t)
	for name, roots := range map[string]*dcap.Roots{"nil": nil, "none": {}, "Intel's": intel} {
		m.Roots = roots
		if _, err := verify(t, m, nil); attest.CodeOf(err) != attest.CodeUntrustedRoot {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := forge{}
	for name, c := range map[string]struct {
		code attest.Code
		der  func() []byte
	}{
		"junk":      {attest.CodeMalformedEndorsement, func() []byte { return []byte("x") }},
		"leaf":      {attest.CodeChain, func() []byte { return m.Evidence.Endorsements[dcapforge.TCBCert].Raw }},
		"authority": {attest.CodeChain, func() []byte { return m.Evidence.Endorsements[dcapforge.CACert].Raw }},
		"other":     {attest.CodeChain, func() []byte { return selfSigned(t, "example.com") }},
		"not by itself": {attest.CodeChain, func() []byte {
			f.Cert.CA = subject("SGX Root CA")
			return f.Make(t).Evidence.Endorsements[dcapforge.CACert].Raw
		}},
	} {
		if roots, err := dcap.NewRoots(c.der()); attest.CodeOf(err) != c.code || roots != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Decoding a quote for people shows what is in it.
func TestQuoteJSON(t *testing.T) {
	t.Parallel()
	q, err := dcap.Parse(kinds["sgx"].Make(t).Evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(q)
	if want := `{"version":3,"tee":"sgx","qe_svn":10,"pce_svn":11,"user_data":"0000000000000000000000000000000000000000"}`; err != nil || string(out) != want {
		t.Errorf("%s, %v", out, err)
	}
}

// A quote keeps nothing of its input.
func TestParseCopies(t *testing.T) {
	t.Parallel()
	m := forge{}.Make(t)
	q, err := dcap.Parse(m.Evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(m.Evidence.Raw)
	if _, err := dcap.NewVerifier(m.Roots).Verify(t.Context(), q, m.Evidence.Endorsements, nil, dcapforge.Epoch); err != nil {
		t.Error(err)
	}
}
