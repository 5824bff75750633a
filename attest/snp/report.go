package snp

import (
	"encoding/binary"
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

	current, committed uint64 // major, minor and build of the firmware, a byte each
	signer             signer
	generation         *generation // nil in version 2
	signed             []byte
	r, s               *big.Int
}

// firstMitVersion is the first version of the report with mitigation vectors.
const firstMitVersion = 5

// Policy is the guest policy that the firmware enforces (56860 table 9). Its low two bytes are the least version of the
// firmware's interface that the guest accepts.
type Policy uint64

const (
	policyReservedOne Policy = 1 << 17
	policyMigrate     Policy = 1 << 18
	policyDebug       Policy = 1 << 19
	policyV2          Policy = 1<<25 - 1 // bits that are defined up to version 3
	policyV5          Policy = 1<<26 - 1 // and from version 5: PAGE_SWAP_DISABLE
)

// policyBits are the bits of the guest policy that become claims beside debugging and migration.
var policyBits = []struct {
	bit  uint
	name string
}{
	{16, "allows_smt"},
	{20, "requires_single_socket"},
	{21, "allows_cxl"},
	{22, "requires_aes_256_xts"},
	{23, "requires_rapl_off"},
	{24, "requires_ciphertext_hiding"},
	{25, "page_swap_off"},
}

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
		return nil, attest.Refuse(attest.CodeMalformed, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("%d bytes", ReportSize))
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
		current:         uint64(u32(0x1e8)),
		committed:       uint64(u32(0x1ec)),
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
	case firstMitVersion:
		policy = policyV5
		r.LaunchMit, r.CurrentMit = u64(0x1f8), u64(0x200)
	default:
		return nil, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("version %d", r.Version), "version 2, 3 or 5")
	}
	for i := 0; i < len(unused); i += 2 {
		if !attest.AllZero(raw[unused[i]:unused[i+1]]) {
			return nil, reserved(fmt.Sprintf("reserved bytes %#x to %#x", unused[i], unused[i+1]-1))
		}
	}
	if r.Policy&^policy != 0 || r.Policy&policyReservedOne == 0 {
		return nil, attest.Refuse(attest.CodeReservedBits, checkFormat, fmt.Sprintf("policy %#x", uint64(r.Policy)), "bit 17 set and no undefined bit")
	}
	if undefined := r.PlatformInfo &^ platformMask(r.Version); undefined != 0 {
		return nil, reserved(fmt.Sprintf("platform bits %#x of version %d", undefined, r.Version))
	}
	if err := r.parseKeys(u32(0x048)); err != nil {
		return nil, err
	}
	// 0xFFFFFFFF is a report that the host asked for: no guest chose its report data.
	if r.VMPL > 3 {
		return nil, attest.Refuse(attest.CodeMalformed, checkFormat, fmt.Sprintf("VMPL %#x", r.VMPL), "0 to 3")
	}
	if r.Version >= 3 {
		r.Family, r.Model, r.Stepping = raw[0x188], raw[0x189], raw[0x18a]
		var err error
		if r.Product, r.generation, err = processor(r.Family, r.Model); err != nil {
			return nil, err
		}
		if _, err := r.levels(r.generation); err != nil {
			return nil, err
		}
	}
	if algorithm := u32(0x034); algorithm != 1 {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkSignature, fmt.Sprint(algorithm), "1, ECDSA P-384 with SHA-384")
	}
	r.Current, r.Committed = firmwareVersion(r.current), firmwareVersion(r.committed)
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
		return attest.Refuse(attest.CodeSignerMismatch, checkSigner, fmt.Sprintf("signing key %d", r.signer), "0 (VCEK) or 1 (VLEK)")
	}
	r.SigningKey = r.signer.String()
	if r.AuthorKey == attest.AllZero(r.AuthorKeyDigest) {
		return attest.Refuse(attest.CodeMalformed, checkFormat, fmt.Sprintf("AUTHOR_KEY_EN %v with author key digest %s", r.AuthorKey, attest.Abbreviate(r.AuthorKeyDigest)), "a digest exactly where the flag is set")
	}
	return nil
}

// levels decodes what only a known generation determines: the four TCB levels, and the length of the chip's identifier.
func (r *Report) levels(g *generation) (l levels, err error) {
	for _, one := range []struct {
		out *tcb
		raw TCBVersion
	}{{&l.current, r.CurrentTCB}, {&l.reported, r.ReportedTCB}, {&l.committed, r.CommittedTCB}, {&l.launch, r.LaunchTCB}} {
		if *one.out, err = g.tcb(one.raw); err != nil {
			return levels{}, err
		}
	}
	if !attest.AllZero(r.ChipID[g.hwid:]) {
		return levels{}, reserved(fmt.Sprintf("chip id longer than the %d bytes of %s", g.hwid, g.line))
	}
	return l, nil
}

// masked reports whether the host hides which chip this is.
func (r *Report) masked() bool { return attest.AllZero(r.ChipID) }

// platform lists the bits that the firmware vouches for: of the machine, of the guest's policy, and of its keys.
func (r *Report) platform() map[string]attest.Flag {
	flags := map[string]attest.Flag{"author_key": attest.FlagOf(r.AuthorKey), "mask_chip_key": attest.FlagOf(r.MaskChipKey)}
	for _, b := range policyBits {
		flags[b.name] = attest.FlagOf(r.Policy>>b.bit&1 == 1)
	}
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

// measured lists the digests and identifiers that are not zero. The launch digest is there always.
func (r *Report) measured() map[string]attest.HexBytes {
	all := map[string]attest.HexBytes{"launch": r.Measurement}
	for _, m := range []struct {
		name  string
		value attest.HexBytes
	}{
		{"host_data", r.HostData},
		{"id_key_digest", r.IDKeyDigest},
		{"author_key_digest", r.AuthorKeyDigest},
		{"family_id", r.FamilyID},
		{"image_id", r.ImageID},
		{"report_id", r.ReportID},
		{"report_id_ma", r.ReportIDMA}, // of the migration agent; all ones where there is none
	} {
		if !attest.AllZero(m.value) && !ones(m.value) {
			all[m.name] = m.value
		}
	}
	return all
}

// numbers lists the other levels beside the reported one, by component ("launch_tcb.snp"), the versions of the firmware
// (major, minor and build as three bytes), the least version of its interface that the guest's policy accepts (major and
// minor as two bytes), the guest's own version, and the mitigation vectors, which are bit sets.
func (r *Report) numbers(l levels) map[string]uint64 {
	all := map[string]uint64{
		"guest_svn":          uint64(r.GuestSVN),
		"policy_abi":         uint64(r.Policy & 0xffff),
		"current_firmware":   r.current,
		"committed_firmware": r.committed,
	}
	if r.Version >= firstMitVersion {
		all["launch_mit_vector"], all["current_mit_vector"] = r.LaunchMit, r.CurrentMit
	}
	for prefix, level := range map[string]tcb{"current_tcb.": l.current, "committed_tcb.": l.committed, "launch_tcb.": l.launch} {
		for _, c := range level.components() {
			all[prefix+c.name] = uint64(c.value)
		}
	}
	return all
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
	if !attest.AllZero(raw[48:]) {
		return nil, reserved("high bytes of the signature")
	}
	be := slices.Clone(raw[:48])
	slices.Reverse(be)
	return new(big.Int).SetBytes(be), nil
}

// firmwareVersion writes a version of the firmware as AMD does.
func firmwareVersion(v uint64) string { return fmt.Sprintf("%d.%d.%d", v>>16, v>>8&0xff, v&0xff) }

func ones(b []byte) bool {
	for _, v := range b {
		if v != 0xff {
			return false
		}
	}
	return true
}
