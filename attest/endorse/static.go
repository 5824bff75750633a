package endorse

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// maxFiles bounds the endorsements in one file, and the files in one directory.
const maxFiles = 1024

// Static is an attest.Endorser over endorsements that are at hand. It answers with those that fit the request.
type Static struct{ list []attest.Endorsement }

var _ attest.Endorser = (*Static)(nil)

// NewStatic makes a Static of decoded endorsements.
func NewStatic(list ...attest.Endorsement) *Static { return &Static{list: slices.Clone(list)} }

// Open reads endorsements from files and directories (not their subdirectories): certificates and revocation lists, in DER
// or PEM. Anything else in them is an error.
func Open(paths ...string) (*Static, error) {
	s := new(Static)
	for _, path := range paths {
		if err := s.add(path); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Static) add(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return unreadable(path, err)
	}
	if !info.IsDir() {
		return s.addFile(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return unreadable(path, err)
	}
	if len(entries) > maxFiles {
		return &attest.Error{Code: attest.CodeOversized, Check: "endorsements", Subject: path, Got: fmt.Sprintf("%d files", len(entries)), Want: fmt.Sprintf("at most %d", maxFiles)}
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := s.addFile(filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Static) addFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	defer f.Close()
	const limit = 16 * maxBody
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return unreadable(path, err)
	}
	if len(raw) > limit {
		return &attest.Error{Code: attest.CodeOversized, Check: "endorsements", Subject: path, Want: fmt.Sprintf("at most %d bytes", limit)}
	}
	list, err := parse(raw)
	if err == nil && len(list) == 0 {
		err = errors.New("empty")
	}
	if err != nil {
		return &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "endorsements", Subject: path, Err: err}
	}
	s.list = append(s.list, list...)
	return nil
}

func unreadable(path string, err error) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "endorsements", Subject: path, Err: err}
}

// Endorse implements attest.Endorser.
func (s *Static) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	var fitting []attest.Endorsement
	for _, e := range s.list {
		if len(fitting) < attest.MaxEndorsements && e.Kind == ref.Kind && fits(e, ref) {
			fitting = append(fitting, e)
		}
	}
	if len(fitting) == 0 {
		return nil, refuse(attest.CodeEndorsementMissing, ref, fmt.Sprintf("none among %d at hand", len(s.list)), nil)
	}
	return fitting, nil
}

// fits tells whether e is what the KDS would answer: the names and numbers in the path are compared with those in e. A
// wrong answer does no harm, the verifier compares again.
func fits(e attest.Endorsement, ref attest.Ref) bool {
	u, err := url.ParseRequestURI(ref.Path)
	if err != nil || ref.Service != service && ref.Service != simulatedService {
		return false
	}
	parts := strings.Split(u.Path, "/") // "", "vcek", "v1", "Genoa", rest
	if len(parts) != 5 {
		return false
	}
	key, line, rest := strings.ToUpper(parts[1]), parts[3], parts[4]
	if e.Kind == attest.KindCRL {
		crl, err := x509.ParseRevocationList(e.Raw)
		return err == nil && rest == "crl" && crl.Issuer.CommonName == "ARK-"+line
	}
	cert, err := x509.ParseCertificate(e.Raw)
	if err != nil {
		return false
	}
	issuer := "SEV-" + line
	if key == "VLEK" {
		issuer = "SEV-VLEK-" + line
	}
	if rest == "cert_chain" {
		return cert.Subject.CommonName == issuer
	}
	return cert.Subject.CommonName == "SEV-"+key && cert.Issuer.CommonName == issuer && sameChip(cert, rest, u.Query())
}

// splArcs are the last arcs of the extensions 1.3.6.1.4.1.3704.1.3.x by the name that the KDS gives them.
var splArcs = map[string]string{"blSPL": "1", "teeSPL": "2", "snpSPL": "3", "ucodeSPL": "8", "fmcSPL": "9"}

func sameChip(cert *x509.Certificate, chip string, query url.Values) bool {
	values := map[string][]byte{}
	for _, x := range cert.Extensions {
		values[x.Id.String()] = x.Value
	}
	id := values["1.3.6.1.4.1.3704.1.4"]
	if len(id) == len(chip)/2+2 { // some certificates wrap it in one more OCTET STRING
		id = id[2:]
	}
	if hex.EncodeToString(id) != strings.ToLower(chip) {
		return false
	}
	for name := range query {
		var have int
		want, err := strconv.Atoi(query.Get(name))
		if err != nil || splArcs[name] == "" {
			return false
		}
		if _, err := asn1.Unmarshal(values["1.3.6.1.4.1.3704.1.3."+splArcs[name]], &have); err != nil || have != want {
			return false
		}
	}
	return true
}

// Chain is an attest.Endorser that asks several in turn and takes the first answer.
type Chain []attest.Endorser

// Endorse implements attest.Endorser. When nobody has it, the error is the most telling one: that of an endorser that
// could not be asked, rather than of one that has no such thing.
func (c Chain) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	var worst error
	for _, e := range c {
		list, err := e.Endorse(ctx, ref)
		if err == nil {
			return list, nil
		}
		if worst == nil || attest.CodeOf(worst) == attest.CodeEndorsementMissing {
			worst = err
		}
	}
	if worst == nil {
		worst = refuse(attest.CodeEndorsementMissing, ref, "no endorser", nil)
	}
	return nil, worst
}
