package admin

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Cluster is what /clusters shows.
type Cluster struct {
	Name      string
	Dynamic   bool // a control plane added it
	Stats     upstream.Stats
	Endpoints []Endpoint
}

// Endpoint is one address of a Cluster.
type Endpoint struct {
	Address  string // "192.0.2.1:443" or "unix:/path"
	Hostname string
	Locality string
	Weight   uint32
	Priority uint32
	Stats    upstream.EndpointStats
	Result   *attest.Result // the last appraisal; nil where it is not asked for evidence, or was never connected to
}

func (a *api) clusters(w http.ResponseWriter, r *http.Request) {
	switch f, ok := format(w, r, "text", "json"); {
	case !ok:
	case f == "json":
		all := []any{}
		for _, c := range a.source.Clusters() {
			all = append(all, c.json())
		}
		writeJSON(w, map[string]any{"cluster_statuses": all})
	default:
		var b strings.Builder
		for _, c := range a.source.Clusters() {
			c.text(&b)
		}
		writeText(w, b.String())
	}
}

// statistic has the name that Envoy gives it.
type statistic struct {
	name    string
	value   uint64
	counter bool
}

func (e *Endpoint) statistics() []statistic {
	s := &e.Stats
	failed := s.ServerErrors + s.GatewayErrors + s.ConnectFailures + s.Timeouts + s.Resets
	return []statistic{
		{"cx_connect_fail", s.ConnectFailures, true},
		{"rq_active", uint64(max(s.Active, 0)), false},
		{"rq_error", failed, true},
		{"rq_success", s.Success, true},
		{"rq_timeout", s.Timeouts, true},
		{"rq_total", failed + s.Success + s.NoVerdict, true},
	}
}

func (e *Endpoint) healthFlags() string {
	flags := ""
	if e.Stats.FailedCheck {
		flags += "/failed_active_hc"
	}
	if e.Stats.Ejected {
		flags += "/failed_outlier_check"
	}
	if e.Stats.Unhealthy {
		flags += "/failed_eds_health"
	}
	if flags == "" {
		return "healthy"
	}
	return flags
}

func (c *Cluster) text(b *strings.Builder) {
	name := printable(c.Name)
	line := func(parts ...string) { b.WriteString(name + "::" + strings.Join(parts, "::") + "\n") }
	s := &c.Stats
	line("observability_name", name)
	line("added_via_api", strconv.FormatBool(c.Dynamic))
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"membership_total", int64(s.Endpoints)},
		{"membership_healthy", int64(s.Healthy)},
		{"cx_active", s.Connections},
		{"rq_pending_active", s.Pending},
		{"rq_active", s.Requests},
		{"rq_retry_active", s.Retries},
	} {
		line(n.name, strconv.FormatInt(n.value, 10))
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		at := printable(e.Address)
		for _, n := range e.statistics() {
			line(at, n.name, strconv.FormatUint(n.value, 10))
		}
		line(at, "hostname", printable(e.Hostname))
		line(at, "health_flags", e.healthFlags())
		line(at, "weight", strconv.FormatUint(uint64(e.Weight), 10))
		line(at, "locality", printable(e.Locality))
		line(at, "priority", strconv.FormatUint(uint64(e.Priority), 10))
		if p := proof(e.Result); p != nil {
			line(at, "attestation", printable(p.text()))
		}
	}
}

func (c *Cluster) json() any {
	hosts := []any{}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		stats := []any{}
		for _, n := range e.statistics() {
			kind := "GAUGE"
			if n.counter {
				kind = "COUNTER"
			}
			stats = append(stats, map[string]any{"name": n.name, "value": strconv.FormatUint(n.value, 10), "type": kind})
		}
		health := "HEALTHY"
		if e.Stats.Unhealthy {
			health = "UNHEALTHY"
		}
		hosts = append(hosts, map[string]any{
			"address": address(e.Address), "hostname": e.Hostname, "weight": e.Weight, "priority": e.Priority, "locality": e.Locality, "stats": stats,
			"health_status": map[string]any{
				"eds_health_status": health, "failed_active_health_check": e.Stats.FailedCheck, "failed_outlier_check": e.Stats.Ejected,
			},
			"attestation": proof(e.Result),
		})
	}
	return map[string]any{"name": c.Name, "added_via_api": c.Dynamic, "stats": c.Stats, "host_statuses": hosts}
}

// proved is what a peer proved, by the names that the access log has.
type proved struct {
	Verdict    string       `json:"verdict"`
	Code       attest.Code  `json:"code"`
	Binding    attest.Level `json:"binding"`
	Vendor     string       `json:"vendor"`
	TEE        string       `json:"tee"`
	Generation string       `json:"generation"`
	Simulated  bool         `json:"simulated"`
	Policy     string       `json:"policy"`
	Evidence   string       `json:"evidence_sha256"`
	Time       time.Time    `json:"time"`
}

// text is the words that are known.
func (p *proved) text() string {
	words := []string{p.Verdict, string(p.Code), string(p.Binding), p.Vendor, p.TEE, p.Generation}
	if p.Simulated {
		words = append(words, "SIMULATED")
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

func proof(r *attest.Result) *proved {
	if r == nil {
		return nil
	}
	p := &proved{Verdict: r.Verdict().String(), Code: r.Code(), Binding: r.Level(), Policy: r.PolicyID(), Evidence: r.EvidenceDigest(), Time: r.Time().UTC()}
	if c := r.Claims(); c != nil {
		p.Vendor, p.TEE, p.Generation, p.Simulated = c.Vendor, c.TEE, c.Generation, c.Simulated
	}
	return p
}
