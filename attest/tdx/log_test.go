package tdx_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

// event is one entry of a CCEL: its register and the byte that its digest is filled with.
type event struct {
	index uint32
	fill  byte
}

const sha384 = 0x0c

// ccel writes a log with digests of one algorithm.
func ccel(algorithm uint16, events ...event) []byte {
	le := binary.LittleEndian
	data := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0)
	data = append(le.AppendUint16(le.AppendUint16(data, algorithm), 48), 0)
	raw := le.AppendUint32(le.AppendUint32(nil, 1), 3)
	raw = append(le.AppendUint32(append(raw, make([]byte, 20)...), uint32(len(data))), data...)
	for _, e := range events {
		raw = le.AppendUint32(le.AppendUint32(le.AppendUint32(raw, e.index), 4), 1)
		raw = append(le.AppendUint16(raw, algorithm), bytes.Repeat([]byte{e.fill}, 48)...)
		raw = append(le.AppendUint32(raw, 4), "data"...)
	}
	return raw
}

// extended gives registers as the events leave them; those that are not named are zero.
func extended(events ...event) func([]byte) {
	return func(body []byte) {
		clear(body[328:520])
		for _, e := range events {
			register := body[328+48*(e.index-1):][:48]
			sum := sha512.Sum384(append(bytes.Clone(register), bytes.Repeat([]byte{e.fill}, 48)...))
			copy(register, sum[:])
		}
	}
}

func TestEventLog(t *testing.T) {
	t.Parallel()
	good := []event{{1, 1}, {2, 2}, {1, 3}, {3, 4}, {4, 5}}
	own := append(good[:4:4], event{4, 9})
	for name, c := range map[string]struct {
		log    []byte
		signed []event
		code   attest.Code
		left   string // not checked
	}{
		"all registers":                  {ccel(sha384, good...), good, "", ""},
		"with its filling":               {append(ccel(sha384, good...), make([]byte, 512)...), good, "", ""},
		"RTMR3 never extended":           {ccel(sha384, good[:4]...), good[:4], "", ""},
		"RTMR3 extended by the guest":    {ccel(sha384, good[:4]...), own, "", "rtmr3"},
		"RTMR3 not as the log says":      {ccel(sha384, good...), own, attest.CodeEventLog, ""},
		"RTMR1 and RTMR2 never extended": {ccel(sha384, good[0], good[2]), []event{good[0], good[2]}, "", ""},
		"an event too few":               {ccel(sha384, good[1:]...), good, attest.CodeEventLog, ""},
		"an event too many":              {ccel(sha384, append(good, event{2, 7})...), good, attest.CodeEventLog, ""},
		"events in another order":        {ccel(sha384, good[2], good[1], good[0], good[3], good[4]), good, attest.CodeEventLog, ""},
		"RTMR0 extended unlogged":        {ccel(sha384, good[1], good[3]), good[:4], attest.CodeEventLog, ""},
		"RTMR1 extended unlogged":        {ccel(sha384, good[0], good[2], good[3]), good[:4], attest.CodeEventLog, ""},
		"RTMR2 extended unlogged":        {ccel(sha384, good[:3]...), good[:4], attest.CodeEventLog, ""},
		"log of nothing":                 {ccel(sha384), good, attest.CodeEventLog, ""},
		"log of another algorithm":       {ccel(0x99, good...), good, attest.CodeEventLog, ""},
		"event for MRTD":                 {ccel(sha384, append(good, event{0, 1})...), good, attest.CodeEventLog, ""},
		"event for register 5":           {ccel(sha384, append(good, event{5, 1})...), good, attest.CodeEventLog, ""},
		"log that ends early":            {ccel(sha384, good...)[:100], good, attest.CodeMalformed, ""},
		"log that is too large":          {make([]byte, attest.MaxEventLog+1), good, attest.CodeOversized, ""},
	} {
		m := forge{Body: extended(c.signed...)}.Make(t)
		m.Evidence.EventLog = c.log
		claims, err := verify(t, m)
		if bad := wants(err, c.code); bad != nil || (claims == nil) != (err != nil) {
			t.Errorf("%s: %v", name, bad)
			continue
		}
		if err != nil {
			continue
		}
		last := claims.Checks[len(claims.Checks)-1]
		if len(claims.Checks) != 10 || last.ID != "evidence.log" || last.Status != attest.StatusPass || last.Got == "" {
			t.Errorf("%s: %+v", name, last)
		}
		if left := strings.Join(claims.NotChecked[1:], " "); c.left == "" && left != "" || !strings.Contains(left, c.left) {
			t.Errorf("%s: not checked: %v", name, claims.NotChecked)
		}
	}
}
