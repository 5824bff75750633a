package clienthello_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// tape is a connection that gives what it was made with, and keeps what is written.
type tape struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *tape) Read(p []byte) (int, error)      { return c.in.Read(p) }
func (c *tape) Write(p []byte) (int, error)     { return c.out.Write(p) }
func (c *tape) Close() error                    { return nil }
func (c *tape) SetDeadline(time.Time) error     { return nil }
func (c *tape) SetReadDeadline(time.Time) error { return nil }
func (c *tape) RemoteAddr() net.Addr            { return &net.TCPAddr{} }

// first is what a client of crypto/tls says first.
func first(t testing.TB, c *tls.Config) string {
	t.Helper()
	conn := &tape{in: strings.NewReader("")}
	if err := tls.Client(conn, c).HandshakeContext(context.Background()); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return conn.out.String()
}

var errSeen = errors.New("seen")

// seen is what a server of crypto/tls makes of the same bytes.
func seen(raw string) (*tls.ClientHelloInfo, error) {
	var info *tls.ClientHelloInfo
	err := tls.Server(&tape{in: strings.NewReader(raw)}, &tls.Config{
		MinVersion: tls.VersionTLS10,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			info = h
			return nil, errSeen
		},
	}).HandshakeContext(context.Background())
	if errors.Is(err, errSeen) {
		return info, nil
	}
	return nil, err
}

// agree fails where both take a hello and read different things in it.
func agree(t testing.TB, raw string) (ours, theirs bool) {
	t.Helper()
	got, err := clienthello.Parse([]byte(raw))
	info, errTLS := seen(raw)
	if err == nil && errTLS == nil && (got.ServerName != strings.ToLower(info.ServerName) || !slices.Equal(got.Protocols, info.SupportedProtos)) {
		t.Errorf("got %+v, crypto/tls %q, %q", got, info.ServerName, info.SupportedProtos)
	}
	return err == nil, errTLS == nil
}

var leaf = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// resuming makes c a client that comes back with a ticket of about size bytes.
func resuming(t *testing.T, c *tls.Config, size int) *tls.Config {
	t.Helper()
	c = c.Clone()
	c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	server := &tls.Config{Certificates: []tls.Certificate{leaf()}, NextProtos: c.NextProtos}
	server.WrapSession = func(tls.ConnectionState, *tls.SessionState) ([]byte, error) { return make([]byte, size), nil }
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_, err = conn.Write([]byte("x"))
			err = errors.Join(err, conn.Close())
		}
		done <- err
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // which takes the tickets that came before
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAsCryptoTLS(t *testing.T) {
	shapes := map[string]*tls.Config{}
	for version, v := range map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		for name, server := range map[string]string{"name": "a.Example", "no name": "", "address": "192.0.2.1", "long name": strings.Repeat("abcdefg.", 30) + "example"} {
			for protocols, p := range map[string][]string{"": nil, " h2": {"h2"}, " many": {"h2", "http/1.1", "acme-tls/1", "\x0a\x0a"}} {
				shapes[fmt.Sprintf("%s %s%s", version, name, protocols)] = &tls.Config{
					ServerName: server, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: v, NextProtos: p,
				}
			}
		}
	}
	base := &tls.Config{ServerName: "a.example", InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	classic := base.Clone()
	classic.CurvePreferences = []tls.CurveID{tls.X25519}
	quantum := base.Clone()
	quantum.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	shapes["classic"], shapes["post-quantum"] = classic, quantum
	old := base.Clone()
	old.MaxVersion = tls.VersionTLS12
	for _, size := range []int{100, 2000, 8000} {
		shapes[fmt.Sprint("ticket of ", size)] = resuming(t, base, size)
		shapes[fmt.Sprint("old ticket of ", size)] = resuming(t, old, size)
	}
	sizes := map[string]int{}
	for name, c := range shapes {
		t.Run(name, func(t *testing.T) {
			raw := first(t, c)
			sizes[name] = len(raw)
			body := unframed(raw)
			for _, n := range []int{1 << 14, 1000, 100, 40} {
				if ours, theirs := agree(t, split(body, n)); !ours || !theirs {
					got, err := clienthello.Parse([]byte(raw))
					_, errTLS := seen(raw)
					t.Errorf("in records of %d bytes: ours %v, %v, %v; crypto/tls %v, %v", n, ours, got, err, theirs, errTLS)
				}
			}
		})
	}
	if sizes["post-quantum"] < 1400 || sizes["classic"] > 600 || sizes["ticket of 8000"] < 8000 {
		t.Errorf("the shapes are not what they are called: %v", sizes)
	}
	// What is longer than allowed is refused before it has come.
	raw := first(t, resuming(t, base, 20000))
	if _, err := clienthello.Parse([]byte(raw[:9])); err == nil || errors.Is(err, clienthello.ErrMore) {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
}

// TestEncryptedHello: the name that counts is the one outside.
func TestEncryptedHello(t *testing.T) {
	key, err := ecdhKey()
	if err != nil {
		t.Fatal(err)
	}
	raw := first(t, &tls.Config{ServerName: "secret.example", InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echList("public.example", key)})
	got, err := clienthello.Parse([]byte(raw))
	if err != nil || got.ServerName != "public.example" {
		t.Errorf("got %+v, %v", got, err)
	}
	if ours, theirs := agree(t, raw); !ours || !theirs {
		t.Errorf("ours %v, crypto/tls %v", ours, theirs)
	}
}

// unframed is the message in the records of raw.
func unframed(raw string) string {
	out := ""
	for len(raw) > 0 {
		n := int(raw[3])<<8 | int(raw[4])
		out += raw[5 : 5+n]
		raw = raw[5+n:]
	}
	return out
}

// What we take and crypto/tls takes says the same to both; what is taken is taken whole only.
func FuzzParse(f *testing.F) {
	f.Add([]byte(record(hello(sni("a.example"), alpn("h2", "http/1.1")))))
	f.Add([]byte(split(hello(alpn("h2"), sni("A.example")), 20)))
	f.Add([]byte(record(message(head))))
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
		f.Add([]byte(first(f, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: v, NextProtos: []string{"h2", "x"}})))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := clienthello.Parse(p)
		_, read, readErr := clienthello.Read(bytes.NewReader(p))
		if !bytes.HasPrefix(p, read) || (err == nil) != (readErr == nil) {
			t.Fatalf("%v, and read %d of %d bytes, %v", err, len(read), len(p), readErr)
		}
		switch {
		case errors.Is(err, clienthello.ErrMore):
			if len(p) >= clienthello.MaxSize {
				t.Fatalf("more than %d bytes asked for", len(p))
			}
			return
		case err != nil:
			if got.ServerName != "" || got.Protocols != nil {
				t.Fatalf("refused, and %+v", got)
			}
			return
		}
		agree(t, string(p))
		if name, ok := clienthello.HostName(got.ServerName); got.ServerName != "" && (!ok || name != got.ServerName) {
			t.Fatalf("name %q", got.ServerName)
		}
		if again, err := clienthello.Parse(append(p[:len(p):len(p)], "\x17\x03"...)); err != nil || again.ServerName != got.ServerName {
			t.Fatalf("with something behind it: %+v, %v", again, err)
		}
	})
}

func ecdhKey() (string, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	return string(key.PublicKey().Bytes()), nil
}

// echList is a list of one configuration (RFC 9849 section 4): X25519, HKDF-SHA256 and AES-128-GCM.
func echList(name, key string) []byte {
	contents := "\x01\x00\x20" + vec(2, key) + vec(2, "\x00\x01\x00\x01") + "\x20" + vec(1, name) + vec(2, "")
	return []byte(vec(2, "\xfe\x0d"+vec(2, contents)))
}

// TestScanner: a hello that comes bit by bit is what it is at once, and what begins like TLS stays that.
func TestScanner(t *testing.T) {
	raw := first(t, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}})
	want, err := clienthello.Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []int{1, 3, 100, len(raw)} {
		var s clienthello.Scanner
		for n := step; ; n += step {
			p := []byte(raw)[:min(n, len(raw))]
			if !clienthello.Begins(p) {
				t.Fatalf("%d bytes are none of TLS", len(p))
			}
			got, err := s.Parse(p)
			if len(p) < len(raw) {
				if !errors.Is(err, clienthello.ErrMore) {
					t.Fatalf("%d bytes: %v", len(p), err)
				}
				continue
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("in steps of %d: %+v, %v", step, got, err)
			}
			break
		}
	}
	for p, begins := range map[string]bool{"": true, "\x16": true, "\x16\x03": true, "\x16\x03\xff": true, "\x16\x02": false, "\x15\x03": false, "G": false, "\x80": false} {
		if clienthello.Begins([]byte(p)) != begins {
			t.Errorf("%q", p)
		}
	}
}
