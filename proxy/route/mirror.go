package route

import (
	"fmt"
	"strconv"
)

// Mirror is a compiled RequestMirror.
type Mirror struct {
	Cluster                string
	numerator, denominator uint64
}

// Wanted reports whether this request is copied. random is evenly distributed.
func (m Mirror) Wanted(random uint64) bool { return random%m.denominator < m.numerator }

func (c *compiler) mirror(at string, policies []RequestMirror) []Mirror {
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
		case c.mirrors == nil || !c.mirrors(p.Cluster):
			c.bad(at+".cluster", quote(p.Cluster), "a cluster that is attested, or allowed to get the plaintext of others")
		}
		out = append(out, m)
	}
	return out
}
