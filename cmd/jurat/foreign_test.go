package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

// foreign starts a service of another program in a simulated TEE, and puts its address and the root into variables; its certificate
// goes into a file of that name:
//
//	foreign ADDR ROOT dice|evervault|nitriding|contrast
func foreign(ts *testscript.TestScript, _ bool, args []string) {
	address, root, name := args[0], args[1], args[2]
	spec := map[string]string{"dice": "sim:sgx", "evervault": "sim:nitro", "nitriding": "sim:nitro"}[name]
	machine, err := sim.Open(spec, filepath.Join(ts.Getenv("WORK"), "foreign-"+name), time.Now)
	ts.Check(err)
	t := scriptTB{ts: ts}
	f := &dialectforge.Forge{
		T: t, Key: dialectforge.NewKey(t), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), CommonName: "enclave", Names: []string{"localhost"},
	}
	var stapled []attest.Endorsement
	f.Quote = func(data [64]byte) []byte {
		ev, err := machine.Attest(context.Background(), data)
		ts.Check(err)
		stapled = ev.Endorsements
		return ev.Raw
	}
	f.Nitro = func(user, nonce []byte) []byte {
		raw, err := machine.(*sim.Nitro).Document(user, nonce, nil)
		ts.Check(err)
		return raw
	}
	leaf := f.Certificate()
	if name == "dice" {
		evidence := pkix.Extension{Id: dialectforge.OIDDICE, Value: f.TaggedEvidence(60000, f.Claims())}
		items := [][]byte{{1}}
		for _, e := range stapled {
			raw := e.Raw
			if e.Kind == attest.KindCertificate {
				raw = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
			}
			items = append(items, dialectforge.Bytes(raw))
		}
		leaf = f.Certificate(evidence, pkix.Extension{Id: dialectforge.OIDEndorsements, Value: dialectforge.Tagged(60000, items...)})
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		switch r.URL.Path {
		case "/enclave/attestation":
			_, _ = w.Write(f.Nitriding(leaf, [32]byte{}))
		case "/away":
			http.Redirect(w, r, "/enclave/attestation", http.StatusFound)
		default:
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "hello")
		}
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that refuse
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		shown := leaf
		if name == "evervault" {
			own := *f
			if text, _, ok := strings.Cut(hello.ServerName, ".attest."); ok {
				if own.Nonce, err = base64.StdEncoding.DecodeString(text); err != nil {
					return nil, err
				}
			}
			shown = own.Evervault()
		}
		return &tls.Certificate{Certificate: [][]byte{shown.Raw}, PrivateKey: f.Key}, nil
	}}
	server.StartTLS()
	ts.Defer(server.Close)
	ts.Setenv(address, strings.Replace(server.Listener.Addr().String(), "127.0.0.1", "localhost", 1))
	ts.Setenv(root, machine.Root())
	if name == "evervault" {
		own := *f
		leaf = own.Evervault()
	}
	writeCertificate(ts, address+".pem", leaf)
}

func writeCertificate(ts *testscript.TestScript, name string, leaf *x509.Certificate) {
	ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), 0o644))
}

// scriptTB is as much of a testing.TB as makes things in a script.
type scriptTB struct {
	testing.TB
	ts *testscript.TestScript
}

func (scriptTB) Helper()             {}
func (t scriptTB) Fatal(args ...any) { t.ts.Fatalf("%s", fmt.Sprint(args...)) }
