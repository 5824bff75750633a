package tpm_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// event is one entry of a log to be.
type event struct {
	pcr  uint32
	kind uint32
	data []byte
}

// makeLog writes a crypto agile log in the banks given (TPM_ALG_ID), with the digests of the events' data.
func makeLog(banks []uint16, events ...event) []byte {
	le := binary.LittleEndian
	size := map[uint16]int{4: 20, 0x0b: 32, 0x0c: 48}
	head := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	head = le.AppendUint32(head, uint32(len(banks)))
	for _, b := range banks {
		head = le.AppendUint16(le.AppendUint16(head, b), uint16(size[b]))
	}
	head = append(head, 0)
	out := le.AppendUint32(le.AppendUint32(nil, 0), 3)
	out = append(out, make([]byte, 20)...)
	out = append(le.AppendUint32(out, uint32(len(head))), head...)
	for _, e := range events {
		out = le.AppendUint32(le.AppendUint32(out, e.pcr), e.kind)
		out = le.AppendUint32(out, uint32(len(banks)))
		for _, b := range banks {
			digest := make([]byte, size[b])
			if b != 4 {
				copy(digest, digestOf(b, e.data))
			}
			out = append(le.AppendUint16(out, b), digest...)
		}
		out = append(le.AppendUint32(out, uint32(len(e.data))), e.data...)
	}
	return out
}

func replay(bank uint16, events ...event) []byte {
	value := make([]byte, len(digestOf(bank, nil)))
	for _, e := range events {
		value = digestOf(bank, append(bytes.Clone(value), digestOf(bank, e.data)...))
	}
	return value
}

// signatureLists is the data of an event over "db" whose signature list has a vendor header, and says that it is larger
// than it is: readers have taken the header for hashes, and recursed without end.
var signatureLists = slices.Concat(bytes.Repeat([]byte{0x26}, 16), []byte{0xff, 0xff, 0xff, 0xff, 0x30, 0, 0, 0, 0x30, 0, 0, 0}, make([]byte, 0x30))

func TestEventLog(t *testing.T) {
	t.Parallel()
	boot, secure := event{0, 0x80000008, []byte("firmware")}, event{7, 0x80000001, signatureLists}
	separator := event{7, 4, make([]byte, 4)}
	good := []event{boot, secure, separator}
	with := func(bank uint16, log []byte, selected ...byte) forge {
		return forge{log: log, message: func(m *message) {
			m.banks[0].hash, m.banks[0].selected = bank, selected
			m.values = map[int][]byte{0: replay(bank, boot), 7: replay(bank, secure, separator)}
		}}
	}
	for name, c := range map[string]struct {
		forge forge
		code  attest.Code
		led   string
	}{
		"SHA-256":              {with(0x0b, makeLog([]uint16{4, 0x0b}, good...), 0xff, 0, 0), "", "0, 7"},
		"SHA-384":              {with(0x0c, makeLog([]uint16{0x0b, 0x0c}, good...), 0xff, 0, 0), "", "0, 7"},
		"one PCR quoted":       {with(0x0b, makeLog([]uint16{0x0b}, good...), 1, 0, 0), "", "0"},
		"none quoted":          {with(0x0b, makeLog([]uint16{0x0b}, good...), 0, 1, 0), "", ""},
		"no log":               {with(0x0b, nil, 0xff, 0, 0), "", ""},
		"an event missing":     {with(0x0b, makeLog([]uint16{0x0b}, boot, separator), 0xff, 0, 0), attest.CodeEventLog, ""},
		"an event more":        {with(0x0b, makeLog([]uint16{0x0b}, append(good, separator)...), 0xff, 0, 0), attest.CodeEventLog, ""},
		"events swapped":       {with(0x0b, makeLog([]uint16{0x0b}, boot, separator, secure), 0xff, 0, 0), attest.CodeEventLog, ""},
		"event of another PCR": {with(0x0b, makeLog([]uint16{0x0b}, append(good, event{3, 4, nil})...), 0xff, 0, 0), attest.CodeEventLog, ""},
		"another bank":         {with(0x0c, makeLog([]uint16{0x0b}, good...), 0xff, 0, 0), attest.CodeEventLog, ""},
		"SHA-1 alone":          {with(0x0b, makeLog([]uint16{4}, good...), 0xff, 0, 0), attest.CodeEventLog, ""},
		"junk":                 {with(0x0b, []byte("x"), 0xff, 0, 0), attest.CodeMalformed, ""},
		"cut off":              {with(0x0b, makeLog([]uint16{0x0b}, good...)[:100], 0xff, 0, 0), attest.CodeMalformed, ""},
	} {
		claims, err := c.forge.make(t).verify(t, nil)
		if err := wants(err, c.code); err != nil || (claims == nil) != (c.code != "") {
			t.Errorf("%s: %v", name, err)
		}
		if claims == nil {
			continue
		}
		led := ""
		for _, check := range claims.Checks {
			if check.ID == "authenticity.log" {
				led = check.Got
			}
		}
		if led != c.led {
			t.Errorf("%s: leads to %q, want %q", name, led, c.led)
		}
		if loose := strings.Contains(strings.Join(claims.NotChecked, "\n"), "event log of PCRs"); loose != strings.HasSuffix(name, "quoted") {
			t.Errorf("%s: %q", name, claims.NotChecked)
		}
	}
}

// Without values nothing can be compared, and the log stays unsaid.
func TestEventLogWithoutValues(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	q, err := tpm.ParseQuoted(f.message, f.parts(t)[tpm.PartSignature], nil)
	if err != nil {
		t.Fatal(err)
	}
	c := new(attest.Claims)
	if err := q.CheckLog(makeLog([]uint16{0x0b}, event{0, 4, nil}), c); err != nil || len(c.Checks) != 0 || len(c.NotChecked) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := q.Verify(&sharedKeys().ak.PublicKey); err != nil {
		t.Error(err)
	}
	if err := q.Verify(&sharedKeys().other.PublicKey); attest.CodeOf(err) != attest.CodeSignature {
		t.Error(err)
	}
	c = new(attest.Claims)
	if q.Claim(c); len(c.Measured) != 0 || c.ReportData != reportData || !strings.Contains(strings.Join(c.NotChecked, "\n"), "no values") || len(c.Checks) != 1 {
		t.Errorf("%+v", c)
	}
	if raw, err := json.Marshal(q); err != nil || bytes.Contains(raw, []byte(`"ak`)) || bytes.Contains(raw, []byte(`"pcrs":{`)) {
		t.Errorf("%s, %v", raw, err)
	}
}
