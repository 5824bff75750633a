package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/ear"
)

// earFlags make an Attestation Result that travels.
type earFlags struct {
	out, key, holder string
	lifetime         time.Duration
}

func (f *earFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.out, "ear", "", "write the attestation result as a signed token into `FILE`: a JWT, or a CWT if the name ends in .cwt")
	fs.StringVar(&f.key, "ear-key", "", "private key that signs it, of P-256 or P-384, PKCS #8 PEM `FILE`")
	fs.StringVar(&f.holder, "ear-holder", "", "public key that it is tied to, PEM `FILE` (default: the key of the peer's leaf, where there is one)")
	fs.DurationVar(&f.lifetime, "ear-lifetime", time.Hour, "how long it is valid")
}

func (f *earFlags) check() error {
	if f.out != "" && f.key == "" {
		return usageError("--ear needs --ear-key FILE")
	}
	return nil
}

// write makes the token of an appraisal, where the flags ask for one.
func (f *earFlags) write(a *app, ap *appraisal) error {
	if f.out == "" {
		return nil
	}
	signer, err := a.readKey(f.key)
	if err != nil {
		return err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return usageError("--ear-key has to be of P-256 or P-384")
	}
	var holder *ecdsa.PublicKey
	if f.holder != "" {
		if holder, err = a.readPublicKey(f.holder); err != nil {
			return err
		}
	} else if len(ap.shown.Chain) > 0 {
		if leaf, err := x509.ParseCertificate(ap.shown.Chain[0]); err == nil {
			holder, _ = leaf.PublicKey.(*ecdsa.PublicKey)
		}
	}
	e, err := ear.New(ap.result, ear.Verifier{Developer: "https://github.com/jurat-tls/jurat", Build: "jurat " + buildInfo().Version}, holder, nil, a.now(), f.lifetime)
	if err != nil {
		return err
	}
	sign := ear.SignJWT
	if strings.HasSuffix(f.out, ".cwt") {
		sign = ear.SignCWT
	}
	raw, err := sign(e, key)
	if err != nil {
		return err
	}
	return writeFile(f.out, raw)
}

// readPublicKey reads a public key, or that of a certificate.
func (a *app) readPublicKey(file string) (*ecdsa.PublicKey, error) {
	raw, err := a.readFile(file)
	if err != nil {
		return nil, err
	}
	var key any
	if block, _ := pem.Decode(raw); block != nil {
		if block.Type == "CERTIFICATE" {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				key = cert.PublicKey
			}
		} else {
			key, _ = x509.ParsePKIXPublicKey(block.Bytes)
		}
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "key", Subject: file, Want: "a public key of P-256 or P-384, or a certificate, in PEM"}
	}
	return ec, nil
}

// attestationResult checks an Attestation Result that some Verifier signed.
func (a *app) attestationResult(_ context.Context, args []string) error {
	fs := a.flags("result FILE --key VERIFIER.pem... [--holder KEY.pem] [--nonce HEX] [--at TIME] [--json]")
	asJSON := fs.Bool("json", false, "write JSON")
	at := fs.String("at", "", "judge at this `TIME`")
	holderFile := fs.String("holder", "", "public key that it has to be tied to, PEM `FILE`")
	nonce := fs.String("nonce", "", "nonce that it has to echo, in `HEX`")
	var keys list
	fs.Var(&keys, "key", "public key of a verifier that is trusted, PEM `FILE`; repeat for more")
	rest, err := a.parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) != 1 || len(keys) == 0 {
		return usageError("result takes one FILE and --key VERIFIER.pem: a result is worth what its signer is")
	}
	var trusted []*ecdsa.PublicKey
	for _, file := range keys {
		key, err := a.readPublicKey(file)
		if err != nil {
			return err
		}
		trusted = append(trusted, key)
	}
	now, err := a.parseTime(*at, a.now())
	if err != nil {
		return err
	}
	raw, err := a.readFile(rest[0])
	if err != nil {
		return err
	}
	verify := ear.VerifyCWT
	if bytes.HasPrefix(raw, []byte("eyJ")) { // {" in base64
		verify, raw = ear.VerifyJWT, bytes.TrimSpace(raw)
	}
	e, err := verify(raw, ear.TrustKeys(trusted...), now)
	if err != nil {
		return withSubject(err, rest[0])
	}
	if *holderFile != "" {
		holder, err := a.readPublicKey(*holderFile)
		if err != nil {
			return err
		}
		if !e.HolderIs(holder) {
			return &attest.Error{Code: attest.CodeLink, Check: "result.holder", Subject: rest[0], Got: "a result that is tied to another key, or to none", Want: *holderFile}
		}
	}
	if *nonce != "" && !strings.EqualFold(*nonce, fmt.Sprintf("%x", e.Nonce)) {
		return &attest.Error{Code: attest.CodeReportData, Check: "result.nonce", Subject: rest[0], Got: fmt.Sprintf("nonce %x", e.Nonce), Want: *nonce}
	}
	if *asJSON {
		vector := map[string]string{}
		for name, t := range e.Vector {
			vector[name] = t.String()
		}
		err = writeJSON(a.stdout, map[string]any{
			"status": e.Status.String(), "affirming": e.Affirming(), "issued": e.Issued, "expires": e.Expires, "verifier": map[string]string{"developer": e.Developer, "build": e.Build},
			"vector": vector, "policies": e.PolicyIDs, "appraisal": e.Appraisal, "holder_checked": *holderFile != "",
		})
	} else {
		fmt.Fprintf(a.stdout, "%s: %s, by %s (%s), valid until %s\n", printable(rest[0]), e.Status, printable(e.Developer), printable(e.Build), e.Expires.Format(time.RFC3339))
		for _, name := range slices.Sorted(maps.Keys(e.Vector)) {
			fmt.Fprintf(a.stdout, "  %-18s %s\n", name, e.Vector[name])
		}
		switch {
		case *holderFile != "":
		case e.Holder != nil:
			fmt.Fprintln(a.stdout, "  not checked: that whoever shows it holds the key that it is tied to (--holder)")
		default:
			fmt.Fprintln(a.stdout, "  tied to nobody: whoever has it can show it")
		}
	}
	if err == nil && !e.Affirming() {
		err = exitError(attest.CodePlatformNotAllowed.Exit())
	}
	return err
}
