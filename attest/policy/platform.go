package policy

import (
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// subject are claims as patterns see them: what is compared in hex is written once for all patterns.
type subject struct {
	*attest.Claims
	name, fmspc, chip, ppid string
}

func subjectOf(c *attest.Claims) *subject {
	var b strings.Builder
	for _, s := range []string{c.Vendor, c.TEE, c.Generation, c.Stepping} {
		if s != "" && b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s)
	}
	return &subject{c, b.String(), c.FMSPC.String(), c.Provenance.ChipID.String(), c.Provenance.PPID.String()}
}

// matches reports whether the pattern covers the claims. A pattern that names a claim which the evidence lacks covers
// nothing when it allows, and covers it when it denies: what is not known can't be ruled out.
func (a *platform) matches(c *subject, allowing bool) bool {
	if a.vendor == "" || !strings.EqualFold(a.vendor, c.Vendor) {
		return false
	}
	// A simulated platform is covered by a rule that names it and its root, whatever else its claims say.
	if (a.vendor == Simulated) != c.Simulated {
		return false
	}
	if allowing && c.Simulated && a.root == "" {
		return false
	}
	if a.root != "" && a.root != c.Root {
		return false
	}
	is := func(want, got string) bool {
		return want == "" || strings.EqualFold(want, got) || got == "" && !allowing
	}
	among := func(want []string, got string) bool {
		if len(want) == 0 {
			return true
		}
		if got == "" {
			return !allowing
		}
		return slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(w, got) })
	}
	return is(a.tee, c.TEE) && among(a.generations, c.Generation) && is(a.product, c.Product) && is(a.stepping, c.Stepping) &&
		among(a.fmspc, c.fmspc) && among(a.chips, c.chip) && among(a.ppids, c.ppid) && provider(a.csp, c.Claims)
}

// provider compares the cloud provider. On SEV-SNP it is the one that a VLEK was issued to; a VCEK names none, and that is
// known, not absent.
func provider(want []string, c *attest.Claims) bool {
	if len(want) == 0 {
		return true
	}
	return c.Provenance.CSP != "" && slices.ContainsFunc(want, func(w string) bool { return w == "*" || strings.EqualFold(w, c.Provenance.CSP) })
}

// dimension is one field of a pattern as a list of what it covers; an empty one covers everything.
type dimension struct {
	mine, theirs []string
	stars        bool // "*" covers whatever is there
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func dimensions(a, b *platform) []dimension {
	return []dimension{
		{one(a.tee), one(b.tee), false},
		{a.generations, b.generations, false},
		{one(a.product), one(b.product), false},
		{one(a.stepping), one(b.stepping), false},
		{a.fmspc, b.fmspc, false},
		{a.chips, b.chips, false},
		{a.ppids, b.ppids, false},
		{one(a.root), one(b.root), false},
		{a.csp, b.csp, true}, // "*" covers every provider, and no platform without one
	}
}

func has(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}

// covers reports whether everything that b covers is covered by a too. Where it cannot tell it says no.
func (a *platform) covers(b *platform) bool {
	if a.vendor != b.vendor {
		return false
	}
	for _, d := range dimensions(a, b) {
		if len(d.mine) == 0 || d.stars && slices.Contains(d.mine, "*") && len(d.theirs) > 0 {
			continue
		}
		if len(d.theirs) == 0 || slices.ContainsFunc(d.theirs, func(s string) bool { return !has(d.mine, s) }) {
			return false
		}
	}
	return true
}

// overlaps reports whether some platform may be covered by both. Where it cannot tell it says yes.
func (a *platform) overlaps(b *platform) bool {
	if a.vendor != b.vendor {
		return false
	}
	for _, d := range dimensions(a, b) {
		if len(d.mine) == 0 || len(d.theirs) == 0 || d.stars && (slices.Contains(d.mine, "*") || slices.Contains(d.theirs, "*")) {
			continue
		}
		if !slices.ContainsFunc(d.theirs, func(s string) bool { return has(d.mine, s) }) {
			return false
		}
	}
	return true
}
