package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

// trivial is a platform whose evidence is the report data, in the size of a TDX quote with its chain: it costs no
// signature, so that the exchange alone is measured.
type trivial struct{ time time.Duration }

const trivialSize = 5000

func (t trivial) Attest(_ context.Context, rd attest.ReportData) (*attest.Evidence, error) {
	time.Sleep(t.time)
	return &attest.Evidence{Format: "trivial", Raw: append(rd[:], make([]byte, trivialSize)...)}, nil
}

func (trivial) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	if len(ev.Raw) < 64 {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: "evidence"}
	}
	return &attest.Claims{Vendor: "trivial", ReportData: attest.ReportData(ev.Raw)}, nil
}

// anything is a policy that accepts whatever is bound to the connection.
type anything struct{}

func (anything) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	c := attest.Check{ID: "binding.level", Status: attest.StatusPass}
	if s.Level != attest.LevelSession {
		c.Status, c.Code = attest.StatusFail, attest.CodeBindingTooWeak
	}
	return attest.Judgement{ID: "trivial", Checks: []attest.Check{c}}
}

// serve listens for every service, until its input ends.
func serve() error {
	stop, err := profiled(".server")
	if err != nil {
		return err
	}
	defer stop()
	tdx, err := sim.Open("sim:tdx,serial=on,quote-time="+quoteTime.String(), *dir, time.Now)
	if err != nil {
		return err
	}
	services := map[string]attest.Attester{
		"instant": trivial{}, "39ms": trivial{quoteTime}, "instant-kept": trivial{}, "tdx-39ms": tdx,
	}
	greeting := hello{Addrs: map[string]string{}}
	ids := map[string]*ratls.Identity{}
	for name, attester := range services {
		id, err := ratls.NewIdentity(context.Background(), attester, []string{"127.0.0.1"}, [32]byte{7}, ratls.IdentityOptions{})
		if err != nil {
			return err
		}
		acceptor := ratls.NewAcceptor(id, "h2")
		if name == "instant-kept" {
			acceptor = acceptor.WithSession(session.Options{Store: session.NewStore(session.DefaultEntries, time.Now)})
		}
		ids[name] = id
		greeting.Addrs[name], err = listen(func(ctx context.Context, raw net.Conn) (net.Conn, error) { return acceptor.Handshake(ctx, raw) })
		if err != nil {
			return err
		}
	}
	config, err := plainConfig()
	if err != nil {
		return err
	}
	greeting.Addrs["plain"], err = listen(func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		conn := tls.Server(raw, config)
		return conn, conn.HandshakeContext(ctx)
	})
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if err := out.Encode(greeting); err != nil {
		return err
	}
	for {
		var command string
		if err := in.Decode(&command); err != nil || command != "usage" {
			return nil
		}
		u := usage{CPU: cpu(), Quotes: map[string]uint64{}, Sessions: map[string]uint64{}}
		for name, id := range ids {
			s := id.Quotes()
			u.Quotes[name], u.Sessions[name] = s.Quotes, s.Sessions
		}
		if err := out.Encode(u); err != nil {
			return err
		}
	}
}

// listen serves connections until the process ends: the handshake, and whatever comes up to the client's end.
func listen(handshake func(context.Context, net.Conn) (net.Conn, error)) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				conn, err := handshake(ctx, raw)
				if err != nil {
					_ = raw.Close()
					return
				}
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}()
		}
	}()
	return l.Addr().String(), nil
}

// plainConfig serves a certificate like the one that an identity presents in the session tier.
func plainConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(1), 126), Subject: pkix.Name{CommonName: "jurat"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1).To4()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{"h2"}}, nil
}
