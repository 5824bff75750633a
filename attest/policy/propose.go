package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// Propose writes a policy that accepts what the claims show, at the given level, and nothing looser: the generation seen,
// the firmware level seen as the floor, and the measurement seen. Debugging stays off, even where the claims have it on.
func Propose(c *attest.Claims, level attest.Level, name string) ([]byte, error) {
	launch := c.Measured["launch"]
	if c.Vendor == "" || c.Generation == "" || len(launch) == 0 || !level.Valid() {
		return nil, &attest.Error{Code: attest.CodeClaimAbsent, Check: "policy.propose", Got: fmt.Sprintf("vendor %q, generation %q, %d bytes of measurement", c.Vendor, c.Generation, len(launch))}
	}
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("policy: %s", quote(name))
	say("platforms:")
	if c.Simulated {
		say("  # SIMULATED: this root is a file on somebody's disk, and proves nothing about hardware.")
		say("  allow: [{vendor: %s, generation: %s, root: %q}]", quote(c.Vendor), quote(c.Generation), c.Root)
	} else {
		say("  allow: [{vendor: %s, tee: %s, generation: %s}]", quote(c.Vendor), quote(c.TEE), quote(c.Generation))
	}
	// A vendor that judges TCB levels has said what they are worth; the numbers of its many components add nothing.
	if c.TCBStatus != "" && c.TCBStatus != "UpToDate" {
		say("tcb: {status: [%s]}   # as the vendor judges it now; UpToDate is better", c.TCBStatus)
	}
	if c.TCBStatus == "" && len(c.TCB) > 0 {
		var floors []string
		for _, component := range slices.Sorted(maps.Keys(c.TCB)) {
			floors = append(floors, component+": "+strconv.FormatUint(c.TCB[component], 10))
		}
		say("tcb: {%s}   # the firmware seen, as the floor", strings.Join(floors, ", "))
	}
	say("workload:")
	say("  measurement:")
	say("    any_of:")
	say("      - {value: %q, name: seen at first contact}   # compare it with your own build", launch.String())
	if registers := loaded(c); len(registers) > 0 {
		say("  registers:   # what was loaded later: the launch measurement does not cover it")
		for _, name := range registers {
			say("    %s: {any_of: [%q]}", name, c.Measured[name].String())
		}
	}
	if c.Debug == attest.On {
		say("  debug: off   # the peer has it ON now, and is refused")
	} else {
		say("  debug: off")
	}
	if c.Privilege != nil && *c.Privilege > 0 {
		say("  privilege: %d   # the guest requested its evidence from this level", *c.Privilege)
	}
	if c.Migratable == attest.On {
		say("  migration: any   # a migration agent may move the guest")
	}
	say("binding: %s", level)
	say("freshness: {evidence: %s, endorsements: %s}", age(DefaultEvidenceAge), age(DefaultEndorsementAge))
	return []byte(b.String()), nil
}

// loaded names the registers that measure what ran after the launch, where the launch measurement is that of somebody else's
// firmware, the same for all guests: on Azure the paravisor's, with the guest in the PCRs of its TPM.
func loaded(c *attest.Claims) []string {
	if c.TEE == "nitro" { // the launch measurement is PCR 0, of all of the image
		return nil
	}
	var names []string
	for i := range 24 {
		if name := "pcr" + strconv.Itoa(i); c.Measured[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// quote writes a scalar so that YAML reads back the same text.
func quote(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}
