package route

import (
	"fmt"
	"slices"
	"strconv"
)

// Mirror is a compiled RequestMirror.
type Mirror struct {
	Cluster                string
	numerator, denominator uint64
}

// Wanted reports whether this request is copied. random is evenly distributed.
func (m Mirror) Wanted(random uint64) bool { return random%m.denominator < m.numerator }

func (c *compiler) mirror(at string, policies []RequestMirror, of *entry) []Mirror {
	var out []Mirror
	for i, p := range policies {
		at := fmt.Sprintf("%s[%d]", at, i)
		m := Mirror{p.Cluster, uint64(p.Numerator), uint64(p.Denominator)}
		switch {
		case p.Denominator == 0 && p.Numerator == 0:
			m.numerator, m.denominator = 1, 1
		case p.Denominator != 100 && p.Denominator != 10_000 && p.Denominator != 1_000_000:
			c.bad(at+".denominator", strconv.FormatUint(m.denominator, 10), "100, 10000 or 1000000")
		case p.Numerator > p.Denominator:
			c.bad(at+".numerator", strconv.FormatUint(m.numerator, 10), "at most the denominator")
		}
		switch {
		case p.Cluster == "":
			c.bad(at+".cluster", `""`, "the name of a cluster")
		case !c.mayCopy(of, p.Cluster):
			c.bad(at+".cluster", quote(p.Cluster), "a cluster that is attested, as those are that the request goes to")
		}
		out = append(out, m)
	}
	return out
}

// mayCopy reports whether a copy of a route's requests is as protected in a cluster as they are.
func (c *compiler) mayCopy(of *entry, cluster string) bool {
	if c.attested == nil {
		return false
	}
	attested := len(of.targets) == 0 && c.attested(of.plain.cluster) || slices.ContainsFunc(of.targets, func(t target) bool { return c.attested(t.cluster) })
	return c.attested(cluster) || !attested
}
