package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
)

// elsewhere is an address that no machine has: connecting to it fails at once.
const elsewhere = "255.255.255.255:9"

// TestPlaintextStaysHere: what is not attested is connected to on this machine alone, whatever a file has got past its check,
// unless it says that it may be elsewhere. A cluster that gets nothing but TLS may be elsewhere until it gets something else.
func TestPlaintextStaysHere(t *testing.T) {
	far := func(unsafe bool) config.Cluster {
		c := clusterOf("c", elsewhere)
		c.UnsafePlain, c.ConnectTimeout = unsafe, 50*time.Millisecond
		return c
	}
	sealed := config.Listener{Name: "tls", Address: "tls", Serving: config.Serving{Passthrough: []config.Passthrough{{Names: []string{"*"}, Cluster: "c"}}}}
	for _, c := range []struct {
		name     string
		serving  config.Serving
		clusters []config.Cluster
		beside   []config.Listener
		want     attest.Code
	}{
		{"to", config.Serving{To: elsewhere}, nil, nil, attest.CodeNoPolicy},
		{"to, unsafe", config.Serving{To: elsewhere, UnsafeTo: true}, nil, nil, attest.CodeBackendUnreachable},
		{"cluster", config.Serving{Cluster: "c"}, []config.Cluster{far(false)}, nil, attest.CodeNoPolicy},
		{"cluster, unsafe", config.Serving{Cluster: "c"}, []config.Cluster{far(true)}, nil, attest.CodeBackendUnreachable},
		{"routes", config.Serving{HTTP: allTo("c")}, []config.Cluster{far(false)}, nil, attest.CodeNoPolicy},
		{"beside passthrough", config.Serving{Cluster: "c"}, []config.Cluster{far(false)}, []config.Listener{sealed}, attest.CodeNoPolicy},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder(t)
			b.plain = true
			r := running(t)
			if c.beside != nil { // at first it gets nothing but TLS
				apply(t, r, &config.Config{Listeners: c.beside, Clusters: c.clusters}, "1", b)
			}
			l := config.Listener{Name: "in", Address: "in", Serving: c.serving}
			l.Plain = true
			apply(t, r, &config.Config{Listeners: append(c.beside, l), Clusters: c.clusters}, "1", b)
			res, _ := get(t, http.DefaultClient, "http://"+b.address("in"))
			if got := res.Header.Get(proxy.HeaderError); got != string(c.want) {
				t.Errorf("got %d %s", res.StatusCode, got)
			}
		})
	}
}

// TestTLSGoesAnywhere: TLS that is not ended here is sent to other machines.
func TestTLSGoesAnywhere(t *testing.T) {
	b, logs := newBuilder(t), new(journal)
	r := proxy.NewRuntime(engine(t), time.Second, proxy.Observer{}, logs.logger())
	t.Cleanup(func() { _ = r.Shutdown(t.Context()) })
	sealed := config.Serving{Passthrough: []config.Passthrough{{Names: []string{"*"}, Cluster: "c"}}}
	apply(t, r, &config.Config{Listeners: []config.Listener{{Address: "tls", Serving: sealed}}, Clusters: []config.Cluster{clusterOf("c", elsewhere)}}, "1", b)
	if c, err := dialTLS(t.Context(), b.address("tls"), "h2"); err == nil {
		c.Close()
		t.Error("somebody answered")
	}
	until(t, "the failure in the log", func() bool { return logs.String() != "" })
	if text := logs.String(); !strings.Contains(text, string(attest.CodeBackendUnreachable)) || strings.Contains(text, string(attest.CodeNoPolicy)) {
		t.Errorf("logged %s", text)
	}
}
