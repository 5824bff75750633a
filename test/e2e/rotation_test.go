package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

const rotations = 100

// rotating is an attested HTTP server in this process, whose leaf is replaced when the test says.
type rotating struct {
	*lab
	addr string
	id   atomic.Pointer[ratls.Identity]
}

func (l *lab) rotating(platform *sim.Platform) *rotating {
	l.Helper()
	r := &rotating{lab: l}
	r.be(platform)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	r.addr = ln.Addr().String()
	conns := make(chan net.Conn)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				conn, err := ratls.NewAcceptor(r.id.Load(), "http/1.1").Handshake(ctx, raw)
				if err != nil {
					return
				}
				select {
				case conns <- conn:
				case <-l.Context().Done():
					_ = conn.Close()
				}
			})
		}
	})
	s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, secret) })}
	work.Go(func() { _ = s.Serve(accepted{ln, conns, l.Context().Done()}) })
	l.Cleanup(func() { _ = s.Close(); work.Wait() })
	return r
}

type accepted struct {
	net.Listener
	conns chan net.Conn
	done  <-chan struct{}
}

func (a accepted) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.done:
		return nil, net.ErrClosed
	}
}

// be has the server run on a platform from now on.
func (r *rotating) be(platform *sim.Platform) {
	r.Helper()
	id, err := ratls.NewIdentity(r.Context(), platform, []string{"127.0.0.1"}, [32]byte{1}, ratls.IdentityOptions{})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(id.Close)
	r.id.Store(id)
}

// successor is the leaf that was prepared.
func (r *rotating) successor() *x509.Certificate {
	r.Helper()
	c, err := r.id.Load().GetCertificate(&tls.ClientHelloInfo{SupportedProtos: []string{"jurat-successor"}})
	if err != nil {
		r.Fatal(err)
	}
	return c.Leaf
}

// until waits until something holds.
func (l *lab) until(what string, holds func() bool) {
	l.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// logged is what a program has written so far.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (g *logged) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func (g *logged) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

// A hundred leaves come and go under load, and no request fails: those of curl in exec --watch, and those through forward. Then the
// server is one that the policy refuses, and all of them fail.
func TestRotationIsNoOutage(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	platform, err := sim.New(sim.Config{Product: "genoa"})
	if err != nil {
		t.Fatal(err)
	}
	server := l.rotating(platform)
	policy := l.write("policy.yaml", fmt.Sprintf("policy: p\nplatforms: {allow: [{vendor: sim, root: %q}]}\nworkload: {measurement: any, debug: off}\nbinding: key\n", platform.Root()))

	var out, told logged
	cmd := exec.Command(binary, "exec", "-p", policy, "--watch=50ms", "--to", server.addr, "--", "sh", "-c",
		`echo "$CURL_HOME"; while read -r _; do curl -sS -f -o /dev/null --max-time 20 "$1" && echo ok || echo failed; done`, "sh", "https://"+server.addr+"/")
	cmd.Env, cmd.Stdout, cmd.Stderr = l.env(), &out, &told
	again, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close(); _ = cmd.Wait() })
	l.until("exec has begun", func() bool { return strings.Contains(out.String(), "\n") })
	dir, _, _ := strings.Cut(out.String(), "\n")
	asked := 0
	curl := func() string {
		t.Helper()
		asked++
		_, _ = io.WriteString(again, "\n")
		l.until("curl has ended", func() bool { return strings.Count(out.String(), "\n") > asked })
		return strings.Split(out.String(), "\n")[asked]
	}
	trusted := func(cert *x509.Certificate) func() bool {
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		return func() bool {
			raw, err := os.ReadFile(filepath.Join(dir, "leaf.pem"))
			return err == nil && bytes.Contains(raw, block)
		}
	}

	front := l.start("forward", "--log", "json", "-p", policy, "--listen", "127.0.0.1:0", server.addr).address()
	var forwarded, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	t.Cleanup(func() { cancel(); load.Wait() })
	ask := func(client *http.Client) error {
		resp, err := client.Get("http://" + front + "/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != secret {
			return fmt.Errorf("%s %.200s %w", resp.Status, body, err)
		}
		return nil
	}
	for i := range 2 {
		load.Go(func() {
			transport := &http.Transport{DisableKeepAlives: i == 0}
			defer transport.CloseIdleConnections()
			for client := (&http.Client{Transport: transport}); ctx.Err() == nil; {
				if err := ask(client); err != nil && ctx.Err() == nil {
					failed.Add(1)
					t.Error("through forward:", err)
					return
				}
				forwarded.Add(1)
			}
		})
	}

	began := time.Now()
	for n := range rotations {
		before := forwarded.Load()
		if err := server.id.Load().Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.until("exec knows the leaf that comes next", trusted(server.successor()))
		server.id.Load().Promote()
		if got := curl(); got != "ok" {
			t.Fatalf("rotation %d: curl %s\n%s", n, got, told.String())
		}
		l.until("forward goes on", func() bool { return forwarded.Load() > before || failed.Load() > 0 })
		if failed.Load() > 0 {
			t.FailNow()
		}
	}
	t.Logf("%d rotations in %s: %d curls, %d requests through forward", rotations, time.Since(began).Round(time.Millisecond), asked, forwarded.Load())
	cancel()
	load.Wait()
	if s := told.String(); strings.Contains(s, "AFFIRMED NO MORE") || strings.Contains(s, "nobody") || strings.Contains(s, "not appraised") {
		t.Errorf("exec said:\n%s", s)
	}

	bad, err := platform.With(sim.Config{Product: "genoa", Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	server.be(bad)
	l.until("exec says so", func() bool {
		s := told.String()
		return strings.Contains(s, "AFFIRMED NO MORE") && strings.Contains(s, "J504") && strings.Contains(s, "nobody is trusted now")
	})
	if got := curl(); got != "failed" {
		t.Errorf("curl %s to a server that is refused", got)
	}
	server.be(platform)
	l.until("exec says that all is well", func() bool { return strings.Contains(told.String(), "affirmed again") })
	l.until("it is trusted again", trusted(server.id.Load().Leaf().Certificate))
	if got := curl(); got != "ok" {
		t.Errorf("curl %s\n%s", got, told.String())
	}
}
