package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy/expr"
	"github.com/jurat-tls/jurat/attest/strictyaml"
)

// Open reads a file that a policy names. Names are as written in the policy.
type Open func(name string) ([]byte, error)

// NoFiles refuses every file that a policy names.
func NoFiles(name string) ([]byte, error) {
	return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "config", Got: fmt.Sprintf("a policy that names the file %.100q", name), Want: "a policy that stands alone"}
}

// Parse reads a policy file, and through open the files that it names. file is what errors call it; they name line and
// column and are *attest.Error with a J7xx code.
func Parse(file string, raw []byte, open Open) (*Policy, error) {
	return parse(file, raw, open, 0)
}

// maxFloors bounds how many policies may stand below one another.
const maxFloors = 4

func parse(file string, raw []byte, open Open, depth int) (*Policy, error) {
	root, err := strictyaml.Parse(file, raw)
	if err != nil {
		return nil, err
	}
	p := &Policy{file: file}
	r := &reader{open: open, digest: sha256.New()}
	r.include(raw)
	m := r.fields(root, shapePolicy)
	p.name = r.text(m.Get("policy"))
	r.floor(p, m.Get("floor"), depth)
	r.platforms(p, m.Get("platforms"))
	r.tcb(p, m.Get("tcb"))
	r.workload(&p.workload, m.Get("workload"))
	r.identifies(p, m.Get("workload"))
	p.binding = ruled[attest.Level]{otherwise: attest.LevelSession}
	readRuled(r, &p.binding, m.Get("binding"), shapePolicy, "binding", "min", func(v strictyaml.Node) attest.Level {
		return attest.Level(r.oneOf(v, levels...))
	})
	acting(r, m.Get("binding"), &p.binding, attest.LevelNone)
	r.freshness(p, m.Get("freshness"))
	p.revocation = ruled[bool]{otherwise: true}
	readRuled(r, &p.revocation, m.Get("revocation"), shapePolicy, "revocation", "is", func(v strictyaml.Node) bool {
		return r.oneOf(v, "required", "unchecked") == "required"
	})
	acting(r, m.Get("revocation"), &p.revocation, false)
	r.rules(p, m.Get("rules"))
	if r.err != nil {
		return nil, r.err
	}
	p.id = "sha256:" + hex.EncodeToString(r.digest.Sum(nil))
	p.checks = 16 + len(p.deny) + len(p.tcb.floors) + len(p.tcb.bits) + len(p.rules) + len(p.workload.registers) + len(p.workload.numbers)
	for _, s := range p.scopes {
		p.checks += len(s.floors) + len(s.bits)
	}
	return p, nil
}

// reader keeps the first error, so that parsing reads as a list.
type reader struct {
	err    error
	open   Open
	digest hash.Hash
	first  bool
}

// include makes a file part of the policy's identity. A policy of one file is named by that file's own digest.
func (r *reader) include(raw []byte) {
	if r.first {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(raw)))
		r.digest.Write(size[:])
	}
	r.first = true
	r.digest.Write(raw)
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// fields reads a map whose keys the grammar knows, and demands those that it requires.
func (r *reader) fields(v strictyaml.Node, s *shape) strictyaml.Map {
	names := make([]string, len(s.keys))
	for i, k := range s.keys {
		names[i] = k.name
	}
	m, err := v.Map(names...)
	r.fail(err)
	for _, k := range s.keys {
		if k.required {
			r.require(m, k.name)
		}
	}
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

func (r *reader) number(v strictyaml.Node, most uint64) uint64 {
	n, err := v.Uint(most)
	r.fail(err)
	return n
}

func (r *reader) date(v strictyaml.Node) time.Time {
	day, err := v.Date()
	r.fail(err)
	return day
}

func (r *reader) list(v strictyaml.Node) []strictyaml.Node {
	all, err := v.List()
	r.fail(err)
	if err == nil && len(all) == 0 {
		r.fail(v.Error("an empty list", "at least one entry"))
	}
	return all
}

func (r *reader) texts(v strictyaml.Node) (all []string) {
	if !v.Present() || r.err != nil {
		return nil
	}
	for _, e := range r.list(v) {
		all = append(all, r.text(e))
	}
	return all
}

func (r *reader) hex(v strictyaml.Node, sizes ...int) []byte {
	s := r.text(v)
	raw, err := hex.DecodeString(s)
	least, most := sizes[0], sizes[len(sizes)-1]
	if err != nil || len(raw) < least || len(raw) > most {
		want := fmt.Sprintf("%d to %d bytes in hex", least, most)
		if least == most {
			want = fmt.Sprintf("%d bytes in hex", least)
		}
		r.fail(v.Error(fmt.Sprintf("%.40q", s), want))
	}
	return raw
}

func (r *reader) hexes(v strictyaml.Node, sizes ...int) (all []string) {
	if !v.Present() || r.err != nil {
		return nil
	}
	for _, e := range r.list(v) {
		all = append(all, hex.EncodeToString(r.hex(e, sizes...)))
	}
	return all
}

// terms reads what every rule can carry.
func (r *reader) terms(v strictyaml.Node, m strictyaml.Map) terms {
	t := terms{line: v.Line()}
	if e := m.Get("because"); e.Present() {
		t.because = r.text(e)
	}
	if e := m.Get("from"); e.Present() {
		t.from = r.date(e)
	}
	if e := m.Get("until"); e.Present() {
		t.until = r.date(e)
		if r.err == nil && !t.from.Before(t.until) {
			r.fail(e.Error("an end that is not after the beginning", "a later date"))
		}
	}
	if e := m.Get("shadow"); e.Present() {
		yes, err := e.Bool()
		r.fail(err)
		t.shadow = yes
	}
	return t
}

// readRuled reads a value that is written bare, or as a map with terms under the key name.
func readRuled[T any](r *reader, into *ruled[T], v strictyaml.Node, parent *shape, place, name string, read func(strictyaml.Node) T) {
	if !v.Present() || r.err != nil {
		return
	}
	into.said, into.line = true, v.Line()
	if !v.IsMap() {
		into.value = read(v)
		return
	}
	m := r.fields(v, formOf(parent, place))
	if r.err != nil {
		return
	}
	into.terms = r.terms(v, m)
	into.value = read(m.Get(name))
}

// acting refuses a shadow of a value that takes a demand away: a rule that is only reported must not loosen anything.
func acting[T comparable](r *reader, v strictyaml.Node, rule *ruled[T], loose T) {
	if r.err == nil && rule.said && rule.shadow && rule.value == loose {
		r.fail(v.Error("a shadow of what demands nothing", "a demand, or no shadow"))
	}
}

// formOf finds the shape of a map among the forms that the value at place may have.
func formOf(parent *shape, place string) *shape {
	for _, k := range parent.keys {
		if k.name == place {
			return mapForm(k.shape)
		}
	}
	return &shape{}
}

func mapForm(s *shape) *shape {
	for _, f := range s.forms {
		if f.kind == isMap {
			return f
		}
	}
	return &shape{}
}

func (r *reader) read(v strictyaml.Node) (string, []byte) {
	name := r.text(v)
	if r.err != nil {
		return name, nil
	}
	raw, err := r.open(name)
	if err != nil {
		var coded *attest.Error
		if errors.As(err, &coded) && coded.Err != nil {
			err = coded.Err // the code is that of the policy
		}
		r.fail(v.Error(fmt.Sprintf("%.100q: %v", name, err), "a file that can be read"))
		return name, nil
	}
	r.include(raw)
	return name, raw
}

func (r *reader) floor(p *Policy, v strictyaml.Node, depth int) {
	if !v.Present() || r.err != nil {
		return
	}
	if depth >= maxFloors {
		r.fail(v.Error("a floor below a floor below a floor", fmt.Sprintf("at most %d of them", maxFloors)))
		return
	}
	name, raw := r.read(v)
	if r.err != nil {
		return
	}
	below, err := parse(name, raw, r.open, depth+1)
	r.fail(err)
	p.floor = below
}

func (r *reader) platforms(p *Policy, v strictyaml.Node) {
	if r.err != nil {
		return
	}
	m := r.fields(v, formKey(shapePolicy, "platforms"))
	if r.err != nil {
		return
	}
	p.platforms = v.Line()
	p.allow = r.patterns(m.Get("allow"), true)
	if deny := m.Get("deny"); deny.Present() {
		p.deny = r.patterns(deny, false)
	}
}

func formKey(parent *shape, name string) *shape {
	for _, k := range parent.keys {
		if k.name == name {
			return k.shape
		}
	}
	return &shape{}
}

func (r *reader) patterns(v strictyaml.Node, allowing bool) (all []platform) {
	if r.err != nil {
		return nil
	}
	for _, e := range r.list(v) {
		a := r.platform(e, allowing)
		if a.passed, a.denial = "not denied: "+a.text, "denial of "+a.text; allowing {
			a.passed = "platform is allowed: " + a.text
		}
		all = append(all, a)
	}
	return all
}

func (r *reader) platform(v strictyaml.Node, allowing bool) platform {
	out := platform{terms: terms{line: v.Line()}}
	if v.IsText() {
		r.words(v, &out)
		return out
	}
	m := r.fields(v, shapePlatform)
	if r.err != nil {
		return out
	}
	out.terms = r.terms(v, m)
	vendor := m.Get("vendor")
	if out.vendor = strings.ToLower(r.text(vendor)); r.err == nil && !vendorPattern.MatchString(out.vendor) {
		r.fail(vendor.Error(fmt.Sprintf("%.40q", out.vendor), "the name of one vendor"))
	}
	r.vendor(vendor, out.vendor)
	optional := func(key string) string {
		if e := m.Get(key); e.Present() {
			s := r.text(e)
			if strings.Contains(s, "*") { // a denial of "*" would deny next to nothing
				r.fail(e.Error(fmt.Sprintf("%.40q", s), "the whole word, or no such key for any"))
			}
			return s
		}
		return ""
	}
	if e := m.Get("tee"); e.Present() {
		out.tee = r.oneOf(e, tees...)
	}
	out.product, out.stepping = optional("product"), optional("stepping")
	if e := m.Get("generation"); e.Present() {
		r.generation(e, &out, strings.ToLower(r.text(e)))
	}
	out.fmspc = r.hexes(m.Get("fmspc"), 6)
	out.chips = r.hexes(m.Get("chip_ids"), 1, 64)
	out.ppids = r.hexes(m.Get("ppids"), 16)
	out.csp = r.texts(m.Get("csp"))
	for _, s := range out.csp {
		if s != "*" && strings.Contains(s, "*") {
			r.fail(m.Get("csp").Error(fmt.Sprintf("%.40q", s), `a provider, or "*" for any`))
		}
	}
	out.text = describe(out)
	r.simulated(v, m.Get("root"), &out, allowing)
	return out
}

// vendor refuses a name that is almost that of a known vendor.
func (r *reader) vendor(v strictyaml.Node, name string) {
	if slip := strictyaml.Slip(name, vendors); slip != "" {
		r.fail(strictyaml.Suggest(v.Error(fmt.Sprintf("vendor %.40q", name), "one of "+strings.Join(vendors, ", ")+", or a name unlike them"), name, vendors))
	}
}

var (
	rootPattern     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	vendorPattern   = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)
	namePattern     = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	advisoryPattern = regexp.MustCompile(`^[A-Z][A-Z0-9-]*$`)
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
	r.vendor(v, out.vendor)
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
		err := v.Error(fmt.Sprintf("generation %.60q of %s", base, out.vendor), "one of "+strings.Join(known, ", "))
		r.fail(strictyaml.Suggest(err, base, known))
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
	for _, l := range []struct {
		name string
		list []string
	}{{"FMSPC", p.fmspc}, {"chips", p.chips}, {"PPIDs", p.ppids}, {"providers", p.csp}} {
		if len(l.list) > 0 {
			words = append(words, fmt.Sprintf("(%d %s)", len(l.list), l.name))
		}
	}
	return strings.Join(words, " ")
}

func (r *reader) tcb(p *Policy, v strictyaml.Node) {
	p.tcb.statuses = ruled[[]string]{otherwise: statuses[:1]}
	if !v.Present() || r.err != nil {
		return
	}
	rest := r.firmware(&p.tcb, v, shapeTCB)
	per := rest.Get("per")
	if !per.Present() || r.err != nil {
		return
	}
	for _, e := range r.list(per) {
		s := scope{}
		s.statuses.otherwise = statuses[:1]
		m := r.firmware(&s.firmware, e, shapeScope)
		if r.err != nil {
			return
		}
		s.terms = r.terms(e, m)
		s.platforms = r.patterns(m.Get("platforms"), false)
		for i, v := range r.listed(m.Get("platforms")) {
			r.scoped(v, &s.platforms[i])
		}
		if a := m.Get("any"); a.Present() {
			yes, err := a.Bool()
			r.fail(err)
			s.any = yes
		}
		if r.err == nil && s.any == s.says() {
			r.fail(e.Error("an entry that demands nothing, or something beside any", "demands, or any: true"))
		}
		p.scopes = append(p.scopes, s)
	}
}

// listed are the entries of a list that was read before; none after an error.
func (r *reader) listed(v strictyaml.Node) []strictyaml.Node {
	if r.err != nil {
		return nil
	}
	return r.list(v)
}

// scoped refuses of a pattern in an entry of tcb.per what would have no effect there.
func (r *reader) scoped(v strictyaml.Node, a *platform) {
	switch {
	case a.vendor == Simulated && a.root == "": // it would match nothing
		r.fail(v.Error("vendor sim without its root", `{vendor: sim, root: "sha256:…"}`))
	case a.because != "" || !a.forEver():
		r.fail(v.Error("terms of one pattern", "terms of the entry of tcb.per"))
	}
}

// says reports whether anything is demanded.
func (f *firmware) says() bool {
	return len(f.floors) > 0 || f.statuses.said || f.date.said || f.evaluation.said || len(f.denied) > 0 || f.tolerated != nil || len(f.bits) > 0
}

// firmware reads the keys of the grammar, and takes every other for a component of the TCB.
func (r *reader) firmware(f *firmware, v strictyaml.Node, s *shape) strictyaml.Map {
	names, values, err := v.Entries()
	r.fail(err)
	if err != nil {
		return strictyaml.Map{}
	}
	var known []string
	for _, k := range s.keys {
		known = append(known, k.name)
	}
	for _, n := range names {
		if slices.Contains(components, n) {
			known = append(known, n)
		}
	}
	m, err := v.Map(known...)
	if err != nil {
		for _, n := range names {
			if !slices.Contains(known, n) {
				err = strictyaml.Suggest(err, n, slices.Concat(known, components))
				break
			}
		}
		r.fail(err)
		return m
	}
	for _, k := range s.keys {
		if k.required {
			r.require(m, k.name)
		}
	}
	for i, c := range names {
		if !slices.Contains(components, c) {
			continue
		}
		n := ruled[uint64]{}
		readRuled(r, &n, values[i], &shape{keys: []key{may(c, shapeFloor)}}, c, "min", func(v strictyaml.Node) uint64 { return r.number(v, math.MaxUint32) })
		f.floors = append(f.floors, floor{n.terms, c, "tcb." + c, fmt.Sprintf("at least %d", n.value), n.value})
	}
	readRuled(r, &f.statuses, m.Get("status"), shapeFirmware, "status", "any_of", func(v strictyaml.Node) (all []string) {
		for _, e := range r.list(v) {
			all = append(all, r.oneOf(e, statuses...))
		}
		return all
	})
	readRuled(r, &f.date, m.Get("date"), shapeFirmware, "date", "min", r.date)
	readRuled(r, &f.evaluation, m.Get("evaluation"), shapeFirmware, "evaluation", "min", func(v strictyaml.Node) uint64 {
		s := strings.TrimSpace(strings.TrimPrefix(r.text(v), ">="))
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			r.fail(v.Error(fmt.Sprintf("%.40q", s), `">=20" or 20`))
		}
		return n
	})
	f.denied, f.tolerated = r.advisories(f, m.Get("advisories_deny")), r.advisories(f, m.Get("advisories_tolerate"))
	if b := m.Get("bits"); b.Present() && r.err == nil {
		names, values, err := b.Entries()
		r.fail(err)
		for i, name := range names {
			r.name(values[i], name)
			w := ruled[attest.Flag]{}
			readRuled(r, &w, values[i], &shape{keys: []key{may(name, formKey(shapeFirmware, "bits").elem)}}, name, "is", func(v strictyaml.Node) attest.Flag {
				return attest.FlagOf(r.oneOf(v, onOff...) == "on")
			})
			f.bits = append(f.bits, bit{w.terms, name, "tcb.bits." + name, w.value})
		}
	}
	return m
}

func (r *reader) name(v strictyaml.Node, name string) {
	if !namePattern.MatchString(name) {
		r.fail(v.Error(fmt.Sprintf("the name %.40q", name), "lower-case letters, digits and _"))
	}
}

func (r *reader) advisories(f *firmware, v strictyaml.Node) []string {
	all := r.texts(v)
	for _, a := range all {
		if !advisoryPattern.MatchString(a) {
			r.fail(v.Error(fmt.Sprintf("%.40q", a), "the id of an advisory, such as INTEL-SA-00615"))
		}
	}
	if v.Present() {
		f.advisories = v.Line()
	}
	return all
}

func (r *reader) workload(w *workload, v strictyaml.Node) {
	if r.err != nil {
		return
	}
	m := r.fields(v, shapeWorkload)
	if r.err != nil {
		return
	}
	measured, sets := m.Get("measurement"), m.Get("sets")
	switch {
	case measured.Present() && sets.Present():
		r.fail(sets.Error("sets beside measurement", "one of them: a set can hold launch"))
	case !measured.Present() && !sets.Present():
		r.require(m, "measurement")
	case measured.IsText():
		w.line = measured.Line()
		w.any = r.oneOf(measured, "any") == "any"
	case measured.Present():
		w.line = measured.Line()
		w.sets = r.references(measured, "launch")
	default:
		w.line = sets.Line()
		w.sets = r.sets(sets)
	}
	if e := m.Get("registers"); e.Present() && r.err == nil {
		names, values, err := e.Entries()
		r.fail(err)
		for i, n := range names {
			r.name(values[i], n)
			w.registers = append(w.registers, register{n, "workload.registers." + n, values[i].Line(), r.references(values[i], n)})
		}
	}
	r.numbers(w, m.Get("numbers"))
	if e := m.Get("config"); e.Present() && r.err == nil {
		w.configAt = e.Line()
		for _, d := range r.list(r.fields(e, formKey(shapeWorkload, "config")).Get("any_of")) {
			w.config = append(w.config, r.hex(d, 32))
		}
	}
	w.debug.line, w.migration.line, w.privilege.line = v.Line(), v.Line(), v.Line()
	offAny := func(v strictyaml.Node) bool { return r.oneOf(v, "off", "any") == "any" }
	readRuled(r, &w.debug, m.Get("debug"), shapeWorkload, "debug", "is", offAny)
	readRuled(r, &w.migration, m.Get("migration"), shapeWorkload, "migration", "is", offAny)
	acting(r, m.Get("debug"), &w.debug, true)
	acting(r, m.Get("migration"), &w.migration, true)
	readRuled(r, &w.privilege, m.Get("privilege"), shapeWorkload, "privilege", "max", func(v strictyaml.Node) int { return int(r.number(v, 3)) })
	acting(r, m.Get("privilege"), &w.privilege, 3)
}

// identifies demands that every set names what was launched, or who signed it. Registers that software extends at run time
// can be brought to any value by other software on the same hardware. A TPM and a Nitro enclave have PCRs alone.
func (r *reader) identifies(p *Policy, v strictyaml.Node) {
	if r.err != nil || !slices.ContainsFunc(p.allow, func(a platform) bool { return !slices.Contains([]string{"tcg", "aws", Simulated}, a.vendor) }) {
		return
	}
	for i := range p.workload.sets {
		if s := &p.workload.sets[i]; s.registers["launch"] == nil && s.registers["signer"] == nil {
			r.fail(v.Error(fmt.Sprintf("the set %.60q names neither launch nor signer", s.name), "one of them: other software could bring the rest to the same values"))
		}
	}
}

func (r *reader) numbers(w *workload, v strictyaml.Node) {
	if !v.Present() || r.err != nil {
		return
	}
	names, values, err := v.Entries()
	r.fail(err)
	for i, n := range names {
		r.name(values[i], n)
		rule := numberRule{terms: terms{line: values[i].Line()}, name: n, id: "workload.numbers." + n}
		if values[i].IsText() {
			rule.value, rule.exact = r.number(values[i], math.MaxUint64), true
		} else {
			m := r.fields(values[i], mapForm(formKey(shapeWorkload, "numbers").elem))
			is, least := m.Get("is"), m.Get("min")
			if r.err == nil && is.Present() == least.Present() {
				r.fail(values[i].Error("both or neither of is and min", "one of them"))
			}
			rule.terms = r.terms(values[i], m)
			if rule.exact = is.Present(); !rule.exact {
				is = least
			}
			if r.err == nil {
				rule.value = r.number(is, math.MaxUint64)
			}
		}
		if rule.want = "at least " + strconv.FormatUint(rule.value, 10); rule.exact {
			rule.want = strconv.FormatUint(rule.value, 10)
		}
		w.numbers = append(w.numbers, rule)
	}
}

// references reads the accepted values of one register.
func (r *reader) references(v strictyaml.Node, name string) []set {
	if r.err != nil {
		return nil
	}
	if v.IsMap() {
		if keys, _, err := v.Entries(); err == nil && slices.Contains(keys, "file") {
			return r.fromFile(v, name)
		}
	}
	var all []set
	for _, e := range r.list(r.fields(v, shapeReferences).Get("any_of")) {
		if r.err != nil {
			return nil
		}
		s := set{terms: terms{line: e.Line()}}
		value := e
		if e.IsMap() {
			m := r.fields(e, mapForm(shapeReference))
			if r.err != nil {
				return nil
			}
			s.terms, value = r.terms(e, m), m.Get("value")
			if n := m.Get("name"); n.Present() {
				s.name = r.text(n)
			}
		}
		s.registers = map[string][]byte{name: r.measurement(value)}
		s.text = strings.TrimSpace(attest.Abbreviate(s.registers[name]) + " " + s.name)
		all = append(all, s)
	}
	return all
}

// measurement reads the value of a register. All zeros is what several platforms show for "not measured".
func (r *reader) measurement(v strictyaml.Node) []byte {
	raw := r.hex(v, 20, 64)
	if r.err == nil && bytes.Count(raw, []byte{0}) == len(raw) {
		r.fail(v.Error("a measurement of zeros", "the digest of your software"))
	}
	return raw
}

func (r *reader) sets(v strictyaml.Node) (all []set) {
	if r.err != nil {
		return nil
	}
	if v.IsMap() {
		return r.fromFile(v, "")
	}
	for _, e := range r.list(v) {
		m := r.fields(e, shapeSet)
		if r.err != nil {
			return nil
		}
		s := set{terms: r.terms(e, m), name: r.text(m.Get("name")), registers: map[string][]byte{}}
		r.registers(s.registers, m.Get("registers"))
		s.text = s.name
		all = append(all, s)
	}
	return all
}

// fromFile reads sets from a file of reference values; with a register, only that one counts and has to be there.
func (r *reader) fromFile(v strictyaml.Node, register string) []set {
	at := r.fields(v, shapeFile).Get("file")
	if r.err != nil {
		return nil
	}
	name, raw := r.read(at)
	if r.err != nil {
		return nil
	}
	all, err := readReferences(raw)
	if err != nil {
		r.fail(at.Error(fmt.Sprintf("%.100q: %v", name, err), "reference values"))
		return nil
	}
	for i := range all {
		all[i].line = v.Line()
		if register == "" {
			continue
		}
		value, ok := all[i].registers[register]
		if !ok {
			r.fail(at.Error(fmt.Sprintf("%.100q: %.60q has no %s", name, all[i].name, register), "that register in each"))
			return nil
		}
		all[i].registers = map[string][]byte{register: value}
	}
	return all
}

func (r *reader) freshness(p *Policy, v strictyaml.Node) {
	p.freshness = freshness{DefaultEvidenceAge, DefaultEndorsementAge, DefaultReconnectAge, false, v.Line(), v.Line()}
	if !v.Present() || r.err != nil {
		return
	}
	m := r.fields(v, shapeDurations)
	for key, into := range map[string]*time.Duration{"evidence": &p.freshness.evidence, "endorsements": &p.freshness.endorsements} {
		if e := m.Get(key); e.Present() {
			d, err := e.Duration()
			r.fail(err)
			*into = d
		}
	}
	if e := m.Get("undated"); e.Present() {
		undated, err := e.Bool()
		r.fail(err)
		p.freshness.undated = undated
	}
	if e := m.Get("reconnect"); e.Present() {
		p.freshness.reconnect, p.freshness.reconnectLine = r.durationOrOff(e), e.Line()
	} else {
		p.freshness.reconnect = p.freshness.forReconnect()
	}
}

// durationOrOff is 0 for off.
func (r *reader) durationOrOff(v strictyaml.Node) time.Duration {
	const off = "off"
	s := r.text(v)
	if s == off {
		return 0
	}
	d, err := v.Duration()
	if err != nil {
		r.fail(strictyaml.Suggest(v.Error(fmt.Sprintf("%.60q", s), "a length of time such as 10m, or off"), s, []string{off}))
	}
	return d
}

// maxRules bounds the rules in CEL.
const maxRules = 256

func (r *reader) rules(p *Policy, v strictyaml.Node) {
	if !v.Present() || r.err != nil {
		return
	}
	nodes := r.list(v)
	if len(nodes) > maxRules {
		r.fail(v.Error(fmt.Sprintf("%d rules", len(nodes)), fmt.Sprintf("at most %d", maxRules)))
		return
	}
	compiler, err := expr.NewCompiler()
	r.fail(err)
	for i, e := range nodes {
		m := r.fields(e, shapeRule)
		if r.err != nil {
			return
		}
		when := m.Get("when")
		out := rule{terms: r.terms(e, m), source: r.text(when), effect: r.oneOf(m.Get("effect"), effects...), id: fmt.Sprintf("rules.%d", i+1)}
		if r.err != nil {
			return
		}
		out.name = out.source
		if n := m.Get("name"); n.Present() {
			out.name = r.text(n)
		}
		if out.program, err = compiler.Compile(out.source); err != nil {
			r.fail(when.Error(err.Error(), "an expression over the claims that is true or false"))
			return
		}
		p.rules = append(p.rules, out)
	}
}
