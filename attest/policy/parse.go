package policy

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
)

// Parse reads a policy file. file is what errors call it; they name line and column and are *attest.Error with a J7xx
// code.
func Parse(file string, raw []byte) (*Policy, error) {
	root, err := strictyaml.Parse(file, raw)
	if err != nil {
		return nil, err
	}
	p := &Policy{id: identify(raw)}
	r := &reader{}
	m := r.fields(root, "policy", "platforms", "tcb", "workload", "binding", "freshness", "revocation")
	p.name = r.text(r.require(m, "policy"))
	r.platforms(p, r.require(m, "platforms"))
	r.tcb(p, m.Get("tcb"))
	r.workload(p, r.require(m, "workload"))
	p.binding, p.bindingLine = attest.LevelSession, m.Get("binding").Line()
	if v := m.Get("binding"); v.Present() {
		p.binding = attest.Level(r.oneOf(v, string(attest.LevelSession), string(attest.LevelNonce), string(attest.LevelKey), string(attest.LevelPinned), string(attest.LevelNone)))
	}
	r.freshness(p, m.Get("freshness"))
	if v := m.Get("revocation"); v.Present() {
		p.revocation = revocation{r.oneOf(v, "required", "unchecked") == "unchecked", v.Line()}
	}
	if r.err != nil {
		return nil, r.err
	}
	return p, nil
}

// reader keeps the first error, so that parsing reads as a list.
type reader struct{ err error }

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) fields(v strictyaml.Node, known ...string) strictyaml.Map {
	m, err := v.Map(known...)
	r.fail(err)
	return m
}

func (r *reader) require(m strictyaml.Map, key string) strictyaml.Node {
	v, err := m.Require(key)
	r.fail(err)
	return v
}

func (r *reader) text(v strictyaml.Node) string {
	s, err := v.Text()
	r.fail(err)
	return s
}

func (r *reader) oneOf(v strictyaml.Node, choices ...string) string {
	s, err := v.OneOf(choices...)
	r.fail(err)
	return s
}

func (r *reader) list(v strictyaml.Node) []strictyaml.Node {
	all, err := v.List()
	r.fail(err)
	if err == nil && len(all) == 0 {
		r.fail(v.Error("an empty list", "at least one entry"))
	}
	return all
}

func (r *reader) platforms(p *Policy, v strictyaml.Node) {
	if r.err != nil {
		return
	}
	m := r.fields(v, "allow", "deny")
	p.platforms = v.Line()
	for _, e := range r.list(r.require(m, "allow")) {
		p.allow = append(p.allow, r.platform(e, true))
	}
	if deny := m.Get("deny"); deny.Present() && r.err == nil {
		for _, e := range r.list(deny) {
			p.deny = append(p.deny, r.platform(e, false))
		}
	}
}

func (r *reader) platform(v strictyaml.Node, allowing bool) platform {
	out := platform{line: v.Line()}
	if v.IsText() {
		r.words(v, &out)
		return out
	}
	m := r.fields(v, "vendor", "tee", "generation", "product", "stepping", "root", "chip_ids", "because", "until")
	if r.err != nil {
		return out
	}
	vendor := r.require(m, "vendor")
	if out.vendor = strings.ToLower(r.text(vendor)); r.err == nil && !vendorPattern.MatchString(out.vendor) {
		r.fail(vendor.Error(fmt.Sprintf("%.40q", out.vendor), "the name of one vendor"))
	}
	optional := func(key string) string {
		if e := m.Get(key); e.Present() {
			return r.text(e)
		}
		return ""
	}
	if e := m.Get("tee"); e.Present() {
		out.tee = r.oneOf(e, tees...)
	}
	out.product, out.stepping, out.because = optional("product"), optional("stepping"), optional("because")
	if e := m.Get("generation"); e.Present() {
		r.generation(e, &out, strings.ToLower(r.text(e)))
	}
	if e := m.Get("chip_ids"); e.Present() {
		for _, c := range r.list(e) {
			out.chips = append(out.chips, hex.EncodeToString(r.hex(c, 1, 64)))
		}
	}
	if e := m.Get("until"); e.Present() {
		day, err := e.Date()
		r.fail(err)
		out.until = day
	}
	out.text = describe(out)
	r.simulated(v, m.Get("root"), &out, allowing)
	return out
}

var (
	rootPattern      = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	vendorPattern    = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)
	componentPattern = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// simulated demands a root of every rule that allows a simulated platform, and of no other.
func (r *reader) simulated(v, root strictyaml.Node, out *platform, allowing bool) {
	if r.err != nil {
		return
	}
	if root.Present() {
		out.root = r.text(root)
		if !rootPattern.MatchString(out.root) {
			r.fail(root.Error(fmt.Sprintf("%.80q", out.root), `"sha256:" and 64 hex digits`))
		}
	}
	switch {
	case out.vendor != Simulated && out.root != "":
		r.fail(root.Error("a root", "none: hardware has its vendor's root"))
	case out.vendor == Simulated && out.root == "" && allowing:
		r.fail(v.Error("vendor sim without its root", `{vendor: sim, root: "sha256:…"}`))
	}
}

// words reads the short form: VENDOR, then optionally a TEE, then a generation, "GENERATION+" or "*".
func (r *reader) words(v strictyaml.Node, out *platform) {
	out.text = r.text(v)
	words := strings.Fields(strings.ToLower(out.text))
	want := `"vendor generation", "vendor generation+" (and later), "vendor tee" or "vendor *"`
	if len(words) < 2 || len(words) > 3 || !vendorPattern.MatchString(words[0]) {
		r.fail(v.Error(fmt.Sprintf("%.60q", out.text), want))
		return
	}
	out.vendor = words[0]
	if out.vendor == Simulated {
		r.simulated(v, strictyaml.Node{}, out, true)
		return
	}
	words = words[1:]
	if slices.Contains(tees, words[0]) {
		out.tee, words = words[0], words[1:]
	} else if len(words) == 2 {
		r.fail(v.Error(fmt.Sprintf("%.60q", words[0]), "a TEE: "+strings.Join(tees, ", ")))
		return
	}
	if len(words) == 1 && words[0] != "*" {
		r.generation(v, out, words[0])
	}
}

func (r *reader) generation(v strictyaml.Node, out *platform, name string) {
	base, later := strings.CutSuffix(name, "+")
	known := order[out.vendor]
	if out.vendor == Simulated {
		known = nil // a simulated platform bears the names of any vendor's generations
	}
	switch {
	case base == "" || base == "*" || strings.ContainsAny(base, "*+"):
		r.fail(v.Error(fmt.Sprintf("%.60q", name), "the name of a generation"))
	case known != nil && !slices.Contains(known, base):
		r.fail(v.Error(fmt.Sprintf("generation %.60q of %s", base, out.vendor), "one of "+strings.Join(known, ", ")))
	case later && known == nil:
		r.fail(v.Error(fmt.Sprintf("%.60q", name), fmt.Sprintf("a list of generations: this build knows no order of those of %.40q", out.vendor)))
	case later:
		out.generations = since(out.vendor, base)
	default:
		out.generations = []string{base}
	}
}

func describe(p platform) string {
	words := []string{p.vendor}
	for _, w := range []string{p.tee, strings.Join(p.generations, "|"), p.product, p.stepping} {
		if w != "" {
			words = append(words, w)
		}
	}
	if len(p.chips) > 0 {
		words = append(words, fmt.Sprintf("(%d chips)", len(p.chips)))
	}
	return strings.Join(words, " ")
}

func (r *reader) hex(v strictyaml.Node, least, most int) []byte {
	s := r.text(v)
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) < least || len(raw) > most {
		r.fail(v.Error(fmt.Sprintf("%.40q", s), fmt.Sprintf("%d to %d bytes in hex", least, most)))
	}
	return raw
}

func (r *reader) tcb(p *Policy, v strictyaml.Node) {
	if !v.Present() || r.err != nil {
		return
	}
	components, values, err := v.Entries()
	r.fail(err)
	for i, c := range components {
		if !componentPattern.MatchString(c) {
			r.fail(values[i].Error(fmt.Sprintf("component %.40q", c), "a name such as snp or microcode"))
			return
		}
		n, err := values[i].Uint(math.MaxUint32)
		r.fail(err)
		p.tcb = append(p.tcb, floor{c, n, values[i].Line()})
	}
}

func (r *reader) workload(p *Policy, v strictyaml.Node) {
	if r.err != nil {
		return
	}
	m := r.fields(v, "measurement", "debug", "privilege", "migration")
	w := &p.workload
	measured := r.require(m, "measurement")
	if r.err != nil {
		return
	}
	w.measuredLine = measured.Line()
	if measured.IsText() {
		w.anyMeasured = r.oneOf(measured, "any") == "any"
	} else {
		for _, e := range r.list(r.require(r.fields(measured, "any_of"), "any_of")) {
			w.measurements = append(w.measurements, r.reference(e))
		}
	}
	debug := r.require(m, "debug")
	if r.err != nil {
		return
	}
	w.debugAny, w.debugLine = r.oneOf(debug, "off", "any") == "any", debug.Line()
	w.privilegeLine, w.migrationLine = v.Line(), v.Line()
	if e := m.Get("privilege"); e.Present() {
		n, err := e.Uint(3)
		r.fail(err)
		w.privilege, w.privilegeLine = int(n), e.Line()
	}
	if e := m.Get("migration"); e.Present() {
		w.migrationAny, w.migrationLine = r.oneOf(e, "off", "any") == "any", e.Line()
	}
}

func (r *reader) reference(v strictyaml.Node) reference {
	value, name := v, ""
	if v.IsMap() {
		m := r.fields(v, "value", "name")
		if value = r.require(m, "value"); r.err != nil {
			return reference{}
		}
		if e := m.Get("name"); e.Present() {
			name = r.text(e)
		}
	}
	raw := r.hex(value, 20, 64)
	if r.err == nil && bytes.Count(raw, []byte{0}) == len(raw) {
		// All zeros is what several platforms show for "not measured".
		r.fail(value.Error("a measurement of zeros", "the digest of your software"))
	}
	return reference{raw, name}
}

func (r *reader) freshness(p *Policy, v strictyaml.Node) {
	p.freshness = freshness{DefaultEvidenceAge, DefaultEndorsementAge, v.Line()}
	if !v.Present() || r.err != nil {
		return
	}
	m := r.fields(v, "evidence", "endorsements")
	if e := m.Get("evidence"); e.Present() {
		d, err := e.Duration()
		r.fail(err)
		p.freshness.evidence = d
	}
	if e := m.Get("endorsements"); e.Present() {
		d, err := e.Duration()
		r.fail(err)
		p.freshness.endorsements = d
	}
}
