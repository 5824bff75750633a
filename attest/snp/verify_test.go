package snp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

func (e endorser) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	return e(ref)
}

func TestForgedEvidenceVerifies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		forge                         forge
		product, generation, stepping string
	}{
		"Milan, version 2":      {forge{version: 2}, "EPYC Milan", "milan", "B0"},
		"Genoa, version 2":      {forge{version: 2, line: "Genoa"}, "EPYC Genoa", "genoa", "B0"},
		"Milan, version 3":      {forge{}, "EPYC Milan", "milan", "B1"},
		"Milan, version 5":      {forge{version: 5}, "EPYC Milan", "milan", "B1"},
		"Genoa":                 {forge{family: 0x19, model: 0x11, line: "Genoa"}, "EPYC Genoa", "genoa", "B1"},
		"Siena":                 {forge{family: 0x19, model: 0xa0, line: "Genoa"}, "EPYC Bergamo/Siena", "genoa", "A1"},
		"Turin, version 3":      {forge{turin: true}, "EPYC Turin", "turin", "C1"},
		"Turin, version 5":      {forge{version: 5, turin: true}, "EPYC Turin", "turin", "C1"},
		"VLEK":                  {forge{vlek: true}, "EPYC Milan", "milan", "B1"},
		"wrapped HWID":          {leafHook(extension(der(chip(64), ""), 4)), "EPYC Milan", "milan", "B1"},
		"wrapped HWID of Turin": {leafHook(extension(der(chip(8), ""), 4)).onTurin(), "EPYC Turin", "turin", "C1"},
		"deeper extensions": {leafHook(func(c *x509.Certificate) {
			for arc := 1; arc <= 5; arc++ {
				if arc != 3 {
					extension([]byte{5, 0}, arc, 7)(c)
				}
			}
		}), "EPYC Milan", "milan", "B1"},
		"extension of another that ends alike": {leafHook(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}, Value: []byte{5, 0}})
		}), "EPYC Milan", "milan", "B1"},
		"unknown extension that is not critical": {leafHook(extension([]byte{5, 0}, 77)), "EPYC Milan", "milan", "B1"},
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			f := c.forge.make(t)
			claims, err := f.verify(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			tcb := attest.TCB{"bootloader": 3, "tee": 2, "snp": 22, "microcode": 115}
			if c.forge.turin {
				tcb["fmc"] = 5
			}
			if claims.Product != c.product || claims.Generation != c.generation || claims.Stepping != c.stepping || claims.Vendor != "amd" || claims.TEE != "snp" || claims.Simulated {
				t.Errorf("%+v", claims)
			}
			if !maps.Equal(claims.TCB, tcb) {
				t.Errorf("TCB %v, want %v", claims.TCB, tcb)
			}
			if claims.Revocation.Problem != nil || !claims.Revocation.Issued.Equal(epoch.AddDate(0, 0, -7)) || !claims.Revocation.Expires.Equal(epoch.AddDate(0, 0, 7)) {
				t.Errorf("revocation %+v", claims.Revocation)
			}
			for _, check := range claims.Checks {
				if check.Status != attest.StatusPass || check.ID == "" || check.Text == "" || check.Source == "" {
					t.Errorf("transcript line %+v", check)
				}
			}
			if len(claims.Checks) != 8 || len(claims.NotChecked) != 1 {
				t.Errorf("%d checks, %d not checked", len(claims.Checks), len(claims.NotChecked))
			}
		})
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	f := forge{version: 5, report: func(r []byte) {
		binary.LittleEndian.PutUint32(r[0x04:], 7)
		binary.LittleEndian.PutUint64(r[0x08:], 1<<26-1)
		r[0x08], r[0x09] = 55, 1
		binary.LittleEndian.PutUint64(r[0x40:], 0xff)
		r[0x30], r[0x48] = 2, 3
		for i, at := range []int{0xc0, 0xe0, 0x110, 0x10, 0x20, 0x140, 0x160} {
			r[at] = byte(i + 1)
		}
		r[0x3f], r[0x1e6], r[0x1f0] = 101, 102, 103 // one component of the other levels each
		copy(r[0x1e8:], []byte{29, 55, 1, 0, 28, 54, 2})
		r[0x1f8], r[0x207] = 8, 9
	}}.make(t)
	c, err := f.verify(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Debug != attest.On || c.Migratable != attest.On || c.Privilege == nil || *c.Privilege != 2 || c.Version != 5 {
		t.Errorf("%+v", c)
	}
	all := []string{
		"smt", "tsme", "ecc", "rapl_off", "ciphertext_hiding", "alias_check", "iommu_write_safe", "tio", "author_key", "mask_chip_key", "allows_smt",
		"requires_single_socket", "allows_cxl", "requires_aes_256_xts", "requires_rapl_off", "requires_ciphertext_hiding", "page_swap_off",
	}
	wants := map[string]attest.Flag{}
	for _, name := range all {
		wants[name] = attest.On
	}
	if !maps.Equal(c.Platform, wants) {
		t.Errorf("%v", c.Platform)
	}
	measured := []string{"launch", "host_data", "id_key_digest", "author_key_digest", "family_id", "image_id", "report_id", "report_id_ma"}
	for i, name := range measured[1:] {
		if len(c.Measured[name]) == 0 || c.Measured[name][0] != byte(i+1) {
			t.Errorf("%s: %s", name, c.Measured[name])
		}
	}
	if len(c.Measured) != len(measured) || c.Measured["launch"][0] != 'm' {
		t.Errorf("%v", c.Measured)
	}
	if c.Checks[3].ID != "authenticity.chip" || c.Checks[3].Got != "01020304…3d3e3f40" {
		t.Errorf("%+v", c.Checks[3])
	}
	numbers := map[string]uint64{
		"guest_svn": 7, "policy_abi": 0x137, "current_firmware": 0x01371d, "committed_firmware": 0x02361c, "launch_mit_vector": 8, "current_mit_vector": 9 << 56,
		"current_tcb.bootloader": 3, "current_tcb.tee": 2, "current_tcb.snp": 22, "current_tcb.microcode": 101,
		"committed_tcb.bootloader": 3, "committed_tcb.tee": 2, "committed_tcb.snp": 102, "committed_tcb.microcode": 115,
		"launch_tcb.bootloader": 103, "launch_tcb.tee": 2, "launch_tcb.snp": 22, "launch_tcb.microcode": 115,
	}
	if !maps.Equal(c.Numbers, numbers) {
		t.Errorf("%v", c.Numbers)
	}
	if !strings.HasPrefix(c.Root, "sha256:") || !slices.Equal(c.ChipID, chip(64)) || c.CSP != "" {
		t.Errorf("%+v", c)
	}
}

// TestPlainClaims: what is not there is no claim.
func TestPlainClaims(t *testing.T) {
	t.Parallel()
	plain := forge{version: 2, report: func(r []byte) {
		for at := 0x160; at < 0x180; at++ {
			r[at] = 0xff // no migration agent
		}
	}}.make(t)
	c, err := plain.verify(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Debug != attest.Off || c.Migratable != attest.Off || len(c.Measured) != 1 {
		t.Errorf("%+v", c)
	}
	want := map[string]attest.Flag{
		"smt": attest.On, "tsme": attest.Off, "author_key": attest.Off, "mask_chip_key": attest.Off, "allows_smt": attest.On, "requires_single_socket": attest.Off,
		"allows_cxl": attest.Off, "requires_aes_256_xts": attest.Off, "requires_rapl_off": attest.Off, "requires_ciphertext_hiding": attest.Off, "page_swap_off": attest.Off,
	}
	if !maps.Equal(c.Platform, want) {
		t.Errorf("%v", c.Platform)
	}
	for _, name := range []string{"launch_mit_vector", "current_mit_vector"} {
		if _, there := c.Numbers[name]; there {
			t.Errorf("%s in version 2", name)
		}
	}
	turin, err := forge{turin: true}.make(t).verify(t, nil)
	if err != nil || turin.Numbers["current_tcb.fmc"] != 5 || turin.Numbers["launch_tcb.snp"] != 22 || turin.Numbers["launch_tcb.microcode"] != 115 {
		t.Error(turin, err)
	}
	vlek, err := forge{vlek: true}.make(t).verify(t, nil)
	if err != nil || vlek.CSP != "CN=cc.example" || len(vlek.ChipID) != 0 || vlek.Checks[3].Got != vlek.CSP {
		t.Error(vlek, err)
	}
}

// TestRefusals has one case for each check: what is forged is signed afterwards, and nothing else is wrong with it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := sharedKeys()
	cases := map[string]struct {
		forge forge
		code  attest.Code
	}{
		"truncated":                    {forge{raw: func(r []byte) []byte { return r[:len(r)-1] }}, attest.CodeMalformed},
		"trailing byte":                {forge{raw: func(r []byte) []byte { return append(r, 0) }}, attest.CodeMalformed},
		"version 1":                    {reportHook(set(0, 1)), attest.CodeUnknownVersion},
		"version 4":                    {reportHook(set(0, 4)), attest.CodeUnknownVersion},
		"version 6":                    {reportHook(set(0, 6)), attest.CodeUnknownVersion},
		"version 0x10003":              {reportHook(set(2, 1)), attest.CodeUnknownVersion},
		"reserved bytes 4C":            {reportHook(set(0x4f, 1)), attest.CodeReservedBits},
		"CPUID in version 2":           {reportHook(set(0x188, 0x19)).v(2), attest.CodeReservedBits},
		"reserved bytes 18B":           {reportHook(set(0x18b, 1)), attest.CodeReservedBits},
		"reserved bytes 19F":           {reportHook(set(0x19f, 1)), attest.CodeReservedBits},
		"reserved byte 1EB":            {reportHook(set(0x1eb, 1)), attest.CodeReservedBits},
		"reserved byte 1EF":            {reportHook(set(0x1ef, 1)), attest.CodeReservedBits},
		"mitigation vector, version 2": {reportHook(set(0x1f8, 1)).v(2), attest.CodeReservedBits},
		"mitigation vector, version 3": {reportHook(set(0x207, 1)), attest.CodeReservedBits},
		"reserved bytes 208":           {reportHook(set(0x208, 1)).v(5), attest.CodeReservedBits},
		"reserved bytes 29F":           {reportHook(set(0x29f, 1)).v(5), attest.CodeReservedBits},
		"policy without bit 17":        {reportHook(set(0x0a, 0x01)), attest.CodeReservedBits},
		"policy bit 26":                {reportHook(set(0x0b, 0x04)).v(5), attest.CodeReservedBits},
		"policy bit 25, version 3":     {reportHook(set(0x0b, 0x02)), attest.CodeReservedBits},
		"policy bit 63":                {reportHook(set(0x0f, 0x80)).v(5), attest.CodeReservedBits},
		"platform bit 8":               {reportHook(set(0x41, 1)).v(5), attest.CodeReservedBits},
		"platform bit 5, version 2":    {reportHook(set(0x40, 0x20)).v(2), attest.CodeReservedBits},
		"platform bit 7, version 3":    {reportHook(set(0x40, 0x80)), attest.CodeReservedBits},
		"key flag 5":                   {reportHook(set(0x48, 0x20)), attest.CodeReservedBits},
		"author key not announced":     {reportHook(set(0x110, 1)), attest.CodeMalformed},
		"author key announced, absent": {reportHook(set(0x48, 1)), attest.CodeMalformed},
		"signed by no key":             {reportHook(set(0x48, 7<<2)), attest.CodeSignerMismatch},
		"signed by key 2":              {reportHook(set(0x48, 2<<2)), attest.CodeSignerMismatch},
		"VMPL 4":                       {reportHook(set(0x30, 4)), attest.CodeMalformed},
		"asked for by the host":        {reportHook(func(r []byte) { copy(r[0x30:], []byte{255, 255, 255, 255}) }), attest.CodeMalformed},
		"algorithm 0":                  {reportHook(set(0x34, 0)), attest.CodeUnknownAlgorithm},
		"algorithm 2":                  {reportHook(set(0x34, 2)), attest.CodeUnknownAlgorithm},
		"family of Rome":               {reportHook(set(0x188, 0x17)), attest.CodeUnknownProduct},
		"model 20h":                    {reportHook(set(0x189, 0x20)), attest.CodeUnknownProduct},
		"model 20h of family 1Ah":      {reportHook(set(0x189, 0x20)).onTurin(), attest.CodeUnknownProduct},
		"model of Venice":              {reportHook(set(0x189, 0x50)).onTurin(), attest.CodeUnknownProduct},
		"another model of Venice":      {reportHook(set(0x189, 0xa0)).onTurin(), attest.CodeUnknownProduct},
		"reserved byte of TCB":         {reportHook(set(0x182, 1)), attest.CodeReservedBits},
		"reserved byte of current TCB": {reportHook(set(0x3b, 1)), attest.CodeReservedBits},
		"reserved byte of Turin's TCB": {reportHook(set(0x1e4, 1)).onTurin(), attest.CodeReservedBits},
		"reserved byte of launch TCB":  {reportHook(set(0x1f5, 1)).onTurin(), attest.CodeReservedBits},
		"reserved byte, version 2":     {reportHook(set(0x1e3, 1)).v(2), attest.CodeReservedBits},
		"long chip id of Turin":        {reportHook(set(0x1a8, 1)).onTurin(), attest.CodeReservedBits},
		"high byte of r":               {forge{raw: func(r []byte) []byte { r[0x2a0+48] = 1; return r }}, attest.CodeReservedBits},
		"high byte of s":               {forge{raw: func(r []byte) []byte { r[0x2e8+71] = 1; return r }}, attest.CodeReservedBits},
		"bytes after the signature":    {forge{raw: func(r []byte) []byte { r[0x49f] = 1; return r }}, attest.CodeReservedBits},
		"zero signature":               {forge{raw: func(r []byte) []byte { clear(r[0x2a0:]); return r }}, attest.CodeSignature},
		"changed after signing":        {forge{raw: func(r []byte) []byte { r[0x50] ^= 1; return r }}, attest.CodeSignature},
		"signed by another key":        {func() (f forge) { f.key.report = k.otherLeaf; return }(), attest.CodeSignature},

		"another chip":                {reportHook(set(0x1a0, 99)), attest.CodeChipMismatch},
		"another chip, last byte":     {reportHook(set(0x1df, 99)), attest.CodeChipMismatch},
		"another chip of Turin":       {reportHook(set(0x1a7, 99)).onTurin(), attest.CodeChipMismatch},
		"chip id of the wrong length": {leafHook(extension(chip(8), 4)), attest.CodeChipMismatch},
		"masked chip id":              {reportHook(func(r []byte) { clear(r[0x1a0:0x1e0]) }), attest.CodeChipMismatch},
		"masked chip id, HWID of zeros": {func() forge {
			f := leafHook(extension(make([]byte, 64), 4))
			f.report = func(r []byte) { clear(r[0x1a0:0x1e0]) }
			return f
		}(), attest.CodeChipMismatch},
		"no HWID":                         {leafHook(extension(nil, 4)), attest.CodeChipMismatch},
		"HWID of 63 bytes":                {leafHook(extension(chip(63), 4)), attest.CodeMalformedEndorsement},
		"reported bootloader":             {reportHook(set(0x180, 9)), attest.CodeTCBMismatch},
		"reported TEE":                    {reportHook(set(0x181, 9)), attest.CodeTCBMismatch},
		"reported SNP":                    {reportHook(set(0x186, 9)), attest.CodeTCBMismatch},
		"reported microcode":              {reportHook(set(0x187, 9)), attest.CodeTCBMismatch},
		"reported FMC":                    {reportHook(set(0x180, 9)).onTurin(), attest.CodeTCBMismatch},
		"reported SNP of Turin":           {reportHook(set(0x183, 9)).onTurin(), attest.CodeTCBMismatch},
		"no microcode in the certificate": {leafHook(extension(nil, 3, 8)), attest.CodeTCBMismatch},
		"no FMC in the certificate":       {leafHook(extension(nil, 3, 9)).onTurin(), attest.CodeTCBMismatch},
		"no FMC in the certificate, zero reported": {func() forge {
			f := leafHook(extension(nil, 3, 9)).onTurin()
			f.report = set(0x180, 0)
			return f
		}(), attest.CodeTCBMismatch},
		"reserved component":             {leafHook(extension(der(1, ""), 3, 4)), attest.CodeTCBMismatch},
		"FMC on Milan":                   {leafHook(extension(der(1, ""), 3, 9)), attest.CodeTCBMismatch},
		"component 0":                    {leafHook(extension(der(0, ""), 3, 0)), attest.CodeMalformedEndorsement},
		"component of a component":       {leafHook(extension(der(0, ""), 3, 1, 9)), attest.CodeMalformedEndorsement},
		"no component named":             {leafHook(extension(der(0, ""), 3)), attest.CodeMalformedEndorsement},
		"negative component":             {leafHook(extension(der(-1, ""), 3, 8)), attest.CodeMalformedEndorsement},
		"unknown component":              {leafHook(extension(der(0, ""), 3, 10)), attest.CodeMalformedEndorsement},
		"component out of range":         {leafHook(extension(der(256, ""), 3, 8)), attest.CodeMalformedEndorsement},
		"component that is no INTEGER":   {leafHook(extension([]byte{4, 1, 115}, 3, 8)), attest.CodeMalformedEndorsement},
		"trailing byte in a component":   {leafHook(extension([]byte{2, 1, 115, 0}, 3, 8)), attest.CodeMalformedEndorsement},
		"product of another generation":  {leafHook(extension(der("Genoa-B1", "ia5"), 2)), attest.CodeProductMismatch},
		"unknown product name":           {leafHook(extension(der("Venice-A0", "ia5"), 2)), attest.CodeUnknownProduct},
		"product name as a prefix":       {leafHook(extension(der("MilanX-B0", "ia5"), 2)), attest.CodeUnknownProduct},
		"no product name":                {leafHook(extension(nil, 2)), attest.CodeUnknownProduct},
		"product name that is no text":   {leafHook(extension([]byte{0x16, 1, 7}, 2)), attest.CodeMalformedEndorsement},
		"product name of DEL":            {leafHook(extension([]byte{0x16, 1, 0x7f}, 2)), attest.CodeMalformedEndorsement},
		"empty product name":             {leafHook(extension([]byte{0x16, 0}, 2)), attest.CodeMalformedEndorsement},
		"long product name":              {leafHook(extension(der(strings.Repeat("M", 256), "ia5"), 2)), attest.CodeMalformedEndorsement},
		"bytes after the product name":   {leafHook(extension(append(der("Milan-B0", "ia5"), 0), 2)), attest.CodeMalformedEndorsement},
		"HWID in another type":           {leafHook(extension(append([]byte{3, 64}, chip(64)...), 4)), attest.CodeMalformedEndorsement},
		"HWID of another length":         {leafHook(extension(append([]byte{4, 63}, chip(64)...), 4)), attest.CodeMalformedEndorsement},
		"short HWID in another type":     {leafHook(extension(append([]byte{3, 8}, chip(8)...), 4)).onTurin(), attest.CodeMalformedEndorsement},
		"structVersion 1 on Milan":       {leafHook(extension(der(1, ""), 1)), attest.CodeProductMismatch},
		"structVersion 0 on Turin":       {leafHook(extension(der(0, ""), 1)).onTurin(), attest.CodeProductMismatch},
		"no structVersion":               {leafHook(extension(nil, 1)), attest.CodeProductMismatch},
		"Turin in version 2":             {reportHook(func(r []byte) { r[0] = 2; clear(r[0x188:0x18b]) }).onTurin(), attest.CodeProductMismatch},
		"FMS of Genoa, chain of Milan":   {reportHook(set(0x189, 0x11)), attest.CodeProductMismatch},
		"issuer of another generation":   {askHook(func(c *x509.Certificate) { c.Subject = name("SEV-Genoa") }), attest.CodeProductMismatch},
		"VCEK issued by the ASVK":        {askHook(func(c *x509.Certificate) { c.Subject = name("SEV-VLEK-Milan") }), attest.CodeProductMismatch},
		"VLEK issued by the ASK":         {askHook(func(c *x509.Certificate) { c.Subject = name("SEV-Milan") }).asVLEK(), attest.CodeProductMismatch},
		"leaf of another name":           {leafHook(func(c *x509.Certificate) { c.Subject = name("SEV-VCEK2") }), attest.CodeEndorsementMissing},
		"VLEK for a VCEK":                {leafHook(func(c *x509.Certificate) { c.Subject = name("SEV-VLEK") }), attest.CodeSignerMismatch},
		"VCEK for a VLEK":                {leafHook(func(c *x509.Certificate) { c.Subject = name("SEV-VCEK") }).asVLEK(), attest.CodeSignerMismatch},
		"VCEK with a cloud provider":     {leafHook(extension(der("CN=x", "ia5"), 5)), attest.CodeSignerMismatch},
		"VLEK with a chip":               {leafHook(extension(chip(64), 4)).asVLEK(), attest.CodeSignerMismatch},
		"VLEK without cloud provider":    {leafHook(extension(nil, 5)).asVLEK(), attest.CodeSignerMismatch},
		"VLEK for another TCB":           {reportHook(set(0x187, 9)).asVLEK(), attest.CodeTCBMismatch},
		"key on another curve":           {func() (f forge) { f.key.leafPublic = &p256.PublicKey; return }(), attest.CodeUnknownAlgorithm},
		"RSA key in the leaf":            {func() (f forge) { f.key.leafPublic = &k.other.PublicKey; return }(), attest.CodeUnknownAlgorithm},
		"leaf that is an authority":      {leafHook(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), attest.CodeChain},
		"critical extension in the leaf": {leafHook(criticalExtension), attest.CodeCriticalExtension},
		"repeated extension": {leafHook(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, c.ExtraExtensions[0])
		}), attest.CodeMalformedEndorsement},
		"leaf expired":            {leafHook(func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }), attest.CodeChainExpired},
		"leaf not yet valid":      {leafHook(func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Second) }), attest.CodeChainExpired},
		"leaf signed by another":  {func() (f forge) { f.key.leaf = k.other; return }(), attest.CodeChain},
		"leaf signed with SHA256": {leafHook(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }), attest.CodeChain},
		"leaf signed with PKCS 1": {leafHook(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA384WithRSA }), attest.CodeChain},

		"ASK that is no authority":      {askHook(func(c *x509.Certificate) { c.IsCA = false }), attest.CodeChain},
		"ASK that may not sign":         {askHook(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), attest.CodeChain},
		"ASK expired":                   {askHook(func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }), attest.CodeChainExpired},
		"ASK not yet valid":             {askHook(func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Second) }), attest.CodeChainExpired},
		"ASK with a critical extension": {askHook(criticalExtension), attest.CodeCriticalExtension},
		"ASK signed with SHA256":        {askHook(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }), attest.CodeChain},
		"ASK signed by another":         {func() (f forge) { f.key.ask = k.other; return }(), attest.CodeChain},
		"ASK with a short key":          {func() (f forge) { f.key.askOwn = k.short; return }(), attest.CodeUnknownAlgorithm},
		"ARK expired": {func() (f forge) {
			f.cert.ark = func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }
			return
		}(), attest.CodeChainExpired},
		"ASK with an elliptic key":        {forge{staple: replaceASK(t, func(c *x509.Certificate) { c.PublicKey = &k.leaf.PublicKey })}, attest.CodeUnknownAlgorithm},
		"ASK of another name than issuer": {forge{staple: replaceASK(t, func(c *x509.Certificate) { c.Subject.Organization = []string{"Other"} })}, attest.CodeChain},
		"issuer of the ASK is not ours":   {forge{staple: foreignIssuer(t)}, attest.CodeChain},

		"endorsement of unknown kind": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, attest.Endorsement{Kind: "note", Raw: []byte("x")})
		}}, attest.CodeMalformedEndorsement},
		"endorsement that is junk": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, attest.Endorsement{Kind: attest.KindCertificate, Raw: []byte("x")})
		}}, attest.CodeMalformedEndorsement},
		"bytes after the leaf": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			e[0].Raw = append(slices.Clone(e[0].Raw), 0)
			return e
		}}, attest.CodeMalformedEndorsement},
		"bytes after the list": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			e[2].Raw = append(slices.Clone(e[2].Raw), 0)
			return e
		}}, attest.CodeMalformedEndorsement},
		"too many endorsements": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			return slices.Repeat(e, 6)
		}}, attest.CodeOversized},
		"two ASKs":             {forge{staple: secondASK(t)}, attest.CodeChain},
		"foreign certificate":  {forge{staple: addCertificate(t, "example.com")}, attest.CodeChain},
		"foreign root stapled": {forge{staple: addCertificate(t, "ARK-Milan")}, attest.CodeUntrustedRoot},
		"no leaf": {
			forge{staple: func(e []attest.Endorsement) []attest.Endorsement { return e[1:] }},
			attest.CodeEndorsementMissing,
		},
		"no VLEK": {
			forge{staple: func(e []attest.Endorsement) []attest.Endorsement { return e[1:] }}.asVLEK(),
			attest.CodeEndorsementMissing,
		},
		"no ASK": {
			forge{staple: func(e []attest.Endorsement) []attest.Endorsement { return e[:1] }},
			attest.CodeEndorsementMissing,
		},

		"revoked ASK":           {forge{crl: revokes(2)}, attest.CodeRevoked},
		"revoked ARK":           {forge{crl: revokes(1)}, attest.CodeRevoked},
		"revoked ASVK":          {forge{crl: revokes(2)}.asVLEK(), attest.CodeRevoked},
		"revoked leaf":          {forge{crl: revokesLeaf("SEV-Milan")}, attest.CodeRevoked},
		"list by another key":   {func() (f forge) { f.key.crl = k.other; return }(), attest.CodeChain},
		"list with PKCS 1":      {forge{crl: func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.SHA384WithRSA }}, attest.CodeChain},
		"list for some reasons": {forge{crl: issuingPoint(asn1.RawValue{Class: 2, Tag: 3, Bytes: []byte{0, 0x80}})}, attest.CodeMalformedEndorsement},
		"list for users only":   {forge{crl: issuingPoint(asn1.RawValue{Class: 2, Tag: 1, Bytes: []byte{255}})}, attest.CodeMalformedEndorsement},
		"critical extension in the list": {forge{crl: func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}}, attest.CodeMalformedEndorsement},
		"critical extension in an entry": {forge{crl: func(l *x509.RevocationList) {
			revokes(50)(l)
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}}, attest.CodeMalformedEndorsement},
		"list for attributes only":                     {forge{crl: issuingPoint(asn1.RawValue{Class: 2, Tag: 5, Bytes: []byte{255}})}, attest.CodeMalformedEndorsement},
		"another critical extension that reads as one": {forge{crl: listExtension([]byte{0x30, 0}, 1, 2, 3)}, attest.CodeMalformedEndorsement},
		"issuing point that is junk":                   {forge{crl: listExtension([]byte{4, 1, 0}, 2, 5, 29, 28)}, attest.CodeMalformedEndorsement},
		"bytes after the issuing point":                {forge{crl: listExtension([]byte{0x30, 0, 0}, 2, 5, 29, 28)}, attest.CodeMalformedEndorsement},
		"entry's issuer that is junk":                  {forge{crl: entryIssuer([]byte{4, 1, 0})}, attest.CodeMalformedEndorsement},
		"bytes after the entry's issuer":               {forge{crl: entryIssuer(append(generalNames(directoryName), 0))}, attest.CodeMalformedEndorsement},
		"entry without issuer":                         {forge{crl: entryIssuer(generalNames())}, attest.CodeMalformedEndorsement},
		"entry with two issuers":                       {forge{crl: entryIssuer(generalNames(directoryName, directoryName))}, attest.CodeMalformedEndorsement},
		"entry with an issuer's host":                  {forge{crl: entryIssuer(generalNames(asn1.RawValue{Class: 2, Tag: 2, Bytes: []byte("a")}))}, attest.CodeMalformedEndorsement},
		"entry with an issuer's OCTETS":                {forge{crl: entryIssuer(generalNames(asn1.RawValue{Tag: 4, Bytes: []byte("a")}))}, attest.CodeMalformedEndorsement},
		"ARK not yet valid": {func() (f forge) {
			f.cert.ark = func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Second) }
			return
		}(), attest.CodeChainExpired},
		"VLEK expired": {leafHook(func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }).asVLEK(), attest.CodeChainExpired},
		"ASVK expired": {askHook(func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }).asVLEK(), attest.CodeChainExpired},
		"chain of another": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			return append(e[:1:1], forge{turin: true}.make(t).evidence.Endorsements[1:]...)
		}}, attest.CodeEndorsementMissing},
		"revoked by an outdated list": {forge{crl: func(l *x509.RevocationList) {
			revokes(2)(l)
			l.ThisUpdate, l.NextUpdate = epoch.AddDate(-1, 0, 0), epoch.AddDate(0, 0, -1)
		}}, attest.CodeRevoked},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			claims, err := c.forge.make(t).verify(t, attest.NoEndorser{})
			if bad := wants(err, c.code); bad != nil || claims != nil {
				t.Error(bad)
			}
		})
	}
}

func revokes(serial int64) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: epoch.AddDate(0, 0, -8)})
	}
}

// revokesLeaf makes an indirect list: the entry speaks of a certificate of another issuer.
func revokesLeaf(issuer string) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		revokes(0)(l)
		directory := der(asn1.RawValue{Class: 2, Tag: 4, IsCompound: true, Bytes: der(name(issuer).ToRDNSequence(), "")}, "")
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{
			Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: directory}, ""),
		}}
		issuingPoint(asn1.RawValue{Class: 2, Tag: 4, Bytes: []byte{255}})(l)
	}
}

// directoryName is the name of an ASK as a GeneralName.
var directoryName = asn1.RawValue{Class: 2, Tag: 4, IsCompound: true, Bytes: der(name("SEV-Milan").ToRDNSequence(), "")}

func generalNames(names ...asn1.RawValue) []byte {
	var all []byte
	for _, n := range names {
		all = append(all, der(n, "")...)
	}
	return der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: all}, "")
}

// entryIssuer makes a list with an entry about nobody that names its issuer like this.
func entryIssuer(value []byte) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		revokes(50)(l)
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: value}}
	}
}

func listExtension(value []byte, id ...int) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: id, Critical: true, Value: value})
	}
}

func issuingPoint(field asn1.RawValue) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: der(field, "")}, ""),
		})
	}
}

// addCertificate staples one more, self-signed, certificate.
func addCertificate(t *testing.T, cn string) func([]attest.Endorsement) []attest.Endorsement {
	t.Helper()
	k := sharedKeys()
	template := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: name(cn), NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.AddDate(1, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &k.otherLeaf.PublicKey, k.otherLeaf)
	if err != nil {
		t.Fatal(err)
	}
	return func(e []attest.Endorsement) []attest.Endorsement {
		return append(e, attest.Endorsement{Kind: attest.KindCertificate, Raw: raw})
	}
}

// secondASK staples another ASK that would do as well.
func secondASK(t *testing.T) func([]attest.Endorsement) []attest.Endorsement {
	t.Helper()
	replace := replaceASK(t, func(*x509.Certificate) {})
	return func(e []attest.Endorsement) []attest.Endorsement {
		return append(slices.Clone(e), replace(slices.Clone(e))[1])
	}
}

// replaceASK staples another ASK with the ASK's key, signed by the ARK's key under the ARK's name.
func replaceASK(t *testing.T, hook func(*x509.Certificate)) func([]attest.Endorsement) []attest.Endorsement {
	t.Helper()
	k := sharedKeys()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: name("SEV-Milan"), NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	template.PublicKey = &k.ask.PublicKey
	hook(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: name("ARK-Milan")}, template.PublicKey, k.ark)
	if err != nil {
		t.Fatal(err)
	}
	return func(e []attest.Endorsement) []attest.Endorsement {
		e[1].Raw = raw
		return e
	}
}

// foreignIssuer staples an ASK that the ARK's key signed, but under another issuer's name.
func foreignIssuer(t *testing.T) func([]attest.Endorsement) []attest.Endorsement {
	t.Helper()
	k := sharedKeys()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: name("SEV-Milan"), NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: name("ARK-Other")}, &k.ask.PublicKey, k.ark)
	if err != nil {
		t.Fatal(err)
	}
	return func(e []attest.Endorsement) []attest.Endorsement {
		e[1].Raw = raw
		return e
	}
}

// TestRevocationIsAClaim: a list that is missing or stale leaves the decision to the policy.
func TestRevocationIsAClaim(t *testing.T) {
	t.Parallel()
	good := forge{}.make(t)
	noList := func(e []attest.Endorsement) []attest.Endorsement { return e[:2] }
	stale := forge{crl: func(l *x509.RevocationList) { l.NextUpdate = epoch.Add(-time.Second) }}
	early := forge{crl: func(l *x509.RevocationList) { l.ThisUpdate = epoch.Add(time.Second) }}
	none := forge{staple: noList}
	gives := func(list ...attest.Endorsement) endorser {
		return func(ref attest.Ref) ([]attest.Endorsement, error) {
			if ref != (attest.Ref{Service: snp.KDSService, Path: "/vcek/v1/Milan/crl", Kind: attest.KindCRL}) {
				return nil, errors.New("asked for " + ref.Path)
			}
			return list, nil
		}
	}
	crl := func(raw []byte) attest.Endorsement { return attest.Endorsement{Kind: attest.KindCRL, Raw: raw} }
	var byOther forge
	byOther.key.crl = sharedKeys().other
	down := endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, errors.New("no route") })
	for name, c := range map[string]struct {
		forge    forge
		endorser attest.Endorser
		problem  attest.Code
		refusal  attest.Code
	}{
		"stapled":                       {forge{}, attest.NoEndorser{}, "", ""},
		"stapled, nobody is asked":      {forge{}, endorser(func(attest.Ref) ([]attest.Endorsement, error) { panic("asked") }), "", ""},
		"none":                          {none, attest.NoEndorser{}, attest.CodeEndorsementMissing, ""},
		"unreachable":                   {none, down, attest.CodeEndorserUnreachable, ""},
		"stale":                         {stale, attest.NoEndorser{}, attest.CodeEndorsementExpired, ""},
		"not yet valid":                 {early, attest.NoEndorser{}, attest.CodeEndorsementExpired, ""},
		"stale, unreachable":            {stale, down, attest.CodeEndorsementExpired, ""},
		"fetched":                       {none, gives(crl(good.crl)), "", ""},
		"stale, then fetched":           {stale, gives(crl(good.crl)), "", ""},
		"fetched stale":                 {none, gives(crl(stale.make(t).crl)), attest.CodeEndorsementExpired, ""},
		"fetched revoked":               {none, gives(crl(forge{crl: revokes(2)}.make(t).crl)), "", attest.CodeRevoked},
		"stale, fetched revoked":        {stale, gives(crl(forge{crl: revokes(2)}.make(t).crl)), "", attest.CodeRevoked},
		"fetched junk":                  {none, gives(crl([]byte("junk"))), attest.CodeEndorsementMissing, ""},
		"fetched, signed by another":    {none, gives(crl(byOther.make(t).crl)), attest.CodeEndorsementMissing, ""},
		"fetched nothing":               {none, gives(), attest.CodeEndorsementMissing, ""},
		"fetched of another generation": {none, gives(crl(forge{family: 0x19, model: 0x11, line: "Genoa"}.make(t).crl)), attest.CodeEndorsementMissing, ""},
		"same number, other issuer":     {forge{crl: revokesLeaf("SEV-Genoa")}, attest.NoEndorser{}, "", ""},
		"leaf's number, ARK's list":     {forge{crl: revokes(0)}, attest.NoEndorser{}, "", ""},
		"another certificate":           {forge{crl: revokes(77)}, attest.NoEndorser{}, "", ""},
		"complete by its own word":      {forge{crl: issuingPoint(asn1.RawValue{Class: 2, Tag: 4, Bytes: []byte{255}})}, attest.NoEndorser{}, "", ""},
		"other facts in an entry": {forge{crl: func(l *x509.RevocationList) {
			revokes(77)(l)
			l.RevokedCertificateEntries[0].ReasonCode = 1
		}}, attest.NoEndorser{}, "", ""},
		"good, then latest": {forge{crl: func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = epoch.AddDate(-1, 0, 0), epoch.Add(-time.Second)
		}, staple: func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, crl(good.crl))
		}}, attest.NoEndorser{}, "", ""},
		"at its first moment": {forge{crl: func(l *x509.RevocationList) { l.ThisUpdate = epoch }}, attest.NoEndorser{}, "", ""},
		"at its last moment":  {forge{crl: func(l *x509.RevocationList) { l.NextUpdate = epoch }}, attest.NoEndorser{}, "", ""},
		"latest of two": {forge{staple: func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, crl(stale.make(t).crl))
		}}, attest.NoEndorser{}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			claims, err := c.forge.make(t).verify(t, c.endorser)
			if bad := wants(err, c.refusal); bad != nil {
				t.Fatal(bad)
			}
			if c.refusal != "" {
				return
			}
			problem := attest.Code("")
			if claims.Revocation.Problem != nil {
				problem = claims.Revocation.Problem.Code
				if !problem.Undecidable() {
					t.Errorf("problem %s decides", problem)
				}
			}
			if problem != c.problem {
				t.Errorf("problem %v, want %q", claims.Revocation.Problem, c.problem)
			}
			told := slices.ContainsFunc(claims.NotChecked, func(s string) bool { return strings.HasPrefix(s, "revocation:") })
			listed := slices.ContainsFunc(claims.Checks, func(c attest.Check) bool { return c.ID == "authenticity.revocation" })
			if told != (problem != "") || listed == told {
				t.Errorf("not checked: %q, checked: %v", claims.NotChecked, listed)
			}
		})
	}
}

func TestFetchesWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		forge forge
		want  []string
	}{
		"Milan":            {forge{}, []string{"/vcek/v1/Milan/" + fmt.Sprintf("%x", chip(64)) + "?blSPL=03&teeSPL=02&snpSPL=22&ucodeSPL=115", "/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"}},
		"Turin":            {forge{turin: true}, []string{"/vcek/v1/Turin/" + fmt.Sprintf("%x", chip(8)) + "?fmcSPL=05&blSPL=03&teeSPL=02&snpSPL=22&ucodeSPL=115", "/vcek/v1/Turin/cert_chain", "/vcek/v1/Turin/crl"}},
		"Genoa, version 2": {forge{version: 2, line: "Genoa"}, []string{"/vcek/v1/Milan/" + fmt.Sprintf("%x", chip(64)) + "?blSPL=03&teeSPL=02&snpSPL=22&ucodeSPL=115", "/vcek/v1/Genoa/" + fmt.Sprintf("%x", chip(64)) + "?blSPL=03&teeSPL=02&snpSPL=22&ucodeSPL=115", "/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl"}},
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			f := c.forge.make(t)
			have := f.evidence.Endorsements
			f.evidence.Endorsements = nil
			var asked []string
			answer := endorser(func(ref attest.Ref) ([]attest.Endorsement, error) {
				asked = append(asked, ref.Path)
				switch {
				case !strings.Contains(ref.Path, c.forge.productLine()):
					return nil, &attest.Error{Code: attest.CodeEndorsementMissing}
				case strings.HasSuffix(ref.Path, "/crl"):
					return have[2:3], nil
				case strings.HasSuffix(ref.Path, "/cert_chain"):
					return []attest.Endorsement{have[1], {Kind: attest.KindCertificate, Raw: f.ark}}, nil
				}
				return have[:1], nil
			})
			if _, err := f.verify(t, answer); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(asked, c.want) {
				t.Errorf("asked for %q, want %q", asked, c.want)
			}
			full, err := snp.Staple(t.Context(), f.evidence, answer)
			if err != nil || len(full.Endorsements) != 3 || len(f.evidence.Endorsements) != 0 {
				t.Fatalf("stapled %d, %v", len(full.Endorsements), err)
			}
			f.evidence = full
			if c, err := f.verify(t, attest.NoEndorser{}); err != nil || c.Revocation.Problem != nil {
				t.Fatal(err)
			}
			asked = nil
			if again, err := snp.Staple(t.Context(), full, answer); err != nil || len(again.Endorsements) != 3 || len(asked) != 0 {
				t.Fatalf("stapled again: %d, %v, asked %q", len(again.Endorsements), err, asked)
			}
		})
	}
}

func TestFetchedChainIsCheckedToo(t *testing.T) {
	t.Parallel()
	junk := endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		return []attest.Endorsement{{Kind: attest.KindCertificate, Raw: []byte("x")}}, nil
	})
	many := endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		return make([]attest.Endorsement, attest.MaxEndorsements+1), nil
	})
	down := endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, errors.New("down") })
	nothing := endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, nil })
	other := forge{report: set(0x1a0, 99)}.make(t)
	for name, c := range map[string]struct {
		endorser attest.Endorser
		code     attest.Code
	}{
		"junk":    {junk, attest.CodeMalformedEndorsement},
		"many":    {many, attest.CodeOversized},
		"down":    {down, attest.CodeEndorserUnreachable},
		"nothing": {nothing, attest.CodeEndorsementMissing},
		"two ASKs": {endorser(func(ref attest.Ref) ([]attest.Endorsement, error) {
			e := forge{report: set(0x1a0, 99), cert: struct{ ark, ask, leaf func(*x509.Certificate) }{leaf: func(c *x509.Certificate) {
				id := chip(64)
				id[0] = 99
				extension(id, 4)(c)
			}}, staple: secondASK(t)}.make(t).evidence.Endorsements
			if strings.HasSuffix(ref.Path, "cert_chain") {
				return append(e[1:2], e[3]), nil
			}
			return e[:1], nil
		}), attest.CodeChain},
		"leaf of another chip": {endorser(func(attest.Ref) ([]attest.Endorsement, error) {
			return forge{}.make(t).evidence.Endorsements[:2], nil
		}), attest.CodeChipMismatch},
	} {
		bare := other
		bare.evidence = &attest.Evidence{Format: snp.Format, Raw: other.evidence.Raw}
		if _, err := bare.verify(t, c.endorser); attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := snp.Staple(t.Context(), bare.evidence, c.endorser); err == nil {
			t.Errorf("%s: stapled", name)
		}
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	genoa := forge{family: 0x19, model: 0x11, line: "Genoa"}.make(t)
	for name, roots := range map[string]*snp.Roots{"nil": nil, "zero": {}, "another generation's": genoa.roots, "AMD's": snp.AMDRoots()} {
		f := f
		f.roots = roots
		_, err := f.verify(t, nil)
		want := attest.CodeUntrustedRoot
		if name == "AMD's" {
			want = attest.CodeChain
		}
		if bad := wants(err, want); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	f.evidence.Endorsements = append(f.evidence.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: f.ark})
	if _, err := f.verify(t, nil); err != nil {
		t.Errorf("with its own root stapled: %v", err)
	}
	f.roots = snp.AMDRoots()
	if _, err := f.verify(t, nil); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Errorf("foreign root: %v", err)
	}
	ark := func(hook func(*x509.Certificate)) []byte {
		var f forge
		f.cert.ark = hook
		k := sharedKeys()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: name("ARK-Milan"), NotBefore: epoch, NotAfter: epoch.AddDate(1, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		hook(template)
		raw, err := x509.CreateCertificate(rand.Reader, template, template, &k.ark.PublicKey, k.ark)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, anchors := range map[string][]snp.Root{
		"unknown generation": {{Generation: "rome", ARK: f.ark}},
		"two of a kind":      {{Generation: "milan", ARK: f.ark}, {Generation: "milan", ARK: f.ark}},
		"another's ARK":      {{Generation: "genoa", ARK: f.ark}},
		"junk":               {{Generation: "milan", ARK: []byte("x")}},
		"no ARK":             {{Generation: "milan"}},
		"junk ASK":           {{Generation: "milan", ARK: f.ark, Intermediates: [][]byte{{1}}}},
		"no authority":       {{Generation: "milan", ARK: ark(func(c *x509.Certificate) { c.IsCA = false })}},
		"signs no lists":     {{Generation: "milan", ARK: ark(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })}},
		"issued by another":  {{Generation: "milan", ARK: crossSigned(t)}},
		"an ASK":             {{Generation: "milan", ARK: f.evidence.Endorsements[1].Raw}},
	} {
		if _, err := snp.NewRoots(anchors...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// A root with its ASK needs no ASK in the evidence.
	withASK, err := snp.NewRoots(snp.Root{Generation: "milan", ARK: f.ark, Intermediates: [][]byte{f.evidence.Endorsements[1].Raw}})
	if err != nil {
		t.Fatal(err)
	}
	f.roots = withASK
	f.evidence.Endorsements = f.evidence.Endorsements[:1]
	if _, err := f.verify(t, nil); err != nil {
		t.Error(err)
	}
}

// crossSigned is an ARK that another issued.
func crossSigned(t *testing.T) []byte {
	t.Helper()
	k := sharedKeys()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: name("ARK-Milan"), NotBefore: epoch, NotAfter: epoch.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: name("ARK-Other")}, &k.ark.PublicKey, k.other)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestStaple: what is missing is added where it can be had and is what it should be. What can't be had is an error beside the
// rest.
func TestStaple(t *testing.T) {
	t.Parallel()
	good := forge{}.make(t)
	leaf, ask, list := good.evidence.Endorsements[0], good.evidence.Endorsements[1], good.evidence.Endorsements[2]
	junk := attest.Endorsement{Kind: attest.KindCertificate, Raw: []byte("junk")}
	crl := func(f forge) attest.Endorsement { return attest.Endorsement{Kind: attest.KindCRL, Raw: f.make(t).crl} }
	long := forge{crl: func(l *x509.RevocationList) {
		for i := range int64(300) {
			revokes(1000 + i)(l)
		}
	}}
	// service has what stands under the last part of a path.
	service := func(answers map[string][]attest.Endorsement) endorser {
		return func(ref attest.Ref) ([]attest.Endorsement, error) {
			for end, answer := range answers {
				if strings.HasSuffix(ref.Path, end) || end == "vcek" && strings.Contains(ref.Path, "?") {
					return answer, nil
				}
			}
			return nil, errors.New("down")
		}
	}
	all := map[string][]attest.Endorsement{"vcek": {leaf}, "/cert_chain": {ask}, "/crl": {list}}
	without := func(name string, instead ...attest.Endorsement) map[string][]attest.Endorsement {
		m := maps.Clone(all)
		delete(m, name)
		if instead != nil {
			m[name] = instead
		}
		return m
	}
	for name, c := range map[string]struct {
		have   []attest.Endorsement
		answer map[string][]attest.Endorsement
		want   int // endorsements in the end
		code   attest.Code
	}{
		"nothing stapled":     {nil, all, 3, ""},
		"all stapled":         {[]attest.Endorsement{leaf, ask, list}, nil, 3, ""},
		"junk stapled":        {[]attest.Endorsement{junk}, all, 1, attest.CodeMalformedEndorsement},
		"no leaf to be had":   {nil, without("vcek"), 0, attest.CodeEndorserUnreachable},
		"leaf of another TCB": {[]attest.Endorsement{leafHook(extension(der(9, ""), 3, 8)).make(t).evidence.Endorsements[0]}, all, 1, attest.CodeTCBMismatch},
		"no ASK to be had":    {nil, without("/cert_chain"), 2, attest.CodeEndorserUnreachable},
		"no list to be had":   {nil, without("/crl"), 2, attest.CodeEndorserUnreachable},
		"list of another":     {nil, without("/crl", crl(forge{turin: true})), 2, ""},
		"long list":           {nil, without("/crl", crl(long)), 2, ""},
		"two lists":           {nil, without("/crl", list, list), 3, ""},
		"junk for a list":     {nil, without("/crl", junk), 2, attest.CodeMalformedEndorsement},
	} {
		ev := &attest.Evidence{Format: snp.Format, Raw: good.evidence.Raw, Endorsements: c.have}
		got, err := snp.Staple(t.Context(), ev, service(c.answer))
		if attest.CodeOf(err) != c.code || len(got.Endorsements) != c.want || len(ev.Endorsements) != len(c.have) {
			t.Errorf("%s: %d stapled, %v", name, len(got.Endorsements), err)
		}
	}
	if _, err := snp.Staple(t.Context(), &attest.Evidence{Raw: []byte("x")}, service(all)); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
}

// TestMissingASK: with a leaf at hand, it is the ASK that is asked for.
func TestMissingASK(t *testing.T) {
	t.Parallel()
	f := forge{staple: func(e []attest.Endorsement) []attest.Endorsement { return e[:1] }}.make(t)
	for name, c := range map[string]struct {
		answer endorser
		code   attest.Code
	}{
		"down":    {func(attest.Ref) ([]attest.Endorsement, error) { return nil, errors.New("down") }, attest.CodeEndorserUnreachable},
		"nothing": {func(attest.Ref) ([]attest.Endorsement, error) { return nil, nil }, attest.CodeEndorsementMissing},
	} {
		if _, err := f.verify(t, c.answer); attest.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStapledLists: a list is stapled where it is AMD's for this generation, and small enough for a handshake.
func TestStapledLists(t *testing.T) {
	t.Parallel()
	long := forge{crl: func(l *x509.RevocationList) {
		for i := range int64(300) {
			revokes(1000 + i)(l)
		}
	}}
	for name, c := range map[string]struct {
		crl  []byte
		want int
	}{
		"good":       {forge{}.make(t).crl, 3},
		"too long":   {long.make(t).crl, 2},
		"of another": {forge{turin: true}.make(t).crl, 2},
		"junk":       {[]byte("junk"), 2},
		"truncated":  {forge{}.make(t).crl[:100], 2},
		"none":       {nil, 2},
	} {
		f := forge{}.make(t)
		e := f.evidence.Endorsements
		got, err := snp.StapleTable(f.evidence.Raw, e[0].Raw, e[1].Raw, c.crl)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: %d stapled, %v", name, len(got), err)
		}
	}
	if len(long.make(t).crl) <= snp.MaxStapledCRL {
		t.Error("the long list is short")
	}
}

// TestUnreachableAtFirst: of the products that a report of version 2 could be of, the first is not taken for absent when the
// service does not answer.
func TestUnreachableAtFirst(t *testing.T) {
	t.Parallel()
	f := forge{version: 2, line: "Genoa"}.make(t)
	f.evidence.Endorsements = nil
	asked := 0
	_, err := f.verify(t, endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		asked++
		return nil, errors.New("down")
	}))
	if bad := wants(err, attest.CodeEndorserUnreachable); bad != nil || asked != 1 {
		t.Error(bad, asked)
	}
}

func TestForeignFormats(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	f.evidence.Format = "tdx"
	if _, err := f.verify(t, nil); !errors.Is(err, attest.ErrNotMine) {
		t.Error(err)
	}
	f.evidence = nil
	if _, err := f.verify(t, nil); attest.CodeOf(err) != attest.CodeNoEvidence {
		t.Error(err)
	}
	f.evidence = &attest.Evidence{Format: snp.Format}
	if _, err := f.verify(t, nil); attest.CodeOf(err) != attest.CodeNoEvidence {
		t.Error(err)
	}
	if _, err := snp.NewVerifier(nil).Verify(t.Context(), forge{}.make(t).evidence, nil, epoch); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Error(err)
	}
}

// TestSeveralLeaves: of several, the one that fits is taken, whatever the order.
func TestSeveralLeaves(t *testing.T) {
	t.Parallel()
	other := leafHook(extension(der(9, ""), 3, 8)).make(t).evidence.Endorsements[0]
	for _, order := range []func(e []attest.Endorsement) []attest.Endorsement{
		func(e []attest.Endorsement) []attest.Endorsement { return append([]attest.Endorsement{other}, e...) },
		func(e []attest.Endorsement) []attest.Endorsement { return append(e, other) },
	} {
		if _, err := (forge{staple: order}).make(t).verify(t, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestRememberedSignatures: what one chain made the verifier remember excuses no other.
func TestRememberedSignatures(t *testing.T) {
	t.Parallel()
	good := forge{}.make(t)
	v := snp.NewVerifier(good.roots)
	verify := func(f forged, at time.Time) error {
		_, err := v.Verify(t.Context(), f.evidence, nil, at)
		return err
	}
	for range 2 {
		if err := verify(good, epoch); err != nil {
			t.Fatal(err)
		}
		if certificates, lists, signatures := v.Remembers(); certificates != 3 || lists != 1 || signatures != 3 {
			t.Errorf("%d certificates, %d lists, %d signatures", certificates, lists, signatures)
		}
	}
	if err := verify(good, epoch.AddDate(2, 0, 0)); attest.CodeOf(err) != attest.CodeChainExpired {
		t.Error(err)
	}
	spoilt := good
	spoilt.evidence = &attest.Evidence{Format: snp.Format, Raw: good.evidence.Raw, Endorsements: slices.Clone(good.evidence.Endorsements)}
	leaf := slices.Clone(good.evidence.Endorsements[0].Raw)
	leaf[len(leaf)-1] ^= 1 // of its signature
	spoilt.evidence.Endorsements[0].Raw = leaf
	if err := verify(spoilt, epoch); attest.CodeOf(err) != attest.CodeChain {
		t.Error(err)
	}
	revoked := good
	revoked.evidence = &attest.Evidence{Format: snp.Format, Raw: good.evidence.Raw, Endorsements: append(slices.Clone(good.evidence.Endorsements),
		attest.Endorsement{Kind: attest.KindCRL, Raw: forge{crl: revokes(2), cert: struct{ ark, ask, leaf func(*x509.Certificate) }{}}.make(t).crl})}
	if err := verify(revoked, epoch); attest.CodeOf(err) != attest.CodeRevoked {
		t.Error(err)
	}
}
