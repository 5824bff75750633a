package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
)

// program runs a load balancer, with a configuration in which ADDRESS is where it listens and DIR a directory of its own, until
// the test ends. The test is skipped, visibly, where it is absent.
func program(t *testing.T, name, conf string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is absent (test/setup.sh all fetches it)", name)
	}
	ln := listen(t)
	addr := ln.Addr().String()
	ln.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	conf = strings.NewReplacer("ADDRESS", addr, "DIR", dir).Replace(conf)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = strings.NewReplacer("FILE", file, "DIR", dir).Replace(args[i])
	}
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	t.Cleanup(func() {
		if stop(); t.Failed() {
			t.Logf("%s said: %s", name, out.String())
		}
	})
	until(t, name+" listens", func() bool {
		select {
		case err := <-ended:
			ended <- err
			stop()
			t.Fatalf("%s: %v\n%s", name, err, out.String())
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

func haproxy(t *testing.T, conf string) string {
	t.Helper()
	return program(t, "haproxy", "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"+conf, "-db", "-f", "FILE")
}

// nginx runs conf, the inside of an HTTP server, or of a stream server where it has the module for that.
func nginx(t *testing.T, kind, conf string) string {
	t.Helper()
	load := ""
	if kind == "stream" {
		const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
		if _, err := os.Stat(module); err != nil {
			t.Skip("nginx has no stream module (test/setup.sh all fetches it)")
		}
		load = "load_module " + module + ";\n"
	}
	temp := ""
	if kind == "http" {
		for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			temp += what + "_temp_path DIR/" + what + ";\n"
		}
	}
	return program(t, "nginx", load+"daemon off;\nmaster_process off;\nerror_log stderr;\npid DIR/pid;\nevents {}\n"+
		kind+" {\naccess_log off;\n"+temp+"server {\n"+conf+"\n}\n}\n", "-c", "FILE", "-p", "DIR")
}

// away is a client that comes from an address which no load balancer has.
func away(addr string, protos ...string) dialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}
		raw, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return overTLS(ctx, raw, protos...)
	}
}

// TestBehindBalancer: a service behind us learns the address of the client in front of a load balancer.
func TestBehindBalancer(t *testing.T) {
	for name, front := range map[string]func(*testing.T, string) string{
		"haproxy v1": func(t *testing.T, to string) string {
			return haproxy(t, "listen l\n mode tcp\n bind ADDRESS\n server s "+to+" send-proxy\n")
		},
		"haproxy v2": func(t *testing.T, to string) string {
			return haproxy(t, "listen l\n mode tcp\n bind ADDRESS\n server s "+to+" send-proxy-v2\n")
		},
		"haproxy v2 with all": func(t *testing.T, to string) string {
			return haproxy(t, "listen l\n mode tcp\n bind ADDRESS\n unique-id-format %{+X}o%ci%cp\n"+
				" server s "+to+" send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,authority\n")
		},
		"haproxy behind haproxy": func(t *testing.T, to string) string {
			inner := haproxy(t, "listen l\n mode tcp\n bind ADDRESS accept-proxy\n server s "+to+" send-proxy-v2 proxy-v2-options crc32c\n")
			return haproxy(t, "listen l\n mode tcp\n bind ADDRESS\n server s "+inner+" send-proxy\n")
		},
		"nginx": func(t *testing.T, to string) string {
			return nginx(t, "stream", "listen ADDRESS; proxy_pass "+to+"; proxy_protocol on;")
		},
	} {
		t.Run(name, func(t *testing.T) {
			web := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["X-Forwarded-For"]) }))
			in := accepting(t, inboundHTTP(t, shake(affirmed(), "h2", "http/1.1"), web, proxy.Limits{}, nil))
			addr := front(t, start(t, in))
			for _, alpn := range []string{"h2", "http/1.1"} {
				c := client(t, func(alpn string) dialFunc { return away(addr, alpn) }, alpn)
				if _, body := get(t, c, "http://x/"); body != "[127.0.0.7]" {
					t.Errorf("%s: forwarded for %s", alpn, body)
				}
			}
			// Waiting for the load balancer, the test connected and said nothing: that is a handshake which ended.
			if n := in.Stats().Refused[attest.CodeProxyHeader] + in.Stats().Refused[attest.CodeProxyPeer]; n != 0 {
				t.Errorf("refused %v", in.Stats().Refused)
			}
		})
	}
}

// TestHealthChecks: those of a load balancer come with a header of their own, and are no failures of the header.
func TestHealthChecks(t *testing.T) {
	logs := new(journal)
	in := accepting(t, inboundHTTP(t, shake(nil, "http/1.1"), silent(t), proxy.Limits{}, logs.logger()))
	to := start(t, in)
	haproxy(t, "listen l\n mode tcp\n bind ADDRESS\n server s "+to+" send-proxy-v2 check inter 50ms check-ssl verify none check-alpn http/1.1\n")
	until(t, "the checks", func() bool { return in.Stats().Handshakes >= 3 })
	if n := in.Stats().Refused[attest.CodeProxyHeader]; n != 0 {
		t.Errorf("refused %v: %s", in.Stats().Refused, logs)
	}
}

// TestInFrontOfBalancer: others understand the headers that we send.
func TestInFrontOfBalancer(t *testing.T) {
	for name, tt := range map[string]struct {
		start func(*testing.T) string
		want  string
	}{
		"haproxy": {func(t *testing.T) string {
			return haproxy(t, "frontend f\n mode http\n bind ADDRESS accept-proxy\n"+
				` http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] %[dst]:%[dst_port]"`+"\n")
		}, "127.0.0.7:%d 127.0.0.1:%d"},
		"nginx": {func(t *testing.T) string {
			return nginx(t, "http", "listen ADDRESS proxy_protocol;\n"+
				`return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port";`)
		}, "127.0.0.7:%d 127.0.0.1:%d"},
	} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s v%d", name, version), func(t *testing.T) {
				in, err := proxy.NewInboundTCP(engine(t), shake(affirmed(), "http/1.1"), speaking(t, tt.start(t), version), nil, proxy.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				addr := start(t, in)
				var local, remote int
				c := client(t, func(string) dialFunc {
					return func(ctx context.Context) (net.Conn, error) {
						conn, err := away(addr, "http/1.1")(ctx)
						if err == nil {
							local, remote = conn.LocalAddr().(*net.TCPAddr).Port, conn.RemoteAddr().(*net.TCPAddr).Port
						}
						return conn, err
					}
				}, "http/1.1")
				if _, body := get(t, c, "http://x/"); body != fmt.Sprintf(tt.want, local, remote) {
					t.Errorf("the service saw %s, want "+tt.want, body, local, remote)
				}
			})
		}
	}
}

// TestPassthroughBetweenBalancers: from HAProxy, by name, to nginx, which ends TLS.
func TestPassthroughBetweenBalancers(t *testing.T) {
	dir := t.TempDir()
	cert := certFor("shop.example")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web := nginx(t, "http", "listen ADDRESS ssl proxy_protocol;\nssl_certificate "+dir+"/cert;\nssl_certificate_key "+dir+"/key;\nssl_protocols TLSv1.2 TLSv1.3;\n"+
		`return 200 "$proxy_protocol_addr $ssl_server_name";`)
	s := accepting(t, passthrough(t, proxy.Limits{}, nil,
		proxy.PassthroughRoute{Names: []string{"*.example"}, To: single(t, speaking(t, web, 2))}, through(t, silent(t), "*")))
	addr := haproxy(t, "listen l\n mode tcp\n bind ADDRESS\n server s "+start(t, s)+" send-proxy-v2 proxy-v2-options crc32c\n")
	raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}).Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example"})
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(got), "\r\n\r\n127.0.0.7 shop.example") {
		t.Errorf("got %q, %v", got, err)
	}
}
