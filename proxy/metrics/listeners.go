package metrics

import (
	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/tally"
)

// listener is a number about each listener.
func listener(kind, name, help string, f func(*Listener) float64) definition {
	return definition{Family: Family{"jurat_listener_" + name, kind, []string{"listener"}, help}, numbers: func(s *state, emit number) {
		for i := range s.Listeners {
			emit(f(&s.Listeners[i]), s.Listeners[i].Name)
		}
	}}
}

// listenerBy is several numbers about each listener, told apart by a label.
func listenerBy(kind, name, label, help string, f func(*Listener, func(v float64, label string))) definition {
	return definition{Family: Family{"jurat_listener_" + name, kind, []string{"listener", label}, help}, numbers: func(s *state, emit number) {
		for i := range s.Listeners {
			f(&s.Listeners[i], func(v float64, label string) { emit(v, s.Listeners[i].Name, label) })
		}
	}}
}

func listenerHistogram(name, help string, f func(*Listener) buckets) definition {
	return definition{Family: Family{"jurat_listener_" + name, Histogram, []string{"listener"}, help}, distributions: func(s *state, emit distribution) {
		for i := range s.Listeners {
			emit(f(&s.Listeners[i]), s.Listeners[i].Name)
		}
	}}
}

// code is one of the table.
func code(c attest.Code) string {
	if c.Title() == "" {
		return tally.Other
	}
	return string(c)
}

func listeners() []definition {
	return []definition{
		listener(Counter, "accepted_connections_total", "Connections accepted, before any handshake.", func(l *Listener) float64 { return float64(l.Stats.Accepted) }),
		listener(Counter, "handshakes_total", "Connections established: attested ones, and plain ones where those are taken.", func(l *Listener) float64 { return float64(l.Stats.Handshakes) }),
		listenerBy(Counter, "bindings_total", "level", "Attested connections established with a peer that was appraised, by the binding level that was reached.", func(l *Listener, emit func(float64, string)) {
			for k, n := range l.Stats.Bindings {
				emit(float64(n), level(k))
			}
		}),
		listenerBy(Counter, "refused_connections_total", "code", "Connections refused before a byte of the application moved, by error code.", func(l *Listener, emit func(float64, string)) {
			for k, n := range l.Stats.Refused {
				emit(float64(n), code(k))
			}
		}),
		listener(Gauge, "active_connections", "Connections open now, attested and plain ones.", func(l *Listener) float64 { return float64(l.Stats.Active) }),
		listener(Counter, "requests_total", "HTTP requests begun.", func(l *Listener) float64 { return float64(l.Stats.Requests) }),
		listener(Counter, "received_bytes_total", "Bytes received from clients: of the application, or of TLS that is passed through.", func(l *Listener) float64 { return float64(l.Stats.BytesIn) }),
		listener(Counter, "sent_bytes_total", "Bytes sent to clients: of the application, or of TLS that is passed through.", func(l *Listener) float64 { return float64(l.Stats.BytesOut) }),
		listenerBy(Counter, "responses_total", "class", "Requests ended, by the class of their status; none for those without an answer.", func(l *Listener, emit func(float64, string)) {
			for i, n := range l.Requests.Responses {
				emit(float64(n), [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}[i])
			}
		}),
		listenerHistogram("request_duration_seconds", "How long requests took, from their head to the last byte of the answer.", func(l *Listener) buckets { return seconds(l.Requests.Duration) }),
		listenerHistogram("first_byte_seconds", "How long it took from the head of a request to the first byte of the answer.", func(l *Listener) buckets { return seconds(l.Requests.FirstByte) }),
		listenerHistogram("request_body_bytes", "Bytes of the bodies of requests.", func(l *Listener) buckets { return bytes(l.Requests.Received) }),
		listenerHistogram("response_body_bytes", "Bytes of the bodies of answers.", func(l *Listener) buckets { return bytes(l.Requests.Sent) }),
		{Family: Family{"jurat_listener_appraisals_total", Counter, peerLabels("listener"), "Appraisals of clients, by verdict and by what they proved."}, numbers: func(s *state, emit number) {
			for i := range s.Listeners {
				peers(s.Listeners[i].Name, &s.Listeners[i].Peers, emit)
			}
		}},
		listenerHistogram("evidence_age_seconds", "How old the evidence of clients was when it was appraised.", func(l *Listener) buckets { return seconds(l.Peers.Ages) }),
	}
}
