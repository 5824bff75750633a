package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/xds/client"
)

// gateway is what the files of testdata/gateway have places for.
type gateway struct {
	Certificate, Key       string // of the listener with TLS, as base64 of PEM
	Backend, Plain         string
	BackendPort, PlainPort int
	Policy                 string // that peers have to meet
	Clusters               []string
}

func newGateway(t *testing.T) gateway {
	t.Helper()
	certificate, key := selfSigned(t, "www.example.com")
	encode := base64.StdEncoding.EncodeToString
	return gateway{
		Certificate: encode(certificate), Key: encode(key), Backend: backend1, BackendPort: 8443, Plain: plainIP, PlainPort: 8080, Policy: "mesh",
		Clusters: []string{"httproute/default/www/rule/0", "httproute/default/www/rule/1"},
	}
}

func selfSigned(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// envoyGateway is a control plane that serves the files of a folder.
type envoyGateway struct {
	*process
	t       *testing.T
	config  string // the folder
	certs   string // folders with certificates
	address string
}

func startEnvoyGateway(t *testing.T, values gateway) *envoyGateway {
	t.Helper()
	path := program(t, "envoy-gateway")
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	g := &envoyGateway{t: t, config: filepath.Join(dir, "config"), certs: filepath.Join(home, "certs"), address: "127.0.0.1:18000"}
	fill(t, "gateway", g.config, values)
	certgen := exec.Command(path, "certgen", "--local", "--config-home", home)
	certgen.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	if out, err := certgen.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "envoy-gateway.yaml")
	replace(t, file, fmt.Appendf(nil, `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
provider:
  type: Custom
  custom:
    resource: {type: File, file: {paths: [%q]}}
    infrastructure: {type: Host, host: {configHome: %[2]q, dataHome: %[2]q, stateHome: %[2]q, runtimeDir: %[2]q}}
logging: {level: {default: info}}
extensionApis: {enableBackend: true, enableEnvoyPatchPolicy: true}
`, g.config, home))
	g.process = start(t, nil, path, "server", "--config-path", file)
	poll(t, "Envoy Gateway is ready", func() error {
		c, err := g.dial(t.Context(), g.address)
		if err != nil {
			return err
		}
		return c.Close()
	}, g.process)
	return g
}

// dial connects to its xDS server as the Envoy that it made certificates for.
func (g *envoyGateway) dial(ctx context.Context, address string) (net.Conn, error) {
	folder := filepath.Join(g.certs, "envoy")
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("no roots")
	}
	d := tls.Dialer{Config: &tls.Config{
		ServerName: "envoy-gateway", RootCAs: pool, Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	}}
	return d.DialContext(ctx, "tcp", address)
}

func envoyNode() client.Node {
	return client.Node{ID: "proxy-1", Cluster: "default/eg", UserAgent: "jurat"}
}

// What Envoy Gateway sends is understood, in both variants of the protocol, and a change arrives.
func TestEnvoyGateway(t *testing.T) {
	values := newGateway(t)
	g := startEnvoyGateway(t, values)
	for _, kind := range []client.Kind{client.StateOfTheWorld, client.Delta} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			o := observe(t, kind, envoyNode(), g.address, g.dial)
			poll(t, "everything has come", o.settled, g.process)
			record(t, o, fmt.Sprint("envoy-gateway-", kind))
			o.judge(t, nil)
			for _, address := range []string{backend2, backend1} {
				v := values
				v.Backend = address
				fill(t, "gateway", g.config, v)
				poll(t, "the endpoint moves", func() error {
					return o.endpoint("httproute/default/www/rule/0", net.JoinHostPort(address, fmt.Sprint(values.BackendPort)))
				}, g.process)
			}
		})
	}
}

// A gateway that a real Envoy Gateway configures: one port for everybody, another one for clients that meet the policy which an EnvoyPatchPolicy names, and
// backends that have to meet it as well.
func TestEnvoyGatewayTraffic(t *testing.T) {
	for _, protocol := range []string{"delta", "sotw"} {
		t.Run(protocol, func(t *testing.T) {
			y := newYard(t)
			values := newGateway(t)
			values.Policy = "genoa.yaml"
			g := startEnvoyGateway(t, values)
			paths := make(chan string, 1000)
			behind := net.JoinHostPort("127.0.0.1", "9090")
			application(t, behind, paths)
			for _, b := range []string{backend1, backend2} {
				y.attestedAt(genoa, "backend.example", net.JoinHostPort(b, "8443"), behind)
			}
			y.attested(milan, "backend.example", net.JoinHostPort(backend3, "8443"), "three")
			proxy := y.follow(y.control(beside(t, g)), envoyNode(), protocol, "www.example.com", `    answers: true
    redirects: [www.example.com]
    targets:
    - {name: backend, to: ["10.1.0.0/24:8443"], names: [backend.example]}
    - {name: plain, to: ["10.1.0.10:8080"], plain: true, unsafe_plain: true}
    listeners:
    - {address: "0.0.0.0:18080", clients: plain, unsafe_listen: true, to: [backend, plain]}
    - {address: "0.0.0.0:18443", to: [backend, plain]}
    - {address: "0.0.0.0:19003", clients: plain, unsafe_listen: true, to: [backend]}
`)
			askGateway(t, y, paths, "http://"+gatewayIP+":18080", net.JoinHostPort(gatewayIP, "18443"), func(address string) {
				values.Backend = address
				fill(t, "gateway", g.config, values)
			}, proxy, g.process)
			if err := ask(http.DefaultClient, "http://127.0.0.1:19003/ready", "", ""); err != nil {
				t.Errorf("the port for readiness: %v", err)
			}
		})
	}
}

// beside stands on the host of an Envoy Gateway, and connects to it with the certificate that it wants to see; it answers where.
func beside(t *testing.T, g *envoyGateway) string {
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
				far, err := g.dial(context.Background(), g.address)
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					_, _ = io.Copy(far, c)
					_ = far.Close()
				}()
				_, _ = io.Copy(c, far)
			}()
		}
	}()
	return ln.Addr().String()
}
