package ratls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

func TestIdentityRefuses(t *testing.T) {
	broken := errors.New("device busy")
	for name, c := range map[string]struct {
		hw   *hardware
		name string
		opts ratls.IdentityOptions
		want attest.Code
	}{
		"wildcard":       {&hardware{}, "*.example", ratls.IdentityOptions{}, attest.CodeConfigValue},
		"empty name":     {&hardware{}, "", ratls.IdentityOptions{}, attest.CodeConfigValue},
		"spaces":         {&hardware{}, "a b", ratls.IdentityOptions{}, attest.CodeConfigValue},
		"host and port":  {&hardware{}, "a:443", ratls.IdentityOptions{}, attest.CodeConfigValue},
		"short lifetime": {&hardware{}, "a", ratls.IdentityOptions{Lifetime: time.Second}, attest.CodeConfigValue},
		"no quote":       {&hardware{fail: broken}, "a", ratls.IdentityOptions{}, attest.CodeInternal},
		"huge evidence":  {&hardware{pad: 60 << 10}, "a", ratls.IdentityOptions{}, attest.CodeOversized},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ratls.NewIdentity(t.Context(), c.hw, []string{c.name}, [32]byte{}, c.opts)
			code(t, err, c.want)
		})
	}
}

// The zone of an address is a matter of this host: no certificate can carry it, so no evidence may sign it.
func TestZoneOfAnAddress(t *testing.T) {
	id := identity(t, "fe80::1%eth0")
	r := accepting().Appraise(t.Context(), [][]byte{id.Leaf().Certificate.Raw}, ratls.Server("fe80::1"))
	if !r.Affirmed() {
		t.Fatal(r.Err())
	}
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hw := &hardware{}
		id, err := ratls.NewIdentity(t.Context(), hw, []string{"a"}, [32]byte{}, ratls.IdentityOptions{Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); id.Run(ctx) }()
		first := id.Leaf()
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if id.Leaf() != first {
			t.Fatal("renewed before half of the lifetime")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		second := id.Leaf()
		if second == first || ratls.Pin(second.Certificate) == ratls.Pin(first.Certificate) {
			t.Fatal("not renewed under a new key")
		}
		// The hardware fails for a while: the leaf serves on, and is not served once it has expired.
		hw.set(errors.New("device busy"))
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if got, err := id.GetCertificate(nil); err != nil || !got.Leaf.Equal(second.Certificate) {
			t.Fatalf("the old leaf is not served while renewal fails: %v", err)
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		_, err = id.GetCertificate(nil)
		code(t, err, attest.CodeLeafExpired)
		_, err = id.GetClientCertificate(nil)
		code(t, err, attest.CodeLeafExpired)
		hw.set(nil)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if _, err := id.GetCertificate(nil); err != nil {
			t.Fatalf("no recovery: %v", err)
		}
		if n := hw.quotes(); n != 3 {
			t.Fatalf("%d quotes for 3 leaves", n)
		}
		cancel()
		<-done
	})
}

// A connection that is open while the leaf is renewed goes on; the next one sees the new leaf.
func TestRenewalKeepsConnections(t *testing.T) {
	id := identity(t, "127.0.0.1")
	acc := ratls.NewAcceptor(id)
	addr := listener(t, func(raw net.Conn) {
		if conn, err := acc.Handshake(context.Background(), raw); err == nil {
			_, _ = io.Copy(conn, conn)
		}
	})
	connector := ratls.NewConnector(accepting())
	old, err := connector.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := id.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	young, err := connector.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer young.Close()
	for _, conn := range []*ratls.Conn{old, young} {
		buf := make([]byte, 2)
		if _, err := conn.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hi" {
			t.Fatalf("got %q, %v", buf, err)
		}
	}
	if ratls.Pin(old.ConnectionState().PeerCertificates[0]) == ratls.Pin(young.ConnectionState().PeerCertificates[0]) {
		t.Fatal("the new connection has the old leaf")
	}
}

func TestTransport(t *testing.T) {
	serve := func(a *ratls.Acceptor) (string, *int) {
		requests := new(int)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			*requests++
			if r.URL.Path == "/plain" {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, "hello "+r.Proto)
		})}
		server.Protocols = new(http.Protocols)
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = server.Serve(attestedListener{l, a}) }()
		t.Cleanup(func() { _ = server.Close() })
		return l.Addr().String(), requests
	}
	get := func(rt http.RoundTripper, url string) (string, error) {
		t.Cleanup(rt.(*http.Transport).CloseIdleConnections)
		resp, err := (&http.Client{Transport: rt}).Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	addr, requests := serve(ratls.NewAcceptor(identity(t, "127.0.0.1"), "h2", "http/1.1"))
	if body, err := get(ratls.NewTransport(accepting()), "https://"+addr+"/"); err != nil || body != "hello HTTP/1.1" { // net/http speaks HTTP/2 over a *tls.Conn only
		t.Fatalf("got %q, %v", body, err)
	}
	_, err := get(ratls.NewTransport(accepting()), "http://"+addr+"/")
	code(t, err, attest.CodeUsage)
	_, err = get(ratls.NewTransport(accepting()), "https://"+addr+"/plain")
	code(t, err, attest.CodeUsage)
	*requests = 0
	_, err = get(ratls.NewTransport(refusing()), "https://"+addr+"/")
	code(t, err, attest.CodeDebug)
	if *requests != 0 {
		t.Fatal("a refused server got a request")
	}
	mutual, _ := serve(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), accepting(), "http/1.1"))
	if body, err := get(ratls.NewMutualTransport(identity(t), accepting()), "https://"+mutual+"/"); err != nil || body != "hello HTTP/1.1" {
		t.Fatalf("got %q, %v", body, err)
	}
	if _, err := get(ratls.NewTransport(accepting()), "https://"+mutual+"/"); err == nil {
		t.Fatal("a client without evidence was served")
	}
}

// attestedListener makes attested connections of what it accepts, one at a time.
type attestedListener struct {
	net.Listener
	a *ratls.Acceptor
}

func (l attestedListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		// Hidden from net/http: it would serve a *tls.Conn itself.
		if conn, err := l.a.Handshake(context.Background(), raw); err == nil {
			return struct{ net.Conn }{conn}, nil
		}
	}
}

// The key of a leaf is given to nobody, unless the identity was made for that.
func TestExport(t *testing.T) {
	if _, err := identity(t, "a.example").Export(); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("got %v", err)
	}
	now := time.Now()
	id, err := ratls.NewIdentity(t.Context(), &hardware{}, []string{"127.0.0.1"}, [32]byte{7}, ratls.IdentityOptions{UnsafeExport: true, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	e, err := id.Export()
	if err != nil || !e.NotAfter.Equal(id.Leaf().Certificate.NotAfter) {
		t.Fatalf("got %+v, %v", e, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(e.Key)
	if err != nil {
		t.Fatal(err)
	}
	// Another program serves with it, and is taken for this identity, in the certificate tier.
	other := &tls.Config{Certificates: []tls.Certificate{{Certificate: e.Chain, PrivateKey: key}}, MinVersion: tls.VersionTLS13}
	addr := listener(t, func(raw net.Conn) { _ = tls.Server(raw, other).Handshake() })
	for level, want := range map[attest.Level]attest.Level{"": attest.LevelKey, "pin": attest.LevelPinned} {
		rp := relyingParty(policy{min: attest.LevelPinned}, time.Now)
		if level == "pin" {
			rp = rp.ForPin()
		}
		conn, err := ratls.NewConnector(rp).Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Result().Level(); got != want {
			t.Errorf("got level %s, want %s", got, want)
		}
		_ = conn.Close()
	}
	_, err = ratls.NewConnector(accepting().ForPin()).Dial(t.Context(), addr)
	code(t, err, attest.CodeBindingTooWeak)
	now = now.Add(2 * time.Hour)
	_, err = id.Export()
	code(t, err, attest.CodeLeafExpired)
}

// Trust stores find a certificate by its subject: that of two leaves is never the same.
func TestSubjectsDiffer(t *testing.T) {
	id := identity(t, "a.example")
	first := id.Leaf().Certificate
	if err := id.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second := id.Leaf().Certificate; second.Subject.String() == first.Subject.String() || first.Issuer.String() != first.Subject.String() {
		t.Errorf("%s, and then %s", first.Subject, second.Subject)
	}
}
