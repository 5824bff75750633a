package policy

import "github.com/jurat-tls/jurat/attest"

// LeastBinding is the weakest level under which p affirms anything at any time; LevelNone for the zero Policy.
func (p *Policy) LeastBinding() attest.Level {
	if p.id == "" {
		return attest.LevelNone
	}
	level := weakest(&p.binding)
	if p.tolerated != "" && level.AtLeast(p.tolerated) {
		level = p.tolerated
	}
	if p.floor != nil {
		if below := p.floor.LeastBinding(); below.AtLeast(level) {
			return below
		}
	}
	return level
}
