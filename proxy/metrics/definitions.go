package metrics

import (
	"slices"
	"strconv"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/tally"
)

// Types of metrics.
const (
	Counter   = "counter"
	Gauge     = "gauge"
	Histogram = "histogram"
)

// Family describes a metric.
type Family struct {
	Name, Type string
	Labels     []string
	Help       string
}

// Families are all of the proxy's own metrics, in the order in which Each shows them. Beside them are those of the Go runtime
// (go_) and of the process (process_).
func Families() []Family {
	var all []Family
	for _, d := range definitions() {
		all = append(all, d.Family)
	}
	return all
}

// definition is a Family, and where its numbers come from.
type definition struct {
	Family
	numbers       func(*state, func(v float64, labels ...string))
	distributions func(*state, func(b buckets, labels ...string))
}

func (d *definition) distribution() bool { return d.distributions != nil }

type (
	number       = func(v float64, labels ...string)
	distribution = func(b buckets, labels ...string)
)

func peerLabels(first string) []string {
	return []string{first, "verdict", "vendor", "tee", "generation", "level", "simulated"}
}

func peers(name string, p *tally.PeerStats, emit number) {
	for k, n := range p.Counts {
		emit(float64(n), name, k.Verdict.String(), k.Vendor, k.TEE, k.Generation, level(k.Level), strconv.FormatBool(k.Simulated))
	}
}

// level is one of those that exist, or empty.
func level(l attest.Level) string {
	if l == "" || l.Valid() {
		return string(l)
	}
	return tally.Other
}

func definitions() []definition {
	return slices.Concat(whole(), listeners(), chains(), clusters(), endpoints(), enforced(), controlPlane(), identity(), public(), accessLog())
}

func whole() []definition {
	return []definition{
		{Family: Family{"jurat_build_info", Gauge, []string{"version", "revision", "goversion"}, "What the binary was made of; the value is 1."}, numbers: func(s *state, emit number) {
			emit(1, s.build.Version, s.build.Revision, s.build.Go)
		}},
	}
}
