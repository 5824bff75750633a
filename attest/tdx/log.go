package tdx

import (
	"bytes"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/eventlog"
)

// registers are the names of RTMR0 to RTMR3.
var registers = [4]string{"rtmr0", "rtmr1", "rtmr2", "rtmr3"}

// own is the register that firmware leaves to the guest: what is extended into it stands in no CCEL (Intel TDX Virtual
// Firmware Design Guide, 8.1).
const own = 3

// checkLog replays a CCEL against the signed registers. In it register 0 is MRTD, which no event is extended into, and 1
// to 4 are RTMR0 to RTMR3.
func (r *Report) checkLog(raw []byte, out *attest.Claims) error {
	if len(raw) == 0 {
		out.NotChecked = append(out.NotChecked, "event log: none came with the evidence")
		return nil
	}
	log, err := eventlog.Parse(raw)
	if err != nil {
		return err
	}
	replayed := log.Replay(eventlog.SHA384)
	for index := range replayed {
		if index < 1 || int(index) > len(registers) {
			return attest.Refuse(attest.CodeEventLog, checkLog, fmt.Sprintf("events for register %d", index), "1 to 4, RTMR0 to RTMR3")
		}
	}
	for i, name := range registers {
		got := replayed[uint32(i)+1]
		if got == nil && i == own && !attest.AllZero(r.RTMR[i]) {
			out.NotChecked = append(out.NotChecked, name+": the guest extended it itself, and the event log does not tell with what")
			continue
		}
		if got == nil {
			got = make([]byte, eventlog.SHA384.Size())
		}
		if !bytes.Equal(got, r.RTMR[i]) {
			return attest.Refuse(attest.CodeEventLog, checkLog, fmt.Sprintf("%s %x by the log", name, got), r.RTMR[i].String()+" as signed")
		}
	}
	out.Checks = append(out.Checks, attest.Check{
		ID: checkLog, Status: attest.StatusPass, Text: "the event log leads to the signed registers", Got: fmt.Sprintf("%d events", len(log.Events)), Source: attest.SourceHardware,
	})
	return nil
}
