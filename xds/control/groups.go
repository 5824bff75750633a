package control

import (
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/resource"
)

// groupsConfig is groups.yaml.
type groupsConfig struct {
	Groups []groupConfig `yaml:"groups,required"` // in order: the first that a proxy matches is its own
}

// groupConfig is who gets what one folder has. Each criterion that is there has to be met, by one of its values.
type groupConfig struct {
	Name    string `yaml:"name,required"` // of the folder
	Require string `yaml:"require"`       // the policy in policies/ that its proxies have to meet; required unless local is there

	Names        []string `yaml:"names"`        // that the evidence is for: pay.example, or *.pay.example for all below it
	Measurements []string `yaml:"measurements"` // of what was launched, in hex
	Configs      []string `yaml:"configs"`      // digests of the measured configuration, in hex
	Any          bool     `yaml:"any"`          // every proxy that meets the policy
	Local        string   `yaml:"local"`        // those who come by the local listener of that name, which nobody appraised

	// They are proxies of another make: what they get is not checked for whether this one can carry it out. Those of a local
	// listener are.
	Stock bool `yaml:"stock"`

	// What node.id may be, as a pattern such as pay-*. Without it, it is one of the names that the evidence is for, such a name
	// with a slash and more behind it, or left out.
	Nodes []string `yaml:"nodes"`
}

// reserved are folders that are no group's.
var reserved = []string{"policies", "references"}

func (p *parser) readGroups(raw []byte) error {
	root, err := strictyaml.Parse(groupsFile, raw)
	if err != nil {
		return err
	}
	p.root = root
	var c groupsConfig
	if err := strictyaml.Decode(root, &c); err != nil {
		return err
	}
	bad := func(at, got, want string) error {
		return root.Locate(&attest.Error{Code: attest.CodeConfigValue, Check: "xds.groups", Subject: at, Got: fmt.Sprintf("%.100q", got), Want: want})
	}
	if len(c.Groups) == 0 || len(c.Groups) > MaxGroups {
		return bad("groups", fmt.Sprint(len(c.Groups)), fmt.Sprintf("1 to %d groups", MaxGroups))
	}
	seen := map[string]bool{}
	for i := range c.Groups {
		g := &c.Groups[i]
		at := fmt.Sprintf("groups[%d].", i)
		switch {
		case seen[g.Name] || slices.Contains(reserved, g.Name) || skipped(g.Name) || strings.ContainsAny(g.Name, "/\\*") || resource.ValidName(g.Name) != nil || len(g.Name) > 255:
			return bad(at+"name", g.Name, "the name of a folder, none of "+strings.Join(reserved, " and ")+", and each once")
		case g.Local != "" && (g.Require != "" || g.Any || len(g.Names)+len(g.Measurements)+len(g.Configs) > 0):
			return bad(at+"local", g.Local, "nothing beside it: nobody appraised who comes by a local listener")
		case g.Local == "" && g.Require == "":
			return root.Locate(&attest.Error{Code: attest.CodeConfigMissing, Check: "xds.groups", Subject: at + "require", Want: "a policy in policies/"})
		case g.Local == "" && g.Any == (len(g.Names)+len(g.Measurements)+len(g.Configs) > 0):
			return bad(at+"any", fmt.Sprint(g.Any), "any: true, or one of names, measurements and configs")
		}
		seen[g.Name] = true
		for j, n := range g.Names {
			g.Names[j] = strings.ToLower(n)
			if strings.Contains(strings.TrimPrefix(n, "*."), "*") {
				return bad(fmt.Sprintf("%snames[%d]", at, j), n, "a name, or *.NAME")
			}
		}
		for field, all := range map[string][]string{"measurements": g.Measurements, "configs": g.Configs} {
			for j, h := range all {
				all[j] = strings.ToLower(h)
				if b, err := hex.DecodeString(h); err != nil || len(b) < 20 || len(b) > 64 || field == "configs" && len(b) != 32 {
					return bad(fmt.Sprintf("%s%s[%d]", at, field, j), h, "a digest in hex")
				}
			}
		}
		for j, n := range g.Nodes {
			if _, err := path.Match(n, ""); err != nil || n == "" {
				return bad(fmt.Sprintf("%snodes[%d]", at, j), n, "a pattern such as pay-*")
			}
		}
	}
	p.groups = c.Groups
	return nil
}

// matches reports whether a peer belongs to the group, by what was verified alone.
func (g *groupConfig) matches(p *attested.Peer) bool {
	if g.Local != "" || p.Local() != "" {
		return g.Local != "" && g.Local == p.Local()
	}
	claims := claimsOf(p)
	if claims == nil {
		return false
	}
	if len(g.Names) > 0 && !slices.ContainsFunc(p.Names(), func(n string) bool {
		return slices.ContainsFunc(g.Names, func(want string) bool { return covers(want, n) })
	}) {
		return false
	}
	if len(g.Measurements) > 0 && !slices.Contains(g.Measurements, claims.Measured["launch"].String()) {
		return false
	}
	if config := p.Config(); len(g.Configs) > 0 && !slices.Contains(g.Configs, hex.EncodeToString(config[:])) {
		return false
	}
	return g.Any || len(g.Names)+len(g.Measurements)+len(g.Configs) > 0
}

// claimsOf answers what the hardware signed about a peer; nil where there is nothing.
func claimsOf(p *attested.Peer) *attest.Claims {
	if r := p.Result(); r != nil {
		return r.Claims()
	}
	return nil
}

func covers(want, name string) bool {
	if below, ok := strings.CutPrefix(want, "*"); ok {
		return len(name) > len(below) && strings.HasSuffix(name, below)
	}
	return want == name
}

// agrees reports whether what a request calls its sender can be true.
func (g *groupConfig) agrees(p *attested.Peer, id string) bool {
	if id == "" {
		return true
	}
	if len(g.Nodes) > 0 {
		return slices.ContainsFunc(g.Nodes, func(pattern string) bool {
			ok, err := path.Match(pattern, id)
			return ok && err == nil
		})
	}
	if g.Local != "" {
		return true
	}
	name, _, _ := strings.Cut(strings.ToLower(id), "/")
	return slices.Contains(p.Names(), name)
}
