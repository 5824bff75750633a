package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/xds/client"
)

// control has jurat stand before a control plane that knows nothing of attestation, on its host: those who take configuration from it take it from
// there, and from nobody who has not shown evidence.
func (y *yard) control(plain string) string {
	y.Helper()
	front := y.serve("--tee", y.tee(genoa), "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--to", "h2c://"+plain, "--require", y.path("either.yaml"))
	return front.event(y.T, "listening")["address"].(string)
}

// follow is a proxy that takes its configuration from a control plane, within limits.
func (y *yard) follow(control string, node client.Node, protocol, names, limits string) *process {
	y.Helper()
	metadata := map[string]string{}
	for k, v := range node.Metadata {
		text, ok := v.(string)
		if !ok {
			raw, err := json.Marshal(v)
			if err != nil {
				y.Fatal(err)
			}
			text = string(raw)
		}
		metadata[k] = text
	}
	meta, err := json.Marshal(metadata) // which is YAML
	if err != nil {
		y.Fatal(err)
	}
	// Policies that validators may name are those of the file.
	file := y.write("proxy.yaml", fmt.Sprintf(`identity: {tee: %q, names: [%s]}
admin: {address: "127.0.0.1:15000"}
clusters:
- {name: file/genoa, attested: {require: genoa.yaml}, endpoints: [{address: "127.0.0.1:1"}]}
- {name: file/milan, attested: {require: milan.yaml}, endpoints: [{address: "127.0.0.1:1"}]}
xds:
  server: %q
  require: genoa.yaml
  protocol: %s
  node: {id: %q, cluster: %q, metadata: %s}
  limits:
    floor: either.yaml
    rewrite: true
%s`, y.tee(genoa), names, control, protocol, node.ID, node.Cluster, meta, limits))
	return y.serve("-c", file)
}

// attested runs a service behind jurat, on a platform.
func (y *yard) attested(platform, name, address, text string) {
	y.Helper()
	y.attestedAt(platform, name, address, page(y.T, text))
}

func (y *yard) attestedAt(platform, name, address, behind string) {
	y.Helper()
	y.serve("--tee", y.tee(platform), "--name", name, "--listen", address, "--to", behind, "--require", y.path("either.yaml")).event(y.T, "listening")
}

// client is how programs of a platform get to an attested service, under a name; it answers where they have to ask.
func (y *yard) client(platform, name, address string) (url string) {
	y.Helper()
	y.clients++
	file := y.write(fmt.Sprintf("client-%d.yaml", y.clients), fmt.Sprintf(`identity: {tee: %q, names: [client.example]}
listen: [{address: "127.0.0.1:0", plain: true, cluster: service}]
clusters: [{name: service, attested: {require: either.yaml, name: %q}, endpoints: [{address: %q}]}]
`, y.tee(platform), name, address))
	p := y.as(0, "serve", "--log", "json", "-c", file)
	return "http://" + p.event(y.T, "listening")["address"].(string)
}

// page serves a text on a port of its own.
func page(t *testing.T, text string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	_ = ln.Close()
	serve(t, address, text)
	return address
}

// refusal is nil if a page is refused because of what its peer is.
func refusal(c *http.Client, url, host string, headers ...string) error {
	err := ask(c, url, host, "\x00", headers...)
	if err == nil || !strings.Contains(err.Error(), "50") {
		return fmt.Errorf("not refused: %v", err)
	}
	return nil
}

const backendHost = "backend.default.svc.cluster.local"

// A sidecar that a real istiod configures: what the application sends and gets goes through it, by rules in the kernel, to peers and from peers that meet
// the policy which an EnvoyFilter names. When that names another one, it is the others'. Endpoints move without a request lost.
func TestSidecar(t *testing.T) {
	for _, protocol := range []string{"delta", "sotw"} {
		t.Run(protocol, func(t *testing.T) { sidecar(t, protocol) })
	}
}

func sidecar(t *testing.T, protocol string) {
	y := newYard(t)
	values := newIstio()
	values.Policy, values.Weight1, values.Weight2 = "genoa.yaml", 100, 0
	d := startIstiod(t, values, registryOnly)
	y.attested(genoa, backendHost, net.JoinHostPort(backend1, "8080"), "one")
	y.attested(milan, backendHost, net.JoinHostPort(backend2, "8080"), "two")
	y.attested(genoa, backendHost, net.JoinHostPort(backend3, "8080"), "three")
	serve(t, net.JoinHostPort(plainIP, "8080"), "plain")
	y.serve("--tee", y.tee(genoa), "--name", "store.default.svc.cluster.local", "--listen", net.JoinHostPort(storeIP, "6379"), "--tcp", "--to", echoes(t),
		"--require", y.path("either.yaml")).event(t, "listening")
	app := make(chan string, 1000)
	application(t, net.JoinHostPort(appIP, "8080"), app)

	kernel(t, fmt.Sprintf(`table ip jurat {
	chain output {
		type nat hook output priority -100
		meta skuid %d accept
		ip daddr 10.96.0.0/16 meta l4proto tcp redirect to :15001
		ip daddr %s tcp dport { 80, 8080, 9000 } redirect to :15006
	}
}
`, sidecarUser, appIP))
	proxy := y.follow(y.control(d.address), sidecarNode("REDIRECT"), protocol, appIP+", app.default.svc.cluster.local", `    targets:
    - {name: mesh, to: ["10.1.0.0/24:8080", "10.1.0.0/24:9000", "10.1.0.0/24:6379"], names: ["*.default.svc.cluster.local"]}
    - {name: outside, to: ["10.1.0.10:8080"], plain: true, unsafe_plain: true}
    - {name: app, to: [loopback], plain: true}
    listeners:
    - {address: "0.0.0.0:15001", transparent: true, clients: plain, unsafe_listen: true, to: [mesh, outside]}
    - {address: "0.0.0.0:15006", transparent: true, to: [app]}
`)
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	backend := "http://" + backendIP + "/"
	poll(t, "the backend answers", func() error { return ask(c, backend, backendHost, "one") }, proxy, d.process)

	t.Run("out", func(t *testing.T) {
		if err := refusal(c, backend, backendHost, "X-Canary", "yes"); err != nil {
			t.Errorf("the canary's platform is not accepted: %v", err)
		}
		if err := ask(c, "http://10.96.0.10/", "plain.example", "plain"); err != nil {
			t.Errorf("a service outside of the mesh: %v", err)
		}
		if err := refusal(c, backend, "elsewhere.example"); err != nil {
			t.Errorf("a host that the registry does not have: %v", err)
		}
		if err := echoed("10.96.0.9:6379"); err != nil {
			t.Errorf("a raw connection: %v", err)
		}
	})
	t.Run("in", func(t *testing.T) {
		for platform, want := range map[string]bool{genoa: true, milan: false} {
			if err := ask(c, y.client(platform, appIP, net.JoinHostPort(appIP, "8080"))+"/"+platform, "app", "app"); (err == nil) != want {
				t.Errorf("a client on %s: %v", platform, err)
			}
		}
		if err := ask(c, "http://"+appIP+":8080/plain", "app", "app"); err == nil {
			t.Error("a client in plain got through")
		}
		close(app)
		for path := range app {
			if path != "/"+genoa {
				t.Errorf("the application got %s", path)
			}
		}
	})
	open, err := net.Dial("tcp", "10.96.0.9:6379")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	t.Run("endpoints move", func(t *testing.T) {
		lost, stop := crowd(t, func() error { return ask(c, backend, backendHost, "one|three") })
		values.Backend = backend3
		d.change(values)
		poll(t, "the other backend answers", func() error { return ask(c, backend, backendHost, "three") }, proxy, d.process)
		stop()
		if err := lost(); err != nil {
			t.Errorf("a request was lost: %v", err)
		}
		if err := echo(open); err != nil {
			t.Errorf("a connection that has to do with nothing of this: %v", err)
		}
	})
	t.Run("no way to loosen it", func(t *testing.T) {
		// Whoever runs the control plane has the backend's requests sent elsewhere in plain, and takes the validators away.
		serve(t, net.JoinHostPort(thiefIP, "8080"), "stolen")
		stolen, stop := crowd(t, func() error {
			if err := ask(c, backend, backendHost, "stolen"); err == nil {
				return errors.New("stolen")
			}
			return nil
		})
		worse := values
		worse.Withdrawn, worse.TLS, worse.Backend = true, "DISABLE", thiefIP
		d.change(worse)
		t.Logf("refused: %v", proxy.event(t, "configuration of the control plane refused")["error"])
		poll(t, "endpoints that do not attest are of no use", func() error { return refusal(c, backend, backendHost) }, proxy, d.process)
		d.change(values)
		poll(t, "the backend answers", func() error { return ask(c, backend, backendHost, "three") }, proxy, d.process)
		stop()
		if err := stolen(); err != nil {
			t.Error(err)
		}
	})
	t.Run("another policy", func(t *testing.T) {
		values.Policy = "milan.yaml"
		d.change(values)
		poll(t, "the canary answers", func() error { return ask(c, backend, backendHost, "two", "X-Canary", "yes") }, proxy, d.process)
		poll(t, "the others are refused", func() error { return refusal(c, backend, backendHost) }, proxy, d.process)
		poll(t, "a connection that was open is closed", func() error {
			if err := echo(open); err == nil {
				return errors.New("it is open")
			}
			return nil
		}, proxy, d.process)
	})
}

// A gateway that a real istiod configures: one port for everybody, another one for clients that meet the policy which an EnvoyFilter names.
func TestIstioGateway(t *testing.T) {
	for _, protocol := range []string{"delta", "sotw"} {
		t.Run(protocol, func(t *testing.T) {
			y := newYard(t)
			values := newIstio()
			values.Policy = "genoa.yaml"
			d := startIstiod(t, values, registryOnly)
			paths := make(chan string, 1000)
			behind := net.JoinHostPort("127.0.0.1", "9090")
			application(t, behind, paths)
			for _, b := range []string{backend1, backend2} {
				y.attestedAt(genoa, backendHost, net.JoinHostPort(b, "8080"), behind)
			}
			y.attested(milan, backendHost, net.JoinHostPort(backend3, "8080"), "three")
			proxy := y.follow(y.control(d.address), gatewayNode(), protocol, "www.example.com", `    redirects: [www.example.com]
    targets:
    - {name: mesh, to: ["10.1.0.0/24:8080", "10.1.0.0/24:9000", "10.1.0.0/24:6379"], names: ["*.default.svc.cluster.local"]}
    listeners:
    - {address: "0.0.0.0:8081", clients: plain, unsafe_listen: true, to: [mesh]}
    - {address: "0.0.0.0:8443", to: [mesh]}
`)
			askGateway(t, y, paths, "http://"+gatewayIP+":8081", net.JoinHostPort(gatewayIP, "8443"), func(address string) {
				values.Backend, values.Backend2 = address, address
				d.change(values)
			}, proxy, d.process)
		})
	}
}

// askGateway asks a gateway whose configuration is that of testdata: in plain, and attested.
func askGateway(t *testing.T, y *yard, paths chan string, plain, attested string, move func(address string), programs ...*process) {
	c := &http.Client{
		Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	const host = "www.example.com"
	poll(t, "the gateway answers", func() error { return ask(c, plain+"/first", host, "app") }, programs...)
	good, bad := y.client(genoa, host, attested), y.client(milan, host, attested)
	poll(t, "the attested port answers", func() error { return ask(c, good+"/attested", host, "app") }, programs...)
	if err := ask(c, bad+"/refused", host, "app"); err == nil {
		t.Error("a client whose platform the policy does not accept got through")
	}
	if err := ask(c, plain+"/", "other.example", "app"); err == nil {
		t.Error("a host that has no route got through")
	}
	resp, err := c.Do(&http.Request{Method: http.MethodGet, URL: must(url.Parse(plain + "/old")), Host: host})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusMovedPermanently || !strings.HasSuffix(to, "/new") {
		t.Errorf("redirected to %q: %s", to, resp.Status)
	}
	move(backend3)
	poll(t, "a backend whose platform is not accepted is refused", func() error { return refusal(c, plain+"/", host) }, programs...)
	move(backend2)
	poll(t, "another one is not", func() error { return ask(c, plain+"/last", host, "app") }, programs...)
	close(paths)
	seen := map[string]bool{}
	for path := range paths {
		seen[path] = true
	}
	for path, want := range map[string]bool{"/first": true, "/attested": true, "/last": true, "/refused": false} {
		if seen[path] != want {
			t.Errorf("the application got %v", seen)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// application is what a sidecar stands before. It says what it was asked.
func application(t *testing.T, address string, asked chan<- string) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		_, _ = io.WriteString(w, "app")
	})}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
}

// echoes sends back what it is sent.
func echoes(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func echoed(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c)
}

// echo is nil if what is sent comes back.
func echo(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("%q", line)
	}
	return err
}
