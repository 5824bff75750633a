package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"flag"
	"net/url"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
)

// dialectFlags say in which dialects of others evidence is taken, and what the operator knows that a dialect needs.
type dialectFlags struct {
	names       list
	certificate string
	document    string
	given       list
}

func (f *dialectFlags) register(fs *flag.FlagSet) {
	fs.Var(&f.names, "dialect", "`NAME` of another program's form of evidence that is taken (docs/dialects.md): "+strings.Join(dialect.Known(), ", ")+"; repeat for more")
	fs.StringVar(&f.certificate, "certificate", "", "judge the certificate or certificate request in `FILE`, or with --document the certificate that the document is for; nobody proves its key, so that at most level pinned is reached")
	fs.StringVar(&f.document, "document", "", "judge the attestation document in `FILE|URL`, for the certificate that the https URL is answered with, or for that of --certificate")
	fs.Var(&f.given, "given", "`KEY=HEX` that a dialect needs and you know: nonce, hpke-key, app-key-sha256; repeat for more")
}

// files reports whether there is something to judge that is no target.
func (f *dialectFlags) files() bool { return f.certificate != "" || f.document != "" }

// known is what the operator gives.
func (f *dialectFlags) known(a *app) (dialect.Context, error) {
	var c dialect.Context
	for _, g := range f.given {
		key, value, _ := strings.Cut(g, "=")
		raw, err := hex.DecodeString(value)
		if err != nil || len(raw) == 0 {
			return c, usageError("--given %.60q is no KEY=HEX", g)
		}
		switch {
		case key == "nonce" && len(raw) >= dialect.MinNonce:
			c.Nonce = raw // when it was made is not known, and its age no fact
		case key == "hpke-key" && len(raw) == 32:
			c.HPKE = raw
		case key == "app-key-sha256" && len(raw) == len(c.AppKey):
			copy(c.AppKey[:], raw)
		default:
			return c, usageError("--given %.60q: want nonce of at least %d bytes, hpke-key or app-key-sha256 of 32", g, dialect.MinNonce)
		}
	}
	return c, nil
}

// shown reads what the flags name.
func (f *dialectFlags) shown(ctx context.Context, a *app) (dialect.Shown, error) {
	var s dialect.Shown
	if f.certificate != "" {
		raw, err := a.readFile(f.certificate)
		if err != nil {
			return s, err
		}
		if s.Leaf, s.Request, err = parseCertificate(raw); err != nil {
			return s, withSubject(err, f.certificate)
		}
	}
	if f.document == "" {
		return s, nil
	}
	if !strings.Contains(f.document, "://") {
		raw, err := a.readFile(f.document)
		s.Document = append([]byte{}, raw...) // one of no bytes is one
		return s, err
	}
	raw, leaf, err := fetchDocument(ctx, f.document)
	if err != nil {
		return s, err
	}
	if s.Leaf != nil && !bytes.Equal(s.Leaf.Raw, leaf.Raw) {
		return s, &attest.Error{Code: attest.CodeName, Check: "evidence", Subject: f.document, Got: "another certificate than that of --certificate", Want: ratls.Pin(s.Leaf)}
	}
	s.Document, s.Leaf = raw, leaf
	return s, nil
}

// fetchDocument gets the document at the one address that the operator named.
func fetchDocument(ctx context.Context, address string) ([]byte, *x509.Certificate, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return nil, nil, usageError("--document %.100q is no https URL", address)
	}
	raw, leaf, err := ratls.FetchDocument(ctx, u, dialect.MaxDocument)
	return raw, leaf, withSubject(err, u.Host)
}

// parseCertificate reads a certificate or a request, whose own signature has to hold: it shows that who made it had the key.
func parseCertificate(raw []byte) (*x509.Certificate, *x509.CertificateRequest, error) {
	kind := "CERTIFICATE"
	// What is DER, a SEQUENCE, may hold other certificates in PEM.
	if block, _ := pem.Decode(raw); block != nil && !bytes.HasPrefix(raw, []byte{0x30}) {
		raw, kind = block.Bytes, block.Type
	}
	if kind == "CERTIFICATE" {
		leaf, err := x509.ParseCertificate(raw)
		if err == nil {
			return leaf, nil, nil
		}
		if strings.Contains(err.Error(), "duplicate extension") {
			return nil, nil, &attest.Error{Code: attest.CodeDuplicateExtension, Check: "evidence", Err: err}
		}
	}
	request, err := x509.ParseCertificateRequest(raw)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, nil, &attest.Error{Code: attest.CodeMalformedCertificate, Check: "evidence", Err: err}
	}
	return nil, request, nil
}

// verifyShown appraises a document, or a certificate that nobody has proven the key of.
func (a *app) verifyShown(ctx context.Context, f *verifyFlags, rp *relying) (*appraisal, error) {
	if f.save != "" || f.log.dir != "" {
		return nil, usageError("--save and --log-dir keep what a target has shown, or bare evidence")
	}
	known, err := f.dialect.known(a)
	if err != nil {
		return nil, err
	}
	at, err := a.parseTime(f.at, a.now())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rp.timeout)
	defer cancel()
	s, err := f.dialect.shown(ctx, a)
	if err != nil {
		return nil, err
	}
	target := f.dialect.certificate
	if s.Document != nil {
		target = f.dialect.document
	}
	ap := &appraisal{target: target}
	if s.Leaf != nil {
		ap.shown = ratls.Presented{Chain: [][]byte{s.Leaf.Raw}}
	}
	past := *rp
	past.now = func() time.Time { return at }
	if s.Document == nil && s.Leaf != nil {
		ap.result = past.party(rp.endorser).ForPin().AppraiseKnowing(ctx, ap.shown.Chain, ratls.AnyClient(), known)
		return ap, nil
	}
	found, err := rp.dialects.Read(s, known)
	if err != nil {
		return nil, withSubject(err, target)
	}
	for _, d := range found {
		d.Level = attest.LevelPinned // nothing that is in a file is of a connection
	}
	ap.result = dialect.Appraise(ctx, attest.NewAppraiser(rp.endorser, rp.judge().Verifiers(rp.endorser)...), found, rp.policy, at)
	return ap, nil
}

// spoken is what a certificate says in one dialect of another program.
type spoken struct {
	Dialect    string                     `json:"dialect"`
	Format     attest.Format              `json:"format"`
	Preimage   string                     `json:"hardware_signs"`
	ReportData []attest.HexBytes          `json:"expected_report_data,omitempty"` // one of them
	Signed     map[string]attest.HexBytes `json:"expected_digests,omitempty"`
	Level      attest.Level               `json:"level"` // that is reached if the hardware has signed that
	Unsigned   []string                   `json:"unsigned,omitempty"`
}

func spokenIn(found []*dialect.Found) []spoken {
	var all []spoken
	for _, f := range found {
		s := spoken{Dialect: f.Dialect, Format: f.Evidence.Format, Preimage: f.Preimage, Level: f.Level, Unsigned: f.Unsigned}
		for _, d := range f.ReportData {
			s.ReportData = append(s.ReportData, d[:])
		}
		for name, d := range f.Signed {
			if s.Signed == nil {
				s.Signed = map[string]attest.HexBytes{}
			}
			s.Signed[name] = d[:]
		}
		all = append(all, s)
	}
	return all
}
