package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/attested"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/envoy"
)

// nobody is the policy of a control plane that serves those of its own host alone.
type nobody struct{}

func (nobody) Judge(*attest.Claims, attest.Situation) attest.Judgement { return attest.Judgement{} }

// plane is our control plane over a folder, with a socket for Envoys of this host.
type plane struct {
	*control.Control
	t              *testing.T
	folder, socket string
}

func startPlane(t *testing.T, values stock) *plane {
	t.Helper()
	dir := t.TempDir()
	p := &plane{t: t, folder: filepath.Join(dir, "config"), socket: filepath.Join(dir, "s")}
	p.write(values)
	var err error
	p.Control, err = control.Open(p.folder, filepath.Join(dir, "state"), load, nobody{}, control.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := attested.NewServer(func(context.Context, net.Conn) (attested.Conn, error) { return nil, net.ErrClosed }, p.Handlers(), attested.Options{})
	var work sync.WaitGroup
	work.Go(func() {
		if err := server.ServeLocal(ln, "stock"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		p.Close()
		server.Stop()
		work.Wait()
	})
	return p
}

func load(file string, raw []byte) ([]control.Document, error) {
	docs, err := envoy.Load(file, raw)
	if err != nil {
		return nil, err
	}
	var all []control.Document
	for _, d := range docs {
		all = append(all, control.Document{Resource: d.Resource, Position: d.Position})
	}
	return all, nil
}

// stock is what the files of testdata/envoy have places for.
type stock struct {
	Backend, Certificate, Key string
	Port, TLSPort             int
	Broken                    bool
}

func (p *plane) write(values stock) {
	p.t.Helper()
	fill(p.t, "envoy", filepath.Join(p.folder, "stock"), values)
	replace(p.t, filepath.Join(p.folder, "groups.yaml"), []byte("groups: [{name: stock, local: stock, stock: true, nodes: ['*']}]\n"))
}

func (p *plane) change(values stock) {
	p.t.Helper()
	p.write(values)
	if err := p.Reload("test"); err != nil {
		p.t.Fatal(err)
	}
}

// startEnvoy starts one that knows where its control plane is, and nothing else.
func startEnvoy(t *testing.T, variant, socket string) *process {
	t.Helper()
	path := program(t, "envoy")
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	replace(t, file, fmt.Appendf(nil, `node: {id: stock-1, cluster: stock}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: control
    load_assignment: {cluster_name: control, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`, variant, socket))
	return start(t, nil, path, "-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
}

// serve answers every request with a text.
func serve(t *testing.T, address, text string) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
}

// ask is nil if a host's page has a text, one of those that | separates.
func ask(c *http.Client, url, host, want string, headers ...string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !slices.Contains(strings.Split(want, "|"), string(body)) {
		return fmt.Errorf("%s: %.200q, want %q", resp.Status, body, want)
	}
	return nil
}

// A real Envoy takes everything from our control plane: clusters, endpoints, listeners, routes and its certificate. Changes get to it without
// the loss of a request, and one that it refuses is known and leaves everything as it was.
func TestEnvoy(t *testing.T) {
	for _, variant := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(variant, func(t *testing.T) {
			serve(t, net.JoinHostPort(backend1, "8080"), "one")
			serve(t, net.JoinHostPort(backend2, "8080"), "two")
			certificate, key := selfSigned(t, "www.example.com")
			values := stock{Backend: backend1, Port: 10000, TLSPort: 10443, Certificate: string(certificate), Key: string(key)}
			p := startPlane(t, values)
			e := startEnvoy(t, variant, p.socket)
			page := fmt.Sprintf("http://127.0.0.1:%d/", values.Port)
			client := &http.Client{Timeout: patience}
			poll(t, "the page", func() error { return ask(client, page, "", "one") }, e)

			lost, stop := crowd(t, func() error { return ask(client, page, "", "one|two") })
			values.Backend = backend2
			p.change(values)
			poll(t, "the other page", func() error { return ask(client, page, "", "two") }, e)
			stop()
			if err := lost(); err != nil {
				t.Errorf("a request was lost: %v", err)
			}

			for range 2 {
				poll(t, "the certificate", func() error { return shows(certificate, values.TLSPort) }, e)
				certificate, key = selfSigned(t, "www.example.com")
				values.Certificate, values.Key = string(certificate), string(key)
				p.change(values)
			}

			poll(t, "all is well", func() error { return p.standing(control.Synced) }, e)
			values.Broken = true
			p.change(values)
			poll(t, "the refusal", func() error { return p.standing(control.Rejected) }, e)
			if err := ask(client, page, "", "two"); err != nil {
				t.Error(err)
			}
			values.Broken = false
			p.change(values)
			poll(t, "all is well again", func() error { return p.standing(control.Synced) }, e)
		})
	}
}

// standing is nil if the only proxy has a standing.
func (p *plane) standing(want control.Standing) error {
	st := p.Status()
	if len(st.Proxies) != 1 || st.Proxies[0].Standing != want || want == control.Rejected && st.Proxies[0].Reason == "" {
		return fmt.Errorf("%+v", st.Proxies)
	}
	return nil
}

// shows is nil if a listener shows a certificate.
func shows(certificate []byte, port int) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{RootCAs: pool, ServerName: "www.example.com", MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	return c.Close()
}

// crowd does something all the time. The first function answers why that failed, if it ever did; it is called after the second.
func crowd(t *testing.T, something func() error) (lost func() error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var first atomic.Pointer[error]
	for range 4 {
		work.Go(func() {
			for ctx.Err() == nil {
				if err := something(); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
	})
	t.Cleanup(stop)
	return func() error {
		if err := first.Load(); err != nil {
			return *err
		}
		return nil
	}, stop
}
