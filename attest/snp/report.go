package snp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// Format of the Evidence: Raw is one attestation report as the firmware wrote it.
const Format attest.Format = "snp"

// Size of a report in bytes, and of its signed part (56860 table 23).
const (
	ReportSize = 0x4a0
	SignedSize = 0x2a0
)

// Report is a decoded attestation report. Nothing in it has been verified.
type Report struct {
	Version         uint32          `json:"version"`
	GuestSVN        uint32          `json:"guest_svn"`
	Policy          Policy          `json:"policy"`
	FamilyID        attest.HexBytes `json:"family_id"`
	ImageID         attest.HexBytes `json:"image_id"`
	VMPL            uint32          `json:"vmpl"`
	PlatformInfo    uint64          `json:"platform_info"`
	AuthorKey       bool            `json:"author_key"`
	MaskChipKey     bool            `json:"mask_chip_key"`
	SigningKey      string          `json:"signing_key"` // "VCEK" or "VLEK"
	ReportData      attest.HexBytes `json:"report_data"`
	Measurement     attest.HexBytes `json:"measurement"`
	HostData        attest.HexBytes `json:"host_data"`
	IDKeyDigest     attest.HexBytes `json:"id_key_digest"`
	AuthorKeyDigest attest.HexBytes `json:"author_key_digest"`
	ReportID        attest.HexBytes `json:"report_id"`
	ReportIDMA      attest.HexBytes `json:"report_id_ma"`
	Family          uint8           `json:"family,omitempty"` // CPUID; zero in version 2
	Model           uint8           `json:"model,omitempty"`
	Stepping        uint8           `json:"stepping,omitempty"`
	Product         string          `json:"product,omitempty"` // from CPUID; empty in version 2
	ChipID          attest.HexBytes `json:"chip_id"`           // all zero where the host masks it
	CurrentTCB      TCBVersion      `json:"current_tcb"`
	ReportedTCB     TCBVersion      `json:"reported_tcb"`
	CommittedTCB    TCBVersion      `json:"committed_tcb"`
	LaunchTCB       TCBVersion      `json:"launch_tcb"`
	Current         string          `json:"current_firmware"` // "major.minor.build"
	Committed       string          `json:"committed_firmware"`
	LaunchMit       uint64          `json:"launch_mit_vector,omitempty"` // version 5
	CurrentMit      uint64          `json:"current_mit_vector,omitempty"`

	signer     signer
	generation *generation // nil in version 2
	signed     []byte
	r, s       *big.Int
}

// TCBVersion is the 8-byte TCB_VERSION as it stands in the report; its layout depends on the generation.
type TCBVersion [8]byte

// MarshalJSON writes hex.
func (t TCBVersion) MarshalJSON() ([]byte, error) { return json.Marshal(attest.HexBytes(t[:])) }

// Policy is the guest policy that the firmware enforces (56860 table 9).
type Policy uint64

const (
	policyReservedOne Policy = 1 << 17
	policyMigrate     Policy = 1 << 18
	policyDebug       Policy = 1 << 19
	policyV2          Policy = 1<<25 - 1 // bits that are defined up to version 3
	policyV5          Policy = 1<<26 - 1 // and from version 5: PAGE_SWAP_DISABLE
)

// Debug reports whether the host may read the guest with a debugger.
func (p Policy) Debug() bool { return p&policyDebug != 0 }

// Migratable reports whether a migration agent may move the guest.
func (p Policy) Migratable() bool { return p&policyMigrate != 0 }

// keysReserved are the bits of the flags at 0x48 that are no AUTHOR_KEY_EN, MASK_CHIP_KEY or SIGNING_KEY.
const keysReserved = ^uint32(0x1f)

// platformBits are the bits of PLATFORM_INFO. A bit that a version defined late in its life says nothing when it is zero:
// it could be firmware that does not know it. always is the first version in which zero means off, 0 when none does.
var platformBits = []struct {
	bit           uint
	name          string
	since, always uint32
}{
	{0, "smt", 2, 2},
	{1, "tsme", 2, 2},
	{2, "ecc", 2, 3},
	{3, "rapl_off", 2, 3},
	{4, "ciphertext_hiding", 2, 3},
	{5, "alias_check", 3, 3},
	{6, "iommu_write_safe", 3, 0},
	{7, "tio", 5, 5},
}

// Parse decodes a report. It refuses whatever the specification of the report's version does not define.
func Parse(raw []byte) (*Report, error) {
	if len(raw) != ReportSize {
		return nil, refuse(attest.CodeMalformed, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("%d bytes", ReportSize))
	}
	raw = slices.Clone(raw)
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(raw[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(raw[at:]) }
	r := &Report{
		Version:         u32(0x000),
		GuestSVN:        u32(0x004),
		Policy:          Policy(u64(0x008)),
		FamilyID:        raw[0x010:0x020],
		ImageID:         raw[0x020:0x030],
		VMPL:            u32(0x030),
		CurrentTCB:      TCBVersion(raw[0x038:0x040]),
		PlatformInfo:    u64(0x040),
		ReportData:      raw[0x050:0x090],
		Measurement:     raw[0x090:0x0c0],
		HostData:        raw[0x0c0:0x0e0],
		IDKeyDigest:     raw[0x0e0:0x110],
		AuthorKeyDigest: raw[0x110:0x140],
		ReportID:        raw[0x140:0x160],
		ReportIDMA:      raw[0x160:0x180],
		ReportedTCB:     TCBVersion(raw[0x180:0x188]),
		ChipID:          raw[0x1a0:0x1e0],
		CommittedTCB:    TCBVersion(raw[0x1e0:0x1e8]),
		Current:         fmt.Sprintf("%d.%d.%d", raw[0x1ea], raw[0x1e9], raw[0x1e8]),
		Committed:       fmt.Sprintf("%d.%d.%d", raw[0x1ee], raw[0x1ed], raw[0x1ec]),
		LaunchTCB:       TCBVersion(raw[0x1f0:0x1f8]),
		signed:          raw[:SignedSize],
	}
	unused := []int{0x04c, 0x050, 0x18b, 0x1a0, 0x1eb, 0x1ec, 0x1ef, 0x1f0, 0x208, SignedSize, 0x330, ReportSize} // pairs: from, to
	policy := policyV2
	switch r.Version {
	case 2:
		unused = append(unused, 0x188, 0x18b, 0x1f8, 0x208)
	case 3:
		unused = append(unused, 0x1f8, 0x208)
	case 5:
		policy = policyV5
		r.LaunchMit, r.CurrentMit = u64(0x1f8), u64(0x200)
	default:
		return nil, refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("version %d", r.Version), "version 2, 3 or 5")
	}
	for i := 0; i < len(unused); i += 2 {
		if !zero(raw[unused[i]:unused[i+1]]) {
			return nil, reserved(fmt.Sprintf("reserved bytes %#x to %#x", unused[i], unused[i+1]-1))
		}
	}
	if r.Policy&^policy != 0 || r.Policy&policyReservedOne == 0 {
		return nil, refuse(attest.CodeReservedBits, checkFormat, fmt.Sprintf("policy %#x", uint64(r.Policy)), "bit 17 set and no undefined bit")
	}
	if undefined := r.PlatformInfo &^ platformMask(r.Version); undefined != 0 {
		return nil, reserved(fmt.Sprintf("platform bits %#x of version %d", undefined, r.Version))
	}
	if err := r.parseKeys(u32(0x048)); err != nil {
		return nil, err
	}
	// 0xFFFFFFFF is a report that the host asked for: no guest chose its report data.
	if r.VMPL > 3 {
		return nil, refuse(attest.CodeMalformed, checkFormat, fmt.Sprintf("VMPL %#x", r.VMPL), "0 to 3")
	}
	if r.Version >= 3 {
		r.Family, r.Model, r.Stepping = raw[0x188], raw[0x189], raw[0x18a]
		var err error
		if r.Product, r.generation, err = processor(r.Family, r.Model); err != nil {
			return nil, err
		}
		if err := r.checkLayout(r.generation); err != nil {
			return nil, err
		}
	}
	if algorithm := u32(0x034); algorithm != 1 {
		return nil, refuse(attest.CodeUnknownAlgorithm, checkSignature, fmt.Sprint(algorithm), "1, ECDSA P-384 with SHA-384")
	}
	var err error
	if r.r, err = scalar(raw[0x2a0:0x2e8]); err != nil {
		return nil, err
	}
	if r.s, err = scalar(raw[0x2e8:0x330]); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Report) parseKeys(keys uint32) error {
	if keys&keysReserved != 0 {
		return reserved(fmt.Sprintf("reserved key flags %#x", keys))
	}
	r.AuthorKey, r.MaskChipKey, r.signer = keys&1 != 0, keys&2 != 0, signer(keys>>2)
	if r.signer != vcek && r.signer != vlek {
		return refuse(attest.CodeSignerMismatch, checkSigner, fmt.Sprintf("signing key %d", r.signer), "0 (VCEK) or 1 (VLEK)")
	}
	r.SigningKey = r.signer.String()
	return nil
}

// checkLayout checks what only a known generation determines: the TCB layout and the length of the chip's identifier.
func (r *Report) checkLayout(g *generation) error {
	for _, tcb := range []TCBVersion{r.CurrentTCB, r.ReportedTCB, r.CommittedTCB, r.LaunchTCB} {
		if _, err := g.layout.decode(tcb); err != nil {
			return err
		}
	}
	if !zero(r.ChipID[g.hwid:]) {
		return reserved(fmt.Sprintf("chip id longer than the %d bytes of %s", g.hwid, g.line))
	}
	return nil
}

// masked reports whether the host hides which chip this is.
func (r *Report) masked() bool { return zero(r.ChipID) }

func (r *Report) platform() map[string]attest.Flag {
	flags := map[string]attest.Flag{}
	for _, b := range platformBits {
		switch {
		case r.PlatformInfo>>b.bit&1 == 1:
			flags[b.name] = attest.On
		case b.always != 0 && r.Version >= b.always:
			flags[b.name] = attest.Off
		}
	}
	return flags
}

func platformMask(version uint32) (mask uint64) {
	for _, b := range platformBits {
		if version >= b.since {
			mask |= 1 << b.bit
		}
	}
	return mask
}

// scalar decodes one half of a signature: 72 bytes, little endian, of which P-384 uses the low 48 (56860 table 137).
func scalar(raw []byte) (*big.Int, error) {
	if !zero(raw[48:]) {
		return nil, reserved("high bytes of the signature")
	}
	be := slices.Clone(raw[:48])
	slices.Reverse(be)
	return new(big.Int).SetBytes(be), nil
}

func zero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
