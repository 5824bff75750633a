package metrics

import (
	"strconv"

	"github.com/jurat-tls/jurat/ratls/enforce"
)

// enforcedOne is a number about what is in force.
func enforcedOne(kind, name, help string, f func(*enforce.Stats) float64) definition {
	return definition{Family: Family{name, kind, nil, help}, numbers: func(s *state, emit number) {
		if s.Enforced != nil {
			emit(f(s.Enforced))
		}
	}}
}

func enforced() []definition {
	return []definition{
		{Family: Family{"jurat_appraised_connections", Gauge, []string{"verdict", "vendor", "tee", "product", "generation", "level", "simulated"}, "Connections open now whose peer was appraised, by what it proved."}, numbers: func(s *state, emit number) {
			if s.Enforced == nil {
				return
			}
			for p, n := range s.Enforced.Open {
				emit(float64(n), p.Verdict.String(), p.Vendor, p.TEE, p.Product, p.Generation, level(p.Level), strconv.FormatBool(p.Simulated))
			}
		}},
		enforcedOne(Gauge, "jurat_policy_epoch", "Grows with every change of policies and endorsements.", func(s *enforce.Stats) float64 { return float64(s.Epoch) }),
		enforcedOne(Counter, "jurat_rejudged_connections_total", "Open connections judged again, once for each time.", func(s *enforce.Stats) float64 { return float64(s.Rejudged) }),
		enforcedOne(Counter, "jurat_rejudged_refused_connections_total", "Open connections that ended because their peer was refused when it was judged again.", func(s *enforce.Stats) float64 { return float64(s.Refused) }),
		enforcedOne(Counter, "jurat_rejudged_warnings_total", "What rules that only report had to say about open connections judged again.", func(s *enforce.Stats) float64 { return float64(s.Warned) }),
		enforcedOne(Counter, "jurat_reverified_evidence_total", "Pieces of evidence of open connections verified again.", func(s *enforce.Stats) float64 { return float64(s.Verified) }),
		enforcedOne(Counter, "jurat_policy_sweeps_total", "Times that open connections were judged again.", func(s *enforce.Stats) float64 { return float64(s.Sweeps) }),
		{Family: Family{"jurat_policy_sweep_timestamp_seconds", Gauge, nil, "When open connections were last judged again, in seconds since 1970."}, numbers: func(s *state, emit number) {
			if s.Enforced != nil && !s.Enforced.LastSweep.IsZero() {
				emit(float64(s.Enforced.LastSweep.UnixMilli()) / 1000)
			}
		}},
		{Family: Family{"jurat_policy_sweep_seconds", Gauge, nil, "How long it took then until the last of them was judged, and told to end where it is refused."}, numbers: func(s *state, emit number) {
			if s.Enforced != nil && s.Enforced.Sweeps > 0 {
				emit(s.Enforced.LastTook.Seconds())
			}
		}},
	}
}
