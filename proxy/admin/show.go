package admin

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// ServerInfo is what /server_info shows.
type ServerInfo struct {
	Version, Revision, Go string
	Node, Cluster         string // what the control plane knows this proxy as
	TEE                   string // "" where no evidence is presented
	Simulated             bool
	Started               time.Time
}

// Listener is what /listeners shows.
type Listener struct{ Name, Address string }

// Certificate is what /certs shows of a leaf and its chain, and of what is attested with it.
type Certificate struct {
	Name      string // of the listener, or what it is for
	Chain, CA []*x509.Certificate
	Pin       string
	TEE       string
	Simulated bool
	Evidence  string // SHA-256 of it, in hex
}

func writeJSON(w http.ResponseWriter, v any) {
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		fail(w, http.StatusInternalServerError, attest.CodeInternal.Title()+" ("+string(attest.CodeInternal)+")")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(raw, '\n'))
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text))
}

// printable takes out of a name what a terminal obeys, and line breaks: names come from a control plane.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

// format reads ?format=, which is one of these; the first is taken where there is none.
func format(w http.ResponseWriter, r *http.Request, known ...string) (string, bool) {
	f := r.URL.Query().Get("format")
	if f == "" {
		return known[0], true
	}
	for _, k := range known {
		if f == k {
			return f, true
		}
	}
	fail(w, http.StatusBadRequest, "format is "+strings.Join(known, " or "))
	return "", false
}

// address is Envoy's Address.
func address(s string) any {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return map[string]any{"pipe": map[string]any{"path": path}}
	}
	host, port, _ := net.SplitHostPort(s)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return map[string]any{"socket_address": map[string]any{"address": s}}
	}
	return map[string]any{"socket_address": map[string]any{"address": host, "port_value": n}}
}

func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	state := a.state()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if state != Live {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write([]byte(printable(string(state)) + "\n"))
}

func (a *api) state() State {
	if a.source.State == nil {
		return PreInitializing
	}
	return a.source.State()
}

func (a *api) serverInfo(w http.ResponseWriter, _ *http.Request) {
	i := a.source.ServerInfo()
	uptime := fmt.Sprintf("%ds", max(0, int64(a.opts.Now().Sub(i.Started)/time.Second)))
	writeJSON(w, map[string]any{
		"version": i.Version, "revision": i.Revision, "go": i.Go, "state": a.state(), "hot_restart_version": "disabled",
		"uptime_current_epoch": uptime, "uptime_all_epochs": uptime, "node": map[string]string{"id": i.Node, "cluster": i.Cluster},
		"tee": i.TEE, "simulated": i.Simulated,
	})
}

func (a *api) listeners(w http.ResponseWriter, r *http.Request) {
	switch f, ok := format(w, r, "text", "json"); {
	case !ok:
	case f == "json":
		all := []any{}
		for _, l := range a.source.Listeners() {
			all = append(all, map[string]any{"name": l.Name, "local_address": address(l.Address)})
		}
		writeJSON(w, map[string]any{"listener_statuses": all})
	default:
		var b strings.Builder
		for _, l := range a.source.Listeners() {
			b.WriteString(printable(l.Name) + "::" + printable(l.Address) + "\n")
		}
		writeText(w, b.String())
	}
}

func (a *api) certs(w http.ResponseWriter, _ *http.Request) {
	all := []any{}
	for _, c := range a.source.Certs() {
		all = append(all, map[string]any{
			"name": c.Name, "ca_cert": a.chain(c.CA), "cert_chain": a.chain(c.Chain),
			"pin": c.Pin, "tee": c.TEE, "simulated": c.Simulated, "evidence_sha256": c.Evidence,
		})
	}
	writeJSON(w, map[string]any{"certificates": all})
}

func (a *api) chain(chain []*x509.Certificate) []any {
	all := []any{}
	for _, c := range chain {
		names := []any{}
		for _, n := range c.DNSNames {
			names = append(names, map[string]string{"dns": n})
		}
		for _, n := range c.URIs {
			names = append(names, map[string]string{"uri": n.String()})
		}
		for _, n := range c.IPAddresses {
			names = append(names, map[string]string{"ip_address": n.String()})
		}
		left := c.NotAfter.Sub(a.opts.Now())
		all = append(all, map[string]any{
			"serial_number": fmt.Sprintf("%x", c.SerialNumber), "subject_alt_names": names,
			"valid_from": c.NotBefore.UTC().Format(time.RFC3339), "expiration_time": c.NotAfter.UTC().Format(time.RFC3339),
			"days_until_expiration": strconv.FormatInt(max(int64(left/(24*time.Hour)), 0), 10),
		})
	}
	return all
}
