package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/test/fakepcs"
)

// A public key that the operator names is an anchor. It reaches the verifier as an answer to what the verifier asks, and in
// no other way: what is stapled to evidence is an attester's word.
func TestPublicKeysAreTheOperators(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pcs, err := fakepcs.New(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, raw []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	a := &app{now: time.Now}
	ref := attest.Ref{Service: "arm-cca", Path: "/platform", Kind: attest.KindPublicKey}
	rp := &relying{endorser: attest.NoEndorser{}}
	stapled, err := a.given([]string{write("key", key), write("root", pcs.Root)}, rp)
	if err != nil || len(stapled) != 1 || stapled[0].Kind != attest.KindCertificate {
		t.Fatalf("%v, %v", stapled, err)
	}
	list, err := rp.endorser.Endorse(t.Context(), ref)
	if err != nil || len(list) != 1 || !bytes.Equal(list[0].Raw, key) {
		t.Fatalf("%v, %v", list, err)
	}
	if _, err := a.given([]string{write("junk", []byte("junk"))}, rp); attest.CodeOf(err) != attest.CodeMalformedEndorsement {
		t.Error(err)
	}

	// A record names whatever key its maker likes, and its replay asks the operator.
	theirs := append([]byte(nil), key...)
	theirs[len(theirs)-1] ^= 1
	crl := attest.Ref{Service: "aws-nitro", Path: "/crl", Kind: attest.KindCRL}
	rec := &record.Record{Fetched: []record.Fetched{{Ref: ref, Endorsements: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: theirs}}}}}
	if list, err := judge.Recorded(rec, rp.endorser).Endorse(t.Context(), ref); err != nil || !bytes.Equal(list[0].Raw, key) {
		t.Fatalf("%v, %v", list, err)
	}
	if list, err := judge.Recorded(rec, attest.NoEndorser{}).Endorse(t.Context(), ref); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Fatalf("%v, %v", list, err)
	}
	if _, err := judge.Recorded(rec, asked{t}).Endorse(t.Context(), crl); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Fatal(err)
	}
}

type asked struct{ t *testing.T }

func (a asked) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	a.t.Errorf("a replay asked for %v", ref)
	return nil, nil
}
