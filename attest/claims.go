package attest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Flag is a boolean that may be absent. The zero value is Absent and satisfies no rule.
type Flag uint8

// Values of Flag.
const (
	Absent Flag = iota
	Off
	On
)

// FlagOf turns a signed bit into a Flag.
func FlagOf(b bool) Flag {
	if b {
		return On
	}
	return Off
}

func (f Flag) String() string {
	switch f {
	case Off:
		return "off"
	case On:
		return "on"
	default:
		return "absent"
	}
}

// MarshalJSON writes true, false or null.
func (f Flag) MarshalJSON() ([]byte, error) {
	switch f {
	case Off:
		return []byte("false"), nil
	case On:
		return []byte("true"), nil
	default:
		return []byte("null"), nil
	}
}

// HexBytes is a byte string that JSON shows in hex.
type HexBytes []byte

// MarshalJSON writes lower-case hex.
func (h HexBytes) MarshalJSON() ([]byte, error) { return json.Marshal(h.String()) }

func (h HexBytes) String() string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(h))
	for _, b := range h {
		out = append(out, digits[b>>4], digits[b&15])
	}
	return string(out)
}

// Claims are the normalised facts of one piece of Evidence: signed by the hardware, or endorsed by its vendor. A field
// that the evidence does not carry keeps its zero value, and a rule over it refuses.
type Claims struct {
	Vendor     string              `json:"vendor"`               // "amd", "intel", "aws", "arm", "tcg"; "sim" for every simulated platform
	TEE        string              `json:"tee"`                  // "snp", "tdx", ...
	Product    string              `json:"product"`              // the vendor's product name, such as "EPYC Genoa"
	Generation string              `json:"generation"`           // such as "milan", "genoa", "turin"
	Stepping   string              `json:"stepping,omitempty"`   // such as "B1"
	Simulated  bool                `json:"simulated,omitempty"`  // made by software under a locally made root
	Root       string              `json:"root"`                 // "sha256:" and hex of the trust anchor's DER
	TCB        TCB                 `json:"tcb,omitempty"`        // security version numbers by component
	TCBStatus  string              `json:"tcb_status,omitempty"` // the vendor's judgement, such as "UpToDate"; empty where the vendor gives none
	TCBDate    time.Time           `json:"tcb_date,omitzero"`    // of the TCB level reached, by the vendor
	TCBJudged  time.Time           `json:"tcb_judged,omitzero"`  // when the vendor issued the oldest document that TCBStatus comes from
	Evaluation *uint64             `json:"evaluation,omitempty"` // tcbEvaluationDataNumber of the collateral that judged it
	Advisories []string            `json:"advisories,omitempty"` // vendor's advisories that apply at this level
	FMSPC      HexBytes            `json:"fmspc,omitempty"`      // Intel's family, model, stepping, platform, custom SKU
	Version    int                 `json:"version"`              // version of the evidence format
	Debug      Flag                `json:"debug"`                // the guest can be read by a debugger of the host
	Migratable Flag                `json:"migratable"`           // a migration agent may move the guest
	Privilege  *int                `json:"privilege,omitempty"`  // privilege level of the requester (VMPL on SNP), 0 highest
	Provenance `json:"provenance"` // which machine
	Platform   map[string]Flag     `json:"platform,omitempty"`     // platform bits: smt, tsme, ecc, rapl_off, ciphertext_hiding, alias_check
	Measured   map[string]HexBytes `json:"measurements,omitempty"` // "launch" and, where the TEE has them, others: rtmr0, pcr7, signer
	Numbers    map[string]uint64   `json:"numbers,omitempty"`      // signed numbers that are no TCB component, such as isv_svn
	ReportData ReportData          `json:"-"`                      // what the hardware signed for the attester
	Made       time.Time           `json:"made,omitzero"`          // when the evidence was made, where the hardware signs a time of its own
	Folded     bool                `json:"-"`                      // ReportData is the Fold of the report data: this hardware has no room for more
	Revocation Revocation          `json:"revocation"`
	// Checks the verifier made on the way here, all passed, for the transcript; and what it did not check.
	Checks     []Check  `json:"-"`
	NotChecked []string `json:"-"`
}

// Kind is the same for claims that say the same of the platform and of what runs on it, and for no others. What belongs to one piece
// of evidence alone is left out: the report data and when it was made, and the transcript of its verification. It is SHA-256, since
// what is in claims may be of an attacker's choosing. That of nil is zero.
func (c *Claims) Kind() [32]byte {
	if c == nil {
		return [32]byte{}
	}
	b := make(kind, 0, 1024)
	for _, s := range [...]string{
		c.Vendor, c.TEE, c.Product, c.Generation, c.Stepping, c.Root, c.TCBStatus, c.Module, c.CSP, string(c.FMSPC), string(c.ChipID), string(c.PPID),
	} {
		b.text(s)
	}
	for _, t := range [...]time.Time{c.TCBDate, c.TCBJudged, c.Revocation.Issued, c.Revocation.Expires} {
		b.number(t.Unix())
		b.number(int64(t.Nanosecond()))
	}
	b.number(int64(c.Version))
	b = append(b, byte(c.Debug), byte(c.Migratable))
	b.is(c.Simulated)
	if b.is(c.Evaluation != nil); c.Evaluation != nil {
		b.number(int64(*c.Evaluation))
	}
	if b.is(c.Privilege != nil); c.Privilege != nil {
		b.number(int64(*c.Privilege))
	}
	if b.is(c.Revocation.Problem != nil); c.Revocation.Problem != nil {
		b.text(string(c.Revocation.Problem.Code))
		b.text(c.Revocation.Problem.Error())
	}
	b.number(int64(len(c.Advisories)))
	for _, a := range c.Advisories {
		b.text(a)
	}
	named(&b, c.TCB, func(v uint64) { b.number(int64(v)) })
	named(&b, c.Numbers, func(v uint64) { b.number(int64(v)) })
	named(&b, c.Platform, func(v Flag) { b = append(b, byte(v)) })
	named(&b, c.Measured, func(v HexBytes) { b.text(string(v)) })
	return sha256.Sum256(b)
}

// kind is claims in bytes, in one way: everything has its length or its count in front.
type kind []byte

func (k *kind) number(n int64) { *k = binary.AppendVarint(*k, n) }

func (k *kind) text(s string) {
	k.number(int64(len(s)))
	*k = append(*k, s...)
}

func (k *kind) is(yes bool) {
	if yes {
		*k = append(*k, 1)
	} else {
		*k = append(*k, 0)
	}
}

func named[V any](k *kind, m map[string]V, value func(V)) {
	k.number(int64(len(m)))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		k.text(name)
		value(m[name])
	}
}

// Revocation tells what is known about withdrawn keys of the chain. The zero value means that nothing is: the chain was
// not checked, and a policy that demands it is undecidable. A revoked key is never a claim, it is an error.
type Revocation struct {
	Issued  time.Time `json:"issued,omitzero"`  // when the vendor issued the list that was checked
	Expires time.Time `json:"expires,omitzero"` // when the vendor will have issued the next
	Problem *Error    `json:"-"`                // why none was checked; nil when one was
}

// TCB maps a firmware component to its security version number, such as {"snp": 23, "microcode": 84}.
type TCB map[string]uint64

// Provenance tells which machine produced the evidence.
type Provenance struct {
	ChipID HexBytes `json:"chip_id,omitempty"` // AMD HWID; empty where the host masks it
	PPID   HexBytes `json:"ppid,omitempty"`    // Intel's platform provisioning id
	Module string   `json:"module,omitempty"`  // instance that made the evidence where it is no chip, such as a Nitro enclave's module id
	CSP    string   `json:"csp,omitempty"`     // cloud provider that a VLEK was issued to
}

// MarshalJSON shows the report data in hex beside the other claims.
func (c Claims) MarshalJSON() ([]byte, error) {
	type plain Claims
	return json.Marshal(struct {
		plain
		ReportData HexBytes `json:"report_data"`
	}{plain(c), c.ReportData[:]})
}
