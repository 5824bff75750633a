package azure

import (
	"bytes"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Layout of a TDREPORT (Intel TDX Module ABI, TDREPORT_STRUCT): REPORTMACSTRUCT, TEE_TCB_INFO, TDINFO_STRUCT.
const (
	tdReportSize = 1024
	tdReportType = 0x81
	tdReportData = 0x080
)

// tdRegisters are the registers in TDINFO_STRUCT, by the names of the claims that a quote made from it yields.
var tdRegisters = []struct {
	name string
	at   int
}{{"launch", 0x210}, {"rtmr0", 0x2d0}, {"rtmr1", 0x300}, {"rtmr2", 0x330}, {"rtmr3", 0x360}}

const registerSize = 48

// checkTDReport checks that the quote which c was verified from was made from this TDREPORT. Nobody signed that: it has a
// MAC for its own machine alone, and everything that becomes a claim comes from the quote.
func checkTDReport(hardware []byte, c *attest.Claims) error {
	report, padding := hardware[:tdReportSize], hardware[tdReportSize:]
	if report[0] != tdReportType || !attest.AllZero(padding) {
		return malformed(fmt.Sprintf("no TDREPORT: type %#x", report[0]), fmt.Sprintf("%#x", tdReportType))
	}
	link := func(what string, got, want []byte) error {
		if bytes.Equal(got, want) {
			return nil
		}
		return attest.Refuse(attest.CodeLink, checkLink, what+" "+attest.Abbreviate(got)+" in the TD quote", attest.Abbreviate(want)+" as in the TDREPORT")
	}
	if err := link("report data", c.ReportData[:], report[tdReportData:tdReportData+len(c.ReportData)]); err != nil {
		return err
	}
	for _, r := range tdRegisters {
		if err := link(r.name, c.Measured[r.name], report[r.at:r.at+registerSize]); err != nil {
			return err
		}
	}
	return nil
}
