package attest

import (
	"context"
	"crypto/sha256"
	"time"
)

// ReportData is what the hardware signs for us: 64 bytes in SNP, TDX and SGX. The zero value is never accepted.
type ReportData [64]byte

// IsZero reports whether r is the zero value.
func (r ReportData) IsZero() bool { return r == ReportData{} }

// Fold is what hardware signs that has no room for 64 bytes, such as a TPM: the SHA-256 of r, followed by zeros.
func (r ReportData) Fold() (folded ReportData) {
	sum := sha256.Sum256(r[:])
	copy(folded[:], sum[:])
	return folded
}

// Format names the encoding of Evidence, such as "snp".
type Format string

// Evidence is what an Attester produced: raw bytes in the vendor's format, and the Endorsements it could staple to
// them. Nothing in it is trusted before a Verifier has checked it.
type Evidence struct {
	Format       Format
	Raw          []byte
	Endorsements []Endorsement
	// EventLog is the log of what was measured, in the form of the platform (TCG2 or CCEL); empty where there is none.
	// Nobody signed it: a Verifier believes it only where it leads to registers that are signed.
	EventLog []byte
}

// Digest is the SHA-256 of the raw evidence; it names the evidence in logs and results.
func (e *Evidence) Digest() [32]byte { return sha256.Sum256(e.Raw) }

// Endorsement is something a vendor vouches for.
type Endorsement struct {
	Kind Kind
	Raw  []byte
}

// Kind names the sort of an Endorsement.
type Kind string

// Kinds of Endorsement.
const (
	KindCertificate Kind = "certificate" // one DER certificate
	KindCRL         Kind = "crl"         // one DER certificate revocation list
	KindTCBInfo     Kind = "tcb-info"    // Intel TCB info with its signature: the JSON body exactly as the vendor's service answers it
	KindQEIdentity  Kind = "qe-identity" // Intel QE identity with its signature, likewise
	KindPublicKey   Kind = "public-key"  // one DER SubjectPublicKeyInfo, where the vendor endorses a bare key
)

// Bounds on Evidence from outside, enforced before anything is parsed.
const (
	MaxRaw          = 64 << 10  // bytes of raw evidence
	MaxEndorsement  = 64 << 10  // bytes of one endorsement
	MaxEndorsements = 16        // endorsements stapled to one piece of evidence
	MaxEventLog     = 512 << 10 // bytes of an event log
)

// Ref names an Endorsement at a vendor's service. Path is built by the TEE's package from validated fields only; the
// host belongs to the Endorser's configuration. An address found in evidence is never part of it.
type Ref struct {
	Service string // such as "amd-kds"
	Path    string // such as "/vcek/v1/Milan/crl"
	Kind    Kind
}

// Endorser supplies endorsements that evidence did not carry. It answers an *Error with a J6xx code when it has none.
type Endorser interface {
	Endorse(ctx context.Context, ref Ref) ([]Endorsement, error)
}

// Attester produces Evidence in which the hardware signed data.
type Attester interface {
	Attest(ctx context.Context, data ReportData) (*Evidence, error)
}

// Verifier checks the authenticity of one format of Evidence: signature, chain, revocation. The Claims it returns hold
// only what was signed or endorsed. It answers ErrNotMine for another format, and otherwise an *Error.
type Verifier interface {
	Verify(ctx context.Context, ev *Evidence, endorser Endorser, now time.Time) (*Claims, error)
}

// NoEndorser has nothing: every request is answered with CodeEndorsementMissing.
type NoEndorser struct{}

// Endorse implements Endorser.
func (NoEndorser) Endorse(_ context.Context, ref Ref) ([]Endorsement, error) {
	return nil, &Error{Code: CodeEndorsementMissing, Check: "endorsements", Got: "none stapled, and fetching is off", Want: ref.Service + ref.Path}
}
