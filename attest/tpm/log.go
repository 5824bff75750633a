package tpm

import (
	"bytes"
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/eventlog"
)

const checkLog = "authenticity.log"

// CheckLog checks that an event log, if there is one, leads to the PCRs that were signed, and says in c for which it does.
// Its digests are then believed; what else its events say is not looked at, and becomes no claim. The caller has verified
// q.
func (q *Quoted) CheckLog(raw []byte, c *attest.Claims) error {
	if len(raw) == 0 {
		return nil
	}
	log, err := eventlog.Parse(raw)
	if err != nil {
		return err
	}
	bank := map[crypto.Hash]eventlog.Algorithm{crypto.SHA256: eventlog.SHA256, crypto.SHA384: eventlog.SHA384}[q.Quote.bank]
	if !slices.Contains(log.Algorithms, bank) {
		return attest.Refuse(attest.CodeEventLog, checkLog, "an event log without "+q.Quote.Bank, "the bank of the quote")
	}
	var led, loose []string
	replayed := log.Replay(bank)
	for _, n := range slices.Sorted(maps.Keys(replayed)) {
		signed, ok := q.Values[int(n)]
		switch {
		case !ok:
			loose = append(loose, fmt.Sprint(n))
		case !bytes.Equal(signed, replayed[n]):
			return attest.Refuse(attest.CodeEventLog, checkLog, fmt.Sprintf("an event log that leads to PCR %d %s", n, attest.Abbreviate(replayed[n])), attest.Abbreviate(signed)+", as signed")
		default:
			led = append(led, fmt.Sprint(n))
		}
	}
	if len(led) > 0 {
		c.Checks = append(c.Checks, pass(checkLog, "the event log leads to the signed PCRs", strings.Join(led, ", "), attest.SourceHardware))
	}
	if len(loose) > 0 {
		c.NotChecked = append(c.NotChecked, "event log of PCRs "+strings.Join(loose, ", ")+": the evidence has no signed values of them")
	}
	return nil
}
