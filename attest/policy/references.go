package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest/strictyaml"
)

// maxReferences bounds the sets of one file.
const maxReferences = 1024

// readReferences reads a file of reference values: CoRIM, or JSON. As JSON it is one release, or a list of them:
//
//	{"name": "payments", "version": "v1.4.2", "registers": {"launch": "55d0…", "rtmr1": "90be…"}}
//
// JSON is read as the YAML that it is, for the same strictness.
func readReferences(raw []byte) ([]set, error) {
	if isCoRIM(raw) {
		return readCoRIM(raw)
	}
	root, err := strictyaml.Parse("reference values", raw)
	if err != nil {
		return nil, err
	}
	nodes := []strictyaml.Node{root}
	if !root.IsMap() {
		if nodes, err = root.List(); err != nil {
			return nil, err
		}
	}
	if len(nodes) == 0 || len(nodes) > maxReferences {
		return nil, root.Error(fmt.Sprintf("%d releases", len(nodes)), fmt.Sprintf("1 to %d", maxReferences))
	}
	r := new(reader)
	var all []set
	for _, n := range nodes {
		m := r.fields(n, shapeRelease)
		if r.err != nil {
			return nil, r.err
		}
		s := set{name: r.text(m.Get("name")), registers: map[string][]byte{}}
		if v := m.Get("version"); v.Present() {
			s.name = strings.TrimSpace(s.name + " " + r.text(v))
		}
		r.registers(s.registers, m.Get("registers"))
		s.text = s.name
		all = append(all, s)
	}
	return all, r.err
}

// registers reads a map of at least one register.
func (r *reader) registers(into map[string][]byte, v strictyaml.Node) {
	names, values, err := v.Entries()
	r.fail(err)
	if err == nil && len(names) == 0 {
		r.fail(v.Error("no register", "at least one"))
	}
	for i, n := range names {
		r.name(values[i], n)
		into[n] = r.measurement(values[i])
	}
}

var shapeRelease = mapOf("one release",
	must("name", text("what it is")),
	may("version", text("its version")),
	must("registers", ownMap("its registers", hexBytes("the value"))),
)

func sorted(m map[string][]byte) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
