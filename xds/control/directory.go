package control

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Bounds on a directory.
const (
	MaxFiles     = 4096
	MaxFile      = 16 << 20 // bytes
	MaxBytes     = 64 << 20 // of all files
	MaxResources = 100_000  // of all groups
	MaxGroups    = 1024     // in groups.yaml
	groupsFile   = "groups.yaml"
	policySuffix = ".policy.yaml"
)

// Files are the files of a directory, by their slash-separated paths in it.
type Files map[string][]byte

// Document is a resource of a file.
type Document struct {
	resource.Resource
	Position string // "file:line:column"; "" where it is not known
}

// Decode makes resources of one file: of Envoy's, as YAML or JSON, or of the short form. The errors are *attest.Error, joined where
// there are several, with positions as their subjects. The text is untrusted, and bounded by MaxFile.
type Decode func(file string, raw []byte) ([]Document, error)

// Finding is what is wrong with a resource.
type Finding struct {
	Type, Name string
	Err        error // an *attest.Error, joined where there are several, whose subject is a place in the resource
}

// Check reports what is wrong with everything that one group gets. It sees each resource with a version of 1. Groups of stock
// proxies are not asked about.
type Check func(group string, resources []resource.Resource) []Finding

// directory is what files say, checked.
type directory struct {
	digest   string
	groups   []groupConfig
	policies map[string]*policy.Policy
	items    map[key]item
}

// skipped reports whether a name in a directory is not the operator's configuration.
func skipped(name string) bool {
	return name[0] == '.' || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".md")
}

// stamp is what shows that a file is another one, or was written.
type stamp struct {
	Size    int64
	Changed time.Time
	Mode    fs.FileMode
	ID      [3]int64 // device, inode and the time of the last change of the inode, where the system has them
}

// survey answers the stamps of all files of a directory, which it follows links within, but not out of.
func survey(root *os.Root) (map[string]stamp, error) {
	found := map[string]stamp{}
	var total int64
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		if depth > 8 {
			return tooMuch(dir, "folders deeper than 8", "fewer")
		}
		f, err := root.Open(dir)
		if err != nil {
			return err
		}
		entries, err := f.ReadDir(MaxFiles + 1)
		_ = f.Close()
		if err != nil && err != io.EOF {
			return err
		}
		for _, e := range entries {
			if skipped(e.Name()) {
				continue
			}
			name := path.Join(dir, e.Name())
			info, err := root.Stat(name) // what a link leads to
			if err != nil {
				return err
			}
			switch {
			case info.IsDir():
				if err := walk(name, depth+1); err != nil {
					return err
				}
				continue
			case !info.Mode().IsRegular():
				return &attest.Error{Code: attest.CodeConfigValue, Check: "xds.directory", Subject: name, Got: info.Mode().Type().String(), Want: "a file"}
			}
			total += info.Size()
			if len(found) == MaxFiles {
				return tooMuch(dir, "more files", fmt.Sprintf("at most %d", MaxFiles))
			}
			if info.Size() > MaxFile || total > MaxBytes {
				return tooMuch(name, fmt.Sprintf("%d bytes", info.Size()), fmt.Sprintf("at most %d, and %d in all", MaxFile, MaxBytes))
			}
			found[name] = stamp{info.Size(), info.ModTime(), info.Mode(), identify(info)}
		}
		return nil
	}
	return found, walk(".", 0)
}

func tooMuch(subject, got, want string) error {
	return &attest.Error{Code: attest.CodeOversized, Check: "xds.directory", Subject: subject, Got: got, Want: want}
}

// errChanging is the answer of ReadDirectory where somebody keeps writing.
var errChanging = errors.New("files change while they are read")

// ReadDirectory reads all files of a directory as they are at one moment. Where they change meanwhile it reads again, and gives up
// after a while.
func ReadDirectory(dir string) (Files, error) {
	files, _, err := readDirectory(dir)
	return files, err
}

func readDirectory(dir string) (Files, map[string]stamp, error) {
	var err error
	for range 20 {
		var files Files
		var seen map[string]stamp
		if files, seen, err = readOnce(dir); err == nil {
			return files, seen, nil
		}
		// A link was turned to another directory under the reader, or a file replaced.
		if !errors.Is(err, errChanging) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if _, gone := os.Stat(dir); gone != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	var coded *attest.Error
	if !errors.As(err, &coded) {
		err = &attest.Error{Code: attest.CodeConfigMissing, Check: "xds.directory", Subject: dir, Err: err}
	}
	return nil, nil, err
}

func readOnce(dir string) (Files, map[string]stamp, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	before, err := survey(root)
	if err != nil {
		return nil, nil, err
	}
	files := Files{}
	for name, s := range before {
		f, err := root.Open(name)
		if err != nil {
			return nil, nil, err
		}
		raw, err := io.ReadAll(io.LimitReader(f, s.Size+1))
		_ = f.Close()
		if err != nil {
			return nil, nil, err
		}
		if int64(len(raw)) != s.Size {
			return nil, nil, fmt.Errorf("%s: %w", name, errChanging)
		}
		files[name] = raw
	}
	// Opened anew: where a link leads to another directory now, half of what was read may be of that one.
	again, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer again.Close()
	after, err := survey(again)
	if err != nil {
		return nil, nil, err
	}
	if !maps.Equal(before, after) {
		return nil, nil, errChanging
	}
	return files, before, nil
}

// Digest is the SHA-256 over all names and contents, in hex.
func (f Files) Digest() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		one := sum([]byte(name), f[name])
		h.Write(one[:])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// parse checks everything that files say. The error joins one for each thing that is wrong.
func parse(files Files, decode Decode, check Check) (*directory, error) {
	p := &parser{
		directory: &directory{digest: files.Digest(), policies: map[string]*policy.Policy{}, items: map[key]item{}},
		files:     files, decode: decode, from: map[key]string{}, bodies: map[key][]byte{},
	}
	if raw, ok := files[groupsFile]; ok {
		p.fail(p.readGroups(raw))
	} else {
		p.fail(&attest.Error{Code: attest.CodeConfigMissing, Check: "xds.directory", Subject: groupsFile, Want: "the groups, and who is in them"})
	}
	known := map[string]bool{}
	for _, g := range p.groups {
		known[g.Name] = true
	}
	sets := map[string]map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		top, rest, below := strings.Cut(name, "/")
		switch {
		case name == groupsFile:
		case top == "references" && below:
			set, file, ok := strings.Cut(rest, "/")
			if !ok || strings.Contains(file, "/") {
				p.fail(misplaced(name, "references/SET/FILE"))
				continue
			}
			if sets[set] == nil {
				sets[set] = map[string][]byte{}
			}
			sets[set][file] = files[name]
		case top == "policies" && below, !below && strings.HasSuffix(name, policySuffix):
			// below
		case !below && yamlFile(name):
			p.fail(p.resources("", name))
		case below && known[top]:
			if yamlFile(name) {
				p.fail(p.resources(top, name))
			}
		case below && yamlFile(name) && len(p.groups) > 0:
			p.fail(misplaced(name, "a folder that is called as a group is, policies or references"))
		}
	}
	for _, set := range slices.Sorted(maps.Keys(sets)) {
		p.fail(p.references(set, sets[set]))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if id, ok := policyName(name); ok {
			p.fail(p.policy(id, name, sets))
		}
	}
	for i, g := range p.groups {
		if g.Require != "" && p.policies[g.Require] == nil && len(p.errs) == 0 {
			p.fail(p.root.Locate(&attest.Error{Code: attest.CodeConfigMissing, Check: "xds.groups", Subject: fmt.Sprintf("groups[%d].require", i), Got: fmt.Sprintf("%.100q", g.Require), Want: "a policy in policies/"}))
		}
	}
	if len(p.items) > MaxResources {
		p.fail(tooMuch("", fmt.Sprintf("%d resources", len(p.items)), fmt.Sprintf("at most %d", MaxResources)))
	}
	if len(p.errs) == 0 && check != nil {
		for _, g := range p.groups {
			if g.Local != "" || g.Stock {
				continue
			}
			for _, f := range check(g.Name, p.of(g.Name)) {
				p.fail(p.located(g.Name, f))
			}
		}
	}
	if len(p.errs) > 0 {
		if len(p.errs) > 20 {
			p.errs = p.errs[:20]
		}
		return nil, errors.Join(p.errs...)
	}
	return p.directory, nil
}

// policyName answers the name of the policy that a file has.
func policyName(file string) (string, bool) {
	if rest, ok := strings.CutPrefix(file, "policies/"); ok {
		for _, ext := range []string{policySuffix, ".yaml", ".yml"} {
			if id, ok := strings.CutSuffix(rest, ext); ok && !strings.Contains(id, "/") {
				return id, true
			}
		}
		return "", false
	}
	id, ok := strings.CutSuffix(file, policySuffix)
	return id, ok && !strings.Contains(id, "/")
}

func yamlFile(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".json")
}

func misplaced(name, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "xds.directory", Subject: name, Got: "a file that belongs to nothing", Want: want}
}

type parser struct {
	*directory
	files  Files
	decode Decode
	root   strictyaml.Node // of groups.yaml
	from   map[key]string  // where each resource is, as errors have it
	bodies map[key][]byte  // with version 1
	errs   []error
}

func (p *parser) fail(err error) {
	if err != nil && len(p.errs) < 100 {
		p.errs = append(p.errs, err)
	}
}

// add takes a resource. No group may get two of one type and name.
func (p *parser) add(k key, file string, it item) error {
	anywhere := key{"*", k.Type, k.Name} // no folder is called that
	others := []key{{"", k.Type, k.Name}, k}
	if k.Scope == "" {
		others = []key{anywhere}
	}
	for _, o := range others {
		if other, ok := p.from[o]; ok {
			return &attest.Error{Code: attest.CodeConfigValue, Check: "xds.directory", Subject: file, Got: fmt.Sprintf("%s %.100q", short(k.Type), k.Name), Want: "a name that " + other + " does not have, too"}
		}
	}
	body, err := it.body(1)
	if err != nil {
		return at(file, err)
	}
	r := resource.Resource{Type: k.Type, Name: k.Name, Version: "1", Body: body}
	if err := r.Validate(); err != nil {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "xds.directory", Subject: file, Err: err}
	}
	p.items[k], p.from[k], p.from[anywhere], p.bodies[k] = it, file, file, body
	return nil
}

// of answers what a group gets.
func (p *parser) of(group string) []resource.Resource {
	var all []resource.Resource
	for _, k := range slices.SortedFunc(maps.Keys(p.items), key.compare) {
		if k.Scope == "" || k.Scope == group {
			all = append(all, resource.Resource{Type: k.Type, Name: k.Name, Version: "1", Body: p.bodies[k]})
		}
	}
	return all
}

// located names the file in what is wrong with a resource of a group.
func (p *parser) located(group string, f Finding) error {
	where := p.from[key{group, f.Type, f.Name}]
	if where == "" {
		where = p.from[key{"", f.Type, f.Name}]
	}
	return at(cmp.Or(where, "group "+group), f.Err)
}

func (p *parser) resources(scope, file string) error {
	all, err := p.decode(file, p.files[file])
	if err != nil {
		return at(file, err)
	}
	var errs []error
	for _, r := range all {
		if r.Type == resource.AttestationPolicy || r.Type == resource.ReferenceValues {
			errs = append(errs, &attest.Error{Code: attest.CodeConfigValue, Check: "xds.directory", Subject: cmp.Or(r.Position, file), Got: short(r.Type), Want: "a file in policies/ or references/: its serial is given here"})
			continue
		}
		errs = append(errs, p.add(key{scope, r.Type, r.Name}, cmp.Or(r.Position, file), item{sum(r.Body), func(uint64) ([]byte, error) { return r.Body, nil }}))
	}
	return errors.Join(errs...)
}

func (p *parser) references(set string, files map[string][]byte) error {
	parts := [][]byte{[]byte(set)}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		parts = append(parts, []byte(name), files[name])
	}
	return p.add(key{"", resource.ReferenceValues, set}, "references/"+set, item{sum(parts...), func(v uint64) ([]byte, error) {
		return api.References{Name: set, Serial: v, Files: files}.Encode()
	}})
}

// policy reads a policy with the files that it names: those beside it are sent with it, others are in a set of reference values.
func (p *parser) policy(name, file string, sets map[string]map[string][]byte) error {
	beside := map[string][]byte{}
	var used []string
	parsed, err := policy.Parse(file, p.files[file], func(named string) ([]byte, error) {
		if raw, ok := p.files[path.Join(path.Dir(file), named)]; ok && named == path.Clean(named) && !strings.HasPrefix(named, "../") {
			beside[named] = raw
			return raw, nil
		}
		var in []string
		for set, files := range sets {
			if _, ok := files[named]; ok {
				in = append(in, set)
			}
		}
		slices.Sort(in)
		switch len(in) {
		case 0:
			return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "xds.policy", Subject: file, Got: fmt.Sprintf("%.100q", named), Want: "a file beside it, or in references/SET"}
		case 1:
			if !slices.Contains(used, in[0]) {
				used = append(used, in[0])
			}
			return sets[in[0]][named], nil
		}
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "xds.policy", Subject: file, Got: fmt.Sprintf("%.100q in %s", named, strings.Join(in, " and ")), Want: "one set that has it"}
	})
	if err != nil {
		return at(file, err)
	}
	slices.Sort(used)
	parts := [][]byte{[]byte(name), p.files[file]}
	for _, n := range slices.Sorted(maps.Keys(beside)) {
		parts = append(parts, []byte(n), beside[n])
	}
	for _, set := range used {
		parts = append(parts, []byte(set))
	}
	text := string(p.files[file])
	err = p.add(key{"", resource.AttestationPolicy, name}, file, item{sum(parts...), func(v uint64) ([]byte, error) {
		return api.Policy{Name: name, Serial: v, Text: text, Files: beside, References: used}.Encode()
	}})
	if err == nil {
		p.policies[name] = parsed
	}
	return err
}

// at names the file in an error that does not.
func at(file string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, at(file, e))
		}
		return errors.Join(all...)
	}
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "xds.directory", Subject: file, Err: err}
	}
	if strings.HasPrefix(coded.Subject, file) {
		return err
	}
	e := *coded
	e.Subject = strings.TrimSuffix(file+": "+coded.Subject, ": ")
	return &e
}

// short is the last word of a type.
func short(typ string) string { return typ[strings.LastIndexByte(typ, '.')+1:] }

// Summary is what a directory holds.
type Summary struct {
	Digest    string         `json:"digest"`
	Files     int            `json:"files"`
	Groups    []string       `json:"groups"`
	Policies  []string       `json:"policies"`
	Resources map[string]int `json:"resources"` // by type
}

// Validate checks files as Open and Reload do, and answers what they hold.
func Validate(files Files, decode Decode, check Check) (*Summary, error) {
	d, err := parse(files, decode, check)
	if err != nil {
		return nil, err
	}
	s := &Summary{Digest: d.digest, Files: len(files), Policies: slices.Sorted(maps.Keys(d.policies)), Resources: map[string]int{}}
	for _, g := range d.groups {
		s.Groups = append(s.Groups, g.Name)
	}
	for k := range d.items {
		s.Resources[k.Type]++
	}
	return s, nil
}
