package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// What a peer is configured with. Every file says how it is tuned; the same holds for Caddy, whose format has no comments.
//
//go:embed conf
var confs embed.FS

// setup is what the configurations are filled in with.
type setup struct {
	Dir             string // of the peer, for whatever it writes
	Cert, Key, Pair string // files; the last has both
	Front, FrontTCP string // addresses to listen on
	HTTP, TCP       string // addresses of the backend
	TEE             string // of jurat
	StreamModule    string // of nginx, where it isn't built in
	Root            bool   // whether we are root
	Files           uint64 // that a process may have open
}

// write fills in the configuration of that name, and answers its path.
func (s *setup) write(name string) (string, error) {
	funcs := template.FuncMap{
		"host": func(addr string) (string, error) { host, _, err := net.SplitHostPort(addr); return host, err },
		"port": func(addr string) (string, error) { _, port, err := net.SplitHostPort(addr); return port, err },
	}
	t, err := template.New(name).Funcs(funcs).ParseFS(confs, "conf/"+name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.Dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := t.Execute(f, s); err != nil {
		_ = f.Close()
		return "", err
	}
	return path, f.Close()
}

// certificate writes a new key on P-256 and a certificate for it into dir.
func certificate(dir string) (cert, key, pair string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", "", err
	}
	sec1, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return "", "", "", err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	cert, key, pair = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "pair.pem")
	for path, content := range map[string][]byte{cert: certPEM, key: keyPEM, pair: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return "", "", "", err
		}
	}
	return cert, key, pair, nil
}
