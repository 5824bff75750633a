// Package tlspair makes connected pairs of TLS connections in memory, for tests.
package tlspair

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
)

// Leaf is a self-signed certificate with its key.
func Leaf(t testing.TB, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Key is a new key on P-256.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// New makes a client's and a server's end over loopback, with the handshake done. Both are closed with the test.
func New(t testing.TB, cert tls.Certificate) (client, server *tls.Conn) {
	t.Helper()
	return WithALPN(t, cert)
}

// WithALPN is New with protocols that both ends offer.
func WithALPN(t testing.TB, cert tls.Certificate, protos ...string) (client, server *tls.Conn) {
	t.Helper()
	c, s := loopback(t)
	return Over(t, c, s, cert, protos...)
}

// Old is WithALPN in TLS 1.2.
func Old(t testing.TB, cert tls.Certificate, protos ...string) (client, server *tls.Conn) {
	t.Helper()
	c, s := loopback(t)
	return handshake(t, c, s, cert, tls.VersionTLS12, tls.RenegotiateNever, protos)
}

// Over is WithALPN over a given transport.
func Over(t testing.TB, c, s net.Conn, cert tls.Certificate, protos ...string) (client, server *tls.Conn) {
	t.Helper()
	return handshake(t, c, s, cert, tls.VersionTLS13, tls.RenegotiateNever, protos)
}

// Mute is WithALPN where neither end has exporters: crypto/tls has none for who would renegotiate.
func Mute(t testing.TB, cert tls.Certificate, protos ...string) (client, server *tls.Conn) {
	t.Helper()
	c, s := loopback(t)
	return handshake(t, c, s, cert, tls.VersionTLS13, tls.RenegotiateOnceAsClient, protos)
}

func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := ln.Accept()
		accepted <- conn
	}()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return client, <-accepted
}

func handshake(t testing.TB, c, s net.Conn, cert tls.Certificate, version uint16, again tls.RenegotiationSupport, protos []string) (client, server *tls.Conn) {
	t.Helper()
	client = tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, Renegotiation: again, NextProtos: protos})
	server = tls.Server(s, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version, SessionTicketsDisabled: true, Renegotiation: again, NextProtos: protos})
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	return client, server
}
