package metrics

import (
	"strconv"

	"github.com/jurat-tls/jurat/ratls/batch"
)

// one is a number about the whole proxy.
func one(kind, name, help string, f func(*state, number)) definition {
	return definition{Family: Family{name, kind, nil, help}, numbers: f}
}

// quotes is a number about the quotes of the proxy's own TEE.
func quotes(kind, name, help string, f func(*batch.Stats) float64) definition {
	return definition{Family: Family{name, kind, nil, help}, numbers: func(s *state, emit number) {
		if s.Identity != nil {
			emit(f(&s.Identity.Quotes))
		}
	}}
}

func quoteHistogram(name, help string, f func(*batch.Stats) batch.Times) definition {
	return definition{Family: Family{name, Histogram, nil, help}, distributions: func(s *state, emit distribution) {
		if s.Identity != nil {
			emit(times(f(&s.Identity.Quotes)))
		}
	}}
}

func identity() []definition {
	return []definition{
		{Family: Family{"jurat_identity_info", Gauge, []string{"tee", "simulated"}, "The TEE whose evidence this proxy presents; the value is 1."}, numbers: func(s *state, emit number) {
			if s.Identity != nil {
				emit(1, s.Identity.TEE, strconv.FormatBool(s.Identity.Simulated))
			}
		}},
		one(Gauge, "jurat_identity_evidence_timestamp_seconds", "When the evidence in this proxy's certificate was made, in seconds since 1970.", func(s *state, emit number) {
			if s.Identity != nil && !s.Identity.Evidence.IsZero() {
				emit(float64(s.Identity.Evidence.Unix()))
			}
		}),
		one(Gauge, "jurat_identity_expiry_timestamp_seconds", "When this proxy's certificate expires, in seconds since 1970.", func(s *state, emit number) {
			if s.Identity != nil && !s.Identity.NotAfter.IsZero() {
				emit(float64(s.Identity.NotAfter.Unix()))
			}
		}),
		quotes(Counter, "jurat_quotes_total", "Quotes that the TEE was asked for.", func(q *batch.Stats) float64 { return float64(q.Quotes) }),
		quotes(Counter, "jurat_quote_failures_total", "Quotes that failed or took too long.", func(q *batch.Stats) float64 { return float64(q.Failures) }),
		quotes(Counter, "jurat_quote_sessions_total", "Sessions that got evidence.", func(q *batch.Stats) float64 { return float64(q.Sessions) }),
		quotes(Counter, "jurat_quote_crowded_sessions_total", "Sessions refused because too many waited (J108).", func(q *batch.Stats) float64 { return float64(q.Crowded) }),
		quotes(Counter, "jurat_quote_broken_sessions_total", "Sessions refused because the TEE keeps failing (J806).", func(q *batch.Stats) float64 { return float64(q.Refused) }),
		quotes(Gauge, "jurat_quote_waiting_sessions", "Sessions that wait for a quote to begin.", func(q *batch.Stats) float64 { return float64(q.Waiting) }),
		quotes(Gauge, "jurat_quote_largest_batch_sessions", "The most sessions that shared a quote.", func(q *batch.Stats) float64 { return float64(q.Largest) }),
		quotes(Gauge, "jurat_quote_mean_batch_sessions", "Sessions for each quote that did not fail, on average since the start.", func(q *batch.Stats) float64 {
			if q.Quotes <= q.Failures {
				return 0
			}
			return float64(q.Sessions) / float64(q.Quotes-q.Failures)
		}),
		{Family: Family{"jurat_quote_breaker", Gauge, []string{"state"}, "1 for the state that the breaker before the TEE is in."}, numbers: func(s *state, emit number) {
			if s.Identity != nil {
				for _, name := range []string{batch.Closed, batch.Open, batch.HalfOpen} {
					emit(truth(s.Identity.Quotes.Breaker == name), name)
				}
			}
		}},
		quoteHistogram("jurat_quote_wait_seconds", "How long sessions waited for their evidence.", func(q *batch.Stats) batch.Times { return q.Wait }),
		quoteHistogram("jurat_quote_duration_seconds", "How long quotes took, failed or not.", func(q *batch.Stats) batch.Times { return q.Quote }),
	}
}

func ofPublic(kind, name, help string, f func(*PublicCertificate) float64) definition {
	return definition{Family: Family{"jurat_public_certificate_" + name, kind, []string{"name"}, help}, numbers: func(s *state, emit number) {
		for i := range s.Public {
			emit(f(&s.Public[i]), s.Public[i].Name)
		}
	}}
}

func public() []definition {
	return []definition{
		ofPublic(Gauge, "expiry_timestamp_seconds", "When the public certificate for a name expires, in seconds since 1970; 0 where there is none.", func(p *PublicCertificate) float64 {
			if p.NotAfter.IsZero() {
				return 0
			}
			return float64(p.NotAfter.Unix())
		}),
		ofPublic(Counter, "obtained_total", "Public certificates that were issued, or read, for a name.", func(p *PublicCertificate) float64 { return float64(p.Obtained) }),
		ofPublic(Counter, "failures_total", "Tries to get a public certificate for a name that failed.", func(p *PublicCertificate) float64 { return float64(p.Failures) }),
		{Family: Family{"jurat_public_certificate_failing", Gauge, []string{"name", "code"}, "1 for a name whose last try failed, with the code of that."}, numbers: func(s *state, emit number) {
			for _, p := range s.Public {
				if p.Code != "" {
					emit(1, p.Name, string(p.Code))
				}
			}
		}},
	}
}

func logLines(name, help string, f func(*state) uint64) definition {
	return definition{Family: Family{"jurat_access_log_" + name, Counter, nil, help}, numbers: func(s *state, emit number) {
		if s.AccessLog != nil {
			emit(float64(f(s)))
		}
	}}
}

func accessLog() []definition {
	return []definition{
		logLines("lines_total", "Lines written to the access log.", func(s *state) uint64 { return s.AccessLog.Written }),
		logLines("dropped_lines_total", "Lines of the access log that were lost.", func(s *state) uint64 { return s.AccessLog.Dropped }),
		logLines("failed_writes_total", "Attempts to write the access log that failed.", func(s *state) uint64 { return s.AccessLog.Failed }),
		logLines("bytes_total", "Bytes written to the access log.", func(s *state) uint64 { return s.AccessLog.Bytes }),
	}
}
