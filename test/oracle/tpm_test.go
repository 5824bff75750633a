package oracle

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	attestation "github.com/google/go-attestation/attest"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/test/swtpm"
	"github.com/jurat-tls/jurat/test/vectors"
)

const goAttestation = "go-attestation"

var tpmDivergences = []divergence{
	{goAttestation, "signature/hash", "refuses", "the hash that a signature names is the one it is verified with; no other is taken from elsewhere", "TPM 2.0 part 2, TPMS_SIGNATURE_RSA and TPMS_SIGNATURE_ECC: hash"},
	{goAttestation, "signature longer", "refuses", "nothing stands behind a TPMT_SIGNATURE", "TPM 2.0 part 2, TPMT_SIGNATURE"},
}

// quoted is a TPM's quote whose key the operator named.
type quoted struct {
	message, signature, public []byte
	pcrs                       [][]byte
	selected                   []int
	key                        []byte // SubjectPublicKeyInfo
	nonce                      []byte
	data                       attest.ReportData // of which nonce is the fold, or what it begins with
}

func (q quoted) ours(t *testing.T) error {
	named := endorser{{Kind: attest.KindPublicKey, Raw: q.key}}
	raw := tpm.EncodeParts(map[tpm.Part][]byte{
		tpm.PartQuote: q.message, tpm.PartSignature: q.signature, tpm.PartPublic: q.public, tpm.PartPCRs: slices.Concat(q.pcrs...),
	})
	r := attest.NewAppraiser(named, tpm.NewVerifier(nil)).Appraise(t.Context(), &attest.Evidence{Format: tpm.Format, Raw: raw},
		attest.Expect(q.data, attest.LevelKey, now), anything{}, now)
	return r.Err()
}

func (q quoted) theirs() error {
	return contained(func() error {
		key, err := x509.ParsePKIXPublicKey(q.key)
		if err != nil {
			return err
		}
		var pcrs []attestation.PCR
		for i, value := range q.pcrs {
			pcrs = append(pcrs, attestation.PCR{Index: q.selected[i], Digest: value, DigestAlg: crypto.SHA256})
		}
		ak := attestation.AKPublic{Public: key, Hash: crypto.SHA256}
		return ak.Verify(attestation.Quote{Quote: q.message, Signature: q.signature}, pcrs, q.nonce)
	})
}

// endorser has its endorsements for whoever asks.
type endorser []attest.Endorsement

func (e endorser) Endorse(context.Context, attest.Ref) ([]attest.Endorsement, error) { return e, nil }

// anything is a policy that affirms what is authentic.
type anything struct{}

func (anything) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{Checks: []attest.Check{{ID: "any", Status: attest.StatusPass}}}
}

func (q quoted) compare(t *testing.T, class, what string) {
	t.Helper()
	agree(t, goAttestation, class, what, q.ours(t), q.theirs())
}

func (q quoted) with(change func(*quoted)) quoted {
	q.message, q.signature = slices.Clone(q.message), slices.Clone(q.signature)
	q.pcrs = slices.Clone(q.pcrs)
	for i := range q.pcrs {
		q.pcrs[i] = slices.Clone(q.pcrs[i])
	}
	q.nonce = slices.Clone(q.nonce)
	change(&q)
	return q
}

func (q quoted) all(t *testing.T) {
	t.Helper()
	if err := q.ours(t); err != nil {
		t.Fatal(err)
	}
	q.compare(t, "good", "")
	for at := range q.message {
		q.with(func(q *quoted) { q.message[at] ^= 1 << (at % 8) }).compare(t, "message", fmt.Sprintf("byte %d", at))
		q.with(func(q *quoted) { q.message = q.message[:at] }).compare(t, "message cut", fmt.Sprintf("%d bytes", at))
	}
	for at := range q.signature {
		class := "signature"
		if at == 2 || at == 3 {
			class += "/hash"
		}
		q.with(func(q *quoted) { q.signature[at] ^= 1 << (at % 8) }).compare(t, class, fmt.Sprintf("byte %d", at))
		q.with(func(q *quoted) { q.signature = q.signature[:at] }).compare(t, "signature cut", fmt.Sprintf("%d bytes", at))
	}
	for i := range q.pcrs {
		q.with(func(q *quoted) { q.pcrs[i][i] ^= 1 }).compare(t, "PCR", fmt.Sprint(i))
		if i > 0 {
			q.with(func(q *quoted) { q.pcrs[i], q.pcrs[i-1] = q.pcrs[i-1], append(q.pcrs[i][:31:31], 7) }).compare(t, "PCRs swapped", fmt.Sprint(i))
		}
	}
	q.with(func(q *quoted) { q.pcrs, q.selected = q.pcrs[1:], q.selected[1:] }).compare(t, "PCR missing", "")
	q.with(func(q *quoted) { q.nonce[0] ^= 1; q.data[0] ^= 1 }).compare(t, "other report data", "")
	q.with(func(q *quoted) { q.message = append(q.message, 0) }).compare(t, "message longer", "")
	q.with(func(q *quoted) { q.signature = append(q.signature, 0) }).compare(t, "signature longer", "")
	met(t, goAttestation, "")
}

// TestSoftwareTPM compares verdicts on quotes by a software TPM.
func TestSoftwareTPM(t *testing.T) {
	selected := []int{0, 1, 4, 7, 11}
	a, err := tpm.NewAttester(tpm.NewDevice(swtpm.Start(t)), selected, "")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	data := attest.ReportData{1, 2, 3}
	ev, err := a.Attest(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := tpm.DecodeParts(ev.Raw, tpm.PartQuote, tpm.PartSignature, tpm.PartPCRs, tpm.PartPublic)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := a.AK()
	if err != nil {
		t.Fatal(err)
	}
	fold := data.Fold()
	q := quoted{
		message: parts[tpm.PartQuote], signature: parts[tpm.PartSignature], public: parts[tpm.PartPublic],
		pcrs: slices.Collect(slices.Chunk(parts[tpm.PartPCRs], 32)), selected: selected, key: key, nonce: fold[:32], data: data,
	}
	q.all(t)
}

// TestRecordedTPM compares verdicts on the recorded quote.
func TestRecordedTPM(t *testing.T) {
	var doc struct {
		Key   []byte `json:"ak_public"`
		Quote struct {
			Message, Signature string
			PCRs               []string
		} `json:"tpm_quote"`
	}
	raw := vectors.Read(t, "tpm/evidence.json")
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	q := quoted{key: doc.Key}
	for field, text := range map[*[]byte]string{&q.message: doc.Quote.Message, &q.signature: doc.Quote.Signature} {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		*field = b
	}
	for i, text := range doc.Quote.PCRs {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		q.pcrs, q.selected = append(q.pcrs, b), append(q.selected, i)
	}
	name := 6 + 2 + int(q.message[7])
	q.nonce = q.message[name+2 : name+2+int(q.message[name+1])]
	theirs := q.theirs()
	claims, err := tpm.NewVerifier(nil).Verify(t.Context(), &attest.Evidence{Format: tpm.Format, Raw: raw}, endorser{{Kind: attest.KindPublicKey, Raw: doc.Key}}, now)
	agree(t, goAttestation, "recorded", "", err, theirs)
	if err == nil && string(claims.ReportData[:len(q.nonce)]) != string(q.nonce) {
		t.Errorf("%x, want %x", claims.ReportData, q.nonce)
	}
}
