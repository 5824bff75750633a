package snp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"github.com/google/go-sev-guest/client/linuxabi"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
)

// chip derives keys as the firmware does: from its secret, from what is launched, and from the fields that are selected.
type chip struct {
	secret      string
	policy      uint64
	measurement byte
	family      byte
	image       byte
	committed   [8]byte // of the TCB
	status      uint32  // of a request for a key
	fails       [5]bool // report: system call, firmware's and host's errors; key: firmware's and host's errors
	report      func([]byte)
}

func (*chip) open() error { return nil }

func (c *chip) request(command uintptr, request, response, certs []byte) (uint32, uint32, error) {
	le := binary.LittleEndian
	switch {
	case command == commandReport && len(request) == reportRequestSize && len(response) == responseSize:
		report := firmware(request[:64])
		le.PutUint64(report[8:], c.policy)
		copy(report[0x1e0:], c.committed[:])
		if c.report != nil {
			c.report(report)
		}
		le.PutUint32(response[4:], ReportSize)
		copy(response[responseHeader:], report)
		switch {
		case c.fails[0]:
			return 0, 0, errors.New("EIO")
		case c.fails[1]:
			return 7, 0, nil
		case c.fails[2]:
			return 0, 2, nil
		}
		return 0, 0, nil
	case command == commandKey:
		// The layout is that of the library of go-sev-guest, not ours.
		var req linuxabi.SnpDerivedKeyReqABI
		var rsp linuxabi.SnpDerivedKeyRespABI
		if len(request) != int(unsafe.Sizeof(req)) || len(response) != int(unsafe.Sizeof(rsp)) || certs != nil {
			return 0, 0, errors.New("EINVAL")
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&req)), unsafe.Sizeof(req)), request)
		if c.fails[3] {
			return 7, 0, nil
		}
		if c.fails[4] {
			return 0, 2, nil
		}
		var tcb [8]byte
		le.PutUint64(tcb[:], req.TCBVersion)
		for i := range tcb {
			if req.GuestFieldSelect>>5&1 == 1 && tcb[i] > c.committed[i] {
				rsp.Status = 0x16
			}
		}
		if c.status != 0 {
			rsp.Status = c.status
		}
		if req.RootKeySelect != 0 || req.Vmpl != 0 {
			return 0, 0, errors.New("not what is expected")
		}
		if rsp.Status == 0 {
			h := sha256.New()
			h.Write([]byte(c.secret))
			field := func(bit int, value any) {
				if req.GuestFieldSelect>>bit&1 == 1 {
					_ = binary.Write(h, le, uint8(bit))
					_ = binary.Write(h, le, value)
				}
			}
			field(0, c.policy)
			field(1, c.image)
			field(2, c.family)
			field(3, c.measurement)
			field(4, req.GuestSVN)
			field(5, tcb)
			h.Sum(rsp.Data[:0])
		}
		copy(response, unsafe.Slice((*byte)(unsafe.Pointer(&rsp)), unsafe.Sizeof(rsp)))
		return 0, 0, nil
	}
	return 0, 0, errors.New("ENOTTY")
}

// of makes a seal.Source of a chip.
type of struct{ chip *chip }

func (o of) Root(hint []byte) ([]byte, []byte, error) { return derivedKey(o.chip, hint) }

func genuine() *chip {
	return &chip{secret: "this chip", policy: 1 << 17, measurement: 1, family: 1, image: 1, committed: [8]byte{3, 0, 0, 0, 0, 0, 8, 115}}
}

func TestKeyOfTheChip(t *testing.T) {
	t.Parallel()
	s, err := seal.New("snp", of{genuine()})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal("c", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*chip)
		code   attest.Code
	}{
		"the same":                   {func(*chip) {}, ""},
		"newer firmware":             {func(c *chip) { c.committed[7]++ }, ""},
		"older firmware":             {func(c *chip) { c.committed[6]-- }, attest.CodeSealForeign},
		"another measurement":        {func(c *chip) { c.measurement++ }, attest.CodeSealForeign},
		"another policy, with debug": {func(c *chip) { c.policy |= 1 << 19 }, attest.CodeSealForeign},
		"another family":             {func(c *chip) { c.family++ }, attest.CodeSealForeign},
		"another image":              {func(c *chip) { c.image++ }, attest.CodeSealForeign},
		"another chip":               {func(c *chip) { c.secret = "that chip" }, attest.CodeSealForeign},
	} {
		c2 := genuine()
		c.change(c2)
		again, err := seal.New("snp", of{c2})
		if err != nil {
			t.Fatal(err)
		}
		got, err := again.Open("c", sealed)
		if attest.CodeOf(err) != c.code || err == nil && string(got) != "plain" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestNoKeyOfTheChip(t *testing.T) {
	t.Parallel()
	tcb := genuine().committed[:]
	low := bytes.Clone(tcb)
	low[0]--
	high := bytes.Clone(tcb)
	high[0]++
	for name, c := range map[string]struct {
		change func(*chip)
		hint   []byte
		code   attest.Code
	}{
		"works":                         {nil, nil, ""},
		"of this version":               {nil, tcb, ""},
		"of an older version":           {nil, low, ""},
		"of a later version":            {nil, high, attest.CodeSealForeign},
		"a short hint":                  {nil, tcb[:7], attest.CodeSealBroken},
		"a long hint":                   {nil, append(bytes.Clone(tcb), 0), attest.CodeSealBroken},
		"an empty hint":                 {nil, []byte{}, attest.CodeSealBroken},
		"no report":                     {func(c *chip) { c.fails[0] = true }, nil, attest.CodeNoSealing},
		"a report that is none":         {func(c *chip) { c.report = func(r []byte) { r[0] = 99 } }, nil, attest.CodeNoSealing},
		"no report of the firmware":     {func(c *chip) { c.fails[1] = true }, nil, attest.CodeNoSealing},
		"no report by the host":         {func(c *chip) { c.fails[2] = true }, nil, attest.CodeNoSealing},
		"an error of the firmware":      {func(c *chip) { c.fails[3] = true }, nil, attest.CodeNoSealing},
		"an error of the host":          {func(c *chip) { c.fails[4] = true }, nil, attest.CodeNoSealing},
		"parameters are none":           {func(c *chip) { c.status = 0x16 }, nil, attest.CodeNoSealing},
		"no key for an older one":       {func(c *chip) { c.status = 0x16 }, low, attest.CodeSealForeign},
		"another status":                {func(c *chip) { c.status = 0x27 }, nil, attest.CodeNoSealing},
		"another status for a late one": {func(c *chip) { c.status = 0x27 }, low, attest.CodeNoSealing},
	} {
		c2 := genuine()
		if c.change != nil {
			c.change(c2)
		}
		root, hint, err := derivedKey(c2, c.hint)
		if attest.CodeOf(err) != c.code || err != nil && root != nil || err == nil && (len(root) != 32 || c.hint != nil && !bytes.Equal(hint, c.hint) || c.hint == nil && !bytes.Equal(hint, tcb)) {
			t.Errorf("%s: %x, %x, %v", name, root, hint, err)
		}
	}
	if root, _, err := derivedKey(shortReport{genuine()}, nil); attest.CodeOf(err) != attest.CodeNoSealing || root != nil {
		t.Error(err)
	}
}

// shortReport says that its reports are shorter than they are.
type shortReport struct{ *chip }

func (s shortReport) request(command uintptr, request, response, certs []byte) (uint32, uint32, error) {
	firmware, vmm, err := s.chip.request(command, request, response, certs)
	if command == commandReport {
		response[4]--
	}
	return firmware, vmm, err
}
