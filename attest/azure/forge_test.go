package azure_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/tpm"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

var sharedKeys = sync.OnceValue(func() (k struct{ ak, other, long *rsa.PrivateKey }) {
	k.ak, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.other, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.long, _ = rsa.GenerateKey(rand.Reader, 3072)
	return k
})

var reportData = func() (d attest.ReportData) {
	for i := range d {
		d[i] = byte(i + 1)
	}
	return d
}()

// hardware is a Verifier of the hardware's own evidence: it believes what is there. On SEV-SNP that is a report whose
// report data begins at 50h and whose measurement at 90h, on TDX a quote of the parts that matter, one after the other.
type hardware attest.Format

func (h hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if ev.Format != attest.Format(h) {
		return nil, attest.ErrNotMine
	}
	if len(ev.Endorsements) != 1 {
		return nil, &attest.Error{Code: attest.CodeEndorsementMissing, Check: "test"}
	}
	c := &attest.Claims{Vendor: "test", TEE: string(h), Debug: attest.Off, Measured: map[string]attest.HexBytes{}}
	if h == "snp" {
		copy(c.ReportData[:], ev.Raw[0x50:])
		if vmpl := int(ev.Raw[0x30]); vmpl < 4 {
			c.Privilege = &vmpl
		}
		c.Measured["launch"] = ev.Raw[0x90:0xc0]
		return c, nil
	}
	if len(ev.Raw) != 64+5*48 {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: "test"}
	}
	copy(c.ReportData[:], ev.Raw)
	for i, name := range []string{"launch", "rtmr0", "rtmr1", "rtmr2", "rtmr3"} {
		c.Measured[name] = ev.Raw[64+48*i:][:48]
	}
	return c, nil
}

// forge makes evidence of one of Azure's VMs. The hooks change one thing before what depends on it is made, so that
// nothing but the check under test can refuse the evidence.
type forge struct {
	tdx      bool
	jwk      func(map[string]any)
	runtime  func(map[string]any)
	json     func([]byte) []byte // runtime claims, before they are hashed
	hardware func([]byte)        // room of the hardware report, after report data and measurement
	tdQuote  func([]byte) []byte //
	version  uint32              // of the request; 0: 1
	hcl      func([]byte) []byte // whole
	message  func([]byte) []byte // before it is signed
	signer   *rsa.PrivateKey     // signs instead of HCLAkPub
	parts    func(map[tpm.Part][]byte)
	raw      func([]byte) []byte
}

func (f *forge) claims() []byte {
	k := sharedKeys()
	key := func(id, use string, public *rsa.PublicKey) map[string]any {
		return map[string]any{"kid": id, "key_ops": []string{use}, "kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(public.N.Bytes())}
	}
	ak := key("HCLAkPub", "sign", &k.ak.PublicKey)
	if f.jwk != nil {
		f.jwk(ak)
	}
	doc := map[string]any{
		"keys":             []any{ak, key("HCLEkPub", "encrypt", &k.other.PublicKey)},
		"vm-configuration": map[string]any{"console-enabled": true, "something-new": 7, "vmUniqueId": "VM-1"},
		"user-data":        "",
	}
	if f.runtime != nil {
		f.runtime(doc)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	if f.json != nil {
		raw = f.json(raw)
	}
	return raw
}

// registers are the values of MRTD and the RTMRs.
func registers() (out []byte) {
	for i := range 5 {
		out = append(out, bytes.Repeat([]byte{byte(0x10 + i)}, 48)...)
	}
	return out
}

func (f *forge) makeHCL() (hcl, hardware []byte) {
	runtime := f.claims()
	sum := sha256.Sum256(runtime)
	room := make([]byte, 1184)
	kind := uint32(2)
	if f.tdx {
		kind = 4
		room[0] = 0x81
		copy(room[0x80:], sum[:])
		for i, at := range []int{0x210, 0x2d0, 0x300, 0x330, 0x360} {
			copy(room[at:], registers()[48*i:][:48])
		}
	} else {
		copy(room[0x50:], sum[:])
		copy(room[0x90:], "paravisor")
	}
	if f.hardware != nil {
		f.hardware(room)
	}
	version, ext := f.version, []byte(nil)
	if version == 0 {
		version = 1
	}
	if version == 2 {
		ext = []byte{7, 0, 0, 0}
	}
	le := binary.LittleEndian
	out := []byte("HCLA")
	out = le.AppendUint32(out, 2)
	out = le.AppendUint32(out, uint32(32+1184+20+len(ext)+len(runtime)))
	out = le.AppendUint32(out, 2)
	out = append(out, make([]byte, 16)...)
	out = append(out, room...)
	for _, v := range []uint32{uint32(20 + len(ext) + len(runtime)), version, kind, 1, uint32(len(runtime))} {
		out = le.AppendUint32(out, v)
	}
	out = append(append(out, ext...), runtime...)
	if f.hcl != nil {
		out = f.hcl(out)
	}
	return out, room
}

// makeQuote makes a quote over PCRs 0 and 7.
func (f *forge) makeQuote() (message, signature, values []byte) {
	values = append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{8}, 32)...)
	digest := sha256.Sum256(values)
	var b cryptobyte.Builder
	sized := func(v []byte) { b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) }) }
	b.AddUint32(0xff544347)
	b.AddUint16(0x8018)
	sized(make([]byte, 34))
	folded := reportData.Fold()
	sized(folded[:32])
	b.AddBytes(make([]byte, 8+4+4+1+8))
	b.AddBytes([]byte{0, 0, 0, 1, 0, 0x0b, 3, 0x81, 0, 0})
	sized(digest[:])
	message = b.BytesOrPanic()
	if f.message != nil {
		message = f.message(message)
	}
	key := sharedKeys().ak
	if f.signer != nil {
		key = f.signer
	}
	sum := sha256.Sum256(message)
	bare, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return message, tpm.RSASSA(bare), values
}

func (f forge) make(t testing.TB) *attest.Evidence {
	t.Helper()
	hcl, room := f.makeHCL()
	message, signature, values := f.makeQuote()
	parts := map[tpm.Part][]byte{tpm.PartHCL: hcl, tpm.PartQuote: message, tpm.PartSignature: signature, tpm.PartPCRs: values}
	format := azure.FormatSNP
	if f.tdx {
		format = azure.FormatTDX
		parts[tpm.PartTDQuote] = append(bytes.Clone(room[0x80:0xc0]), registers()...)
		if f.tdQuote != nil {
			parts[tpm.PartTDQuote] = f.tdQuote(parts[tpm.PartTDQuote])
		}
	}
	if f.parts != nil {
		f.parts(parts)
	}
	raw := tpm.EncodeParts(parts)
	if f.raw != nil {
		raw = f.raw(raw)
	}
	return &attest.Evidence{Format: format, Raw: raw, Endorsements: []attest.Endorsement{{Kind: attest.KindCertificate, Raw: []byte{1}}}}
}

func verifierOf(ev *attest.Evidence) *azure.Verifier {
	if ev.Format == azure.FormatTDX {
		return azure.NewTDXVerifier(hardware("tdx"))
	}
	return azure.NewSNPVerifier(hardware("snp"))
}

func verify(t testing.TB, ev *attest.Evidence) (*attest.Claims, error) {
	t.Helper()
	return verifierOf(ev).Verify(t.Context(), ev, nil, epoch)
}

// wants checks that err is a complete *attest.Error with this code.
func wants(err error, code attest.Code) error {
	if attest.CodeOf(err) != code {
		return fmt.Errorf("got %q (%w), want %q (%s)", attest.CodeOf(err), err, code, code.Title())
	}
	if e, ok := err.(*attest.Error); code != "" && (!ok || e.Check == "") {
		return fmt.Errorf("%#v names no check", err)
	}
	return nil
}

func set(at int, v ...byte) func([]byte) []byte {
	return func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		copy(b[at:], v)
		return b
	}
}
